"""Several runs side by side: where they predict the same rows, their differences are paired and tested.

The first run is what the others are compared with, rule by rule. Predictions are read from ``predictions.csv``, with
nine digits; so are truth and groups. Where ids or truth differ nothing is tested, and the reason is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import RunError
from ..intermediate.figures import Arm, figures_over_seeds
from ..measures.intervals import holm
from ..measures.metrics import measure
from ..measures.results import difference_key
from .record import FILE, PREDICTIONS, Run, predictions_name, seed_of
from .words import is_intermediate, leading, names_of

__all__ = ["PREDICTIONS", "Comparison", "Difference", "RunPredictions", "compare", "groups_of_runs"]

_FIRST, _OTHER = "first", "other"
_CLOSE = 1e-6  # figures of predictions with nine digits
_AGAIN = "make the run again"


@dataclass(frozen=True, slots=True)
class Difference:
    """One rule of one run against the same rule of the first: metric -> figure with ``p`` and ``p_adjusted``."""

    run: str
    rule: str
    figures: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What several runs say together.

    Attributes
    ----------
    first : name of the run that the others are compared with
    metrics : those that are compared
    table : rule -> run -> metric -> figure or None, of all reported rows
    runs : names, in order
    differences : paired, for runs on the same rows
    remarks : which runs cannot be paired, and why
    """

    first: str
    metrics: tuple[str, ...]
    runs: tuple[str, ...]
    table: dict[str, dict[str, dict[str, Any] | None]]
    differences: tuple[Difference, ...]
    remarks: tuple[str, ...]


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs with the first of them.

    Raises
    ------
    RunError : they are of two tasks, or one has no readable predictions.
    """
    tasks = sorted({run.record["task"] for run in runs})
    if len(tasks) > 1:
        raise RunError(f"report: expected runs of one task, got {' and '.join(tasks)}; report them apart")
    metrics = leading(runs[0].record)
    rules = dict.fromkeys(name for run in runs for name in names_of(run.record, "reference", "rule", "head"))
    table = {
        rule: {run.name: (run.record["results"].get(rule) or {}).get("all") for run in runs} for rule in rules
    }
    table = {rule: by_run for rule, by_run in table.items() if any(by_run.values())}
    first = RunPredictions.read(runs[0])
    differences: list[Difference] = []
    remarks: list[str] = []
    for run in runs[1:]:
        other = RunPredictions.read(run)
        reason = first.unlike(other)
        if reason:
            remarks.append(f"{run.name} cannot be compared with {runs[0].name} row by row: {reason}.")
            continue
        found = _differences(first, other, run, metrics)
        if not found or is_intermediate(run.record) != is_intermediate(runs[0].record):
            remarks.append(f"{run.name} and {runs[0].name} {_why_nothing(runs[0], run)}")
        differences += found
    return Comparison(
        runs[0].name, metrics, tuple(run.name for run in runs), table, tuple(differences), tuple(remarks)
    )


@dataclass(frozen=True, slots=True)
class RunPredictions:
    """What ``predictions.csv`` holds: ids in order, truth, groups, and values of each rule (NaN where it has none).

    ``trainings`` has each of them for a rule that was trained with several seeds; ``rules`` then has the first.
    """

    task: str
    classes: tuple[str, ...]
    ids: np.ndarray
    truth: np.ndarray
    groups: np.ndarray | None
    rules: dict[str, np.ndarray]
    trainings: dict[str, tuple[np.ndarray, ...]]

    @classmethod
    def read(cls, run: Run) -> RunPredictions:
        import pandas

        path = Path(run.folder) / predictions_name(run.record)
        task, classes = run.record["task"], tuple(run.record["classes"])
        columns = [f"p_{name}" for name in classes] if task == "classes" else ["valence", "arousal"]
        true = ["truth"] if task == "classes" else ["valence_truth", "arousal_truth"]
        try:
            text = dict.fromkeys(("id", "rule", "label", "group", "truth"), str)
            lines = pandas.read_csv(path, dtype=text, keep_default_na=False)
            ids, first, where = np.unique(lines["id"].to_numpy(str), return_index=True, return_inverse=True)
            values = lines[columns].to_numpy(np.float64)
            told = lines[true].iloc[first]
            if task == "classes":
                truth = np.array([classes.index(name) for name in told["truth"]], np.int64)
            else:
                truth = told.to_numpy(np.float64)
            groups = None
            if "group" in lines:
                names = lines["group"].to_numpy(str)[first]
                # as FusionTable.group_codes: a row without a group is a separate group
                keys = np.where(names != "", np.char.add("g:", names), np.char.add("i:", ids))
                groups = np.unique(keys, return_inverse=True)[1].reshape(-1)
            if not (lines[true].to_numpy() == told.to_numpy()[where.reshape(-1)]).all():
                raise ValueError("two truths of a row")
        except (OSError, ValueError, KeyError, UnicodeDecodeError) as exc:
            raise RunError(
                f"{path}: expected the predictions of the run, got a file that is none or does not fit; run the "
                "command again"
            ) from exc
        names = lines["rule"].to_numpy(str)
        trainings = {}
        for rule in run.record["rules"]:
            # a rule of several seeds stands there once for each, named as its files are
            seeds = [f"{rule}-{seed}" for seed in run.record["config"].get("seeds", ())]
            every = []
            for name in [one for one in seeds if (names == one).any()] or [rule]:
                rows = names == name
                array = np.full((len(ids), len(columns)), np.nan)
                with np.errstate(divide="ignore"):
                    known = values[rows] if task == "va" else np.maximum(np.log(values[rows]), -745.0)
                array[where.reshape(-1)[rows]] = known
                every.append(array)
            trainings[rule] = tuple(every)
        first_of = {rule: every[0] for rule, every in trainings.items()}
        read = cls(task, classes, ids, truth, groups, first_of, trainings)
        read._check(run, len(lines))
        return read

    def _check(self, run: Run, lines: int) -> None:
        """Refuse predictions that are not those of the record: cut short, changed, or of another run."""
        metric = "rmse_joint" if self.task == "va" else "accuracy"
        expected = f"{run.folder}: expected {predictions_name(run.record)} to be that of {FILE}, got"
        counted = 0
        for rule, parts in run.record["results"].items():
            part = parts["all"] or parts["covered"]
            if not part:
                continue
            # of several cross-fittings the first stands there
            repeats = part[metric].get("repeats", [part[metric]["value"]])
            figures = part[metric].get("seeds", repeats[:1])
            every = self.trainings[rule]
            if len(every) != len(figures):
                there = sum(bool(np.isfinite(values).any()) for values in every)
                raise RunError(f"{expected} {there} of {len(figures)} trainings of {rule}; {_AGAIN}")
            for values, figure in zip(every, figures, strict=True):
                rows = np.isfinite(values).all(axis=1)
                if rows.sum() != part["rows"]:
                    raise RunError(f"{expected} {rows.sum()} of {part['rows']} rows of {rule}; {_AGAIN}")
                found = measure(values[rows], self.truth[rows], self.task)[metric]
                if figure is not None and abs(found - figure) > _CLOSE:
                    raise RunError(f"{expected} {metric} {found:.6g}, not {figure:.6g}, of {rule}; {_AGAIN}")
                counted += int(rows.sum())
        if counted != lines or len(self.ids) != run.record["protocol"]["rows_reported"]:
            raise RunError(f"{expected} {lines} lines in place of {counted}; {_AGAIN}")

    def unlike(self, other: RunPredictions) -> str:
        """Why two runs' rows are not the same; empty where they are."""
        if self.classes != other.classes:
            return "their classes differ"
        if not np.array_equal(self.ids, other.ids):
            shared = len(np.intersect1d(self.ids, other.ids))
            return f"they report {len(self.ids)} and {len(other.ids)} rows, {shared} of them the same"
        if not np.allclose(self.truth, other.truth, atol=1e-6):
            return f"the truth differs on {int((self.truth != other.truth).sum())} rows"
        if self.groups is not None and other.groups is not None:
            pairs = np.unique(np.stack([self.groups, other.groups]), axis=1).shape[1]
            if {pairs} != {len(np.unique(groups)) for groups in (self.groups, other.groups)}:
                return "their groups differ"
        return ""


