"""An intermediate fusion as results that :mod:`ig3d.learn.report` takes: the arms are its rules.

``masked`` is what ``codes`` is measured against, ``2d`` stands beside it, ``permuted`` is the control.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...features.fusion_table import FusionTable
from ...features.predictions import log_probabilities
from ..measures.results import RuleResult
from ..result import Result
from .config import IntermediateConfig
from .figures import Arm, figures_over_seeds
from .rows import RowPlan

if TYPE_CHECKING:
    from .run import IntermediateResult, Trained

REFERENCES = ("masked", "2d")
# the first reference leads: what the stars of a table are about
_KINDS = {"masked": "reference", "2d": "reference", "codes": "rule", "permuted": "control"}


@dataclass(frozen=True, slots=True)
class RowsSeen:
    """What the record tells of who saw which rows."""

    reported: np.ndarray
    calibration: np.ndarray
    report_name: str
    train: int
    sentences: tuple[str, ...]
    case: str = "intermediate"
    fit_name: str = "train"
    marked: bool = False
    left_out: int = 0

    def record(self) -> dict[str, Any]:
        """How many rows were fitted on, and how many chose the epoch."""
        return {"train": self.train, "validation": len(self.calibration)}


def tasks_of(plan: RowPlan) -> tuple[str, ...]:
    """What is measured: both where both were trained for."""
    return ("classes", "va") if plan.task == "both" else (plan.task,)


def figures_of_arms(
    table: FusionTable, plan: RowPlan, config: IntermediateConfig, trained: tuple[Trained, ...], task: str
) -> dict[str, dict[str, Any]]:
    """arm -> ``all`` or ``covered`` -> figures of the reported rows (:func:`~.figures.figures_over_seeds`)."""
    rows = plan.reported
    return figures_over_seeds(
        _arms(table, plan, trained, task),
        _truth(table, rows, task),
        table.covered[rows],
        table.group_codes[rows] if table.grouped else None,
        task=task,
        draws=config.draws,
        seed=config.seeds[0],
        references=REFERENCES,
    )


def results_of(result: IntermediateResult) -> tuple[Result, ...]:
    """The arms on the reported rows, for each task that was trained for."""
    table, plan = result.table, result.plan
    rows = plan.reported
    split = table.split[rows]
    name = (
        "the test split" if (split == 2).all() else "the val split" if (split == 1).all() else "reported rows"
    )
    seen = RowsSeen(rows, plan.validation, name, len(plan.train), plan.notes)
    return tuple(
        Result(
            task=task,
            classes=table.classes if task == "classes" else (),
            ids=table.id[rows],
            truth=_truth(table, rows, task),
            covered=table.covered[rows],
            groups=table.group_codes[rows] if table.grouped else None,
            group_names=table.group[rows] if table.grouped else None,
            # of an arm the first training: what is read of them is their kind
            rules=tuple(_rule(arm, arm.name, 0) for arm in _arms(table, plan, result.trained, task)),
            figures=result.figures[task],
            protocol=seen,
            config=result.config,
            notes=table.notes,
            sources=dict(table.sources),
        )
        for task in tasks_of(plan)
    )


def of_each_training(result: IntermediateResult, of: Result) -> Result:
    """One of :func:`results_of` with each training as a rule of its own, named as its file: ``codes-0``."""
    arms = _arms(result.table, result.plan, result.trained, of.task)
    seeds = result.config.seeds
    rules = [
        _rule(arm, f"{arm.name}-{seeds[place]}" if arm.name != "2d" else arm.name, place)
        for arm in arms
        for place in range(len(arm.values))
    ]
    return replace(of, rules=tuple(rules))


def _rule(arm: Arm, name: str, training: int) -> RuleResult:
    return RuleResult(name, arm.kind, arm.name != "2d", arm.values[training])


def _truth(table: FusionTable, rows: np.ndarray, task: str) -> np.ndarray:
    return table.labels[rows].astype(np.int64) if task == "classes" else table.targets[rows]


def _arms(table: FusionTable, plan: RowPlan, trained: tuple[Trained, ...], task: str) -> list[Arm]:
    """Every arm on the reported rows; the 2D network where it has all of them and predicts the task."""
    where = np.searchsorted(plan.predicted, plan.reported)
    k = len(table.classes)
    values: dict[str, list[np.ndarray]] = {}
    for one in trained:
        own = one.values[where]
        own = log_probabilities(own[:, :k]) if task == "classes" else own[:, -2:]
        values.setdefault(one.arm, []).append(own)
    two_d = table.two_d[plan.reported]
    if table.task == task and np.isfinite(two_d).all():
        values["2d"] = [two_d if task == "va" else log_probabilities(two_d)]
    return [Arm(name, kind, tuple(values[name])) for name, kind in _KINDS.items() if name in values]
