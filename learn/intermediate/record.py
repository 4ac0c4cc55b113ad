"""An intermediate fusion as results that :mod:`ig3d.learn.report` takes: the arms are its rules.

``masked`` is what ``codes`` is measured against, ``2d`` stands beside it, ``permuted`` is the control.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ...features.fusion_table import FusionTable
from ...features.predictions import log_probabilities
from ..evaluate.figures import figures_of
from ..evaluate.predictors import PERMUTED, REAL, Predictor
from ..result import Result
from .config import IntermediateConfig
from .rows import RowPlan

if TYPE_CHECKING:
    from .run import IntermediateResult, Trained

REFERENCES = ("masked", "2d")
# the first reference leads: what the stars of a table are about
# arm -> name, role and condition
_PREDICTORS = {
    "masked": ("masked", "reference", REAL),
    "2d": ("2d", "reference", REAL),
    "codes": ("codes", "rule", REAL),
    "permuted": ("codes", "control", PERMUTED),
}


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
) -> pd.DataFrame:
    """Figures of the reported rows, averaged over trainings."""
    rows = plan.reported
    return figures_of(
        predictors_of(table, plan, trained, task),
        _truth(table, rows, task),
        table.covered[rows],
        table.group_codes[rows] if table.grouped else None,
        task=task,
        classes=table.classes if task == "classes" else (),
        draws=config.draws,
        seed=config.seeds[0],
        references=REFERENCES,
        family=None,  # one rule and so one test for each question
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
            group_names=table.group[rows] if table.grouped else None,
            predictors=predictors_of(table, plan, result.trained, task),
            figures=result.figures[task],
            protocol=seen,
            config=result.config,
            notes=table.notes,
            sources=dict(table.sources),
        )
        for task in tasks_of(plan)
    )


def _truth(table: FusionTable, rows: np.ndarray, task: str) -> np.ndarray:
    return table.labels[rows].astype(np.int64) if task == "classes" else table.targets[rows]


def predictors_of(
    table: FusionTable, plan: RowPlan, trained: tuple[Trained, ...], task: str
) -> tuple[Predictor, ...]:
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
    return tuple(
        Predictor(
            name, role, arm != "2d", first, repeats=tuple(others), condition=condition, trained=bool(others)
        )
        for arm, (name, role, condition) in _PREDICTORS.items()
        if arm in values
        for first, *others in [values[arm]]
    )
