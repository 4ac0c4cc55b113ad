"""Fusion rules over one table of 2k named columns: k of the 2D network, then k of the 3D predictions.

Classes: the columns are scores (logits or log-probabilities), what comes out are log-probabilities (n, k). Valence and
arousal: values in, values in [-1, 1] out. A rule is a scikit-learn estimator whose ``fit(X, y, groups=None)`` sees only
the rows it is given and chooses its hyper-parameters among them; ``apply(X)`` fuses. ``gate`` and ``boost`` will stand
here beside the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from ..features.predictions import log_softmax
from .folds import folds_of, strata_of
from .metrics import measure

FIXED = ("mean", "max", "min", "product")
_COMBINE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": lambda a, b: (a + b) / 2,
    "max": np.maximum,
    "min": np.minimum,
}
_TINY = 1e-12
_INNER_FOLDS = 3
# Penalties to choose from: C of the logistic regression, alpha of the ridge.
_PENALTIES = {"classes": (0.01, 0.1, 1.0), "va": (0.1, 1.0, 10.0, 100.0)}
# And factors of the standardised 3D columns: the small one holds back 3D predictions that tell nothing, which would
# otherwise cost accuracy when fitted to few rows.
_TRUSTS = (1.0, 0.1)
_WEIGHTS = np.linspace(0, 1, 101)


def column_names(columns: tuple[str, ...]) -> list[str]:
    """``2d:happy`` ... ``3d:happy`` ...: the names of the 2k columns that rules work on."""
    return [f"{source}:{name}" for source in ("2d", "3d") for name in columns]


def make_rule(name: str, *, task: str, on: str, objective: str, seed: int) -> Any:
    """A rule by its name; ``2d-recalibrated`` is the stack with the 3D columns left out."""
    if name in FIXED:
        return FixedRule(name, task=task, on=on)
    if name == "weighted":
        return Weighted(task=task, on=on, objective=objective)
    return Stack(task=task, use_3d=name != "2d-recalibrated", objective=objective, random_state=seed)


def _halves(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    k = X.shape[1] // 2
    return X[:, :k], X[:, k:]


def _log(p: np.ndarray) -> np.ndarray:
    """Logarithms of non-negative weights, renormalised to probabilities."""
    return log_softmax(np.log(np.maximum(p, _TINY)))


def _probabilities(scores: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(scores))


class FixedRule(BaseEstimator):
    """Mean, maximum, minimum or product, element by element; fits nothing.

    Classes: on probabilities, renormalised; ``on="logits"`` takes mean and maximum of the scores as they are. Valence
    and arousal: mean, maximum and minimum of the values.
    """

    def __init__(self, name: str = "mean", *, task: str = "classes", on: str = "probabilities") -> None:
        self.name = name
        self.task = task
        self.on = on

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> FixedRule:
        """Nothing to fit."""
        return self

    def apply(self, X: np.ndarray) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        two, three = _halves(X)
        if self.task == "va":
            return np.clip(_COMBINE[self.name](two, three), -1, 1)
        if self.name == "product":
            return log_softmax(log_softmax(two) + log_softmax(three))
        if self.on == "logits" and self.name in ("mean", "max"):
            return log_softmax(_COMBINE[self.name](two, three))
        return _log(_COMBINE[self.name](_probabilities(two), _probabilities(three)))


class Weighted(BaseEstimator):
    """(1 - w) 2D + w 3D with one w, the best of 0, .01, ..., 1 for the objective on the fitting rows.

    Attributes
    ----------
    w_ : float
        Weight of the 3D predictions. Among equally good ones that of the least log loss (classes) is taken.
    """

    def __init__(
        self, *, task: str = "classes", on: str = "probabilities", objective: str = "accuracy"
    ) -> None:
        self.task = task
        self.on = on
        self.objective = objective

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> Weighted:
        """Fit w to (n, 2k) columns and labels (n,) or targets (n, 2)."""
        two, three = self._prepared(X)
        cost = [self._cost(measure(self._blend(two, three, w), y, self.task)) for w in _WEIGHTS]
        self.w_ = float(_WEIGHTS[min(range(len(cost)), key=lambda i: cost[i])])
        return self

    def _cost(self, metrics: dict[str, float]) -> tuple[float, float]:
        if self.task == "va":
            concordance = (metrics["ccc_valence"] + metrics["ccc_arousal"]) / 2
            # Nothing varies in constant rows; their concordance is then no reason for a choice.
            concordance = concordance if np.isfinite(concordance) else 0.0
            return (
                (metrics["rmse_joint"], 0.0)
                if self.objective == "rmse"
                else (-concordance, metrics["rmse_joint"])
            )
        first = {
            "accuracy": -metrics["accuracy"],
            "balanced": -metrics["balanced_accuracy"],
            "logloss": metrics["log_loss"],
        }[self.objective]
        return first, metrics["log_loss"]

    def _prepared(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both halves in the form that is averaged."""
        two, three = _halves(X)
        if self.task == "va" or self.on == "logits":
            return two, three
        return _probabilities(two), _probabilities(three)

    def _blend(self, two: np.ndarray, three: np.ndarray, w: float) -> np.ndarray:
        mixed = (1 - w) * two + w * three
        if self.task == "va":
            return np.clip(mixed, -1, 1)
        # Averaged probabilities still sum to 1.
        return log_softmax(mixed) if self.on == "logits" else np.log(np.maximum(mixed, _TINY))

    def apply(self, X: np.ndarray) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        check_is_fitted(self)
        return self._blend(*self._prepared(X), self.w_)

    def describe(self) -> dict[str, Any]:
        """What was fitted, for the record."""
        return {"w": self.w_}


