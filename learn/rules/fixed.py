"""Mean, maximum, minimum and product: the rules that fit nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...features.predictions import log_softmax
from .base import Rule
from .columns import Columns, log_of, probabilities

FIXED = ("mean", "max", "min", "product")
_COMBINE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": lambda a, b: (a + b) / 2,
    "max": np.maximum,
    "min": np.minimum,
}


class Fixed(Rule):
    """Element by element, one of ``FIXED``.

    Classes: on probabilities, renormalised; ``on="logits"`` takes mean and maximum of the scores as they are. Valence
    and arousal: mean, maximum and minimum of the values.
    """

    def __init__(self, name: str = "mean", *, task: str = "classes", on: str = "probabilities") -> None:
        self.name = name
        self.task = task
        self.on = on

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        two, three = columns.two, columns.three
        if self.task == "va":
            return np.clip(_COMBINE[self.name](two, three), -1, 1)
        if self.name == "product":
            return log_softmax(log_softmax(two) + log_softmax(three))
        if self.on == "logits" and self.name in ("mean", "max"):
            return log_softmax(_COMBINE[self.name](two, three))
        return log_of(_COMBINE[self.name](probabilities(two), probabilities(three)))
