"""Rule that chooses another rule by cross-validation on the calibration rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from .base import Rule
from .columns import Columns
from .objective import cost_of, inner_folds

_INNER_FOLDS = 3


class Selected(Rule):
    """The rule with the best objective in inner folds of the calibration rows, refitted to all of them.

    The choice is part of the fit. Each cross-fitted model makes its own choice, so that results include the cost of
    choosing.

    Parameters
    ----------
    candidates : tuple of (name, rule)
        The first is chosen if several are equal, or if there are too few rows for inner folds.
    task, objective : as in the configuration
    random_state : int
        Seed of the inner folds.

    Attributes
    ----------
    chosen_ : str
    rule_ : the chosen rule, fitted
    costs_ : dict, candidate -> cost on held-out rows, lower is better; empty if there were too few rows
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

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> Selected:
        """Choose and fit to labels (n,) or targets (n, 2); inner folds do not divide ``groups`` (n,)."""
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
        """(n, k) out-of-fold predictions of a rule."""
        values = np.empty(columns.scores_2d.shape)
        for number in range(_INNER_FOLDS):
            training, held_out = fold != number, fold == number
            fitted = clone(rule).fit(
                columns.take(training), y[training], groups=None if groups is None else groups[training]
            )
            values[held_out] = fitted.apply(columns.take(held_out))
        return values

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        check_is_fitted(self)
        return self.rule_.apply(columns)

    def describe(self) -> dict[str, Any]:
        """Chosen rule, its fitted parameters, and the objective of all candidates in inner folds, for the record."""
        sign = 1 if self.objective in ("logloss", "rmse") else -1  # costs are negative where higher is better
        objectives = {name: sign * cost for name, cost in self.costs_.items()}
        return {
            "chosen": self.chosen_,
            f"inner_{self.objective}": objectives,
            "fitted": self.rule_.describe(),
        }
