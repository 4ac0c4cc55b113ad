"""Stacking: a linear model over both predictions, maybe with the codes; and the 2D network recalibrated."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from .base import Rule
from .calibrate import with_unseen
from .columns import TINY, Columns, centred, log_of
from .objective import inner_folds, row_weights

_INNER_FOLDS = 3
# Penalties to choose from: C of the logistic regression, alpha of the ridge.
_PENALTIES = {"classes": (0.01, 0.1, 1.0), "va": (0.1, 1.0, 10.0, 100.0)}
# And factors of the standardised 3D columns: the small one holds back 3D predictions that tell nothing, which would
# otherwise cost accuracy when fitted to few rows.
_TRUSTS = (1.0, 0.1)
# Factors of the standardised codes, which are many: a penalty of their own. 0 leaves them out.
_CODE_TRUSTS = (0.0, 0.01, 0.03, 0.1, 0.3)


class Stack(Rule):
    """Multinomial logistic regression on centred log-probabilities of both (classes), ridge regression (VA).

    With ``use_3d=False`` the same on the 2D columns alone: the reference ``2d-recalibrated``.

    Parameters
    ----------
    task : ``classes`` or ``va``
    use_3d : bool
    codes : bool
        Whether the codes are among the columns, standardised and with a penalty of their own.
    objective : str
        ``balanced`` weighs classes equally; ``ccc`` matches mean and spread of each dimension to the truth of the
        fitting rows after least squares: for a given correlation the concordance is greatest there.
    random_state : int
        Of the inner folds that choose the penalties.

    Attributes
    ----------
    model_ : scikit-learn estimator, or None where the fitting rows are of one class
    present_ : classes that the fitting rows have; the 2D network keeps its word on the others
    penalty_, trust_, code_trust_ : float
        Penalty, and factors of the 3D columns and of the codes after standardising.
    scale_, offset_ : (2,) arrays, for VA
    """

    def __init__(
        self,
        *,
        task: str = "classes",
        use_3d: bool = True,
        codes: bool = False,
        objective: str = "accuracy",
        random_state: int = 0,
    ) -> None:
        self.task = task
        self.use_3d = use_3d
        self.codes = codes
        self.objective = objective
        self.random_state = random_state

    def _features(self, columns: Columns) -> np.ndarray:
        parts = [columns.two, columns.three] if self.use_3d else [columns.two]
        parts = parts if self.task == "va" else [centred(part) for part in parts]
        if self.codes and columns.codes is not None:
            parts.append(columns.codes)
        return np.hstack(parts, dtype=np.float64)

    def _estimator(self, penalty: float) -> Any:
        if self.task == "va":
            return Ridge(alpha=penalty)
        weight = "balanced" if self.objective == "balanced" else None
        return LogisticRegression(C=penalty, class_weight=weight, max_iter=500)

    def _weighed(self, features: np.ndarray, trust: float, code_trust: float) -> np.ndarray:
        """Standardised features, the 3D ones times ``trust``, the codes times ``code_trust`` or left out."""
        k = self.width_
        if not self.use_3d:
            return features[:, :k]
        parts = [features[:, :k], features[:, k : 2 * k] * trust]
        if code_trust:
            parts.append(features[:, 2 * k :] * code_trust)
        return np.hstack(parts)

    def _design(self, columns: Columns) -> np.ndarray:
        return self._weighed(self.scaler_.transform(self._features(columns)), self.trust_, self.code_trust_)

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> Stack:
        """Fit to labels (n,) or targets (n, 2); groups (n,) stay whole in the inner folds."""
        self.width_ = columns.two.shape[1]
        self.scaler_ = StandardScaler()
        features = self.scaler_.fit_transform(self._features(columns))
        self.present_ = np.zeros(0, np.int64) if self.task == "va" else np.unique(y).astype(np.int64)
        self.model_: Any = None
        self.penalty_, self.trust_, self.code_trust_ = _PENALTIES[self.task][1], 1.0, 0.0
        if len(self.present_) != 1:
            self._choose(features, y, groups)
            weighed = self._weighed(features, self.trust_, self.code_trust_)
            self.model_ = self._estimator(self.penalty_).fit(weighed, y)
        self.scale_, self.offset_ = np.ones(2), np.zeros(2)
        if self.task == "va" and self.objective == "ccc":
            self.scale_, self.offset_ = matched(self.model_.predict(weighed), y)
        return self

    def _choose(self, features: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> None:
        """Penalty and trust of least held-out loss in inner folds over the fitting rows; then trust in the codes."""
        fold = inner_folds(y, self.task, groups, _INNER_FOLDS, self.random_state)
        if fold is None:
            return
        pairs = list(product(_PENALTIES[self.task], _TRUSTS if self.use_3d else _TRUSTS[:1]))
        losses = [self._loss(features, y, fold, penalty, trust, 0.0) for penalty, trust in pairs]
        best = int(np.argmin(losses))
        self.penalty_, self.trust_ = pairs[best]
        if self.codes and features.shape[1] > 2 * self.width_:
            more = [self._loss(features, y, fold, *pairs[best], trust) for trust in _CODE_TRUSTS[1:]]
            self.code_trust_ = _CODE_TRUSTS[int(np.argmin([losses[best], *more]))]

    def _loss(
        self,
        features: np.ndarray,
        y: np.ndarray,
        fold: np.ndarray,
        penalty: float,
        trust: float,
        code_trust: float,
    ) -> float:
        """Summed loss over rows while they are held out."""
        weighed, total = self._weighed(features, trust, code_trust), 0.0
        weights = row_weights(y, self.task, self.objective)
        for held in range(_INNER_FOLDS):
            outside = fold == held
            model = self._estimator(penalty).fit(weighed[~outside], y[~outside])
            if self.task == "va":
                total += float(((model.predict(weighed[outside]) - y[outside]) ** 2).sum())
                continue
            known = np.flatnonzero(outside & np.isin(y, model.classes_))
            if len(known):
                p = model.predict_proba(weighed[known])
                p = p[np.arange(len(known)), np.searchsorted(model.classes_, y[known])]
                total -= float((weights[known] * np.log(np.maximum(p, TINY))).sum())
        return total

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        check_is_fitted(self)
        if self.task == "va":
            return np.clip(self.model_.predict(self._design(columns)) * self.scale_ + self.offset_, -1, 1)
        fused = columns.two.copy()
        if self.model_ is not None:
            p = self.model_.predict_proba(self._design(columns))
            if len(self.present_) == fused.shape[1]:
                return log_of(p)
            fused[:, self.present_] = np.log(np.maximum(p, TINY))
        return with_unseen(columns.two, fused, self.present_)

    def describe(self) -> dict[str, Any]:
        """What was fitted, for the record."""
        said: dict[str, Any] = {"penalty": self.penalty_, "trust_3d": self.trust_ if self.use_3d else None}
        if self.codes:
            said["trust_codes"] = self.code_trust_
        if self.task == "va":
            return {**said, "scale": self.scale_.tolist(), "offset": self.offset_.tolist()}
        return {**said, "classes_seen": self.present_.tolist()}


def matched(fitted: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset, (2,) each, that give fitted values the mean and spread of the truth, per dimension."""
    spread = fitted.std(axis=0)
    scale = np.where(spread > TINY, y.std(axis=0) / np.where(spread > TINY, spread, 1), 0)
    return scale, y.mean(axis=0) - scale * fitted.mean(axis=0)
