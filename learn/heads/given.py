"""Heads that the user names: any estimator with scikit-learn's ``fit`` and ``predict``, as ``package.module:Class``.

The class is the user's own code and runs as such. What is wrapped here is its manner alone: groups are passed on where
it takes them, and one-dimensional regressors are fitted to each column of the target.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.multioutput import MultiOutputRegressor
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ...errors import UsageError

_SEEDS = ("random_state", "random_seed", "seed")
_THREADS = ("n_jobs", "num_threads", "thread_count")
_QUIET = {"verbosity": -1, "verbose": 0}


def given_head(place: str, task: str, *, seed: int, jobs: int, balanced: bool) -> Any:
    """The estimator at ``package.module:Class``, made without arguments, with seed and threads where it has them.

    Raises
    ------
    UsageError : there is no such module or class, it needs arguments, or it cannot do the task.
    """
    module, _, attribute = place.partition(":")
    try:
        kind = getattr(import_module(module), attribute)
        estimator = kind()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(
            f"head: expected module:Class of an estimator that is made without arguments, got {place!r} ({error}); is "
            "it installed, and spelt as Python has it?"
        ) from error
    wanted = ("fit", "predict_proba" if task == "classes" else "predict", "get_params", "set_params")
    lacking = [name for name in wanted if not hasattr(estimator, name)]
    if isinstance(estimator, type) or lacking:
        raise UsageError(
            f"head: expected an estimator of scikit-learn's manner with {', '.join(wanted)}, got {place!r} without "
            + ", ".join(lacking)
        )
    offered: dict[str, Any] = {
        **dict.fromkeys(_SEEDS, seed),
        **dict.fromkeys(_THREADS, jobs if jobs > 0 else -1),
        **({"class_weight": "balanced"} if balanced else {}),
    }
    known = estimator.get_params()
    estimator.set_params(**{name: value for name, value in offered.items() if name in known})
    return (GivenClassifier if task == "classes" else GivenRegressor)(estimator)


class _Given(BaseEstimator):
    """What both share: the estimator is a parameter and is cloned."""

    def __init__(self, estimator: Any = None) -> None:
        self.estimator = estimator

    def _fitted(self, estimator: Any, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> Any:
        """A clone, fitted; with groups where its ``fit`` has a place for them."""
        takes = "groups" in inspect.signature(estimator.fit).parameters
        return clone(estimator).fit(X, y, **({"groups": groups} if takes and groups is not None else {}))


class GivenClassifier(ClassifierMixin, _Given):
    """A user's classifier as a head.

    Attributes
    ----------
    classes_ : (k,) array
    model_ : the fitted estimator, or None where there is one class only
    """

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> GivenClassifier:
        """Fit to (n, d) finite codes and (n,) labels."""
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, coded = np.unique(y, return_inverse=True)
        self.model_ = None
        if len(self.classes_) > 1:
            self.model_ = self._fitted(self.estimator, X, coded, groups)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """(n, k) probabilities in the order of ``classes_``."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        if self.model_ is None:
            return np.ones((len(X), 1))
        p = np.zeros((len(X), len(self.classes_)))
        known = np.asarray(getattr(self.model_, "classes_", np.arange(len(self.classes_))), np.intp)
        p[:, known] = self.model_.predict_proba(X)
        return p

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) the likeliest class of each row."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]


class GivenRegressor(RegressorMixin, _Given):
    """A user's regressor as a head; one for each column where it takes only one.

    Attributes
    ----------
    model_ : the fitted estimator
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> GivenRegressor:
        """Fit to (n, d) finite codes and (n,) or (n, q) targets."""
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True)
        several = y.ndim == 2 and y.shape[1] > 1
        estimator = self.estimator
        if several and not _takes_several(estimator):
            estimator = MultiOutputRegressor(estimator)
        self.model_ = self._fitted(estimator, X, y if several or y.ndim == 1 else y[:, 0], groups)
        self.shape_ = y.shape[1:]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) or (n, q) predictions."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return np.asarray(self.model_.predict(X), np.float64).reshape(len(X), *self.shape_)


def _takes_several(estimator: Any) -> bool:
    """Whether a regressor says that it takes several columns of targets; one that says nothing is taken apart."""
    from sklearn.utils import get_tags

    try:
        return bool(get_tags(estimator).target_tags.multi_output)
    except (AttributeError, TypeError, ValueError):
        return False
