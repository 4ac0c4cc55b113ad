"""Several runs side by side; if they predict the same rows, their differences are paired and tested.

Each other run is compared with the first one, predictor by predictor, on the exact predictions of
``predictions.npz``. If ids or truth differ, nothing is tested, and a remark states the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import RunError, plural, shorten
from ..evaluate.figures import COLUMNS, Figure, figures_of
from ..evaluate.intervals import holm
from ..evaluate.metrics import METRICS, measure, metric_names
from ..evaluate.predictions import ReportedPredictions, read_predictions
from ..evaluate.predictors import REAL, Predictor, find
from .format import NOTHING, number
from .record import FILE, PREDICTIONS, Run, predictions_name, seed_of
from .view import View

__all__ = ["PREDICTIONS", "Comparison", "compare", "predictions_of"]

_CLOSE = 1e-9
_AGAIN = "run the command again"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several runs together.

    Attributes
    ----------
    first : name of the run that the others are compared with
    metrics : names of the compared metrics
    runs : names, in order
    views : the runs
    differences : DataFrame
        Paired differences of runs on the same rows, as in the table of figures, with columns ``run`` and
        ``versus_run``; p is adjusted by Holm's correction over the predictors of a run.
    remarks : runs that cannot be paired, with the reason
    """

    first: str
    metrics: tuple[str, ...]
    runs: tuple[str, ...]
    views: tuple[View, ...]
    differences: pd.DataFrame
    remarks: tuple[str, ...]

    @property
    def unit(self) -> str:
        """Unit of the differences, as the end of a sentence; empty if no metric is in per cent."""
        points = [METRICS[metric].title for metric in self.metrics if METRICS[metric].percent]
        others = [METRICS[metric].title for metric in self.metrics if not METRICS[metric].percent]
        if not points:
            return ""
        return (
            f", in percentage points ({' and '.join(others)}: nats)" if others else ", in percentage points"
        )

    def rows(self) -> list[tuple[str, list[str]]]:
        """Predictors, with every metric of each run on all reported rows."""
        names = dict.fromkeys(
            of.name
            for view in self.views
            for of in view.of_role("reference", "rule", "head")
            if of.rows == "all"
        )
        return [
            (
                name,
                [
                    NOTHING if (of := view.figure(name, metric)) is None else number(of.value, metric)
                    for view in self.views
                    for metric in self.metrics
                ],
            )
            for name in names
        ]


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs with the first of them.

    Raises
    ------
    RunError : the runs have different tasks, or the predictions of one cannot be read.
    """
    tasks = sorted({run.record["task"] for run in runs})
    if len(tasks) > 1:
        raise RunError(
            f"report: the runs have different tasks ({' and '.join(tasks)}); write one report for each task"
        )
    views = tuple(View(run) for run in runs)
    metrics = views[0].leading
    if "log_loss" in metric_names(tasks[0]):  # the metric of the primary comparison of late fusion
        metrics = (*metrics, "log_loss")
    first = predictions_of(runs[0])
    differences: list[pd.DataFrame] = []
    remarks: list[str] = []
    for view in views[1:]:
        run = view.run
        other = predictions_of(run)
        reason = unlike(first, other)
        if reason:
            remarks.append(f"{run.name} cannot be compared with {runs[0].name} row by row: {reason}.")
            continue
        # a late and an intermediate fusion have no rule in common: their main rules are compared
        main = (
            (view.primary_rule, views[0].primary_rule) if view.intermediate != views[0].intermediate else None
        )
        paired = paired_differences(first, other, metrics, runs[0], run, main=main)
        if not len(paired):
            remarks.append(f"{run.name} and {runs[0].name} {_why_nothing(views[0], view)}")
        differences.append(paired)
    empty = pd.DataFrame(columns=["run", "versus_run", *COLUMNS])
    every = [paired for paired in differences if len(paired)]
    return Comparison(
        runs[0].name,
        metrics,
        tuple(run.name for run in runs),
        views,
        pd.concat(every, ignore_index=True) if every else empty,
        tuple(remarks),
    )


def predictions_of(run: Run) -> ReportedPredictions:
    """Read the predictions of a run and check them against its table.

    Raises
    ------
    RunError : they cannot be read, or belong to another run.
    """
    path = Path(run.folder) / predictions_name(run.record)
    try:
        if not path.is_file():
            raise FileNotFoundError("the file does not exist")
        predictions = read_predictions(path)
    except (OSError, ValueError) as exc:
        why = shorten(" ".join(str(exc).split()), 120)
        raise RunError(f"{path}: the predictions of the run cannot be read ({why}); {_AGAIN}") from exc
    _check(run, predictions)
    return predictions


def _check(run: Run, predictions: ReportedPredictions) -> None:
    """Refuse predictions that were changed or belong to another run."""
    wrong = f"{run.folder}: {predictions_name(run.record)} is not that of {FILE}:"
    rows = int(run.record["protocol"]["rows_reported"])
    if predictions.task != run.record["task"] or list(predictions.classes) != run.record["classes"]:
        raise RunError(f"{wrong} it has other classes; {_AGAIN}")
    if len(predictions.ids) != rows:
        raise RunError(f"{wrong} it has {plural(len(predictions.ids), 'row')} instead of {rows}; {_AGAIN}")
    metric = "rmse_joint" if predictions.task == "va" else "accuracy"
    recorded = run.figures[(run.figures["metric"] == metric) & (run.figures["versus"] == "")]
    for entry in run.record["predictors"]:
        name, condition = entry["name"], entry["condition"]
        of = find(predictions.predictors, name, condition)
        if of is None or len(of.every) != entry["repeats"]:
            repeats_read = 0 if of is None else len(of.every)
            raise RunError(
                f"{wrong} {repeats_read} of {entry['repeats']} repeats of {name} ({condition}); {_AGAIN}"
            )
        part = "all" if of.present.all() else "covered"
        lines = recorded[
            (recorded["predictor"] == name)
            & (recorded["condition"] == condition)
            & (recorded["rows"] == part)
        ]
        measured = [
            measure(v[of.present], predictions.truth[of.present], predictions.task)[metric] for v in of.every
        ]
        repeats = lines[lines["repeat"].notna()].sort_values("repeat")["value"].tolist()
        for got, value in zip(measured, repeats or lines["value"].tolist(), strict=False):
            if math.isfinite(value) and abs(got - value) > _CLOSE:
                raise RunError(f"{wrong} {metric} {got:.6g}, not {value:.6g}, of {name}; {_AGAIN}")


def unlike(first: ReportedPredictions, other: ReportedPredictions) -> str:
    """Reason why two runs cannot be paired; empty if they have the same rows."""
    if first.classes != other.classes:
        if set(first.classes) == set(other.classes):
            return (
                f"their classes are in another order ({', '.join(first.classes)}, and {', '.join(other.classes)}); "
                "extract both stores with the same adapter, or use one store"
            )
        return f"their classes differ ({', '.join(first.classes)}, and {', '.join(other.classes)})"
    if not np.array_equal(first.ids, other.ids):
        shared = len(np.intersect1d(first.ids, other.ids))
        if shared == len(first.ids) == len(other.ids):
            return "their rows are in another order"
        return f"they report {len(first.ids)} and {plural(len(other.ids), 'row')}, {shared} of them the same"
    if not np.allclose(first.truth, other.truth, atol=1e-6):
        return f"the truth differs on {plural(int((first.truth != other.truth).sum()), 'row')}"
    if first.groups is not None and other.groups is not None:
        pairs = np.unique(np.stack([first.groups, other.groups]), axis=1).shape[1]
        if {pairs} != {len(np.unique(groups)) for groups in (first.groups, other.groups)}:
            return "their groups differ"
    return ""


def groups_of_runs(*runs: ReportedPredictions) -> np.ndarray | None:
    """(n,) groups of runs on the same rows: those of the first run that has groups."""
    return next((run.groups for run in runs if run.groups is not None), None)


def _why_nothing(first: View, other: View) -> str:
    """Reason why two runs on the same rows have no differences to test."""
    names = [{of.name for of in view.of_role("rule", "head")} for view in (first, other)]
    if names[0] & names[1]:
        return "have the same predictions by every rule that both have: there is nothing to test."
    return "have no rule in common: there is nothing to test."


def by_predictor(comparison: Comparison) -> list[tuple[str, str, dict[str, Figure]]]:
    """(run, predictor, metric -> difference relative to the first run), in order."""
    figures: dict[tuple[str, str], dict[str, Figure]] = {}
    for line in comparison.differences.to_dict("records"):
        of = Figure(*(float(line[name]) for name in Figure._fields))
        name, versus = line["predictor"], line["versus"]
        name = name if name == versus else f"{name} vs. {versus}"
        figures.setdefault((line["run"], name), {})[line["metric"]] = of
    complete = {key: of for key, of in figures.items() if set(of) == set(comparison.metrics)}
    return [(run, name, of) for (run, name), of in complete.items()]


def paired_differences(
    first: ReportedPredictions,
    other: ReportedPredictions,
    metrics: Sequence[str],
    first_run: Run,
    run: Run,
    *,
    main: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """Paired differences of the predictors that both runs have, with Holm's correction over them for each metric.

    Parameters
    ----------
    main : names of a predictor of the other and of the first run that are compared too
    """
    parts = []
    pairs = [(of, find(first.predictors, *of.key)) for of in other.predictors if of.role != "control"]
    if main is not None:
        pairs += [
            (of, find(first.predictors, main[1])) for of in other.predictors if of.key == (main[0], REAL)
        ]
    for of, theirs in pairs:
        if theirs is None or not (of.present.all() and theirs.present.all()):
            continue
        if len(of.every) == len(theirs.every) and all(map(np.array_equal, of.every, theirs.every)):
            continue
        pair = tuple(
            replace(_for_comparison(each), name=name) for each, name in ((of, "other"), (theirs, "first"))
        )
        figures = figures_of(
            pair,
            first.truth,
            np.ones(len(first.ids), bool),
            groups_of_runs(first, other),
            task=first.task,
            draws=int(run.record["config"].get("draws", 10_000)),
            seed=seed_of(run.record),
            references=("first",),
        )
        wanted = (figures["predictor"] == "other") & (figures["versus"] == "first") & figures["repeat"].isna()
        lines = figures[wanted & figures["metric"].isin(metrics)].copy()
        lines.insert(0, "run", run.name)
        lines.insert(1, "versus_run", first_run.name)
        parts.append(
            lines.assign(predictor=of.name, role=of.role, condition=of.condition, versus=theirs.name)
        )
    if not parts:
        return pd.DataFrame(columns=["run", "versus_run", *COLUMNS])
    table = pd.concat(parts, ignore_index=True)
    for metric in metrics:
        tested = table.index[(table["metric"] == metric) & table["p"].notna()]
        table.loc[tested, "p_adjusted"] = holm(table.loc[tested, "p"].tolist())
    return table


def _for_comparison(of: Predictor) -> Predictor:
    """The predictor as a fitted rule without condition, so that it is compared with the other run only."""
    return replace(of, role="rule", fits=True, condition=REAL, fitted=())
