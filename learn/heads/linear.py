"""Linear models on standardised codes; the penalty is chosen on a held-out quarter of the training rows.

Logistic regression is fitted in single precision along a path of penalties, each fit starting from the previous one.
Ridge regression computes all penalties from one eigendecomposition.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from ..folds import held_out
from .common import Classifier, Regressor, numeric_strata, scale_of, seed_of

_CHOICE_PART = 4  # one in four rows is held out to choose the penalty
_PATH_TOLERANCE = 3  # multiple of ``tol`` that is precise enough to choose a penalty
# Sums over rows, and so the coefficients, would depend on the number of BLAS threads in their last digits.
_ON_ONE_THREAD = threadpool_limits.wrap(limits=1, user_api="blas")


class _Linear(BaseEstimator):
    """Linear function ``(X - mean_) / scale_ @ coef_ + intercept_`` in double precision."""

    @_ON_ONE_THREAD
    def _outputs(self, X: np.ndarray) -> np.ndarray:
        """(n, q) outputs."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return ((X - self.mean_) / self.scale_) @ self.coef_ + self.intercept_


@dataclass(kw_only=True, eq=False, repr=False)
class LinearClassifier(Classifier, _Linear):
    """Multinomial logistic regression; its L2 penalty is chosen on a held-out quarter of the rows (whole groups).

    Parameters
    ----------
    penalties : tuple of float
        Values of C, ascending: from the strongest penalty to the weakest. The search stops when the log loss on the
        held-out rows rises.
    class_weight : None, ``"balanced"`` or class -> weight
        ``balanced`` gives classes equal weight, in fitting and in the choice of the penalty.
    tol : float
        Tolerance of the solver for the gradient of the mean loss.
    random_state : int, default 0

    Attributes
    ----------
    classes_ : (k,) array
    mean_, scale_ : (d,) float64;  coef_ : (d, k) float64;  intercept_ : (k,) float64
    C_ : float
        Chosen C; 1.0 if there are too few rows to hold out.
    """

    penalties: tuple[float, ...] = (0.0001, 0.001, 0.01, 0.1)
    class_weight: str | dict[Any, float] | None = None
    tol: float = 0.001
    random_state: int = 0

    @_ON_ONE_THREAD
    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> LinearClassifier:
        """Fit to (n, d) finite codes and (n,) labels; a group of ``groups`` (n,) is never split."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, coded = np.unique(y, return_inverse=True)
        weights = compute_sample_weight(self.class_weight, y)
        self.mean_, self.scale_ = scale_of(X)
        self.coef_, self.intercept_ = np.zeros((X.shape[1], len(self.classes_))), np.zeros(len(self.classes_))
        self.C_ = float(self.penalties[0])
        if len(self.classes_) < 2:
            return self
        scaled = ((X - self.mean_) / self.scale_).astype(np.float32)
        model = LogisticRegression(max_iter=1000, tol=self.tol, warm_start=True)
        held = held_out(coded, groups, _CHOICE_PART, seed_of(self.random_state))
        if held.any() and len(np.unique(coded[~held])) == len(self.classes_):
            self._choose(model, scaled, coded, weights, held)
        else:
            self.C_ = 1.0
        _fit(model, self.C_, scaled, coded, weights)
        coef, intercept = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
        if len(self.classes_) == 2:  # scikit-learn keeps the log odds of the second class
            coef, intercept = np.vstack([0 * coef, coef]), np.append(0 * intercept, intercept)
        self.coef_, self.intercept_ = coef.T.copy(), intercept
        return self

    def _choose(
        self, model: Any, X: np.ndarray, y: np.ndarray, weights: np.ndarray, held: np.ndarray
    ) -> None:
        """Set ``C_``, and the coefficients of ``model`` to those of the chosen penalty."""
        model.set_params(tol=_PATH_TOLERANCE * self.tol)
        least, best = np.inf, (None, None)
        inside, outside, truth = X[~held], X[held], y[held]
        for C in self.penalties:
            _fit(model, C, inside, y[~held], weights[~held])
            p = model.predict_proba(outside)[np.arange(len(truth)), truth]
            loss = float(np.average(-np.log(np.maximum(p, 1e-12)), weights=weights[held]))
            if loss >= least:
                break
            least, self.C_ = loss, float(C)
            best = model.coef_.copy(), model.intercept_.copy()
        model.coef_, model.intercept_ = best
        model.set_params(tol=self.tol)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """(n, k) probabilities in the order of ``classes_``."""
        scores = self._outputs(X)
        return np.asarray(softmax(scores, axis=1))


def _fit(model: Any, C: float, X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> None:
    """Fit with one C, starting from the present coefficients of the model."""
    with warnings.catch_warnings():
        # In single precision, the line search can end before convergence, which acts like a slightly stronger penalty.
        # This is harmless: C is chosen by the held-out loss of the coefficients as they are, and the final fit starts
        # from the coefficients of the chosen C.
        warnings.simplefilter("ignore")
        model.set_params(C=C).fit(X, y, sample_weight=weights)


@dataclass(kw_only=True, eq=False, repr=False)
class LinearRegressor(Regressor, _Linear):
    """Ridge regression; the penalty is chosen on a held-out quarter of the training rows (whole groups).

    Parameters
    ----------
    penalties : tuple of float
        Strengths alpha. The one with the smallest squared error on the held-out rows is chosen.
    random_state : int, default 0

    Attributes
    ----------
    mean_, scale_ : (d,) float64;  coef_ : (d, q) float64;  intercept_ : (q,) float64
    alpha_ : float
    """

    penalties: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0, 10000.0)
    random_state: int = 0

    @_ON_ONE_THREAD
    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> LinearRegressor:
        """Fit to (n, d) finite codes and (n,) or (n, q) targets; a group of ``groups`` (n,) is never split."""
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        self.flat_ = y.ndim == 1
        targets = np.asarray(y, np.float64).reshape(len(y), -1)
        self.mean_, self.scale_ = scale_of(X)
        scaled = (X - self.mean_) / self.scale_
        held = held_out(numeric_strata(targets), groups, _CHOICE_PART, seed_of(self.random_state))
        self.alpha_ = float(self.penalties[0])
        if held.any():
            models = _ridges(scaled[~held], targets[~held], self.penalties)
            errors = [np.mean((scaled[held] @ coef + offset - targets[held]) ** 2) for coef, offset in models]
            self.alpha_ = float(self.penalties[int(np.argmin(errors))])
        ((self.coef_, self.intercept_),) = _ridges(scaled, targets, (self.alpha_,))
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) or (n, q) predictions."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self.flat_ else outputs


def _ridges(
    X: np.ndarray, Y: np.ndarray, penalties: tuple[float, ...]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Coefficients (d, q) and intercepts (q,) of ridge regression for each penalty, by one eigendecomposition."""
    mean_x, mean_y = X.mean(axis=0), Y.mean(axis=0)
    centred, moved = X - mean_x, Y - mean_y
    wide = X.shape[1] > X.shape[0]
    values, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    projected = vectors.T @ (moved if wide else centred.T @ moved)
    result = []
    for penalty in penalties:
        solved = vectors @ (projected / (np.maximum(values, 0) + penalty)[:, None])
        coef = centred.T @ solved if wide else solved
        result.append((coef, mean_y - mean_x @ coef))
    return result
