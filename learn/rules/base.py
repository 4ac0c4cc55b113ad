"""What every rule keeps to, and what it is asked for: :class:`Rule`, :class:`Choices`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from .columns import Columns


@dataclass(frozen=True, slots=True)
class Choices:
    """What a run asks of its rules; as in :class:`~ig3d.learn.config.FuseConfig`.

    Attributes
    ----------
    task : ``classes`` or ``va``
    objective : accuracy, balanced, logloss; rmse, ccc
    on, weights, stack_codes, calibrate : see the configuration
    seed : of inner folds and of trees
    threads : of LightGBM, 0 for all cores; changes no number
    candidates : rules that ``best`` chooses among
    """

    task: str
    objective: str
    on: str = "probabilities"
    weights: str = "one"
    stack_codes: bool = False
    calibrate: str = "none"
    seed: int = 0
    threads: int = 1
    candidates: tuple[str, ...] = ()


class Rule(BaseEstimator):
    """A fusion rule: ``fit`` sees only the rows it is given and chooses its hyper-parameters among them.

    As in scikit-learn: ``__init__`` stores, ``fit`` sets attributes that end in an underscore and returns the rule.
    """

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> Rule:
        """Fit to labels (n,) or targets (n, 2); ``groups`` (n,) stay whole in inner folds."""
        return self

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities, or values in [-1, 1]; row by row."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """What was fitted, for the record; empty where nothing was."""
        return {}


def quietly(fit: Any, *arguments: Any, **options: Any) -> Any:
    """Call a fit without scikit-learn's warnings of few rows or slow convergence: degenerate rows are marked by us."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(*arguments, **options)
