"""Diagnostics: conditions that weaken a run's results.

A diagnostic is data: a ``code``, whether it is a ``warning``, and its values. ``report/diagnostics.j2`` turns it into a
sentence.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from ..features.fusion_table import FusionTable
from .evaluate.figures import figure
from .evaluate.intervals import FEW_UNITS
from .evaluate.metrics import LOWER_IS_BETTER
from .evaluate.predictors import Predictor
from .plan import EvaluationPlan
from .rules import RECALIBRATED

_LEVEL = 0.05  # of a test
ENOUGH_GROUPS = 20
_FEW_ROWS = 100  # reported rows below which percentiles of the bootstrap are approximate
_FEW_FITTED = 10  # rows for each prediction column below which fitted parameters are inaccurate
# task -> metric -> objectives for which recalibration should improve it, and the loss from which a warning appears
_LOSSES: dict[str, dict[str, tuple[tuple[str, ...], float]]] = {
    # accuracy has no gradient: rules are fitted for it by the log loss
    "classes": {"accuracy": (("accuracy",), 0.02), "log_loss": (("accuracy", "logloss"), 0.02)},
    "va": {"ccc_joint": (("ccc",), 0.02), "rmse_joint": (("rmse",), 0.01)},
}


def diagnostic(code: str, *, warning: bool = True, **values: Any) -> dict[str, Any]:
    """A condition with its values."""
    return {"code": code, "warning": warning, **values}


def check_rows(
    table: FusionTable, plan: EvaluationPlan, rules: tuple[Predictor, ...]
) -> list[dict[str, Any]]:
    """Diagnostics of the rows: no 3D, a single class, constant predictions, few fitting rows, few groups."""
    diagnostics = []
    reported = plan.reported
    uncovered = int((~table.covered[reported]).sum())
    if uncovered == len(reported):
        diagnostics.append(diagnostic("no_3d"))
    elif uncovered:
        diagnostics.append(
            diagnostic("rows_without_3d", warning=False, rows=uncovered, reported=len(reported))
        )
    if table.task == "classes":
        missing = np.setdiff1d(np.arange(len(table.classes)), table.labels[plan.calibration])
        if len(missing):
            names = [table.classes[index] for index in missing]
            diagnostics.append(diagnostic("classes_without_calibration_rows", warning=False, classes=names))
        diagnostics += check_training_classes(table, plan)
        present = np.unique(table.labels[reported])
        if len(present) == 1:
            diagnostics.append(diagnostic("single_class", label=table.classes[present[0]]))
    for name in ("2d", "3d"):
        rule = next(rule for rule in rules if rule.name == name)
        values = rule.values[rule.present]
        if len(values) > 1 and (np.ptp(values, axis=0) < 1e-9).all():
            diagnostics.append(diagnostic("constant_predictions", predictor=name))
    codes = None if table.codes is None else table.codes[table.covered]
    if codes is not None and len(codes) > 1 and (np.ptp(codes, axis=0) == 0).all():
        diagnostics.append(diagnostic("constant_codes"))
    diagnostics += check_fitting_rows(table, plan, rules)
    groups = table.group_codes[reported] if table.grouped else None
    return diagnostics + check_groups(groups)


def check_fitting_rows(
    table: FusionTable, plan: EvaluationPlan, rules: tuple[Predictor, ...]
) -> list[dict[str, Any]]:
    """Warn of few fitting rows."""
    rows, k = min(len(model.fit) for model in plan.fold_models), len(table.columns)
    if rows >= _FEW_FITTED * k:
        return []
    fitted = any(rule.fits for rule in rules if rule.role == "rule")
    return [
        diagnostic(
            "few_fitting_rows",
            rows=rows,
            least=_FEW_FITTED,
            columns=k,
            task=table.task,
            fitted="rules" if fitted else RECALIBRATED,
        )
    ]


def check_training_classes(table: FusionTable, plan: EvaluationPlan) -> list[dict[str, Any]]:
    """Classes that no training row of the heads has: heads give them a probability near 0."""
    rows = [head.train for head in plan.heads if len(head.predict)]
    if table.task != "classes" or not rows:
        return []
    k = len(table.classes)
    absent = np.array([np.bincount(table.labels[train], minlength=k) == 0 for train in rows])
    every = absent.all(axis=0)
    diagnostics = []
    for missing, folds in ((every, "all"), (absent.any(axis=0) & ~every, "some")):
        if missing.any():
            names = [table.classes[index] for index in np.flatnonzero(missing)]
            diagnostics.append(
                diagnostic("classes_without_training_rows", warning=False, classes=names, folds=folds)
            )
    return diagnostics


def check_figures(figures: pd.DataFrame, n: int, task: str, objective: str) -> list[dict[str, Any]]:
    """Warn of a recalibrated network that is worse than the network as it is, and of few reported rows."""
    diagnostics = []
    for metric, (served_by, least) in _LOSSES[task].items():
        network, recalibrated = (figure(figures, name, metric) for name in ("2d", RECALIBRATED))
        if network is None or recalibrated is None:
            continue
        before, after = network.value, recalibrated.value
        if not math.isfinite(before + after):
            continue
        loss = after - before if metric in LOWER_IS_BETTER else before - after
        if loss <= least:
            continue
        diagnostics.append(
            diagnostic(
                "recalibrated_is_worse",
                metric=metric,
                better="lower" if metric in LOWER_IS_BETTER else "higher",
                value=after,
                network=before,
                objective=objective,
                fitted_for=objective in served_by,
                task=task,
            )
        )
    if n < _FEW_ROWS:
        diagnostics.append(diagnostic("few_rows", rows=n, reliable=n > FEW_UNITS))
    return diagnostics


def check_groups(groups: np.ndarray | None) -> list[dict[str, Any]]:
    """Warn of too few groups for tests and intervals.

    Parameters
    ----------
    groups : (n,) int, of the reported rows; None if the data have no groups

    Notes
    -----
    Of the 2^g exchanges of g groups, two give the greatest absolute difference, so that no p is below 2 / 2^g.
    """
    count = ENOUGH_GROUPS if groups is None else len(np.unique(groups))
    least = 2.0 ** (1 - count)
    if count >= ENOUGH_GROUPS:
        return []
    return [
        diagnostic(
            "few_groups",
            groups=count,
            enough=ENOUGH_GROUPS,
            least_p=least,
            claim_possible=least < _LEVEL,
            reliable=count > FEW_UNITS,
        )
    ]
