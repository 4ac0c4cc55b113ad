"""Rule that takes the 3D prediction in rows where the 2D network is not confident."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ...features.predictions import log_softmax
from .base import Rule
from .columns import Columns
from .objective import cost_of

_QUANTILES = np.linspace(0, 1, 101)


@dataclass(kw_only=True, eq=False, repr=False)
class Threshold(Rule):
    """The 3D prediction where the 2D network's confidence is below a threshold, else the 2D prediction.

    The threshold is chosen among the percentiles of the confidence of the calibration rows, by the objective. Among
    equally good ones, the lowest is chosen, which replaces the fewest 2D predictions.

    Parameters
    ----------
    confidence : ``top`` or ``margin``
        Confidence of the 2D network: its greatest probability, or the margin to the second greatest.

    Attributes
    ----------
    threshold_ : float
    share_ : share of the calibration rows that get the 3D prediction
    """

    tasks = ("classes",)

    objective: str = "accuracy"
    confidence: Literal["top", "margin"] = "top"

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> Threshold:
        """Fit the threshold to labels (n,)."""
        confidence = self._confidence(columns)
        thresholds = np.unique([0.0, *np.quantile(confidence, _QUANTILES), np.nextafter(confidence.max(), 2)])
        two, three = log_softmax(columns.scores_2d), log_softmax(columns.scores_3d)
        costs = [
            cost_of(np.where((confidence < threshold)[:, None], three, two), y, "classes", self.objective)
            for threshold in thresholds
        ]
        self.threshold_ = float(thresholds[min(range(len(costs)), key=costs.__getitem__)])
        self.share_ = float((confidence < self.threshold_).mean())
        return self

    def _confidence(self, columns: Columns) -> np.ndarray:
        """(n,) confidence of the 2D network."""
        ranked = np.sort(np.exp(log_softmax(columns.scores_2d)), axis=1)
        return ranked[:, -1] if self.confidence == "top" else ranked[:, -1] - ranked[:, -2]

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities."""
        check_is_fitted(self)
        unsure = self._confidence(columns) < self.threshold_
        return np.where(unsure[:, None], log_softmax(columns.scores_3d), log_softmax(columns.scores_2d))

    def describe(self) -> dict[str, Any]:
        """Fitted parameters, for the record."""
        return {"threshold": self.threshold_, "share_3d": self.share_}
