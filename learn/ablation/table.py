"""What the cells say together: a long table, with every figure's difference to the references and to one cell.

Holm's correction runs over all rules of all cells, for each reference apart: a study asks that many questions. Cells
that predict the very same ask one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UsageError
from ..measures.figures import figures_of
from ..measures.intervals import holm
from ..measures.metrics import LOWER_IS_BETTER, metric_names
from ..measures.results import RuleResult, control_of, difference_key
from ..report.compare import RunPredictions, groups_of_runs
from ..report.record import seed_of
from ..report.words import LEADING, MARKED, ON_COVERED, names_of
from .run import StudyResult

TO_CELL, TO_CONTROL = "minus_reference_cell", "minus_control"
_WARNINGS = ("WARNING", "MARKED", "Only ")  # how a run's lines begin that a reader of one figure has to know
_REFERENCE, _CELL = "reference", "cell"


@dataclass(frozen=True, slots=True)
class Entry:
    """One rule of one cell.

    Attributes
    ----------
    cell : place of the cell
    rule, kind : name, and ``reference``, ``rule`` or ``control``
    rows : int
        How many rows are reported.
    figure : dict
        value, low, high of the study's metric, and differences with p and p_adjusted (over the study): by
        ``difference_key`` of a reference, ``TO_CONTROL`` or ``TO_CELL``.
    marks : str
        ``†`` where it was fitted on the reported rows, ``‡`` where it is measured on covered rows only.
    """

    cell: int
    rule: str
    kind: str
    rows: int
    figure: dict[str, Any]
    marks: str = ""


@dataclass(frozen=True, slots=True)
class StudyTable:
    """All entries of a study in one metric.

    Attributes
    ----------
    metric : str
    rule : the rule whose differences are told apart; None where the cells have none
    rules : names of references and rules, in order; controls apart
    references : what rules are compared with within their cell; the first leads
    entries : tuple of Entry
    remarks : why some cells stand apart, and which are the same
    warnings : what the cells warn of, each with the cells that it concerns
    """

    metric: str
    rule: str | None
    rules: tuple[str, ...]
    references: tuple[str, ...]
    entries: tuple[Entry, ...]
    remarks: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def control(self) -> str | None:
        """The rule with permuted codes, where the cells have it."""
        return control_of(self.rule or "", {of.rule for of in self.entries if of.kind == "control"})

    def entry(self, cell: int, rule: str) -> Entry | None:
        """A rule in a cell, if it is there."""
        return next((of for of in self.entries if of.cell == cell and of.rule == rule), None)

    def find(self, cell: int, rule: str) -> dict[str, Any] | None:
        """The figure of a rule in a cell, if there is one."""
        entry = self.entry(cell, rule)
        return None if entry is None else entry.figure

    def claim(self, cell: int, rule: str) -> dict[str, Any] | None:
        """What a rule's stars stand for: the least certain of its gains over every reference and its own control.

        None where one of these is no gain, or none was tested.
        """
        figure = self.find(cell, rule) or {}
        keys = [*map(difference_key, self.references), TO_CONTROL]
        found = [figure[key] for key in keys if figure.get(key, {}).get("p_adjusted") is not None]
        sign = -1 if self.metric in LOWER_IS_BETTER else 1
        if not found or any(sign * of["value"] <= 0 for of in found):
            return None
        return max(found, key=lambda of: of["p_adjusted"])


def table_of(result: StudyResult) -> StudyTable:
    """Read the cells together.

    Raises
    ------
    UsageError : the metric is not one of the task, or no cell has the rule.
    """
    done = [(place, of) for place, of in enumerate(result.cells) if of.record is not None]
    if not done:
        return StudyTable("accuracy", None, (), (), (), ())
    tasks = {of.record["task"] for _, of in done if of.record}
    if len(tasks) > 1:
        raise UsageError(
            f"{result.study.name}: expected cells of one task, got classes and va; part the study"
        )
    task = tasks.pop()
    metric = result.study.metric or LEADING[task][0]
    if metric not in metric_names(task):
        raise UsageError(f"metric: expected one of {', '.join(metric_names(task))}, got {metric!r}")
    entries = [
        Entry(
            place,
            name,
            of.record["rules"][name]["kind"],
            of.record["protocol"]["rows_reported"] if of.record["results"][name]["all"] else part["rows"],
            _figure(part[metric], of.record["references"]),
            _marks(of.record, name),
        )
        for place, of in done
        if of.record
        for name in of.record["rules"]
        if (part := of.record["results"][name]["all"] or of.record["results"][name]["covered"])
    ]
    names = dict.fromkeys(name for _, of in done if of.record for name in names_of(of.record, "reference"))
    names |= dict.fromkeys(
        name for _, of in done if of.record for name in names_of(of.record, "rule", "head")
    )
    rules = [name for name in names if any(of.rule == name and of.kind in ("rule", "head") for of in entries)]
    rule = result.study.rule or ("stack" if "stack" in rules else next(iter(rules), None))
    if rule is not None and rule not in names:
        raise UsageError(f"rule: expected one of {', '.join(names)}, got {rule!r}")
    predictions = {place: of.predictions() for place, of in done}
    remarks = _add_differences(result, entries, metric, task, predictions)
    references = tuple(dict.fromkeys(name for _, of in done if of.record for name in of.record["references"]))
    same = same_cells(predictions)
    for key in [*map(difference_key, references), TO_CONTROL, TO_CELL]:
        _correct_over(entries, key, same, result.study.reference_cell)
    names_of_cells = [of.cell.name for of in result.cells]
    remarks += [
        f"{', '.join(names_of_cells[place] for place in same if same[place] == first)}: the same predictions as "
        f"{names_of_cells[first]}, and counted once in Holm's correction."
        for first in dict.fromkeys(same.values())
    ]
    return StudyTable(
        metric, rule, tuple(names), references, tuple(entries), tuple(remarks), tuple(_warnings(result))
    )


def same_cells(predictions: Mapping[int, RunPredictions]) -> dict[int, int]:
    """Cell -> the first cell that predicts the very same rows by the very same rules with the very same values."""
    same: dict[int, int] = {}
    for place, mine in predictions.items():
        for first in predictions:
            if first == place:
                break
            if first not in same and _equal(predictions[first], mine):
                same[place] = first
                break
    return same


def _equal(one: RunPredictions, other: RunPredictions) -> bool:
    if one.rules.keys() != other.rules.keys() or one.unlike(other):
        return False
    return all(np.array_equal(one.rules[name], other.rules[name], equal_nan=True) for name in one.rules)


def _marks(record: dict[str, Any], name: str) -> str:
    partial = record["results"][name]["all"] is None
    return MARKED * record["rules"][name]["fitted_on_reported"] + ON_COVERED * partial


def _warnings(result: StudyResult) -> list[str]:
    """What the cells warn of, each warning once, with the cells that it concerns."""
    found: dict[str, list[str]] = {}
    for of in result.cells:
        if of.record is not None:
            for line in (*of.record["assumptions"], *of.record["protocol"]["sentences"]):
                if line.startswith(_WARNINGS):
                    found.setdefault(line, []).append(of.cell.name)
    done = sum(of.record is not None for of in result.cells)
    return [
        line if len(cells) == done else f"{'; '.join(dict.fromkeys(cells))}: {line}"
        for line, cells in found.items()
    ]


def _figure(figure: dict[str, Any], references: list[str]) -> dict[str, Any]:
    """A figure with its differences, without the correction over its own run."""
    keys = [*map(difference_key, references), TO_CONTROL]
    return {
        name: {key: item for key, item in value.items() if key != "p_adjusted"} if name in keys else value
        for name, value in figure.items()
        if name in ("value", "low", "high", *keys)
    }


def _correct_over(entries: list[Entry], key: str, same: Mapping[int, int], chief: int) -> None:
    """Holm's correction of one difference over the rules of all cells that are no repetition of another."""
    rules = [of for of in entries if of.kind in ("rule", "head") and key in of.figure]
    _correct([of.figure[key] for of in rules if of.cell not in same])
    for entry in rules:
        first = same.get(entry.cell)
        if first is None or (key == TO_CELL and first == chief):
            continue
        other = next(of for of in entries if of.cell == first and of.rule == entry.rule)
        if "p_adjusted" in other.figure.get(key, {}):
            entry.figure[key]["p_adjusted"] = other.figure[key]["p_adjusted"]


