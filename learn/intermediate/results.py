"""Convert the result of an intermediate fusion to predictors, figures and results of the form of every run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ...features.fusion_table import FusionTable
from ...features.predictions import log_probabilities
from ..diagnostics import check_groups
from ..evaluate.figures import figures_of
from ..evaluate.predictors import INTERMEDIATE, NULL_INPUT, PERMUTED, REAL, Predictor
from ..result import Result
from .config import IntermediateConfig
from .plan import ModulePlan

if TYPE_CHECKING:
    from .run import IntermediateResult, Trained

# condition of a training (or 2d) -> name, role and condition of its predictor; the first is the main reference
_PREDICTORS = {
    "null-input": (NULL_INPUT, "reference", REAL),
    "2d": ("2d", "reference", REAL),
    "codes": (INTERMEDIATE, "rule", REAL),
    "permuted": (INTERMEDIATE, "control", PERMUTED),
}


def figures_of_task(
    table: FusionTable, plan: ModulePlan, config: IntermediateConfig, trained: tuple[Trained, ...], task: str
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
        references=(NULL_INPUT, "2d"),
        family=None,  # there is one rule, so that each question has one test
    )


def results_of(result: IntermediateResult) -> tuple[Result, ...]:
    """Results on the reported rows, one for each task."""
    table, plan = result.table, result.plan
    rows = plan.reported
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
            plan=plan,
            config=result.config,
            notes=table.notes,
            diagnostics=tuple(check_groups(table.group_codes[rows] if table.grouped else None)),
            sources=dict(table.sources),
        )
        for task in plan.tasks
    )


def predictors_of(
    table: FusionTable, plan: ModulePlan, trained: tuple[Trained, ...], task: str
) -> tuple[Predictor, ...]:
    """Predictors on the reported rows; the 2D network if it predicts the task on all of them."""
    positions = np.searchsorted(plan.predicted, plan.reported)
    k = len(table.classes)
    values: dict[str, list[np.ndarray]] = {}
    for training in trained:
        outputs = training.values[positions]
        outputs = log_probabilities(outputs[:, :k]) if task == "classes" else outputs[:, -2:]
        values.setdefault(training.condition, []).append(outputs)
    two_d = table.two_d[plan.reported]
    if table.task == task and np.isfinite(two_d).all():
        values["2d"] = [two_d if task == "va" else log_probabilities(two_d)]
    return tuple(
        Predictor(
            name,
            role,
            name != "2d",
            first,
            repeats=tuple(others),
            condition=condition,
            trained=bool(others),
        )
        for training, (name, role, condition) in _PREDICTORS.items()
        if training in values
        for first, *others in [values[training]]
    )


def _truth(table: FusionTable, rows: np.ndarray, task: str) -> np.ndarray:
    return table.labels[rows].astype(np.int64) if task == "classes" else table.targets[rows]
