"""What every run finds, whatever was fused or trained: predictions and figures of its rules on the reported rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..features.predictions import VA
from .measures.results import RuleResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run found; :mod:`.report` takes it.

    Attributes
    ----------
    task, classes : of the table
    ids : (n,) str, sorted: the reported rows
    truth : (n,) labels or (n, 2) targets
    covered : (n,) bool
        Rows with 3D codes or a ready 3D prediction.
    groups : (n,) int, which rows belong together; None where rows stand for themselves
    group_names : (n,) str, empty for a row without a group; None where there are no groups
    rules : references, then rules, each fitted one followed by its control
    figures : rule -> ``all`` or ``covered`` -> metric -> value, low, high, differences
        See :func:`~.measures.figures.figures_of`; None where a rule does not predict all rows.
    protocol : which rows were fitted and reported
    config : the choices
    notes : tuple of str
        What was assumed or is odd, for the user.
    sources : input -> what it was
    model : what was fitted on all calibration rows; None where nothing was
    seconds : step -> time it took; not part of any file
    """

    task: str
    classes: tuple[str, ...]
    ids: np.ndarray
    truth: np.ndarray
    covered: np.ndarray
    groups: np.ndarray | None = None
    group_names: np.ndarray | None = None
    rules: tuple[RuleResult, ...]
    figures: dict[str, dict[str, Any]]
    protocol: Any
    config: Any
    notes: tuple[str, ...]
    sources: dict[str, str]
    model: Any = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the prediction columns."""
        return self.classes or VA