class Stack(BaseEstimator):
    """Multinomial logistic regression on centred log-probabilities of both (classes), ridge regression (VA).

    With ``use_3d=False`` the same on the 2D columns alone: the reference ``2d-recalibrated``.

    Parameters
    ----------
    task : ``classes`` or ``va``
    use_3d : bool
    objective : str
        ``balanced`` weighs classes equally; ``ccc`` matches mean and spread of each dimension to the truth of the
        fitting rows after least squares: for a given correlation the concordance is greatest there.
    random_state : int
        Of the inner folds that choose the penalty.

    Attributes
    ----------
    model_ : scikit-learn estimator, or None where the fitting rows are of one class
    present_ : classes that the fitting rows have; the 2D network keeps its word on the others
    penalty_, trust_ : float
        Penalty, and factor of the 3D columns after standardising.
    scale_, offset_ : (2,) arrays, for VA
    """

    def __init__(
        self,
        *,
        task: str = "classes",
        use_3d: bool = True,
        objective: str = "accuracy",
        random_state: int = 0,
    ) -> None:
        self.task = task
        self.use_3d = use_3d
        self.objective = objective
        self.random_state = random_state

    def _features(self, X: np.ndarray) -> np.ndarray:
        parts = _halves(X) if self.use_3d else _halves(X)[:1]
        if self.task == "va":
            return np.hstack(parts)
        logs = [log_softmax(part) for part in parts]
        return np.hstack([log - log.mean(axis=1, keepdims=True) for log in logs])

    def _estimator(self, penalty: float) -> Any:
        if self.task == "va":
            return Ridge(alpha=penalty)
        weight = "balanced" if self.objective == "balanced" else None
        return LogisticRegression(C=penalty, class_weight=weight, max_iter=500)

    def _held_back(self, features: np.ndarray, trust: float) -> np.ndarray:
        """Standardised features with the 3D half times ``trust``."""
        factor = np.ones(features.shape[1])
        if self.use_3d:
            factor[len(factor) // 2 :] = trust
        return features * factor

    def _design(self, X: np.ndarray) -> np.ndarray:
        return self._held_back(self.scaler_.transform(self._features(X)), self.trust_)

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> Stack:
        """Fit to (n, 2k) columns and labels (n,) or targets (n, 2); groups (n,) stay whole in the inner folds."""
        self.scaler_ = StandardScaler()
        features = self.scaler_.fit_transform(self._features(X))
        self.present_ = np.zeros(0, np.int64) if self.task == "va" else np.unique(y).astype(np.int64)
        self.model_: Any = None
        self.penalty_, self.trust_ = float("nan"), 1.0
        if len(self.present_) != 1:
            groups = np.arange(len(y)) if groups is None else groups
            self.penalty_, self.trust_ = self._choose(features, y, groups)
            features = self._held_back(features, self.trust_)
            self.model_ = self._estimator(self.penalty_).fit(features, y)
        self.scale_, self.offset_ = np.ones(2), np.zeros(2)
        if self.task == "va" and self.objective == "ccc":
            fitted = self.model_.predict(features)
            spread = fitted.std(axis=0)
            self.scale_ = np.where(spread > _TINY, y.std(axis=0) / np.where(spread > _TINY, spread, 1), 0)
            self.offset_ = y.mean(axis=0) - self.scale_ * fitted.mean(axis=0)
        return self

    def _choose(self, features: np.ndarray, y: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
        """Penalty and trust of least held-out loss in inner folds over the fitting rows."""
        choices = list(product(_PENALTIES[self.task], _TRUSTS if self.use_3d else _TRUSTS[:1]))
        default = _PENALTIES[self.task][1], 1.0
        if len(np.unique(groups)) < 2 * _INNER_FOLDS:
            return default
        fold = folds_of(strata_of(y, self.task), groups, _INNER_FOLDS, self.random_state)
        losses = np.zeros(len(choices))
        for held in range(_INNER_FOLDS):
            inside, outside = fold != held, fold == held
            if self.task == "classes" and len(np.unique(y[inside])) < 2:
                return default
            for number, (penalty, trust) in enumerate(choices):
                weighed = self._held_back(features, trust)
                model = self._estimator(penalty).fit(weighed[inside], y[inside])
                losses[number] += self._loss(model, weighed, y, outside)
        return choices[int(np.argmin(losses))]

    def _loss(self, model: Any, features: np.ndarray, y: np.ndarray, rows: np.ndarray) -> float:
        if self.task == "va":
            return float(((model.predict(features[rows]) - y[rows]) ** 2).sum())
        known = rows & np.isin(y, model.classes_)
        if not known.any():
            return 0.0
        p = model.predict_proba(features[known])
        loss = -np.log(np.maximum(p[np.arange(len(p)), np.searchsorted(model.classes_, y[known])], _TINY))
        if self.objective != "balanced":
            return float(loss.sum())
        _, where, count = np.unique(y[known], return_inverse=True, return_counts=True)
        return float((loss / count[where]).sum())

    def apply(self, X: np.ndarray) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        check_is_fitted(self)
        if self.task == "va":
            return np.clip(self.model_.predict(self._design(X)) * self.scale_ + self.offset_, -1, 1)
        p = _probabilities(_halves(X)[0])
        # Nothing was learnt of a class that the fitting rows lack: it keeps its 2D probability, the others share
        # the rest as the fit says.
        present = self.present_
        mass = p[:, present].sum(axis=1, keepdims=True)
        p[:, present] = mass if self.model_ is None else mass * self.model_.predict_proba(self._design(X))
        return _log(p)

    def describe(self) -> dict[str, Any]:
        """What was fitted, for the record."""
        said: dict[str, Any] = {"penalty": self.penalty_, "trust_3d": self.trust_ if self.use_3d else None}
        if self.task == "va":
            return {**said, "scale": self.scale_.tolist(), "offset": self.offset_.tolist()}
        return {**said, "classes_seen": self.present_.tolist()}


def quietly(fit: Any, *arguments: Any, **options: Any) -> Any:
    """Call a fit without scikit-learn's warnings of few rows or slow convergence: degenerate rows are marked by us."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(*arguments, **options)
