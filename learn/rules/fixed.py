"""Rules without fitted parameters: mean, maximum, minimum and product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ...features.predictions import log_softmax
from .base import Rule
from .columns import Columns, log_of, probabilities


@dataclass(kw_only=True, eq=False, repr=False)
class _Fixed(Rule):
    """Combines both predictions element by element.

    Classes: combines probabilities and renormalises them. Valence and arousal: combines values.
    """

    fits = False
    combine: ClassVar[Callable[..., Any]]

    task: str = "classes"

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        combine = type(self).combine
        if self.task == "va":
            return np.clip(combine(columns.scores_2d, columns.scores_3d), -1, 1)
        return log_of(combine(probabilities(columns.scores_2d), probabilities(columns.scores_3d)))


@dataclass(kw_only=True, eq=False, repr=False)
class _OnScores(_Fixed):
    """As :class:`_Fixed`; with ``on="logits"``, combines the scores without normalisation."""

    on: Literal["probabilities", "logits"] = "probabilities"

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        if self.task == "classes" and self.on == "logits":
            return log_softmax(type(self).combine(columns.scores_2d, columns.scores_3d))
        return super().apply(columns)


class Mean(_OnScores):
    """Mean of both predictions, element by element."""

    combine = staticmethod(lambda two, three: (two + three) / 2)


class Max(_OnScores):
    """Maximum of both predictions, element by element; probabilities are renormalised."""

    combine = staticmethod(np.maximum)


class Min(_Fixed):
    """Minimum of both predictions, element by element; probabilities are renormalised."""

    combine = staticmethod(np.minimum)


class Product(_Fixed):
    """Product of both probabilities, renormalised."""

    tasks = ("classes",)

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities."""
        return log_softmax(log_softmax(columns.scores_2d) + log_softmax(columns.scores_3d))
