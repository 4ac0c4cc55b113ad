"""Helpers of the heads: seeds, strata for splitting, and standardisation of codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin

from ..folds import strata_of


class Classifier(ClassifierMixin):
    """Base class of the classifiers: ``predict`` from ``predict_proba``."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) the most probable class of each row."""
        probabilities = self.predict_proba(X)
        return np.asarray(self.classes_[probabilities.argmax(axis=1)])


class Regressor(RegressorMixin):
    """Base class of the regressors, which accept several target columns."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def seed_of(random_state: Any) -> int:
    """Integer seed: ``random_state`` if it is an integer, else 0. A generator is not advanced."""
    return int(random_state) if isinstance(random_state, int | np.integer) else 0


def numeric_strata(y: np.ndarray) -> np.ndarray:
    """(n,) strata of (n, q) targets: quadrants if q is 2, else above and below the median of the first column."""
    return strata_of(y, "va") if y.shape[1] == 2 else (y[:, 0] > np.median(y[:, 0])).astype(int)


def scale_of(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (d,) of each column; the deviation of a constant column is set to 1."""
    spread = X.std(axis=0, dtype=np.float64)
    # Rounding errors give a constant column with large values a small deviation.
    constant = spread <= 10 * np.finfo(X.dtype).eps * np.abs(X).max(axis=0, initial=0)
    return X.mean(axis=0, dtype=np.float64), np.where(constant, 1.0, spread)