def groups_of_runs(*runs: RunPredictions) -> np.ndarray | None:
    """(n,) groups of runs that are alike: of the first that has some, as one run may have been made without."""
    return next((run.groups for run in runs if run.groups is not None), None)


def _why_nothing(first: Run, run: Run) -> str:
    """Why two runs on the same rows have no difference of a rule to test."""
    there, mine = (set(names_of(of.record, "rule", "head")) for of in (first, run))
    if there & mine:
        return "predict the same by every rule that both have: there is nothing to test."
    inside = [of.name for of in (first, run) if is_intermediate(of.record)]
    if len(inside) == 1:
        return f"have no fusion rule in common; fuse codes-SEED.npz of {inside[0]} as --2d-logits to compare them."
    return "have no rule in common: there is nothing to test."


def _differences(
    first: RunPredictions, other: RunPredictions, run: Run, metrics: tuple[str, ...]
) -> list[Difference]:
    """Paired differences of the rules that both have, Holm's correction over them for each metric."""
    config = run.record["config"]
    key = difference_key(_FIRST)
    found = []
    for rule in names_of(run.record, "reference", "rule", "head"):
        arms = Arm(_OTHER, "rule", other.trainings[rule]), Arm(_FIRST, "rule", first.trainings.get(rule, ()))
        if not arms[1].values or not all(np.isfinite(of).all() for arm in arms for of in arm.values):
            continue
        if len(arms[0].values) == len(arms[1].values) and all(
            map(np.array_equal, arms[0].values, arms[1].values)
        ):
            continue
        figures = figures_over_seeds(
            arms,
            first.truth,
            np.ones(len(first.ids), bool),
            groups_of_runs(first, other),
            task=first.task,
            draws=int(config.get("draws", 10_000)),
            seed=seed_of(run.record),
            references=(_FIRST,),
        )[_OTHER]["all"]
        found.append(Difference(run.name, rule, {metric: dict(figures[metric][key]) for metric in metrics}))
    for metric in metrics:
        tested = [of.figures[metric] for of in found if of.figures[metric].get("p") is not None]
        for figure, adjusted in zip(tested, holm([of["p"] for of in tested]), strict=True):
            figure["p_adjusted"] = adjusted
    return found
