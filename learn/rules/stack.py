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
from scipy.optimize import minimize
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from ...features.predictions import log_softmax
from ..products import product
from .base import Rule
from .calibrate import with_unseen
from .columns import TINY, Columns, centred
from .objective import inner_folds, row_weights

_Solution = tuple[float, np.ndarray]
_INNER_FOLDS = 3
_STEEPEST = float(np.log(50))
# Penalties to choose from, the strongest first: sum of squared weights over twice this (classes), alpha of the ridge.
_PENALTIES = {"classes": (0.001, 0.01, 0.1, 1.0), "va": (100.0, 10.0, 1.0, 0.1)}
_DEFAULT = {"classes": 0.1, "va": 1.0}  # where there are too few rows to choose by
# And factors of the standardised 3D columns: the small one holds back 3D predictions that tell nothing, which would
# otherwise cost accuracy when fitted to few rows.
_TRUSTS = (0.1, 1.0)
# Factors of the standardised codes, which are many: a penalty of their own. 0 leaves them out.
_CODE_TRUSTS = (0.0, 0.01, 0.03, 0.1, 0.3)
# The last recalibrations: what was fitted by the hash of what it was fitted to.
_RECALIBRATED: dict[str, dict[str, Any]] = {}
_REMEMBERED, _LOCK = 64, Lock()


