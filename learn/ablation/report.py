"""Output of a study: tables on the terminal, ``figures.csv``, ``table.tex`` and a heat map."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from ...console import say
from ...errors import MissingExtra
from ..evaluate.figures import Figure
from ..evaluate.metrics import METRICS
from ..evaluate.predictors import CONDITIONAL, PERMUTED
from ..evaluate.tables import table_csv as csv_text
from ..report.columns import VS_CONTROL
from ..report.files import write_texts
from ..report.format import ON_COVERED, number, stars
from ..report.format import interval as bounds
from ..report.latex import escape
from ..report.latex import table as tex_table
from ..report.record import FIGURES, STUDY_FILE, json_text
from ..report.tables import new_table, print_lines, print_tables
from ..versions import versions
from .run import FORMAT, StudyResult
from .table import StudyTable, factor_columns, table_of

HEATMAP = "heatmap.png"
_MEANINGS = {ON_COVERED: "on the rows with 3D only"}
_TEX = {ON_COVERED: r"\ddag"}


def print_study(result: StudyResult, console: Console) -> None:
    """Print a table of all cells, a table of the differences of the rule, failed cells and warnings."""
    table = table_of(result)
    print_lines([f"- {line}" for line in table.remarks], console)
    failed = [f"{cell.cell.name}: not run: {cell.error}" for cell in result.failed]
    print_tables(_tables(result, table), [*failed, *table.warnings, _legend(table)], console)


def write_study(result: StudyResult, out: str | Path, *, command: str = "") -> list[Path]:
    """Write ``study.json``, ``figures.csv``, ``table.tex`` and, if matplotlib is installed, ``heatmap.png``.

    Returns
    -------
    list of Path, the files written

    Raises
    ------
    RunError : the folder cannot be written.
    """
    folder = Path(out)
    table = table_of(result)
    written = write_texts(
        folder,
        {
            FIGURES: figures_csv(result, table),
            "table.tex": table_tex(result, table),
            STUDY_FILE: json_text(_record(result, table, folder, command)),
        },
    )
    try:
        from .heatmap import draw_heatmap

        written += draw_heatmap(result, table, folder / HEATMAP)
    except MissingExtra as missing:
        say(f"no {HEATMAP}: {missing}")
    return sorted(written)


def _record(result: StudyResult, table: StudyTable, folder: Path, command: str) -> dict[str, Any]:
    study = result.study
    return {
        "format": FORMAT,
        "format_version": 1,
        "name": study.name,
        "run": study.run,
        "options": dict(study.options),
        "grid": {factor: dict(values) for factor, values in study.grid.items()},
        "metric": table.metric,
        "rule": table.rule,
        "reference": dict(study.cells[study.reference_cell].labels),
        "cells": [
            {
                "labels": dict(cell.cell.labels),
                "folder": os.path.relpath(cell.folder, folder),
                "error": cell.error,
            }
            for cell in result.cells
        ],
        "remarks": list(table.remarks),
        "warnings": list(table.warnings),
        "command": command,
        "versions": versions(),
    }


def _tables(result: StudyResult, table: StudyTable) -> list[Table]:
    factors = list(result.study.grid) or ["run"]
    better = "lower" if METRICS[table.metric].lower else "higher"
    unit = ", %" if METRICS[table.metric].percent else ""
    figures = new_table(
        f"{result.study.name}: {METRICS[table.metric].title}{unit} ({better} is better)", *factors
    )
    for rule in table.rules:
        figures.add_column(rule, justify="right", no_wrap=True)
    for position, cell in enumerate(result.cells):
        labels = list(cell.cell.labels.values()) or ["–"]
        figures.add_row(*labels, *(_cell(table, position, rule) for rule in table.rules))
    if table.rule is None:
        return [figures]
    columns = difference_columns(result, table)
    differences = new_table(f"Differences of {table.rule}", *factors)
    for column in columns:
        differences.add_column(column.head, no_wrap=True)
    for position, cell in enumerate(result.cells):
        cells = [
            bounds(figure, table.metric) + stars(figure, table.metric)
            for figure in (column.difference(position) for column in columns)
        ]
        differences.add_row(*(list(cell.cell.labels.values()) or ["–"]), *cells)
    return [figures, differences]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of differences of the study's rule: heading, and function (position of a cell) -> difference."""

    head: str
    difference: Callable[[int], Figure | None]


def difference_columns(result: StudyResult, table: StudyTable) -> list[Column]:
    """Columns of the study's rule: differences relative to references, permuted codes and the reference cell."""
    study = result.study

    def of_rule(position: int, **versus: Any) -> Figure | None:
        rule = table.rule_of.get(position)
        return None if rule is None else table.find(position, rule, **versus)

    columns = [Column(f"vs. {name}", partial(of_rule, versus=name)) for name in table.references]
    columns.append(
        Column(VS_CONTROL, lambda position: table.to_control(position, table.rule_of.get(position, "")))
    )
    if len(result.cells) > 1:
        reference_cell = study.reference_cell
        columns.append(
            Column(f"vs. {study.cells[reference_cell].name}", partial(of_rule, versus_cell=reference_cell))
        )
    positions = range(len(result.cells))
    return [
        column for column in columns if any(column.difference(position) is not None for position in positions)
    ]


