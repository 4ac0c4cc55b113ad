"""Base class of the fusion rules."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator

from .columns import Columns


class Rule(BaseEstimator):
    """A fusion rule; ``fit`` gets the calibration rows and chooses its hyper-parameters on them.

    As in scikit-learn, the constructor only stores its parameters. ``fit`` sets attributes that end in an underscore,
    and returns the rule. The run sets the parameters ``task``, ``objective``, ``on``, ``random_state``,
    ``num_threads``, ``use_3d`` and ``candidates``, if the rule has them. All others are options of the rule.

    Attributes
    ----------
    tasks : supported tasks
    fits : whether the rule has parameters that are fitted to labels
    needs_codes : whether the rule reads the codes in addition to both predictions
    repeated : whether the rule is cross-fitted several times, with new folds each time
    """

    tasks: ClassVar[tuple[str, ...]] = ("classes", "va")
    fits: ClassVar[bool] = True
    needs_codes: ClassVar[bool] = False
    repeated: ClassVar[bool] = False

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> Rule:
        """Fit to labels (n,) or targets (n, 2); inner folds do not divide ``groups`` (n,)."""
        return self

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities, or values in [-1, 1]; row by row."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Fitted parameters, for the record; empty if nothing was fitted."""
        return {}

    def failures(self) -> list[str]:
        """Causes of optimisers that did not converge, in this rule and in its nested estimators."""
        nested = [
            value for value in vars(self).values() if hasattr(value, "failures_") or isinstance(value, Rule)
        ]
        causes = [part.failures() if isinstance(part, Rule) else part.failures_ for part in nested]
        return sum(causes, list(getattr(self, "failures_", [])))

    def unusable(self, task: str, *, codes: bool) -> str:
        """Reason why the rule cannot fuse a table; empty if it can."""
        if task not in self.tasks:
            return (
                "it is defined for classes only"
                if task == "va"
                else "it is defined for valence and arousal only"
            )
        return (
            "it needs codes, but the 3D predictions are ready-made" if self.needs_codes and not codes else ""
        )