class Stack(Rule):
    """A correction of the 2D network: multinomial logistic on centred log-probabilities of both (classes), ridge (VA).

    Classes: softmax(s log p_2d + W x + b), VA: v_2d + W x + b, where x are the standardised columns; the weights are
    penalised, so that they shrink towards the 2D network as it is.

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
    steepness_ : s, one over the temperature; 1 for VA
    weights_ : (1 + d, m) float64, offsets first, for m classes or dimensions; None where rows of one class were fitted
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

    def _base(self, columns: Columns) -> np.ndarray:
        """What is corrected: 2D log-probabilities of the classes that were seen, or 2D values."""
        return columns.two if self.task == "va" else log_softmax(columns.two[:, self.present_])

    def _solved(
        self,
        x: np.ndarray,
        base: np.ndarray,
        y: np.ndarray,
        penalty: float,
        start: _Solution | None = None,
        tolerance: float = 1e-9,
    ) -> _Solution:
        """Steepness, and (1 + d, m) weights of the correction, offsets first."""
        if self.task == "va":
            model = Ridge(alpha=penalty).fit(x, y - base)
            return 1.0, np.vstack([model.intercept_, model.coef_.T])
        y = np.searchsorted(self.present_, y)
        return logistic_correction(x, base, y, penalty, self.objective, start, tolerance)

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
        self.width_ = columns.two.shape[1]
        self.scaler_ = StandardScaler()
        features = self.scaler_.fit_transform(self._features(columns))
        self.present_ = np.zeros(0, np.int64) if self.task == "va" else np.unique(y).astype(np.int64)
        base = self._base(columns)
        self.steepness_, self.weights_ = 1.0, None
        self.penalty_, self.trust_, self.code_trust_ = _DEFAULT[self.task], 1.0, 0.0
        if len(self.present_) != 1:
            self._choose(features, base, y, groups)
            weighed = self._weighed(features, self.trust_, self.code_trust_)
            self.steepness_, self.weights_ = self._solved(weighed, base, y, self.penalty_)
        self.scale_, self.offset_ = np.ones(2), np.zeros(2)
        if self.task == "va" and self.objective == "ccc" and self.weights_ is not None:
            self.scale_, self.offset_ = matched(corrected(weighed, base, 1.0, self.weights_), y)
        return self

    def _choose(
        self, features: np.ndarray, base: np.ndarray, y: np.ndarray, groups: np.ndarray | None
    ) -> None:
        """Penalty and trust by held-out loss in inner folds over the fitting rows; then trust in the codes."""
        fold = inner_folds(y, self.task, groups, _INNER_FOLDS, self.random_state)
        if fold is None:
            return
        penalties = _PENALTIES[self.task]
        trusts = _TRUSTS if self.use_3d else (1.0,)
        losses = [self._losses(features, base, y, fold, penalties, trust, 0.0) for trust in trusts]
        pairs = [(number, trust) for number in range(len(penalties)) for trust in range(len(trusts))]
        penalty, trust = pairs[simplest([losses[trust][number] for number, trust in pairs])]
        self.penalty_, self.trust_ = penalties[penalty], trusts[trust]
        if self.codes and features.shape[1] > 2 * self.width_:
            # The penalty of the codes is their own: it does not grow with that of the other columns.
            own = self.penalty_ if self.task == "va" else _DEFAULT["classes"] / self.penalty_
            code_trusts = [code_trust * float(np.sqrt(own)) for code_trust in _CODE_TRUSTS]
            more = [
                self._losses(features, base, y, fold, (self.penalty_,), self.trust_, code_trust)[0]
                for code_trust in code_trusts[1:]
            ]
            self.code_trust_ = code_trusts[simplest([losses[trust][penalty], *more])]

    def _losses(
        self,
        features: np.ndarray,
        base: np.ndarray,
        y: np.ndarray,
        fold: np.ndarray,
        penalties: tuple[float, ...],
        trust: float,
        code_trust: float,
    ) -> np.ndarray:
        """(penalties, n) loss of rows while they are held out; one penalty starts where the last has ended."""
        x, losses = self._weighed(features, trust, code_trust), np.zeros((len(penalties), len(y)))
        weights = row_weights(y, self.task, self.objective)
        for held in range(_INNER_FOLDS):
            outside, solved = fold == held, None
            inside = ~outside
            for number, penalty in enumerate(penalties):
                # To choose by, an end that is near enough.
                solved = self._solved(x[inside], base[inside], y[inside], penalty, solved, 1e-5)
                values = corrected(x[outside], base[outside], *solved)
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
            values = corrected(self._design(columns), self._base(columns), self.steepness_, self.weights_)
            if self.task == "va":
                return np.clip(values * self.scale_ + self.offset_, -1, 1)
            if len(self.present_) == fused.shape[1]:
                return log_softmax(values)
            fused[:, self.present_] = values
        return with_unseen(columns.two, fused, self.present_)

    def describe(self) -> dict[str, Any]:
        """What was fitted, for the record."""
        said: dict[str, Any] = {"penalty": self.penalty_, "trust_3d": self.trust_ if self.use_3d else None}
        if self.codes:
            said["trust_codes"] = self.code_trust_
        if self.task == "va":
            return {**said, "scale": self.scale_.tolist(), "offset": self.offset_.tolist()}
        return {**said, "temperature": 1 / self.steepness_, "classes_seen": self.present_.tolist()}


def simplest(losses: list[np.ndarray]) -> int:
    """The first of some choices, the simplest first, that is not worse than the best by more than a standard error.

    Parameters
    ----------
    losses : (n,) loss of each held-out row, one array for each choice

    References
    ----------
    Breiman, Friedman, Olshen and Stone, Classification and Regression Trees (1984), section 3.4.3: the rule of one
    standard error; here of the paired difference.
    """
    best = losses[int(np.argmin([loss.sum() for loss in losses]))]
    for number, loss in enumerate(losses):
        worse = loss - best
        if worse.mean() <= worse.std() / np.sqrt(len(worse)):
            return number
    return len(losses) - 1  # not reached: the best is not worse than itself


def corrected(x: np.ndarray, base: np.ndarray, steepness: float, weights: np.ndarray) -> np.ndarray:
    """(n, m) steepness * base + offsets + x @ weights."""
    return steepness * base + weights[0] + x @ weights[1:]


def logistic_correction(
    x: np.ndarray,
    base: np.ndarray,
    y: np.ndarray,
    penalty: float,
    objective: str,
    start: _Solution | None = None,
    tolerance: float = 1e-9,
) -> _Solution:
    """Steepness s and (1 + d, k) weights, offsets first, of the least penalised log loss of softmax(s base + b + x W).

    What is least is the summed loss + (||W||^2 / penalty + ||b||^2 + (log s)^2) / 2: an offset costs a row or two.

    Parameters
    ----------
    x : (n, d) float64, standardised
    base : (n, k) log-probabilities
    y : (n,) int labels below k
    penalty : float
    objective : ``balanced`` lets all classes weigh the same
    start : where to begin; nothing corrected by default
    tolerance : relative gain of a step below which the search ends
    """
    n, k = base.shape
    rows, weights = np.arange(n), row_weights(y, "classes", objective)
    pull = np.full(x.shape[1] + 1, 1 / penalty)
    pull[0] = 1.0
    design = np.hstack([np.ones((n, 1)), x])
    # From here on (k, n): what runs over the classes then runs over whole rows of memory.
    across, base = np.ascontiguousarray(design.T), np.ascontiguousarray(base.T)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        steep, w = flat[0], flat[1:].reshape(k, -1)
        scaled = np.exp(steep) * base
        logs = product(w, across)
        logs += scaled
        logs -= logs.max(axis=0)
        slope = np.exp(logs)
        total = slope.sum(axis=0)
        slope /= total
        slope[y, rows] -= 1
        slope *= weights
        pulled = pull * w
        value = weights @ (np.log(total) - logs[y, rows]) + ((pulled * w).sum() + steep**2) / 2
        along = product(slope, design) + pulled
        return value / n, np.concatenate([[np.vdot(slope, scaled) + steep], along.ravel()]) / n

    before, begin = (1.0, np.zeros((x.shape[1] + 1, k))) if start is None else start
    flat = np.concatenate([[np.log(before)], begin.T.ravel()])
    bounds = [(-_STEEPEST, _STEEPEST)] + [(None, None)] * begin.size
    found = minimize(
        loss,
        flat,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 500, "gtol": 1e-6, "ftol": tolerance},
    ).x
    return float(np.exp(found[0])), np.ascontiguousarray(found[1:].reshape(k, -1).T)


def matched(fitted: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset, (2,) each, that give fitted values the mean and spread of the truth, per dimension."""
    spread = fitted.std(axis=0)
    scale = np.where(spread > TINY, y.std(axis=0) / np.where(spread > TINY, spread, 1), 0)
    return scale, y.mean(axis=0) - scale * fitted.mean(axis=0)
