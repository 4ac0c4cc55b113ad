"""Heads: scikit-learn estimators that predict classes or valence-arousal from the codes alone.

``fit(X, y, groups=None)`` chooses what there is to choose on a grouped part of the rows it is given, and on nothing
else. LightGBM trees are kept as LightGBM's own text, so that a saved head holds no foreign object.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from joblib import cpu_count
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ..errors import UsageError
from .folds import held_out, strata_of

# task -> name -> "module:Class", imported on use
HEADS: Mapping[str, Mapping[str, str]] = {
    "classes": {"gbm": "ig3d.learn.heads:GbmClassifier", "linear": "ig3d.learn.heads:LinearClassifier"},
    "va": {"gbm": "ig3d.learn.heads:GbmRegressor", "linear": "ig3d.learn.heads:LinearRegressor"},
}
_CELLS_PER_THREAD = 100_000
_HELD_PART = 6  # one in six rows stops the trees
_CHOICE_PART = 4  # one in four rows chooses a penalty


def make_head(name: str, task: str, *, seed: int, jobs: int) -> Any:
    """A head by its name.

    Raises
    ------
    UsageError : there is no such head.
    """
    if name not in HEADS[task]:
        raise UsageError(f"head: expected one of {', '.join(HEADS[task])}, got {name!r}")
    module, _, attribute = HEADS[task][name].partition(":")
    head = getattr(import_module(module), attribute)()
    offered = {"random_state": seed, "num_threads": max(jobs, 0)}  # 0: LightGBM takes all cores
    return head.set_params(**{key: value for key, value in offered.items() if key in head.get_params()})


def _numeric_strata(y: np.ndarray) -> np.ndarray:
    """Strata of a regression's targets: quadrants of two, or above and below the median of one."""
    return strata_of(y, "va") if y.shape[1] == 2 else (y[:, 0] > np.median(y[:, 0])).astype(int)


