"""Linear models on standardised codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ..folds import held_out
from .common import numeric_strata, seed_of

_CHOICE_PART = 4  # one in four rows chooses a penalty


class LinearClassifier(ClassifierMixin, BaseEstimator):
    """Logistic regression on standardised codes; its penalty is chosen on a grouped part of the rows.

    Parameters
    ----------
    penalties : tuple of float
        Inverse strengths C, weakest model first; the least log loss on the held part wins.
    random_state : int, default 0

    Attributes
    ----------
    classes_ : (k,) array
    model_ : pipeline, or None where there is one class only
    C_ : float
    """

    def __init__(
        self, *, penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1), random_state: int = 0
    ) -> None:
        self.penalties = penalties
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> LinearClassifier:
        """Fit to (n, d) finite codes and (n,) labels; ``groups`` (n,) are kept whole."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, coded = np.unique(y, return_inverse=True)
        self.model_, self.C_ = None, 1.0
        if len(self.classes_) < 2:
            return self
        held = held_out(coded, groups, _CHOICE_PART, seed_of(self.random_state))
        if held.any() and len(np.unique(coded[~held])) == len(self.classes_):
            losses = [self._loss(penalty, X, coded, held) for penalty in self.penalties]
            self.C_ = float(self.penalties[int(np.argmin(losses))])
        self.model_ = self._pipeline(self.C_).fit(X, coded)
        return self

    def _pipeline(self, penalty: float) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=1000, tol=1e-3))

    def _loss(self, penalty: float, X: np.ndarray, y: np.ndarray, held: np.ndarray) -> float:
        p = self._pipeline(penalty).fit(X[~held], y[~held]).predict_proba(X[held])
        return float(-np.log(np.maximum(p[np.arange(len(p)), y[held]], 1e-12)).mean())

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """(n, k) probabilities in the order of ``classes_``."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return np.ones((len(X), 1)) if self.model_ is None else self.model_.predict_proba(X)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) the likeliest class of each row."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]


class LinearRegressor(RegressorMixin, BaseEstimator):
    """Ridge regression on standardised codes; its penalty is chosen on a grouped part of the rows.

    Parameters
    ----------
    penalties : tuple of float
        Strengths alpha; the least squared error on the held part wins.
    random_state : int, default 0

    Attributes
    ----------
    model_ : pipeline
    alpha_ : float
    """

    def __init__(
        self, *, penalties: tuple[float, ...] = (1.0, 10.0, 100.0, 1e3, 1e4), random_state: int = 0
    ) -> None:
        self.penalties = penalties
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> LinearRegressor:
        """Fit to (n, d) finite codes and (n,) or (n, q) targets; ``groups`` (n,) are kept whole."""
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        targets = y.reshape(len(y), -1)
        held = held_out(numeric_strata(targets), groups, _CHOICE_PART, seed_of(self.random_state))
        self.alpha_ = float(self.penalties[0])
        if held.any():
            errors = [self._error(penalty, X, targets, held) for penalty in self.penalties]
            self.alpha_ = float(self.penalties[int(np.argmin(errors))])
        self.model_ = self._pipeline(self.alpha_).fit(X, y)
        return self

    def _pipeline(self, penalty: float) -> Any:
        return make_pipeline(StandardScaler(), Ridge(alpha=penalty))

    def _error(self, penalty: float, X: np.ndarray, y: np.ndarray, held: np.ndarray) -> float:
        predicted = self._pipeline(penalty).fit(X[~held], y[~held]).predict(X[held])
        return float(np.mean((predicted.reshape(-1, y.shape[1]) - y[held]) ** 2))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) or (n, q) predictions."""
        check_is_fitted(self)
        return self.model_.predict(validate_data(self, X, reset=False, dtype=np.float64))
