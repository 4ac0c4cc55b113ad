"""Result of a fusion, training or intermediate run: predictions and figures of the reported rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..features.fusion_table import FusionTable
from .evaluate.figures import figures_of
from .evaluate.predictions import ReportedPredictions
from .evaluate.predictors import Predictor
from .plan import EvaluationPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(ReportedPredictions):
    """Result of a run; :mod:`.report` shows it.

    Attributes
    ----------
    figures : DataFrame of metrics and differences (:func:`~.evaluate.figures.figures_of`)
    plan : EvaluationPlan, or that of the intermediate fusion
    config : configuration of the run
    notes : tuple of str
        Assumptions and warnings about the inputs and choices, for the user.
    diagnostics : tuple of dict
        Conditions that weaken the results (:mod:`.diagnostics`).
    sources : name of an input -> its file or store
    model : FusionModel to save, or None
    seconds : step -> duration in seconds; not part of any file
    """

    figures: pd.DataFrame
    plan: Any
    config: Any
    notes: tuple[str, ...]
    diagnostics: tuple[dict[str, Any], ...] = ()
    sources: dict[str, str]
    model: Any = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        """Notes, and diagnostics as sentences; warnings first."""
        from .report.render import lines_of

        return lines_of(self.notes, self.diagnostics)


def fields_of_plan(table: FusionTable, plan: EvaluationPlan) -> dict[str, Any]:
    """Fields of a result that follow from the table and the plan."""
    rows = plan.reported
    return {
        "task": table.task,
        "classes": table.classes,
        "ids": table.id[rows],
        "truth": table.truth[rows],
        "covered": table.covered[rows],
        "group_names": table.group[rows] if table.grouped else None,
        "plan": plan,
        "sources": dict(table.sources),
    }


def figures_of_plan(
    table: FusionTable, plan: EvaluationPlan, predictors: tuple[Predictor, ...], **options: Any
) -> pd.DataFrame:
    """Figures of the reported rows (:func:`~.evaluate.figures.figures_of`, which has the options)."""
    rows = plan.reported
    return figures_of(
        predictors,
        table.truth[rows].astype(np.int64) if table.task == "classes" else table.truth[rows],
        table.covered[rows],
        table.group_codes[rows] if table.grouped else None,
        task=table.task,
        classes=table.classes,
        **options,
    )
