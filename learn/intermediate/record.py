"""An intermediate fusion of one seed as a result that :mod:`ig3d.learn.report` takes: the arms are its rules.

``masked`` is what ``codes`` is measured against, ``2d`` stands beside it, ``permuted`` is the control.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...features.predictions import log_softmax
from ..measures.figures import figures_of
from ..measures.results import RuleResult
from ..result import Result
from .run import IntermediateResult

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


def record_result(result: IntermediateResult) -> Result:
    """The arms of the first seed, on the reported rows, with the figures of a late fusion.

    Parameters
    ----------
    result : IntermediateResult
        For classes, or for valence and arousal.
    """
    table, plan, config = result.table, result.plan, result.config
    rows, task = plan.reported, plan.task
    where = np.searchsorted(plan.predicted, rows)
    seed = config.seeds[0]
    predictors = {one.arm: one.values[where] for one in result.trained if one.seed == seed}
    if np.isfinite(table.two_d[rows]).all():
        predictors["2d"] = table.two_d[rows]
    rules = [
        RuleResult(
            name,
            kind,
            name != "2d",
            log_softmax(predictors[name]) if task == "classes" else predictors[name],
        )
        for name, kind in _KINDS.items()
        if name in predictors
    ]
    truth = table.labels[rows].astype(np.int64) if task == "classes" else table.targets[rows]
    groups = table.group_codes[rows] if table.grouped else None
    figures = figures_of(
        tuple(rules),
        truth,
        table.covered[rows],
        groups,
        task=task,
        draws=config.draws,
        seed=seed,
        references=REFERENCES,
    )
    split = table.split[rows]
    name = (
        "the test split" if (split == 2).all() else "the val split" if (split == 1).all() else "reported rows"
    )
    seen = RowsSeen(rows, plan.validation, name, len(plan.train), plan.notes)
    return Result(
        task=task,
        classes=table.classes if task == "classes" else (),
        ids=table.id[rows],
        truth=truth,
        covered=table.covered[rows],
        groups=groups,
        rules=tuple(rules),
        figures=figures,
        protocol=seen,
        config=config,
        notes=table.notes,
        sources=dict(table.sources),
    )
