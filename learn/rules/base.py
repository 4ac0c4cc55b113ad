"""Base class of the fusion rules."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator

from .columns import Columns


class Rule(BaseEstimator):
    """A fusion rule: ``fit`` sees only the fitting rows and chooses its hyper-parameters among them.

    As in scikit-learn: ``__init__`` stores, ``fit`` sets attributes that end in an underscore and returns the rule.
    Of the constructor's parameters the run sets ``task``, ``objective``, ``on``, ``random_state`` and ``num_threads``
    if the rule has them; all others are options of the rule.

    Attributes
    ----------
    tasks : tasks that the rule can fuse
    fits : whether anything is fitted to labels
    needs_codes : whether the rule reads the codes beside both predictions
    repeated : whether the rule is cross-fitted several times with other folds
    """

    tasks: ClassVar[tuple[str, ...]] = ("classes", "va")
    fits: ClassVar[bool] = True
    needs_codes: ClassVar[bool] = False
    repeated: ClassVar[bool] = False

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> Rule:
        """Fit to labels (n,) or targets (n, 2); ``groups`` (n,) stay whole in inner folds."""
        return self

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities, or values in [-1, 1]; row by row."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Fitted parameters, for the record; empty if nothing was fitted."""
        return {}

    def failures(self) -> list[str]:
        """Causes of optimisers that did not converge, in this rule and in the estimators that it holds."""
        held = [
            value for value in vars(self).values() if hasattr(value, "failures_") or isinstance(value, Rule)
        ]
        nested = (of.failures() if isinstance(of, Rule) else of.failures_ for of in held)
        return [*getattr(self, "failures_", []), *(cause for causes in nested for cause in causes)]

    def unusable(self, task: str, *, codes: bool) -> str:
        """The reason why the rule cannot fuse a table; empty if it can."""
        if task not in self.tasks:
            return (
                "it is defined for classes only"
                if task == "va"
                else "it is defined for valence and arousal only"
            )
        return "ready 3D predictions come without codes" if self.needs_codes and not codes else ""
