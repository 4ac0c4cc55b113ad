"""A study for people: two tables on the terminal, ``table.csv``, ``table.tex`` and a heat map."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ...console import say
from ...errors import MissingExtra
from ..measures.metrics import LOWER_IS_BETTER
from ..measures.results import difference_key
from ..report.files import write_texts
from ..report.latex import escape
from ..report.record import json_text
from ..report.tables import new_table, print_lines, print_tables
from ..report.words import MARKED, ON_COVERED, PERCENT, TITLES, bounds, number, stars
from ..versions import versions
from .run import FORMAT, STUDY_FILE, StudyResult
from .table import TO_CELL, TO_CONTROL, StudyTable, table_of

HEATMAP = "heatmap.png"
_KEYS = ("value", "low", "high")
_TESTED = (*_KEYS, "p", "p_adjusted")
_MEANINGS = {MARKED: "fitted on the very rows that are reported", ON_COVERED: "on the rows with 3D only"}
_TEX = {MARKED: r"\dag", ON_COVERED: r"\ddag"}


def print_study(result: StudyResult, console: Console) -> None:
    """Print every cell's figures, then the differences of the study's rule; failed cells with their reasons."""
    table = table_of(result)
    print_lines([f"- {line}" for line in table.remarks], console)
    failed = [f"{of.cell.name}: not run: {of.error}" for of in result.failed]
    print_tables(_tables(result, table), [*failed, *table.warnings, _legend(table)], console)


def write_study(result: StudyResult, out: str | Path, *, command: str = "") -> list[Path]:
    """Write ``study.json``, ``table.csv``, ``table.tex`` and, where matplotlib is installed, ``heatmap.png``.

    Returns
    -------
    list of the files

    Raises
    ------
    RunError : the folder cannot be written.
    """
    folder = Path(out)
    table = table_of(result)
    written = write_texts(
        folder,
        {
            "table.csv": table_csv(result, table),
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
            {"labels": dict(of.cell.labels), "folder": os.path.relpath(of.folder, folder), "error": of.error}
            for of in result.cells
        ],
        "remarks": list(table.remarks),
        "warnings": list(table.warnings),
        "command": command,
        "versions": versions(),
    }


def _tables(result: StudyResult, table: StudyTable) -> list[Table]:
    factors = list(result.study.grid) or ["run"]
    better = "less" if table.metric in LOWER_IS_BETTER else "more"
    unit = ", %" if table.metric in PERCENT else ""
    figures = new_table(f"{result.study.name}: {TITLES[table.metric]}{unit} ({better} is better)", *factors)
    for rule in table.rules:
        figures.add_column(rule, justify="right", no_wrap=True)
    for place, of in enumerate(result.cells):
        labels = list(of.cell.labels.values()) or ["–"]
        figures.add_row(*labels, *(_cell(table, place, rule) for rule in table.rules))
    if table.rule is None:
        return [figures]
    chief = result.study.cells[result.study.reference_cell].name
    columns = {f"to {name}": difference_key(name) for name in table.references}
    differences = new_table(f"Differences of {table.rule}", *factors)
    shown = {
        head: key
        for head, key in columns.items()
        if any(key in of.figure for of in table.entries if of.rule == table.rule)
    }
    for head in shown:
        differences.add_column(head, no_wrap=True)
    controlled = bool(shown) and table.control is not None
    if controlled:
        differences.add_column("permuted codes", no_wrap=True)
    if len(result.cells) > 1:
        differences.add_column(f"to {chief}", no_wrap=True)
    for place, of in enumerate(result.cells):
        figure = table.find(place, table.rule) or {}
        cells = [
            bounds(figure.get(key), table.metric) + stars(figure.get(key), table.metric)
            for key in shown.values()
        ]
        if controlled:
            permuted = table.find(place, table.control or "") or {}
            cells.append(bounds(permuted.get(next(iter(shown.values()))), table.metric))
        if len(result.cells) > 1:
            found = figure.get(TO_CELL)
            cells.append(bounds(found, table.metric) + stars(found, table.metric))
        differences.add_row(*(list(of.cell.labels.values()) or ["–"]), *cells)
    return [figures, differences]


def _cell(table: StudyTable, place: int, rule: str) -> str:
    entry = table.entry(place, rule)
    if entry is None:
        return "–"
    return (
        number(entry.figure["value"], table.metric)
        + stars(table.claim(place, rule), table.metric)
        + entry.marks
    )


def _legend(table: StudyTable) -> str:
    text = "In brackets 95 % intervals of the paired bootstrap, conditional on the trained networks. "
    if table.references:
        text += (
            f"Stars beside a figure mean that it is better than {' and than '.join(table.references)}"
            f"{_and_control(table)}: * ** *** the greatest p is < .05, .01, .001 after Holm's correction over all "
            "rules of all cells. "
        )
    for mark, meaning in _MEANINGS.items():
        if any(mark in of.marks for of in table.entries):
            text += f"{mark} {meaning}. "
    return text + "Every figure, and the controls, are in the files (--out)."


def _and_control(table: StudyTable) -> str:
    """What stars promise beside the references: a gain over permuted codes, where these were run."""
    there = any(TO_CONTROL in of.figure for of in table.entries)
    return " and than itself with permuted codes" if there else " (no control with permuted codes was run)"


def table_csv(result: StudyResult, table: StudyTable) -> str:
    """One line per cell and rule, with every difference."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    differences = [difference_key(name) for name in table.references] + [TO_CONTROL, TO_CELL]
    factors = list(result.study.grid)
    head = [*factors, "rule", "kind", "fitted_on_reported", "n", "metric", *_KEYS]
    writer.writerow([*head, *(f"{name}_{key}" for name in differences for key in _TESTED), "error"])
    for place, of in enumerate(result.cells):
        labels = list(of.cell.labels.values())
        if of.error:
            writer.writerow(
                [*labels, *[""] * (len(head) - len(factors) + len(differences) * len(_TESTED)), of.error]
            )
        for entry in table.entries:
            if entry.cell != place:
                continue
            fitted = int(MARKED in entry.marks)
            line = [*labels, entry.rule, entry.kind, fitted, entry.rows, table.metric]
            line += [entry.figure[key] for key in _KEYS]
            line += [entry.figure.get(name, {}).get(key) for name in differences for key in _TESTED]
            writer.writerow(["" if item is None else item for item in [*line, ""]])
    return text.getvalue()


