"""Calibration of both predictors before a rule, on the rows on which the rule is fitted.

``temperature`` divides scores by one number [1]_. ``bias`` also adds one offset per class, for predictors that were
trained with other class shares [2]_.

References
----------
.. [1] Guo et al., On calibration of modern neural networks, ICML 2017.
.. [2] Alexandari, Kundaje and Shrikumar, Maximum likelihood with bias-corrected calibration is hard-to-beat at label
   shift adaptation, ICML 2020.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from ...features.predictions import log_softmax
from .base import Rule
from .columns import Columns, probabilities
from .solver import logistic_correction


class Calibration(BaseEstimator):
    """Calibration ``softmax(scores / temperature + offset)`` with the smallest log loss.

    Parameters
    ----------
    kind : ``temperature`` or ``bias``
    objective : str
        ``balanced`` gives all classes equal weight.

    Attributes
    ----------
    temperature_ : float
    offset_ : (k,) float64, of mean 0
    present_ : classes that occur in the calibration rows; the others keep their probability
    """

    def __init__(self, kind: str = "bias", *, objective: str = "accuracy") -> None:
        self.kind = kind
        self.objective = objective

    def fit(self, scores: np.ndarray, y: np.ndarray) -> Calibration:
        """Fit to (n, k) scores and labels (n,)."""
        self.present_, coded = np.unique(y, return_inverse=True)
        self.failures_: list[str] = []
        self.temperature_, self.offset_ = 1.0, np.zeros(scores.shape[1])
        if len(self.present_) == 1:
            return self
        seen = scores[:, self.present_] - scores[:, self.present_].mean(axis=1, keepdims=True)
        offsets = self.kind == "bias"
        scales, weights = logistic_correction(
            np.empty((len(y), 0)),
            seen[None],
            coded,
            1.0,
            self.objective,
            self.failures_,
            scale_pull=0.0,
            offsets=offsets,
            tolerance=2.220446049250313e-09,
            flat=1e-5,
        )
        self.temperature_ = float(1 / scales[0])
        if offsets:
            self.offset_[self.present_] = weights[0] - weights[0].mean()
        return self

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """(n, k) calibrated scores."""
        check_is_fitted(self)
        scaled = scores / self.temperature_ + self.offset_
        return scaled if len(self.present_) == scores.shape[1] else with_unseen(scores, scaled, self.present_)

    def describe(self) -> dict[str, Any]:
        """Fitted parameters, for the record."""
        parameters: dict[str, Any] = {"temperature": self.temperature_}
        return parameters | ({"offset": self.offset_.tolist()} if self.kind == "bias" else {})


def with_unseen(original: np.ndarray, fused: np.ndarray, present: np.ndarray) -> np.ndarray:
    """(n, k) log-probabilities in which classes outside of ``present`` keep their original probability.

    The calibration rows have no information on these classes. The other classes share the remaining probability in
    proportion to ``fused``.

    Parameters
    ----------
    original, fused : (n, k) scores
    present : indices of the classes that occur in the calibration rows
    """
    logs = log_softmax(original)
    share = np.log(np.maximum(probabilities(original)[:, present].sum(axis=1, keepdims=True), 1e-300))
    logs[:, present] = share + log_softmax(fused[:, present])
    return log_softmax(logs)


class Calibrated(Rule):
    """A rule that is applied to calibrated 2D and 3D scores.

    Attributes
    ----------
    two_, three_ : Calibration
    rule_ : the rule, fitted to the calibrated scores
    """

    def __init__(self, rule: Rule, *, kind: str = "bias", objective: str = "accuracy") -> None:
        self.rule = rule
        self.kind = kind
        self.objective = objective

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> Calibrated:
        """Fit both calibrations to labels (n,), then the rule."""
        self.two_ = Calibration(self.kind, objective=self.objective).fit(columns.scores_2d, y)
        self.three_ = Calibration(self.kind, objective=self.objective).fit(columns.scores_3d, y)
        self.rule_ = clone(self.rule).fit(self._calibrated(columns), y, groups=groups)
        return self

    def _calibrated(self, columns: Columns) -> Columns:
        return replace(
            columns,
            scores_2d=self.two_.apply(columns.scores_2d),
            scores_3d=self.three_.apply(columns.scores_3d),
        )

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities."""
        check_is_fitted(self)
        return self.rule_.apply(self._calibrated(columns))

    def describe(self) -> dict[str, Any]:
        """Fitted parameters, for the record."""
        return {**self.rule_.describe(), "2d": self.two_.describe(), "3d": self.three_.describe()}
