"""The rule that chooses a rule, by rows held out of the fitting rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from .base import Rule
from .columns import Columns
from .objective import cost_of, inner_folds

_INNER_FOLDS = 3


class Best(Rule):
    """The candidate of the best objective over inner folds of the fitting rows, refitted to all of them.

    The choice is part of the fit: where a rule is cross-fitted each copy chooses for itself, and the figures are
    charged for choosing.

    Parameters
    ----------
    candidates : tuple of (name, rule)
        Among equals the first wins; where rows are too few to choose by, the first is taken.
    task, objective : as in the configuration
    random_state : int
        Of the inner folds.

    Attributes
    ----------
    chosen_ : str
    rule_ : the chosen rule, fitted
    costs_ : candidate -> its objective over held-out rows, small is good; empty where there was no choice
    """

    def __init__(
        self,
        candidates: tuple[tuple[str, Rule], ...] = (),
        *,
        task: str = "classes",
        objective: str = "accuracy",
        random_state: int = 0,
    ) -> None:
        self.candidates = candidates
        self.task = task
        self.objective = objective
        self.random_state = random_state

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> Best:
        """Choose and fit to labels (n,) or targets (n, 2); groups (n,) stay whole in the inner folds."""
        fold = inner_folds(y, self.task, groups, _INNER_FOLDS, self.random_state)
        costs = {}
        if fold is not None:
            costs = {
                name: cost_of(self._held_out(rule, columns, y, groups, fold), y, self.task, self.objective)
                for name, rule in self.candidates
            }
        self.costs_ = {name: cost[0] for name, cost in costs.items()}
        self.chosen_ = min(costs, key=costs.__getitem__) if costs else self.candidates[0][0]
        self.rule_ = clone(dict(self.candidates)[self.chosen_]).fit(columns, y, groups=groups)
        return self

    def _held_out(
        self, rule: Rule, columns: Columns, y: np.ndarray, groups: np.ndarray | None, fold: np.ndarray
    ) -> np.ndarray:
        """(n, k) predictions of each row by a copy that did not see it."""
        values = np.empty(columns.two.shape)
        for held in range(_INNER_FOLDS):
            inside, outside = fold != held, fold == held
            copy = clone(rule).fit(
                columns.take(inside), y[inside], groups=None if groups is None else groups[inside]
            )
            values[outside] = copy.apply(columns.take(outside))
        return values

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        check_is_fitted(self)
        return self.rule_.apply(columns)

    def describe(self) -> dict[str, Any]:
        """What was chosen and fitted, for the record."""
        return {"chosen": self.chosen_, "held_out": dict(self.costs_), "fitted": self.rule_.describe()}
