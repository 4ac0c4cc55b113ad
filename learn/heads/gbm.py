"""Gradient-boosted trees on codes, by LightGBM (:mod:`..trees`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ..folds import held_out
from ..trees import HELD_PART, grow, raw_scores
from .common import Classifier, Regressor, numeric_strata, seed_of


@dataclass(kw_only=True, eq=False, repr=False)
class _Gbm(BaseEstimator):
    """Parameters of both gradient-boosting heads."""

    learning_rate: float = 0.06
    max_rounds: int = 600
    patience: int = 25
    num_leaves: int = 15
    min_child_samples: int = 10
    feature_fraction: float = 0.3
    reg_lambda: float = 1.0
    max_bin: int = 63
    num_threads: int = 1
    random_state: int = 0


@dataclass(kw_only=True, eq=False, repr=False)
class GbmClassifier(Classifier, _Gbm):
    """Gradient-boosted trees (LightGBM) with early stopping on a held-out sixth of the rows (whole groups).

    Parameters
    ----------
    learning_rate, num_leaves, min_child_samples, feature_fraction, reg_lambda, max_bin : as in LightGBM
    class_weight : None, ``"balanced"`` or class -> weight
        ``balanced`` gives classes equal weight, in boosting and in early stopping.
    max_rounds : int, default 600
    patience : int, default 25
        Boosting stops after this many rounds without improvement on the validation rows.
    num_threads : int, default 1
        Number of threads, 0 for all cores. Predictions do not depend on it.
    random_state : int or RandomState seed, default 0

    Attributes
    ----------
    classes_ : (k,) array
    trees_ : str
        Model in LightGBM's text format; empty if there is only one class.
    rounds_ : int, number of boosting rounds

    References
    ----------
    Ke et al., LightGBM, NeurIPS 2017.
    """

    class_weight: str | dict[Any, float] | None = None

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> GbmClassifier:
        """Fit to (n, d) finite codes and (n,) labels; a group of ``groups`` (n,) is never split."""
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, coded = np.unique(y, return_inverse=True)
        self.trees_, self.rounds_ = "", 0
        if len(self.classes_) > 1:
            held = held_out(coded, groups, HELD_PART, seed_of(self.random_state))
            objective: dict[str, Any] = {
                "objective": "multiclass",
                "num_class": len(self.classes_),
                "metric": "multi_logloss",
            }
            weights = None if self.class_weight is None else compute_sample_weight(self.class_weight, y)
            self.trees_, self.rounds_ = grow(self, X, coded, held, weight=weights, **objective)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """(n, k) probabilities in the order of ``classes_``."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        if not self.trees_:
            return np.ones((len(X), 1))
        raw = raw_scores(self.trees_, X, threads=self.num_threads)
        return np.asarray(softmax(raw, axis=1))


class GbmRegressor(Regressor, _Gbm):
    """Gradient-boosted trees (LightGBM): one model per target column, all stopped early on the same rows.

    Parameters as in :class:`GbmClassifier`, without ``class_weight``.

    Attributes
    ----------
    trees_ : list of str, one per column
    """

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> GbmRegressor:
        """Fit to (n, d) finite codes and (n,) or (n, q) targets; a group of ``groups`` (n,) is never split."""
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True)
        y = np.asarray(y, np.float64)
        self.flat_ = y.ndim == 1
        targets = y.reshape(len(y), -1)
        held = held_out(numeric_strata(targets), groups, HELD_PART, seed_of(self.random_state))
        objective: dict[str, Any] = {"objective": "regression", "metric": "l2"}
        self.trees_ = [grow(self, X, column, held, **objective)[0] for column in targets.T]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) or (n, q) predictions."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        columns = [raw_scores(text, X, threads=self.num_threads) for text in self.trees_]
        return columns[0] if self.flat_ else np.stack(columns, axis=1)