def table_tex(result: StudyResult, table: StudyTable) -> str:
    """A ``table*`` for booktabs: cells by rules, the best of each cell in bold, marks of significance."""
    factors = list(result.study.grid) or ["run"]
    unit = r", \%" if table.metric in PERCENT else ""
    lines = []
    for place, of in enumerate(result.cells):
        # Bold is the best of what can be used: not what was fitted on the reported rows, nor what is on others.
        found = [entry for rule in table.rules if (entry := table.entry(place, rule)) and not entry.marks]
        values = [entry.figure["value"] for entry in found if entry.figure["value"] is not None]
        best = (min if table.metric in LOWER_IS_BETTER else max)(values) if values else None
        cells = [escape(text) for text in of.cell.labels.values()] or ["--"]
        cells += [_tex_cell(table, place, rule, best) for rule in table.rules]
        lines.append(" & ".join(cells) + r" \\")
    heads = [escape(name) for name in factors] + [rf"\texttt{{{escape(rule)}}}" for rule in table.rules]
    tested = ""
    if table.references:
        tested = (
            r"; \textsuperscript{*}, \textsuperscript{**}, \textsuperscript{***}: better than "
            + " and than ".join(rf"\texttt{{{escape(name)}}}" for name in table.references)
            + f"{_and_control(table)} on the same rows, the greatest $p < .05$, $.01$, $.001$ (Holm's correction over "
            "all rules of all lines)"
        )
    for mark, meaning in _MEANINGS.items():
        if any(mark in of.marks for of in table.entries):
            tested += rf"; \textsuperscript{{{_TEX[mark]}}}: {meaning}"
    caption = f"{escape(result.study.name)}: {escape(TITLES[table.metric])}{unit}. Bold: the best of a line{tested}."
    body = "\n".join([r"\toprule", " & ".join(heads) + r" \\", r"\midrule", *lines, r"\bottomrule"])
    return (
        "% needs \\usepackage{booktabs,graphicx}\n"
        "\\begin{table*}[t]\n\\centering\n"
        f"\\caption{{{caption}}}\n\\label{{tab:ig3d-study}}\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{{{'l' * len(factors)}{'r' * len(table.rules)}}}\n{body}\n\\end{{tabular}}}}\n"
        "\\end{table*}\n"
    )


def _tex_cell(table: StudyTable, place: int, rule: str, best: float | None) -> str:
    entry = table.entry(place, rule)
    if entry is None:
        return "--"
    text = number(entry.figure["value"], table.metric).replace("–", "--")
    if not entry.marks and best is not None and text == number(best, table.metric):
        text = rf"\textbf{{{text}}}"
    marks = stars(table.claim(place, rule), table.metric) + "".join(_TEX[mark] for mark in entry.marks)
    return text + (rf"\textsuperscript{{{marks}}}" if marks else "")
