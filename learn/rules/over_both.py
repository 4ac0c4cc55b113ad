"""Rule for two 2D networks: both are stacked, and the rule fuses the stack with the 3D predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from .base import Rule
from .columns import Columns
from .objective import inner_folds

_INNER_FOLDS = 3


class OverBoth(Rule):
    """A rule whose 2D predictions are those of a stack of two 2D networks.

    The rule is fitted to out-of-fold predictions of the stack in inner folds of the calibration rows. It is applied to
    predictions of the stack that is fitted on all calibration rows. Its results show whether the 3D codes add
    information to both networks together. The reference has the second network in place of the 3D predictions as well.

    Parameters
    ----------
    rule : the rule
    stack : the stack of both networks
    random_state : int
        Seed of the inner folds.

    Attributes
    ----------
    stack_, rule_ : fitted
    """

    def __init__(self, rule: Rule, stack: Any, *, random_state: int = 0) -> None:
        self.rule = rule
        self.stack = stack
        self.random_state = random_state

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> OverBoth:
        """Fit to labels (n,) or targets (n, 2); inner folds do not divide ``groups`` (n,)."""
        both = _with_second_network(columns)
        self.stack_ = clone(self.stack).fit(both, y, groups=groups)
        task = "va" if np.ndim(y) == 2 else "classes"
        fold = inner_folds(y, task, groups, _INNER_FOLDS, self.random_state)
        stacked = self.stack_.apply(both)
        if fold is not None:
            for number in range(_INNER_FOLDS):
                inside, outside = fold != number, fold == number
                part = clone(self.stack).fit(
                    both.take(inside), y[inside], groups=None if groups is None else groups[inside]
                )
                stacked[outside] = part.apply(both.take(outside))
        self.rule_ = clone(self.rule).fit(replace(columns, scores_2d=stacked), y, groups=groups)
        return self

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        check_is_fitted(self)
        return self.rule_.apply(replace(columns, scores_2d=self.stack_.apply(_with_second_network(columns))))

    def describe(self) -> dict[str, Any]:
        """Fitted parameters, for the record."""
        return {**self.rule_.describe(), "stack": self.stack_.describe()}


def _with_second_network(columns: Columns) -> Columns:
    """Columns with the second 2D network in place of the 3D predictions."""
    assert columns.second_2d is not None
    return replace(columns, scores_3d=columns.second_2d, codes=None)
