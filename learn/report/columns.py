"""Columns of the table of predictors on the terminal, on the page and in LaTeX; each is one entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..evaluate.figures import Figure
from ..evaluate.metrics import METRICS
from .format import NOTHING, difference, interval, number, stars
from .view import Entry, View

TERMINAL, PAGE, LATEX = "terminal", "page", "latex"
VS_CONTROL = "vs. permuted codes"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its text, marks of significance, the interval below it, and whether it is the best of its column."""

    text: str = NOTHING
    marks: str = ""
    interval: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table of predictors.

    Attributes
    ----------
    head : title of the column
    of : function of view and predictor that returns the cell
    media : where the column is shown
    group : title above several columns, empty for none
    better : ``↓`` if lower is better
    """

    head: str
    of: Callable[[View, Entry], Cell]
    media: tuple[str, ...] = (TERMINAL, PAGE, LATEX)
    group: str = ""
    better: str = ""


def columns_of(view: View, medium: str) -> list[Column]:
    """The columns of a run: differences in the leading metric, then metric values; one entry per column."""
    leading = view.leading[0]
    group = f"difference in {METRICS[leading].title}{', points' if METRICS[leading].percent else ''}"
    short = f"{METRICS[leading].head} " if medium == TERMINAL else ""
    on_terminal = {*view.leading, view.primary_metric}
    columns = [
        *(
            Column(f"{short}vs. {name}", _to_reference(name, leading), group=group)
            for name in view.references
        ),
        Column(VS_CONTROL, _to_control(leading), (PAGE, LATEX), group),
        *(
            Column(
                METRICS[metric].head,
                _figure(metric),
                (TERMINAL, PAGE, LATEX) if metric in on_terminal else (PAGE, LATEX),
                better="↓" if METRICS[metric].lower else "",
            )
            for metric in view.metrics
        ),
        *([Column("ECE", _figure("ece"), (PAGE,), better="↓")] if view.task == "classes" else []),
    ]
    shown = [column for column in columns if medium in column.media]
    if medium == TERMINAL:  # metric values first: they are short, differences are long
        shown.sort(key=lambda column: bool(column.group))
    entries = view.entries
    return [column for column in shown if any(column.of(view, of).text != NOTHING for of in entries)]


def _figure(metric: str) -> Callable[[View, Entry], Cell]:
    def cell(view: View, of: Entry) -> Cell:
        figure = view.figure(of.key, metric, rows=of.rows)
        if figure is None or not math.isfinite(figure.value):
            return Cell()
        text = number(figure.value, metric)
        usable = of.role != "control" and of.rows == "all"
        ends = [number(end, metric) for end in (figure.low, figure.high)]
        return Cell(
            text,
            interval="" if NOTHING in ends else "–".join(ends),
            best=usable and text == number(view.best(metric), metric),
        )

    return cell


def _to_reference(name: str, metric: str) -> Callable[[View, Entry], Cell]:
    def cell(view: View, of: Entry) -> Cell:
        # a rule over two stacked 2D networks: to the reference over both
        versus = (name, of.condition)
        figure = view.figure(of.key, metric, rows=of.rows, versus=versus)
        return _difference(figure or view.figure(of.key, metric, rows=of.rows, versus=name), metric)

    return cell


def _to_control(metric: str) -> Callable[[View, Entry], Cell]:
    def cell(view: View, of: Entry) -> Cell:
        control = view.control(of.name) if of.role == "rule" else None
        figure = None if control is None else view.figure(of.key, metric, rows=of.rows, versus=control)
        # no stars: permuted codes do harm, so that this difference overstates the gain of the codes
        return replace(_difference(figure, metric), marks="")

    return cell


def _difference(figure: Figure | None, metric: str) -> Cell:
    if figure is None or not math.isfinite(figure.value):
        return Cell()
    ends = interval(figure, metric).partition(" ")[2]
    return Cell(difference(figure.value, metric), stars(figure, metric), ends)


def rows_of(view: View, columns: Sequence[Column], *roles: str) -> list[tuple[Entry, list[Cell]]]:
    """Predictors with these roles and their cells, in order."""
    return [(of, [column.of(view, of) for column in columns]) for of in view.of_role(*roles) if of.rows]


def on_covered_rows(view: View, columns: Sequence[Column], *roles: str) -> list[tuple[Entry, list[Cell]]]:
    """The same for the rows with 3D codes only."""
    entries = [replace(of, rows="covered") for of in view.of_role(*roles) if of.rows]
    return [(of, [column.of(view, of) for column in columns]) for of in entries]
