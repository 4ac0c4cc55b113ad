"""Weighted mean of both predictions: one weight, or one for each class or dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ...features.predictions import log_softmax
from .base import Rule
from .columns import TINY, Columns, log_of, probabilities
from .objective import cost_of, row_weights
from .solver import minimised

_WEIGHTS = np.linspace(0, 1, 101)
# Penalty that shrinks the weights of the classes towards the common weight; its unit is a row.
_PULL = 5.0


@dataclass(kw_only=True, eq=False, repr=False)
class Weighted(Rule):
    """(1 - w) 2D + w 3D.

    A common w is chosen among 0, .01, ..., 1 by the objective on the calibration rows. Weights per class minimise log
    loss (``balanced``: all classes with equal weight) between 0 and 1. They are shrunk a little towards the common w,
    which matters for classes with few rows. Weights per dimension are chosen among 0, .01, ..., 1 in that dimension.

    Parameters
    ----------
    task, objective, on : as in the configuration
    per_class : bool
        One weight for each class, or for each of valence and arousal, instead of one for all.

    Attributes
    ----------
    w_ : (1,) or (k,) float64
        Weight of the 3D predictions. Of equally good weights, that with the smallest log loss is chosen (classes).
    """

    repeated = True

    task: str = "classes"
    on: str = "probabilities"
    objective: str = "accuracy"
    per_class: bool = False

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> Weighted:
        """Fit w to labels (n,) or targets (n, 2)."""
        self.failures_: list[str] = []
        two, three = self._prepared(columns)
        if self.per_class and self.task == "va":
            # Both columns hold the same dimension, so that the mean over columns is the result of this dimension.
            pairs = [[d, d] for d in range(y.shape[1])]
            self.w_ = np.array([self._scan(two[:, pair], three[:, pair], y[:, pair]) for pair in pairs])
            return self
        self.w_ = np.array([self._scan(two, three, y)])
        if self.per_class:
            self.w_ = self._descend(two, three, y, np.full(two.shape[1], self.w_[0]))
        return self

    def _scan(self, two: np.ndarray, three: np.ndarray, y: np.ndarray) -> float:
        """The common weight with the smallest cost."""
        costs = [
            cost_of(self._blend(two, three, np.array([w])), y, self.task, self.objective) for w in _WEIGHTS
        ]
        return float(_WEIGHTS[min(range(len(costs)), key=costs.__getitem__)])

    def _descend(self, two: np.ndarray, three: np.ndarray, y: np.ndarray, start: np.ndarray) -> np.ndarray:
        """(k,) weights with the smallest log loss, by L-BFGS-B."""
        n, weights = len(y), row_weights(y, self.task, self.objective)
        truth, step = np.arange(n), three - two

        def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
            mixed = two + w * step
            if self.on == "logits":
                logs = log_softmax(mixed)
                slope = -np.exp(logs)
                slope[truth, y] += 1
            else:
                mixed = np.maximum(mixed, TINY)
                logs = np.log(mixed / mixed.sum(axis=1, keepdims=True))
                slope = np.repeat(-1 / mixed.sum(axis=1, keepdims=True), mixed.shape[1], axis=1)
                slope[truth, y] += 1 / mixed[truth, y]
            value = -(weights * logs[truth, y]).sum() + _PULL * ((w - start) ** 2).sum()
            return value / n, (-(weights[:, None] * slope * step).sum(axis=0) + 2 * _PULL * (w - start)) / n

        return minimised(loss, start, self.failures_, bounds=[(0, 1)] * len(start))

    def _prepared(self, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
        """Both predictions on the scale that is averaged."""
        if self.task == "va" or self.on == "logits":
            return columns.scores_2d, columns.scores_3d
        return probabilities(columns.scores_2d), probabilities(columns.scores_3d)

    def _blend(self, two: np.ndarray, three: np.ndarray, w: np.ndarray) -> np.ndarray:
        mixed = two + w * (three - two)
        if self.task == "va":
            return np.clip(mixed, -1, 1)
        if self.on == "logits":
            return log_softmax(mixed)
        # With one weight, averaged probabilities still sum to 1.
        return np.log(np.maximum(mixed, TINY)) if len(w) == 1 else log_of(mixed)

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        check_is_fitted(self)
        return self._blend(*self._prepared(columns), self.w_)

    def describe(self) -> dict[str, Any]:
        """Fitted parameters, for the record."""
        return {"w": float(self.w_[0]) if len(self.w_) == 1 else self.w_.tolist()}
