"""Stacking: correct the 2D predictions linearly by both predictions, and optionally by the codes.

Without the 3D columns, this is the reference ``2d-recalibrated``. The penalty shrinks towards the uncorrected 2D
network, not towards the class shares. Temperature and class offsets are almost unpenalised, so that with few fitting
rows the result is the 2D network with a fitted temperature and offsets.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
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
_RANK = 1e-6  # residuals of standardised columns below this are rounding errors
# Candidates, strongest first. Classes: c of the penalty sum(w^2) / (2 c), small is strong. VA: ridge alpha.
_PENALTIES = {"classes": (0.001, 0.01, 0.1, 1.0), "va": (100.0, 10.0, 1.0, 0.1)}
_DEFAULT = {"classes": 0.1, "va": 1.0}  # if there are too few rows for inner folds
# The penalty of the 3D columns is chosen separately, after that of the 2D columns: the strongest whose inner loss is
# within one standard error of the smallest. Dropping the 3D columns is not a candidate. With some 400 calibration rows,
# the inner loss cannot detect weak information, but a small weight of the 3D columns still improves new rows.
_PENALTIES_3D = {"classes": (0.0001, *_PENALTIES["classes"]), "va": (1000.0, *_PENALTIES["va"])}
# The codes are many columns and have a separate penalty: candidate factors of the standardised codes; 0 drops them.
_CODE_WEIGHTS = (0.0, 0.01, 0.03, 0.1, 0.3)
# Cache of the last recalibrations: hash of the inputs of a fit -> fitted attributes.
_RECALIBRATED: dict[str, dict[str, Any]] = {}
_CACHE_SIZE, _LOCK = 256, Lock()


@dataclass(kw_only=True, eq=False, repr=False)
class Stack(Rule):
    """Regression on the 2D predictions and the residuals of the 3D predictions, shrunk towards the 2D predictions:
    logistic (classes) or ridge (valence-arousal).

    Classes: softmax(s log p_2d + t r + W x + b). VA: v_2d + W x + b. Here r are the residuals of the 3D predictions
    after linear regression on the 2D predictions, and x are the standardised 2D columns and residuals. W is penalised
    and so shrunk towards the uncorrected 2D network. 3D predictions that are a linear function of the 2D predictions
    (such as the same network at another temperature) have no residuals and change nothing.

    With ``use_3d=False``, only the 2D columns are used: the reference ``2d-recalibrated``.

    Parameters
    ----------
    task : ``classes`` or ``va``
    use_3d : bool
    codes : bool
        Whether the standardised codes are columns too, with a separate penalty.
    objective : str
        ``balanced`` gives classes equal weight. ``ccc`` matches the mean and standard deviation of each dimension to
        those of the targets after least squares, which maximises the concordance at a given correlation.
    random_state : int
        Seed of the inner folds that choose the penalties.

    Attributes
    ----------
    scales_ : s (inverse temperature), and t if there are 3D residuals; 1 for VA
    weights_ : (1 + d, m) float64, offsets first, for m classes or dimensions; None if the rows have only one class
    present_ : classes that occur in the calibration rows; the others keep the probability of the 2D network
    penalty_ : float
        Penalty of the 2D columns.
    projection_ : (k, k) float64
        Linear prediction of the standardised 3D columns from the 2D ones, which is subtracted from them.
    has_residual_ : (k,) bool
        3D columns with a non-zero residual after this projection.
    scale_, offset_ : (2,) float64, correction of valence and arousal for the objective ``ccc``
    """

    repeated = True

    task: str = "classes"
    use_3d: bool = True
    codes: bool = False
    objective: str = "accuracy"
    random_state: int = 0

    def unusable(self, task: str, *, codes: bool) -> str:
        """The reason why the rule cannot fuse a table; empty if it can."""
        if self.codes and not codes:
            return "the option stack.codes needs codes, and the 3D predictions are ready-made"
        return super().unusable(task, codes=codes)

    def _features(self, columns: Columns) -> np.ndarray:
        parts = [columns.scores_2d, columns.scores_3d] if self.use_3d else [columns.scores_2d]
        parts = parts if self.task == "va" else [centred(part) for part in parts]
        if self.codes and columns.codes is not None:
            parts.append(columns.codes)
        return np.hstack(parts, dtype=np.float64)

    def _bases(self, columns: Columns, features: np.ndarray) -> np.ndarray:
        """(b, n, m) terms that are multiplied by one scale each: 2D log-probabilities, and residuals of the 3D.

        For the classes that occur in the calibration rows. For valence and arousal, there are only the 2D values.
        """
        if self.task == "va":
            return columns.scores_2d[None]
        bases = [log_softmax(columns.scores_2d[:, self.present_])]
        if self.use_3d and self.has_residual_.any():
            residuals = slice(self.width_, 2 * self.width_)
            bases.append((features[:, residuals] * self.scaler_.scale_[residuals])[:, self.present_])
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

    def _weighted(self, features: np.ndarray, weight_3d: float, code_weight: float) -> np.ndarray:
        """Standardised features; 3D columns and codes are multiplied by their weights, or dropped at weight 0."""
        k = self.width_
        parts = [features[:, :k]]
        if weight_3d:
            parts.append(features[:, k : 2 * k] * weight_3d)
        if code_weight:
            parts.append(features[:, 2 * k :] * code_weight)
        return np.hstack(parts)

    def _with_residuals(self, scaled: np.ndarray) -> np.ndarray:
        """Standardised features in which the 3D columns are replaced by their residuals."""
        if self.projection_ is None:
            return scaled
        k, features = self.width_, scaled.copy()
        features[:, k : 2 * k] -= scaled[:, :k] @ self.projection_
        features[:, k : 2 * k] *= self.has_residual_
        return features

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> Stack:
        """Fit to labels (n,) or targets (n, 2); inner folds do not divide ``groups`` (n,)."""
        if self.use_3d:
            return self._fit(columns, y, groups)
        # Cached, because controls and boost need the recalibration of the same rows many times.
        key = joblib.hash((self.get_params(), columns.scores_2d, y, groups))
        attributes = _RECALIBRATED.get(key)
        if attributes is None:
            attributes = vars(self._fit(columns, y, groups)).copy()
            with _LOCK:
                _RECALIBRATED[key] = attributes
                if len(_RECALIBRATED) > _CACHE_SIZE:
                    del _RECALIBRATED[next(iter(_RECALIBRATED))]
        # Copies, because model files depend on whether arrays are shared.
        self.__dict__ |= deepcopy(attributes)
        return self

    def _fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None) -> Stack:
        self.failures_: list[str] = []
        self.width_ = columns.scores_2d.shape[1]
        self.scaler_ = StandardScaler()
        scaled = self.scaler_.fit_transform(self._features(columns))
        two, three = scaled[:, : self.width_], scaled[:, self.width_ : 2 * self.width_]
        # The part of the 3D columns that is linear in the 2D columns adds no information.
        self.projection_ = np.linalg.lstsq(two, three, rcond=_RANK)[0] if self.use_3d else None
        if self.projection_ is not None:
            self.has_residual_ = (three - two @ self.projection_).std(axis=0) > _RANK
        features = self._with_residuals(scaled)
        self.present_ = np.zeros(0, np.int64) if self.task == "va" else np.unique(y).astype(np.int64)
        bases = self._bases(columns, features)
        self.scales_, self.weights_ = np.ones(1), None
        self.penalty_, self.code_weight_ = _DEFAULT[self.task], 0.0
        self.weight_3d_ = float(self.use_3d and self.has_residual_.any())
        if len(self.present_) != 1:
            self._choose(columns, features, bases, y, groups)
            design = self._weighted(features, self.weight_3d_, self.code_weight_)
            self.scales_, self.weights_ = self._solved(design, bases, y, self.penalty_)
        self.scale_, self.offset_ = np.ones(2), np.zeros(2)
        if self.task == "va" and self.objective == "ccc" and self.weights_ is not None:
            self.scale_, self.offset_ = matched(corrected(design, bases, self.scales_, self.weights_), y)
        return self

    def _choose(
        self,
        columns: Columns,
        features: np.ndarray,
        bases: np.ndarray,
        y: np.ndarray,
        groups: np.ndarray | None,
    ) -> None:
        """Choose the penalty, then the weight of the 3D columns, then that of the codes, by loss in inner folds."""
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
        if self.codes and not self.has_residual_.any():
            loss = self._losses(features, bases, y, fold, [(self.penalty_, 0.0, 0.0)])[0]
        if self.has_residual_.any():
            weights = [self._weight_for(penalty) for penalty in _PENALTIES_3D[self.task]]
            losses = self._losses(
                features, bases, y, fold, [(self.penalty_, weight, 0.0) for weight in weights]
            )
            chosen = simplest(losses, groups)
            self.weight_3d_, loss = weights[chosen], losses[chosen]
        if self.codes and features.shape[1] > 2 * self.width_:
            # This factor makes the penalty of the codes independent of that of the other columns.
            ratio = self.penalty_ if self.task == "va" else _DEFAULT["classes"] / self.penalty_
            code_weights = [weight * float(np.sqrt(ratio)) for weight in _CODE_WEIGHTS]
            options = [(self.penalty_, self.weight_3d_, weight) for weight in code_weights[1:]]
            losses = np.vstack([loss, self._losses(features, bases, y, fold, options)])
            self.code_weight_ = code_weights[simplest(losses, groups)]

    def _weight_for(self, penalty: float) -> float:
        """Factor of the standardised 3D columns that has the effect of a separate penalty for them."""
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
        """(options, n) loss of each held-out row, for options (penalty, weight of the 3D, weight of the codes).

        A fit with the same columns as the previous one starts from its solution.
        """
        losses = np.zeros((len(options), len(y)))
        designs = [self._weighted(features, weight_3d, code_weight) for _, weight_3d, code_weight in options]
        weights = row_weights(y, self.task, self.objective)
        for number in range(_INNER_FOLDS):
            outside, solved = fold == number, None
            inside = ~outside
            for index, (x, (penalty, *_)) in enumerate(zip(designs, options, strict=True)):
                if solved is not None and len(solved[1]) != x.shape[1] + 1:
                    solved = None
                # A lower precision is enough for the choice.
                solved = self._solved(x[inside], bases[:, inside], y[inside], penalty, solved, 1e-5)
                values = corrected(x[outside], bases[:, outside], *solved)
                if self.task == "va":
                    losses[index, outside] = ((values - y[outside]) ** 2).sum(axis=1)
                    continue
                logs = log_softmax(values)[np.arange(len(values)), np.searchsorted(self.present_, y[outside])]
                losses[index, outside] = -weights[outside] * np.maximum(logs, np.log(TINY))
        return losses

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        check_is_fitted(self)
        fused = columns.scores_2d.copy()
        if self.weights_ is not None:
            features = self._with_residuals(self.scaler_.transform(self._features(columns)))
            design = self._weighted(features, self.weight_3d_, self.code_weight_)
            values = corrected(design, self._bases(columns, features), self.scales_, self.weights_)
            if self.task == "va":
                return np.clip(values * self.scale_ + self.offset_, -1, 1)
            if len(self.present_) == fused.shape[1]:
                return log_softmax(values)
            fused[:, self.present_] = values
        return with_unseen(columns.scores_2d, fused, self.present_)

    def describe(self) -> dict[str, Any]:
        """Fitted parameters, for the record."""
        parameters: dict[str, Any] = {
            "penalty": self.penalty_,
            "weight_3d_columns": self.weight_3d_ if self.use_3d else None,
        }
        if self.scaler_.n_features_in_ > 2 * self.width_:
            parameters["weight_code_columns"] = self.code_weight_
        if self.task == "va":
            return {**parameters, "scale": self.scale_.tolist(), "offset": self.offset_.tolist()}
        parameters["temperature"] = float(1 / self.scales_[0])
        if len(self.scales_) > 1:
            parameters["coefficient_of_3d_residuals"] = float(self.scales_[1])
        return {**parameters, "classes_seen": self.present_.tolist()}


def least(losses: np.ndarray) -> int:
    """Index of the first candidate with the smallest mean loss; losses are (c, n), of n held-out rows.

    In simulations (docs/statistics.md), the one-standard-error rule penalised 2d-recalibrated too strongly. The
    reference was then weaker than possible, which gave false claims if the 3D predictions were a better calibrated copy
    of the 2D predictions.
    """
    return int(np.argmin(losses.mean(axis=1)))


def simplest(losses: np.ndarray, groups: np.ndarray | None = None) -> int:
    """Index of the first candidate whose mean loss is within one standard error of the smallest.

    Parameters
    ----------
    losses : (c, n) loss of n held-out rows for c candidates, simplest first
    groups : (n,), rows of one group count as one observation for the standard error

    References
    ----------
    Breiman, Friedman, Olshen and Stone, Classification and Regression Trees (1984), section 3.4.3: the
    one-standard-error rule; here with the standard error of the paired difference.
    """
    worse = losses - losses[least(losses)]
    errors = standard_error(worse, groups)
    return int(np.flatnonzero(worse.mean(axis=1) <= errors)[0])


def standard_error(values: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """(c,) standard error of the mean of (c, n) values, over rows or over groups (n,)."""
    n = values.shape[1]
    deviations = values - values.mean(axis=1, keepdims=True)
    if groups is not None:
        group = np.unique(groups, return_inverse=True)[1].reshape(-1)
        deviations = np.stack([np.bincount(group, row) for row in deviations])
    return np.asarray(np.sqrt((deviations**2).sum(axis=1)) / n)


def matched(fitted: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset, (2,) each, that give fitted values the mean and standard deviation of the targets."""
    spread = fitted.std(axis=0)
    scale = np.where(spread > TINY, y.std(axis=0) / np.where(spread > TINY, spread, 1), 0)
    return scale, y.mean(axis=0) - scale * fitted.mean(axis=0)
