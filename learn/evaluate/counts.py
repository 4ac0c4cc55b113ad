"""Confusion matrices and reliability bins of predictors of classes, as tidy tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .calibration import reliability
from .predictors import Predictor

CONFUSION = ("predictor", "condition", "rows", "truth", "predicted", "count")
RELIABILITY = ("predictor", "condition", "rows", "low", "high", "count", "confidence", "accuracy")


def confusion_table(
    predictors: Sequence[Predictor], truth: np.ndarray, covered: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """Counts of truth by prediction, means over cross-fittings, permutations or trainings.

    Parameters
    ----------
    predictors : over n rows
    truth : (n,) labels
    covered : (n,) bool
    classes : their k names
    """
    k = len(classes)
    parts = []
    for of, part, rows in _parts(predictors, covered):
        counts = [
            np.bincount(truth[rows] * k + values[rows].argmax(axis=1), minlength=k * k) for values in of.every
        ]
        parts.append(
            pd.DataFrame(
                {
                    "predictor": of.name,
                    "condition": of.condition,
                    "rows": part,
                    "truth": np.repeat(np.array(classes, object), k),
                    "predicted": np.tile(np.array(classes, object), k),
                    "count": np.mean(counts, axis=0),
                }
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(CONFUSION))


def reliability_table(
    predictors: Sequence[Predictor], truth: np.ndarray, covered: np.ndarray
) -> pd.DataFrame:
    """Bins of rows by confidence, with mean confidence and accuracy; rows of all repeats are pooled.

    ``count`` is the number of rows of a bin, divided by the number of repeats.
    """
    parts = []
    for of, part, rows in _parts(predictors, covered):
        values = [array[rows] for array in of.every]
        bins = reliability(np.vstack(values), np.tile(truth[rows], len(values)))
        parts.append(
            pd.DataFrame(
                {
                    "predictor": of.name,
                    "condition": of.condition,
                    "rows": part,
                    "low": bins.low,
                    "high": bins.high,
                    "count": bins.rows / len(values),
                    "confidence": bins.confidence,
                    "accuracy": bins.accuracy,
                }
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(RELIABILITY))


def _parts(predictors: Sequence[Predictor], covered: np.ndarray) -> list[tuple[Predictor, str, np.ndarray]]:
    """Predictors with the sets of rows that they predict."""
    parts = {"all": np.ones(len(covered), bool)}
    if covered.any() and not covered.all():
        parts["covered"] = covered
    return [(of, part, rows) for of in predictors for part, rows in parts.items() if of.present[rows].all()]