def _threads(asked: int, cells: int) -> int:
    """Threads worth their while: on few numbers they wait for each other longer than they work."""
    return max(1, min(asked or cpu_count(), cells // _CELLS_PER_THREAD))


class _Gbm(BaseEstimator):
    """What both gradient-boosting heads share."""

    def __init__(
        self,
        *,
        learning_rate: float = 0.06,
        max_rounds: int = 600,
        patience: int = 25,
        num_leaves: int = 15,
        min_child_samples: int = 10,
        feature_fraction: float = 0.3,
        reg_lambda: float = 1.0,
        max_bin: int = 63,
        num_threads: int = 1,
        random_state: int = 0,
    ) -> None:
        self.learning_rate = learning_rate
        self.max_rounds = max_rounds
        self.patience = patience
        self.num_leaves = num_leaves
        self.min_child_samples = min_child_samples
        self.feature_fraction = feature_fraction
        self.reg_lambda = reg_lambda
        self.max_bin = max_bin
        self.num_threads = num_threads
        self.random_state = random_state

    def _boost(self, X: np.ndarray, y: np.ndarray, held: np.ndarray, **objective: Any) -> tuple[str, int]:
        """Trees as LightGBM's text, and how many rounds they are."""
        import lightgbm

        parameters = {
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_child_samples": self.min_child_samples,
            # Eight columns at least, or a tree may see none that tells.
            "feature_fraction": max(self.feature_fraction, min(1.0, 8 / X.shape[1])),
            "reg_lambda": self.reg_lambda,
            "max_bin": self.max_bin,
            "num_threads": _threads(self.num_threads, X.size),
            "seed": int(np.random.RandomState(self.random_state).randint(2**31 - 1)),
            # The same trees whatever the threads.
            "deterministic": True,
            "force_col_wise": True,
            "verbosity": -1,
            **objective,
        }
        options: dict[str, Any] = {
            "free_raw_data": True,
            "params": {"verbosity": -1, "max_bin": self.max_bin},
        }
        training = lightgbm.Dataset(X[~held], y[~held], **options)
        if held.any():
            stop = lightgbm.early_stopping(self.patience, verbose=False)
            watched = [lightgbm.Dataset(X[held], y[held], reference=training, **options)]
            booster = lightgbm.train(
                parameters, training, num_boost_round=self.max_rounds, valid_sets=watched, callbacks=[stop]
            )
            rounds = booster.best_iteration
        else:
            rounds = min(self.max_rounds, 50)
            booster = lightgbm.train(parameters, training, num_boost_round=rounds)
        return booster.model_to_string(num_iteration=rounds), rounds

    def _raw(self, text: str, X: np.ndarray) -> np.ndarray:
        import lightgbm

        # Always through the text, so that a saved head gives the same bytes as the one that was fitted.
        booster = lightgbm.Booster(model_str=text)
        return np.asarray(booster.predict(X, raw_score=True, num_threads=self.num_threads))


class GbmClassifier(ClassifierMixin, _Gbm):
    """Gradient-boosted trees (LightGBM), stopped early on a grouped part of the rows.

    Parameters
    ----------
    learning_rate, num_leaves, min_child_samples, feature_fraction, reg_lambda, max_bin : as in LightGBM
    max_rounds : int, default 600
    patience : int, default 25
        Rounds without gain on the held part after which boosting stops.
    num_threads : int, default 1
        0 for all cores; changes no number.
    random_state : int or RandomState seed, default 0

    Attributes
    ----------
    classes_ : (k,) array
    trees_ : str
        LightGBM's text of the model; empty where there is one class only.
    rounds_ : int

    References
    ----------
    Ke et al., LightGBM, NeurIPS 2017.
    """

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> GbmClassifier:
        """Fit to (n, d) finite codes and (n,) labels; ``groups`` (n,) are kept whole."""
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, coded = np.unique(y, return_inverse=True)
        self.trees_, self.rounds_ = "", 0
        if len(self.classes_) > 1:
            held = held_out(coded, groups, _HELD_PART, _seed_of(self.random_state))
            objective = {
                "objective": "multiclass",
                "num_class": len(self.classes_),
                "metric": "multi_logloss",
            }
            self.trees_, self.rounds_ = self._boost(X, coded, held, **objective)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """(n, k) probabilities in the order of ``classes_``."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        if not self.trees_:
            return np.ones((len(X), 1))
        raw = self._raw(self.trees_, X)
        odds = np.exp(raw - raw.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) the likeliest class of each row."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]


class GbmRegressor(RegressorMixin, _Gbm):
    """Gradient-boosted trees (LightGBM), one model for each column of the target, stopped early together.

    Parameters as :class:`GbmClassifier`.

    Attributes
    ----------
    trees_ : list of str, one per column
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> GbmRegressor:
        """Fit to (n, d) finite codes and (n,) or (n, q) targets; ``groups`` (n,) are kept whole."""
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True)
        y = np.asarray(y, np.float64)
        self.flat_ = y.ndim == 1
        targets = y.reshape(len(y), -1)
        held = held_out(_numeric_strata(targets), groups, _HELD_PART, _seed_of(self.random_state))
        objective = {"objective": "regression", "metric": "l2"}
        self.trees_ = [self._boost(X, column, held, **objective)[0] for column in targets.T]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) or (n, q) predictions."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        columns = [self._raw(text, X) for text in self.trees_]
        return columns[0] if self.flat_ else np.stack(columns, axis=1)


def _seed_of(random_state: Any) -> int:
    """A whole number from what scikit-learn allows as a random state, without moving a generator on."""
    return int(random_state) if isinstance(random_state, int | np.integer) else 0


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
        held = held_out(coded, groups, _CHOICE_PART, _seed_of(self.random_state))
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
        held = held_out(_numeric_strata(targets), groups, _CHOICE_PART, _seed_of(self.random_state))
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