def _correct(figures: list[dict[str, Any]]) -> None:
    tested = [figure for figure in figures if figure.get("p") is not None]
    for figure, adjusted in zip(tested, holm([figure["p"] for figure in tested]), strict=True):
        figure["p_adjusted"] = adjusted


def _add_differences(
    result: StudyResult,
    entries: list[Entry],
    metric: str,
    task: str,
    predictions: Mapping[int, RunPredictions],
) -> list[str]:
    """Put the difference to the reference cell into each entry of another cell; says which cannot have one."""
    chief = result.study.reference_cell
    others = [place for place, of in enumerate(result.cells) if of.record is not None and place != chief]
    if not others:
        return []
    if result.cells[chief].record is None:
        return [f"The cells have no reference: {result.cells[chief].cell.name} failed."]
    first = predictions[chief]
    values = {}
    remarks = []
    for place in others:
        other = predictions[place]
        if reason := first.unlike(other):
            pair = (
                f"{result.cells[place].cell.name} has no paired difference to {result.cells[chief].cell.name}"
            )
            remarks.append(f"{pair}: {reason}.")
            continue
        values[place] = other.rules
    for rule in first.rules:
        if not np.isfinite(first.rules[rule]).all():
            continue
        compared = [
            (place, rules[rule])
            for place, rules in values.items()
            if rule in rules and np.isfinite(rules[rule]).all()
        ]
        if not compared:
            continue
        record = result.cells[chief].record or {}
        figures = figures_of(
            (
                RuleResult(_REFERENCE, "reference", False, first.rules[rule]),
                *(RuleResult(f"{_CELL} {place}", "rule", True, array) for place, array in compared),
            ),
            first.truth,
            np.ones(len(first.ids), bool),
            groups_of_runs(first, *(predictions[place] for place, _ in compared)),
            task=task,
            draws=record["config"]["draws"],
            seed=seed_of(record),
            references=(_REFERENCE,),
            family=(),
        )
        for place, _ in compared:
            found = figures[f"{_CELL} {place}"]["all"][metric][difference_key(_REFERENCE)]
            entry = next(of for of in entries if of.cell == place and of.rule == rule)
            entry.figure[TO_CELL] = {key: value for key, value in found.items() if key != "p_adjusted"}
    return remarks
