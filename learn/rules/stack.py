"""Stacking: a linear correction of the 2D network by both predictions, maybe with the codes; and by itself alone.

The penalty pulls towards the 2D network as it is, not towards the classes' shares: with few rows to fit on, what comes
out is the network with another temperature and other offsets, which are hardly penalised (:mod:`.calibrate`).
"""

from __future__ import annotations

from copy import deepcopy
from threading import Lock
from typing import Any

import joblib
import numpy as np
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from ...features.predictions import log_softmax
from .base import Rule
from .calibrate import with_unseen
from .columns import TINY, Columns, centred
from .objective import inner_folds, row_weights
from .solver import Solution, corrected, logistic_correction

_INNER_FOLDS = 3
_RANK = 1e-6  # of standardised columns: what is below is rounding
# Penalties to choose from, the strongest first: sum of squared weights over twice this (classes), alpha of the ridge.
_PENALTIES = {"classes": (0.001, 0.01, 0.1, 1.0), "va": (100.0, 10.0, 1.0, 0.1)}
_DEFAULT = {"classes": 0.1, "va": 1.0}  # where there are too few rows to choose by
# The penalty of the 3D columns is chosen apart, after that of the 2D columns: the strongest that is not worse than the
# best by more than a standard error. To leave the 3D out is no choice: where 400 rows cannot tell whether weak
# information helps, a little of it still shows on others, and a little of it shows best.
_PENALTIES_3D = {"classes": (0.0001, *_PENALTIES["classes"]), "va": (1000.0, *_PENALTIES["va"])}
# Factors of the standardised codes, which are many: a penalty of their own. 0 leaves them out.
_CODE_TRUSTS = (0.0, 0.01, 0.03, 0.1, 0.3)
# The last recalibrations: what was fitted by the hash of what it was fitted to.
_RECALIBRATED: dict[str, dict[str, Any]] = {}
_REMEMBERED, _LOCK = 256, Lock()


