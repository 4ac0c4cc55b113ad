"""What a run says beside its figures: what makes them mean less than they seem to."""

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
from .protocol import Protocol
from .rules import RECALIBRATED

_LEVEL = 0.05  # of a star
_LITTLE = "an interval over so few says little of others"
ENOUGH_GROUPS = 20
_FEW_ROWS = 100  # reported rows below which percentiles of the bootstrap are rough
_FEW_FITTED = 10  # rows for each prediction column below which what is fitted is rough
# task -> metric -> objectives that recalibration serves it with, and the loss from which it is clearly worse
_LOSSES: dict[str, dict[str, tuple[tuple[str, ...], float]]] = {
    # What has no slope is fitted by the log loss.
    "classes": {"accuracy": (("accuracy",), 0.02), "log_loss": (("accuracy", "logloss"), 0.02)},
    "va": {"ccc_joint": (("ccc",), 0.02), "rmse_joint": (("rmse",), 0.01)},
}


def oddities(table: FusionTable, protocol: Protocol, rules: tuple[Predictor, ...]) -> list[str]:
    """What makes figures of these rows mean less than they seem to."""
    notes = []
    reported = protocol.reported
    uncovered = int((~table.covered[reported]).sum())
    if uncovered == len(reported):
        notes.append("WARNING no reported row has 3D: nothing is measured about it.")
    elif uncovered:
        notes.append(
            f"{uncovered} of {len(reported)} reported rows have no 3D: fitted rules take {RECALIBRATED} there, rules "
            "that fit nothing take 2d; 3d is measured on covered rows only."
        )
    if table.task == "classes":
        missing = np.setdiff1d(np.arange(len(table.classes)), table.labels[protocol.calibration])
        if len(missing):
            names = ", ".join(table.classes[index] for index in missing)
            notes.append(
                f"No calibration row is {names}: fitted rules keep the 2D probability of such classes."
            )
        notes += unlearnt(table, protocol)
        present = np.unique(table.labels[reported])
        if len(present) == 1:
            notes.append(f"WARNING all reported rows are {table.classes[present[0]]}: accuracy says little.")
    for name in ("2d", "3d"):
        rule = next(rule for rule in rules if rule.name == name)
        values = rule.values[rule.present]
        if len(values) > 1 and (np.ptp(values, axis=0) < 1e-9).all():
            notes.append(f"WARNING the {name} predictions are the same for every row.")
    codes = None if table.codes is None else table.codes[table.covered]
    if codes is not None and len(codes) > 1 and (np.ptp(codes, axis=0) == 0).all():
        notes.append("WARNING the 3D codes are the same for every row: look at them with ig3d inspect.")
    notes += few_fitted(table, protocol, rules)
    groups = table.group_codes[reported] if table.grouped else None
    return notes + few_groups(groups)


def few_fitted(table: FusionTable, protocol: Protocol, rules: tuple[Predictor, ...]) -> list[str]:
    """That what is fitted rests on few rows."""
    rows, k = min(len(fuser.fit) for fuser in protocol.fusers), len(table.columns)
    if rows >= _FEW_FITTED * k:
        return []
    who = "rules are" if any(rule.fits for rule in rules if rule.role == "rule") else f"{RECALIBRATED} is"
    per = f"each of {k} classes" if table.classes else "valence and arousal each"
    return [
        f"WARNING {who} fitted on {number(rows, 'row')} only, fewer than {_FEW_FITTED} for {per}: "
        f"what so few say is rough, and so are differences to {RECALIBRATED}."
    ]


def unlearnt(table: FusionTable, protocol: Protocol) -> list[str]:
    """Which classes no training row of the heads has: of them a head says that they are next to impossible."""
    rows = [head.train for head in protocol.heads if len(head.predict)]
    if table.task != "classes" or not rows:
        return []
    k = len(table.classes)
    lacking = np.array([np.bincount(table.labels[train], minlength=k) == 0 for train in rows])
    every = lacking.all(axis=0)
    notes = []
    for missing, who in (
        (every, "the head learns"),
        (lacking.any(axis=0) & ~every, "some copies of the head learn"),
    ):
        if missing.any():
            names = ", ".join(table.classes[index] for index in np.flatnonzero(missing))
            notes.append(
                f"No row that {who} from is {names}: such classes get next to no probability, which the rules min and "
                "product take for a veto."
            )
    return notes


def weaknesses(figures: pd.DataFrame, n: int, task: str, objective: str) -> list[str]:
    """Where differences to the recalibrated network flatter, and where intervals are rough."""
    notes = []
    for metric, (served_by, least) in _LOSSES[task].items():
        network, recalibrated = (figure(figures, name, metric) for name in ("2d", RECALIBRATED))
        if network is None or recalibrated is None:
            continue
        given, mended = network.value, recalibrated.value
        if not math.isfinite(given + mended):
            continue
        loss = mended - given if metric in LOWER_IS_BETTER else given - mended
        if loss <= least:
            continue
        below = "worse than" if metric in LOWER_IS_BETTER else "below"
        cause = f"it is fitted for {objective}"
        if objective in served_by:
            others = ", or rows of other class shares" if task == "classes" else ""
            cause = f"maybe too few rows to recalibrate on{others}"
        words = f"{metric.replace('_', ' ')} {_told(mended, metric)} against {_told(given, metric)}"
        notes.append(
            f"WARNING {RECALIBRATED} is {below} 2d ({words}): {cause}; take the smaller of both differences."
        )
    if n == 1:
        notes.append("WARNING only 1 row is reported: there is no interval and no test.")
    elif n <= FEW_UNITS:
        notes.append(f"WARNING only {n} rows are reported: {_LITTLE}.")
    elif n < _FEW_ROWS:
        notes.append(f"WARNING only {n} rows are reported: intervals of so few rows are rough.")
    return notes


def few_groups(groups: np.ndarray | None) -> list[str]:
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
        return [f"{start}intervals and tests of so few are rough (docs/statistics.md); report more groups."]
    advice = f"; {_LITTLE}" if count <= FEW_UNITS else ""
    return [
        f"{start}tests that swap so few have no p below {least:.2g}, so that no claim is possible{advice}."
    ]


def _told(value: float, metric: str) -> str:
    return f"{100 * value:.1f} %" if metric == "accuracy" else f"{value:.3f}"
