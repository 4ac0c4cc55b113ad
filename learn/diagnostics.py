"""Diagnostics: conditions that weaken a run's results."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ..errors import number
from ..features.fusion_table import FusionTable
from .evaluate.figures import figure
from .evaluate.intervals import FEW_UNITS
from .evaluate.metrics import LOWER_IS_BETTER
from .evaluate.predictors import Predictor
from .plan import EvaluationPlan
from .rules import RECALIBRATED

_LEVEL = 0.05  # of a star
_LITTLE = "intervals are not reliable"
ENOUGH_GROUPS = 20
_FEW_ROWS = 100  # reported rows below which percentiles of the bootstrap are rough
_FEW_FITTED = 10  # rows for each prediction column below which fitted parameters are inaccurate
# task -> metric -> objectives that recalibration serves it with, and the loss from which it is clearly worse
_LOSSES: dict[str, dict[str, tuple[tuple[str, ...], float]]] = {
    # accuracy has no gradient: rules are fitted for it by the log loss
    "classes": {"accuracy": (("accuracy",), 0.02), "log_loss": (("accuracy", "logloss"), 0.02)},
    "va": {"ccc_joint": (("ccc",), 0.02), "rmse_joint": (("rmse",), 0.01)},
}


def check_rows(table: FusionTable, protocol: EvaluationPlan, rules: tuple[Predictor, ...]) -> list[str]:
    """Diagnostics of the rows: without 3D, of a single class, constant predictions, few to fit on, few groups."""
    notes = []
    reported = protocol.reported
    uncovered = int((~table.covered[reported]).sum())
    if uncovered == len(reported):
        notes.append("WARNING no reported row has 3D: the 3D cannot be evaluated.")
    elif uncovered:
        notes.append(
            f"{uncovered} of {len(reported)} reported rows have no 3D: there, fitted rules keep {RECALIBRATED} and "
            "rules without parameters keep 2d; 3d is measured on rows with 3D only."
        )
    if table.task == "classes":
        missing = np.setdiff1d(np.arange(len(table.classes)), table.labels[protocol.calibration])
        if len(missing):
            names = ", ".join(table.classes[index] for index in missing)
            notes.append(
                f"No calibration row has class {names}: fitted rules keep the 2D probability of these classes."
            )
        notes += check_training_classes(table, protocol)
        present = np.unique(table.labels[reported])
        if len(present) == 1:
            notes.append(
                f'WARNING every reported row has class "{table.classes[present[0]]}"; accuracy is uninformative.'
            )
    for name in ("2d", "3d"):
        rule = next(rule for rule in rules if rule.name == name)
        values = rule.values[rule.present]
        if len(values) > 1 and (np.ptp(values, axis=0) < 1e-9).all():
            notes.append(f"WARNING the {name} predictions are the same for every row.")
    codes = None if table.codes is None else table.codes[table.covered]
    if codes is not None and len(codes) > 1 and (np.ptp(codes, axis=0) == 0).all():
        notes.append("WARNING the 3D codes are the same for every row; check them with ig3d inspect.")
    notes += check_fitting_rows(table, protocol, rules)
    groups = table.group_codes[reported] if table.grouped else None
    return notes + check_groups(groups)


def check_fitting_rows(
    table: FusionTable, protocol: EvaluationPlan, rules: tuple[Predictor, ...]
) -> list[str]:
    """Warn of few rows to fit on."""
    rows, k = min(len(model.fit) for model in protocol.fold_models), len(table.columns)
    if rows >= _FEW_FITTED * k:
        return []
    who = "rules are" if any(rule.fits for rule in rules if rule.role == "rule") else f"{RECALIBRATED} is"
    per = f"each of {k} classes" if table.classes else "valence and arousal each"
    return [
        f"WARNING {who} fitted on {number(rows, 'row')} only, fewer than {_FEW_FITTED} for {per}: "
        f"fitted parameters, and differences to {RECALIBRATED}, are inaccurate."
    ]


def check_training_classes(table: FusionTable, protocol: EvaluationPlan) -> list[str]:
    """Classes that no training row of the heads has: heads give them a probability near 0."""
    rows = [head.train for head in protocol.heads if len(head.predict)]
    if table.task != "classes" or not rows:
        return []
    k = len(table.classes)
    absent = np.array([np.bincount(table.labels[train], minlength=k) == 0 for train in rows])
    every = absent.all(axis=0)
    notes = []
    for missing, whose in (
        (every, "the head"),
        (absent.any(axis=0) & ~every, "the head in some folds"),
    ):
        if missing.any():
            names = ", ".join(table.classes[index] for index in np.flatnonzero(missing))
            notes.append(
                f"No training row of {whose} has class {names}: these classes get a probability near 0, which is a "
                "veto for the rules min and product."
            )
    return notes


def check_figures(figures: pd.DataFrame, n: int, task: str, objective: str) -> list[str]:
    """Warn of a recalibrated network that is worse than the network as it is, and of few reported rows."""
    notes = []
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
        below = "worse than" if metric in LOWER_IS_BETTER else "below"
        cause = f"it is fitted for {objective}"
        if objective in served_by:
            others = ", or rows of other class shares" if task == "classes" else ""
            cause = f"maybe too few rows to recalibrate on{others}"
        words = f"{metric.replace('_', ' ')} {_shown(after, metric)} against {_shown(before, metric)}"
        notes.append(
            f"WARNING {RECALIBRATED} is {below} 2d ({words}): {cause}; take the smaller of both differences."
        )
    if n == 1:
        notes.append("WARNING only 1 row is reported: there is no interval and no test.")
    elif n <= FEW_UNITS:
        notes.append(f"WARNING only {n} rows are reported: {_LITTLE}.")
    elif n < _FEW_ROWS:
        notes.append(f"WARNING only {n} rows are reported: intervals are rough.")
    return notes


def check_groups(groups: np.ndarray | None) -> list[str]:
    """Warn of too few groups for tests and intervals.

    Parameters
    ----------
    groups : (n,) int, of the reported rows; None where rows stand for themselves

    Notes
    -----
    Of the 2^g ways to swap g groups two make a difference as great as the greatest: no p is below 2 / 2^g.
    """
    count = ENOUGH_GROUPS if groups is None else len(np.unique(groups))
    least = 2.0 ** (1 - count)
    if count >= ENOUGH_GROUPS:
        return []
    if count == 1:
        return [
            "WARNING all reported rows are of 1 group: there is no interval and no test; report more groups."
        ]
    start = f"WARNING the reported rows are of {number(count, 'group')}, fewer than {ENOUGH_GROUPS}: "
    if least < _LEVEL:
        return [f"{start}intervals and tests are rough (docs/statistics.md); report more groups."]
    advice = f"; {_LITTLE}" if count <= FEW_UNITS else ""
    return [f"{start}tests cannot give a p below {least:.2g}, so that no claim is possible{advice}."]


def _shown(value: float, metric: str) -> str:
    return f"{100 * value:.1f} %" if metric == "accuracy" else f"{value:.3f}"
