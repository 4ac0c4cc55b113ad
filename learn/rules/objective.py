"""Objectives of the fusion rules: cost for a grid search, row weights for a smooth loss.

A grid search compares the objective itself. ``accuracy`` and ``balanced`` have no gradient, so that gradient-based
fits minimise log loss instead; for ``balanced``, all classes have equal weight.
"""

from __future__ import annotations

import numpy as np

from ..evaluate.metrics import measure
from ..folds import folds_of, strata_of
from .columns import TINY


def row_weights(y: np.ndarray, task: str, objective: str) -> np.ndarray:
    """(n,) float64 weights of mean 1: equal, or, for ``balanced``, such that all classes have equal weight."""
    if task == "va" or objective != "balanced":
        return np.ones(len(y))
    _, where, count = np.unique(y, return_inverse=True, return_counts=True)
    return np.asarray(len(y) / (len(count) * count[where]))


def cost_of(values: np.ndarray, y: np.ndarray, task: str, objective: str) -> tuple[float, float]:
    """Cost of predictions, lower is better, and a second cost that decides between equal ones.

    Parameters
    ----------
    values : (n, k) log-probabilities, or (n, 2) valence and arousal
    y : (n,) labels, or (n, 2) targets
    task, objective : accuracy, balanced, logloss; for ``va`` rmse, ccc (mean over the dimensions)
    """
    if task == "va":
        metrics = measure(values, y, "va")
        concordance = (metrics["ccc_valence"] + metrics["ccc_arousal"]) / 2
        # The concordance of constant rows is undefined and does not decide.
        concordance = concordance if np.isfinite(concordance) else 0.0
        error = metrics["rmse_joint"]
        return (error, -concordance) if objective == "rmse" else (-concordance, error)
    weights = row_weights(y, task, objective)
    loss = float(-(weights * np.maximum(values[np.arange(len(y)), y], np.log(TINY))).mean())
    if objective == "logloss":
        return loss, loss
    return -float((weights * (values.argmax(axis=1) == y)).mean()), loss


def inner_folds(
    y: np.ndarray, task: str, groups: np.ndarray | None, folds: int, seed: int
) -> np.ndarray | None:
    """(n,) int inner folds of calibration rows in whole groups; None if there are too few rows or groups."""
    groups = np.arange(len(y)) if groups is None else groups
    if len(np.unique(groups)) < 2 * folds:
        return None
    fold = folds_of(strata_of(y, task), groups, folds, seed)
    if task == "classes" and any(len(np.unique(y[fold != number])) < 2 for number in range(folds)):
        return None
    return fold
