"""What the cells say together: a long table, with every figure's difference to the references and to one cell.

Holm's correction runs over all rules of all cells, for each reference apart: a study asks that many questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UsageError
from ..figures import RuleResult, difference_key, figures_of
from ..intervals import holm
from ..metrics import metric_names
from ..report.words import LEADING, names_of
from .run import StudyResult

TO_CELL = "minus_reference_cell"
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
        value, low, high of the study's metric, and differences with p and p_holm (over the study): by
        ``difference_key`` of a reference, or ``TO_CELL``.
    """

    cell: int
    rule: str
    kind: str
    rows: int
    figure: dict[str, Any]


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
    remarks : why some cells stand apart
    """

    metric: str
    rule: str | None
    rules: tuple[str, ...]
    references: tuple[str, ...]
    entries: tuple[Entry, ...]
    remarks: tuple[str, ...]

    @property
    def control(self) -> str | None:
        """The rule with permuted codes, where the cells have it."""
        wanted = (f"{self.rule}-permuted", "permuted")
        return next((of.rule for of in self.entries if of.kind == "control" and of.rule in wanted), None)

    def find(self, cell: int, rule: str) -> dict[str, Any] | None:
        """The figure of a rule in a cell, if there is one."""
        return next((of.figure for of in self.entries if of.cell == cell and of.rule == rule), None)


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
    remarks = _add_differences(result, entries, metric, task)
    references = tuple(dict.fromkeys(name for _, of in done if of.record for name in of.record["references"]))
    keys = [difference_key(name) for name in references] + [TO_CELL]
    for key in keys:
        _correct([of.figure[key] for of in entries if key in of.figure and of.kind in ("rule", "head")])
    return StudyTable(metric, rule, tuple(names), references, tuple(entries), tuple(remarks))


def _figure(figure: dict[str, Any], references: list[str]) -> dict[str, Any]:
    """A figure with its differences, without the correction over its own run."""
    keys = [difference_key(name) for name in references]
    return {
        name: {key: item for key, item in value.items() if key != "p_holm"} if name in keys else value
        for name, value in figure.items()
        if name in ("value", "low", "high", *keys)
    }


def _correct(figures: list[dict[str, Any]]) -> None:
    tested = [figure for figure in figures if figure.get("p") is not None]
    for figure, adjusted in zip(tested, holm([figure["p"] for figure in tested]), strict=True):
        figure["p_holm"] = adjusted


def _add_differences(result: StudyResult, entries: list[Entry], metric: str, task: str) -> list[str]:
    """Put the difference to the reference cell into each entry of another cell; says which cannot have one."""
    chief = result.study.reference_cell
    others = [place for place, of in enumerate(result.cells) if of.record is not None and place != chief]
    if not others:
        return []
    if result.cells[chief].record is None:
        return [f"The cells have no reference: {result.cells[chief].cell.name} failed."]
    first = result.cells[chief].predictions()
    values = {}
    remarks = []
    for place in others:
        other = result.cells[place].predictions()
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
        config = (result.cells[chief].record or {})["config"]
        figures = figures_of(
            (
                RuleResult(_REFERENCE, "reference", False, first.rules[rule]),
                *(RuleResult(f"{_CELL} {place}", "rule", True, array) for place, array in compared),
            ),
            first.truth,
            np.ones(len(first.ids), bool),
            first.groups,
            task=task,
            draws=config["draws"],
            seed=int(config.get("seed", (config.get("seeds") or [0])[0])),
            references=(_REFERENCE,),
        )
        for place, _ in compared:
            found = figures[f"{_CELL} {place}"]["all"][metric][difference_key(_REFERENCE)]
            entry = next(of for of in entries if of.cell == place and of.rule == rule)
            entry.figure[TO_CELL] = {key: value for key, value in found.items() if key != "p_holm"}
    return remarks