class Stack(Rule):
    """Linear correction of the 2D network by both predictions: logistic regression (classes), ridge (valence-arousal).

    Classes: softmax(s log p_2d + t r + W x + b), VA: v_2d + W x + b. Here r are the residuals of the 3D predictions
    after linear regression on the 2D ones, and x the standardised 2D columns and residuals. The weights are penalised,
    so that they shrink towards the 2D network as it is. 3D predictions that are a better calibrated copy of the 2D
    ones have no residuals and change nothing.

    With ``use_3d=False`` the same on the 2D columns alone: the reference ``2d-recalibrated``.

    Parameters
    ----------
    task : ``classes`` or ``va``
    use_3d : bool
    codes : bool
        The codes are among the columns too, standardised and with a separate penalty.
    objective : str
        ``balanced`` weighs classes equally; ``ccc`` matches mean and spread of each dimension to the truth of the
        fitting rows after least squares: for a given correlation the concordance is greatest there.
    random_state : int
        Of the inner folds that choose the penalties.

    Attributes
    ----------
    scales_ : s, one over the temperature, and t where there are 3D columns; 1 for VA
    weights_ : (1 + d, m) float64, offsets first, for m classes or dimensions; None where rows of one class were fitted
    present_ : classes that the fitting rows have; the 2D network keeps its word on the others
    penalty_, trust_, code_trust_ : float
        Penalty, and factors of the 3D columns and of the codes after standardising; 0 leaves them out.
    projection_ : (k, k) float64
        Linear prediction of the standardised 3D columns from the 2D ones, which is subtracted from them.
    own_ : (k,) bool
        3D columns of which anything is left then.
    scale_, offset_ : (2,) arrays, for VA
    """

    repeated = True

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

    def unusable(self, task: str, *, codes: bool) -> str:
        """The reason why the rule cannot fuse a table; empty if it can."""
        if self.codes and not codes:
            return "the option stack.codes needs a store of codes; leave it out"
        return super().unusable(task, codes=codes)

    def _features(self, columns: Columns) -> np.ndarray:
        parts = [columns.two, columns.three] if self.use_3d else [columns.two]
        parts = parts if self.task == "va" else [centred(part) for part in parts]
        if self.codes and columns.codes is not None:
            parts.append(columns.codes)
        return np.hstack(parts, dtype=np.float64)

    def _bases(self, columns: Columns, features: np.ndarray) -> np.ndarray:
        """(m, n, k) scores that one number each scales: 2D log-probabilities or values, and what the 3D has apart.

        Of the classes that were seen. Valence and arousal have the 2D values alone.
        """
        if self.task == "va":
            return columns.two[None]
        bases = [log_softmax(columns.two[:, self.present_])]
        if self.use_3d and self.own_.any():
            apart = slice(self.width_, 2 * self.width_)
            bases.append((features[:, apart] * self.scaler_.scale_[apart])[:, self.present_])
        return np.stack(bases)

    def _solved(
        self,
        x: np.ndarray,
        bases: np.ndarray,
        y: np.ndarray,
        penalty: float,
        start: Solution | None = None,
        tolerance: float = 1e-9,
    ) -> Solution:
        """Scales of the bases, and (1 + d, m) weights of the correction, offsets first."""
        if self.task == "va":
            model = Ridge(alpha=penalty).fit(x, y - bases[0])
            return np.ones(1), np.vstack([model.intercept_, model.coef_.T])
        y = np.searchsorted(self.present_, y)
        return logistic_correction(
            x, bases, y, penalty, self.objective, self.failures_, start=start, tolerance=tolerance
        )

    def _weighed(self, features: np.ndarray, trust: float, code_trust: float) -> np.ndarray:
        """Standardised features, the 3D ones times ``trust``, the codes times ``code_trust`` or left out."""
        k = self.width_
        parts = [features[:, :k]]
        if trust:
            parts.append(features[:, k : 2 * k] * trust)
        if code_trust:
            parts.append(features[:, 2 * k :] * code_trust)
        return np.hstack(parts)

    def _apart(self, scaled: np.ndarray) -> np.ndarray:
        """Standardised features with the part of the 3D columns removed that is linear in the 2D columns."""
        if self.projection_ is None:
            return scaled
        k, apart = self.width_, scaled.copy()
        apart[:, k : 2 * k] -= scaled[:, :k] @ self.projection_
        apart[:, k : 2 * k] *= self.own_
        return apart

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> Stack:
        """Fit to labels (n,) or targets (n, 2); groups (n,) stay whole in the inner folds."""
        if self.use_3d:
            return self._fit(columns, y, groups)
        # Controls and boost ask for the recalibration of the same rows again and again.
        asked = joblib.hash((self.get_params(), columns.two, y, groups))
        found = _RECALIBRATED.get(asked)
        if found is None:
            found = vars(self._fit(columns, y, groups)).copy()
            with _LOCK:
                _RECALIBRATED[asked] = found
                if len(_RECALIBRATED) > _REMEMBERED:
                    del _RECALIBRATED[next(iter(_RECALIBRATED))]
        self.__dict__ |= deepcopy(found)  # a saved model tells shared arrays from equal ones
        return self

    def _fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None) -> Stack:
        self.failures_: list[str] = []
        self.width_ = columns.two.shape[1]
        self.scaler_ = StandardScaler()
        scaled = self.scaler_.fit_transform(self._features(columns))
        two, three = scaled[:, : self.width_], scaled[:, self.width_ : 2 * self.width_]
        # What is linear in the 2D columns is no information of the 3D ones.
        self.projection_ = np.linalg.lstsq(two, three, rcond=_RANK)[0] if self.use_3d else None
        if self.projection_ is not None:
            self.own_ = (three - two @ self.projection_).std(axis=0) > _RANK
        features = self._apart(scaled)
        self.present_ = np.zeros(0, np.int64) if self.task == "va" else np.unique(y).astype(np.int64)
        bases = self._bases(columns, features)
        self.scales_, self.weights_ = np.ones(1), None
        self.penalty_, self.code_trust_ = _DEFAULT[self.task], 0.0
        self.trust_ = float(self.use_3d and self.own_.any())
        if len(self.present_) != 1:
            self._choose(columns, features, bases, y, groups)
            weighed = self._weighed(features, self.trust_, self.code_trust_)
            self.scales_, self.weights_ = self._solved(weighed, bases, y, self.penalty_)
        self.scale_, self.offset_ = np.ones(2), np.zeros(2)
        if self.task == "va" and self.objective == "ccc" and self.weights_ is not None:
            self.scale_, self.offset_ = matched(corrected(weighed, bases, self.scales_, self.weights_), y)
        return self

    def _choose(
        self,
        columns: Columns,
        features: np.ndarray,
        bases: np.ndarray,
        y: np.ndarray,
        groups: np.ndarray | None,
    ) -> None:
        """Penalty and trust by held-out loss in inner folds over the fitting rows; then trust in the codes."""
        fold = inner_folds(y, self.task, groups, _INNER_FOLDS, self.random_state)
        if fold is None:
            return
        if not self.use_3d:
            options = [(penalty, 0.0, 0.0) for penalty in _PENALTIES[self.task]]
            self.penalty_ = options[least(self._losses(features, bases, y, fold, options))][0]
            return
        alone = Stack(task=self.task, use_3d=False, objective=self.objective, random_state=self.random_state)
        self.penalty_ = alone.fit(columns.without_3d(), y, groups).penalty_
        self.failures_ += alone.failures_
        loss = np.zeros(len(y))
        if self.codes and not self.own_.any():
            loss = self._losses(features, bases, y, fold, [(self.penalty_, 0.0, 0.0)])[0]
        if self.own_.any():
            trusts = [self._trust(penalty) for penalty in _PENALTIES_3D[self.task]]
            losses = self._losses(features, bases, y, fold, [(self.penalty_, trust, 0.0) for trust in trusts])
            chosen = simplest(losses, groups)
            self.trust_, loss = trusts[chosen], losses[chosen]
        if self.codes and features.shape[1] > 2 * self.width_:
            # The penalty of the codes is their own: it does not grow with that of the other columns.
            own = self.penalty_ if self.task == "va" else _DEFAULT["classes"] / self.penalty_
            code_trusts = [code_trust * float(np.sqrt(own)) for code_trust in _CODE_TRUSTS]
            options = [(self.penalty_, self.trust_, code_trust) for code_trust in code_trusts[1:]]
            losses = np.vstack([loss, self._losses(features, bases, y, fold, options)])
            self.code_trust_ = code_trusts[simplest(losses, groups)]

    def _trust(self, penalty: float) -> float:
        """Factor of the standardised 3D columns that gives them a penalty of their own."""
        ratio = self.penalty_ / penalty if self.task == "va" else penalty / self.penalty_
        return float(np.sqrt(ratio))

    def _losses(
        self,
        features: np.ndarray,
        bases: np.ndarray,
        y: np.ndarray,
        fold: np.ndarray,
        options: list[tuple[float, float, float]],
    ) -> np.ndarray:
        """(options, n) loss of each row while it is held out, for each penalty, trust and trust in the codes.

        Where the columns are the same, a fit starts from the one before it.
        """
        losses = np.zeros((len(options), len(y)))
        designs = [self._weighed(features, trust, code_trust) for _, trust, code_trust in options]
        weights = row_weights(y, self.task, self.objective)
        for held in range(_INNER_FOLDS):
            outside, solved = fold == held, None
            inside = ~outside
            for number, (x, (penalty, *_)) in enumerate(zip(designs, options, strict=True)):
                if solved is not None and len(solved[1]) != x.shape[1] + 1:
                    solved = None
                # To choose by, an end that is near enough.
                solved = self._solved(x[inside], bases[:, inside], y[inside], penalty, solved, 1e-5)
                values = corrected(x[outside], bases[:, outside], *solved)
                if self.task == "va":
                    losses[number, outside] = ((values - y[outside]) ** 2).sum(axis=1)
                    continue
                said = log_softmax(values)[np.arange(len(values)), np.searchsorted(self.present_, y[outside])]
                losses[number, outside] = -weights[outside] * np.maximum(said, np.log(TINY))
        return losses

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        check_is_fitted(self)
        fused = columns.two.copy()
        if self.weights_ is not None:
            features = self._apart(self.scaler_.transform(self._features(columns)))
            design = self._weighed(features, self.trust_, self.code_trust_)
            values = corrected(design, self._bases(columns, features), self.scales_, self.weights_)
            if self.task == "va":
                return np.clip(values * self.scale_ + self.offset_, -1, 1)
            if len(self.present_) == fused.shape[1]:
                return log_softmax(values)
            fused[:, self.present_] = values
        return with_unseen(columns.two, fused, self.present_)

    def describe(self) -> dict[str, Any]:
        """What was fitted, for the record."""
        said: dict[str, Any] = {"penalty": self.penalty_, "trust_3d": self.trust_ if self.use_3d else None}
        if self.scaler_.n_features_in_ > 2 * self.width_:
            said["trust_codes"] = self.code_trust_
        if self.task == "va":
            return {**said, "scale": self.scale_.tolist(), "offset": self.offset_.tolist()}
        said["temperature"] = float(1 / self.scales_[0])
        if len(self.scales_) > 1:
            said["scale_3d"] = float(self.scales_[1])
        return {**said, "classes_seen": self.present_.tolist()}