def _cell(table: StudyTable, position: int, rule: str) -> str:
    figure = table.find(position, rule)
    if figure is None:
        return "–"
    marks = stars(table.claim(position, rule), table.metric) + table.marks(position, rule)
    return number(figure.value, table.metric) + marks


def _legend(table: StudyTable) -> str:
    text = "In brackets: 95 % intervals of the paired bootstrap, with all fitted models held fixed. "
    if table.references:
        text += (
            f"Stars mark rules that are better than {' and than '.join(table.references)}{_and_control(table)}: "
            "* ** *** the greatest of these p-values is < .05, .01, .001 after Holm's correction over all rules of all "
            "cells. "
        )
    for mark, meaning in _meanings(table).items():
        text += f"{mark} {meaning}. "
    return text + "All values, and the controls, are in the files (--out)."


def _meanings(table: StudyTable) -> dict[str, str]:
    """Mark -> meaning, of the marks that the table contains."""
    return _MEANINGS if (table.figures["rows"] == "covered").any() else {}


def _and_control(table: StudyTable) -> str:
    """Further condition of the stars: a gain over permuted codes, if these were run."""
    has_control = table.figures["versus_condition"].isin((PERMUTED, CONDITIONAL)).any()
    return (
        " and than itself with permuted codes" if has_control else " (no control with permuted codes was run)"
    )


def figures_csv(result: StudyResult, table: StudyTable) -> str:
    """CSV text of all results in the metric of the study; a failed cell has a line with its ``error``."""
    figures = table.figures.drop(columns=["label", "repeat"]).assign(error="")
    names = factor_columns(result)
    failed = [
        {
            "cell": position,
            "error": cell.error,
            **{column: cell.cell.labels[name] for column, name in names.items()},
        }
        for position, cell in enumerate(result.cells)
        if cell.error
    ]
    if failed:
        figures = pd.concat([figures, pd.DataFrame(failed)], ignore_index=True)
    return csv_text(figures)


def table_tex(result: StudyResult, table: StudyTable) -> str:
    """LaTeX text of two tables: cells by rules, and the differences of the rule with their intervals."""
    metric = METRICS[table.metric]
    factors = [escape(name) for name in result.study.grid] or ["run"]
    lines = []
    for position in range(len(result.cells)):
        # Bold marks the best predictor of a line, of those that are measured on all reported rows.
        comparable = [table.find(position, rule) for rule in table.rules if not table.marks(position, rule)]
        values = [figure.value for figure in comparable if figure is not None and math.isfinite(figure.value)]
        best = (min if metric.lower else max)(values) if values else None
        cells = [_tex_cell(table, position, rule, best) for rule in table.rules]
        lines.append(_tex_line(result, position, cells))
    heads = [*factors, *(rf"\texttt{{{escape(rule)}}}" for rule in table.rules)]
    marks = ""
    if table.references:
        marks = (
            r"; \textsuperscript{*}, \textsuperscript{**}, \textsuperscript{***}: better than "
            + " and than ".join(rf"\texttt{{{escape(name)}}}" for name in table.references)
            + f"{_and_control(table)} on the same rows, the greatest $p < .05$, $.01$, $.001$ (Holm's correction over "
            "all rules of all lines)"
        )
    for mark, meaning in _meanings(table).items():
        marks += rf"; \textsuperscript{{{_TEX[mark]}}}: {meaning}"
    name, title = escape(result.study.name), escape(metric.title)
    unit = r", \%" if metric.percent else ""
    caption = f"{name}: {title}{unit}. Bold: the best of a line{marks}."
    tables = [tex_table(heads, lines, caption, "study")]
    compared = [] if table.rule is None else difference_columns(result, table)
    if compared:
        lines = [
            _tex_line(
                result,
                position,
                [_tex_difference(column.difference(position), table.metric) for column in compared],
            )
            for position in range(len(result.cells))
        ]
        heads = [*factors, *(escape(column.head) for column in compared)]
        caption = (
            rf"{name}: differences of \texttt{{{escape(table.rule or '')}}} in {title}"
            rf"{', points' if metric.percent else ''}, with 95\,\% intervals of the paired bootstrap; "
            r"\textsuperscript{*}, \textsuperscript{**}, \textsuperscript{***}: a gain with $p < .05$, $.01$, $.001$ "
            "(Holm's correction over all rules of all lines)."
        )
        tables.append(tex_table(heads, lines, caption, "study-differences"))
    return "\n".join(tables)


def _tex_line(result: StudyResult, position: int, cells: list[str]) -> str:
    labels = [escape(text) for text in result.cells[position].cell.labels.values()] or ["--"]
    return " & ".join([*labels, *cells]) + r" \\"


def _tex_difference(figure: Figure | None, metric: str) -> str:
    marks = stars(figure, metric)
    return escape(bounds(figure, metric)) + (rf"\textsuperscript{{{marks}}}" if marks else "")


def _tex_cell(table: StudyTable, position: int, rule: str, best: float | None) -> str:
    figure = table.find(position, rule)
    if figure is None:
        return "--"
    text = number(figure.value, table.metric).replace("–", "--")
    marked = table.marks(position, rule)
    if not marked and best is not None and text == number(best, table.metric):
        text = rf"\textbf{{{text}}}"
    marks = stars(table.claim(position, rule), table.metric) + "".join(_TEX[mark] for mark in marked)
    return text + (rf"\textsuperscript{{{marks}}}" if marks else "")