def least(losses: np.ndarray) -> int:
    """The first of the choices (c, n) with the least mean loss of n held-out rows.

    In simulations (docs/statistics.md) the choice by one standard error made 2d-recalibrated worse than the fitting
    rows allow, and so gave false claims where the 3D predictions are a better calibrated copy of the 2D ones.
    """
    return int(np.argmin(losses.mean(axis=1)))


def simplest(losses: np.ndarray, groups: np.ndarray | None = None) -> int:
    """The first of some choices, the simplest first, that is not worse than the best by more than a standard error.

    Parameters
    ----------
    losses : (c, n) loss of n held-out rows for each choice
    groups : (n,) rows of one group are one observation for the standard error

    References
    ----------
    Breiman, Friedman, Olshen and Stone, Classification and Regression Trees (1984), section 3.4.3: the rule of one
    standard error; here of the paired difference.
    """
    worse = losses - losses[least(losses)]
    errors = standard_error(worse, groups)
    return int(np.flatnonzero(worse.mean(axis=1) <= errors)[0])


def standard_error(values: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """(c,) standard error of the mean of (c, n) values, over rows or over groups (n,)."""
    n = values.shape[1]
    apart = values - values.mean(axis=1, keepdims=True)
    if groups is not None:
        where = np.unique(groups, return_inverse=True)[1].reshape(-1)
        apart = np.stack([np.bincount(where, row) for row in apart])
    return np.asarray(np.sqrt((apart**2).sum(axis=1)) / n)


def matched(fitted: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset, (2,) each, that give fitted values the mean and spread of the truth, per dimension."""
    spread = fitted.std(axis=0)
    scale = np.where(spread > TINY, y.std(axis=0) / np.where(spread > TINY, spread, 1), 0)
    return scale, y.mean(axis=0) - scale * fitted.mean(axis=0)
