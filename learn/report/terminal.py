"""A record on the terminal: assumptions, protocol, one table, what it says in words; whole at 80 columns."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from ..result import Result
from .arms import arms_legend, arms_tables
from .compare import Comparison
from .findings import answers
from .nested import difference_list
from .record import record_of
from .tables import new_table, print_lines, print_tables
from .verdict import remarks
from .words import (
    HEADS,
    MARKED,
    PERCENT,
    TITLES,
    bounds,
    difference,
    has_2d,
    is_intermediate,
    label,
    leading,
    metrics_of_record,
    names_of,
    number,
    stars,
    to_reference,
    units,
)


def print_result(result: Result, console: Console) -> None:
    """Print what a run found (:func:`print_record`)."""
    print_record(record_of(result), console)


def print_record(record: dict[str, Any], console: Console) -> None:
    """Print assumptions and protocol, the primary answer, the effect size, and the exploratory table.

    Everything else is in the files.
    """
    print_lines([f"- {line}" for line in (*record["assumptions"], *record["protocol"]["sentences"])], console)
    if is_intermediate(record):
        print_tables(arms_tables(record), [*remarks(record), arms_legend(record)], console)
        return
    said = answers(record)
    if said:
        print_lines(["", *said], console)
    tables = [_table(record)]
    if record["task"] == "va" and record["references"]:
        tables.append(_differences(record))
    print_tables(tables, [*remarks(record), _legend(record)], console)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print several runs side by side, and their paired differences to the first."""
    metric = comparison.metrics[0]
    table = new_table(
        f"{TITLES[metric]}{', %' if metric in PERCENT else ''}, all reported rows of each run", "rule"
    )
    for run in comparison.runs:
        table.add_column(run, justify="right", no_wrap=True)
    for rule, by_run in comparison.table.items():
        parts = [by_run[run] for run in comparison.runs]
        table.add_row(rule, *(number(part[metric]["value"], metric) if part else "–" for part in parts))
    tables, lines = [table], list(comparison.remarks)
    differences = difference_list(comparison.differences)
    if differences:
        paired = new_table(f"Paired differences to {comparison.first}", "rule", "run")
        for metric in comparison.metrics:
            unit = ", points" if metric in PERCENT else ""
            paired.add_column(f"{HEADS[metric]}{unit}", no_wrap=True)
        for of in differences:
            cells = [
                bounds(of.figures[metric], metric) + stars(of.figures[metric], metric)
                for metric in comparison.metrics
            ]
            paired.add_row(of.rule, of.run, *cells)
        tables.append(paired)
        lines.append(
            "In brackets 95 % intervals of the paired bootstrap; * ** *** p < .05, .01, .001 after Holm's correction "
            "over the rules of a run."
        )
    print_tables(tables, lines, console)


def _title(record: dict[str, Any]) -> str:
    protocol = record["protocol"]
    rows, covered = protocol["rows_reported"], protocol["rows_covered"]
    unit = "; in %, differences in points of accuracy" if record["task"] == "classes" else ""
    start = "Exploratory: " if record["references"] and has_2d(record) else ""
    return f"{start}{rows} reported rows, {covered} with 3D{unit}"


def _lines(record: dict[str, Any]) -> list[tuple[str, dict[str, Any] | None]]:
    """Rules with the figures to print: of the covered rows for one that predicts no others."""
    shown = [name for name in record["rules"] if name not in names_of(record, "control")]
    return [(name, record["results"][name]["all"] or record["results"][name]["covered"]) for name in shown]


def _name(record: dict[str, Any], name: str) -> str:
    partial = record["results"][name]["all"] is None and record["results"][name]["covered"]
    return label(record, name) + (" (with 3D)" if partial else "")


def _table(record: dict[str, Any]) -> Table:
    """Every rule's metrics; for classes with its differences in accuracy."""
    classes = record["task"] == "classes"
    metrics = [name for name in metrics_of_record(record) if name != "brier"]  # it is in the files
    table = new_table(_title(record), "rule")
    for metric in metrics:
        table.add_column(HEADS[metric], justify="right", no_wrap=True)
    references = record["references"] if classes else []
    for reference in references:
        table.add_column(f"to {reference}", justify="left" if reference == references[0] else "right")
    for name, figures in _lines(record):
        cells = [number(figures[metric]["value"] if figures else None, metric) for metric in metrics]
        for reference in references:
            figure = to_reference(figures, "accuracy", reference)
            text = bounds(figure, "accuracy")
            if reference != references[0] and figure:
                text = difference(figure["value"], "accuracy")
            cells.append(f"{text}{stars(figure, 'accuracy')}")
        table.add_row(_name(record, name), *cells)
    return table


def _differences(record: dict[str, Any]) -> Table:
    """Valence-arousal: every rule's differences to the first reference."""
    reference = record["references"][0]
    table = new_table(f"Difference to {reference} (more CCC, less RMSE is better)", "rule")
    for metric in leading(record):
        table.add_column(HEADS[metric], no_wrap=True)
    for name, figures in _lines(record):
        found = [to_reference(figures, metric, reference) for metric in leading(record)]
        if any(found):
            cells = [
                bounds(figure, metric) + stars(figure, metric)
                for figure, metric in zip(found, leading(record), strict=True)
            ]
            table.add_row(_name(record, name), *cells)
    return table


def _legend(record: dict[str, Any]) -> str:
    draws = record["config"].get("draws")
    text = f"In brackets 95 % intervals of the paired bootstrap ({draws} draws), conditional on the trained networks"
    if record["references"]:
        text += (
            "; * ** *** gain with p < .05, .01, .001, adjusted by the bootstrap maximum over all differences"
        )
    text = f"{text}." if units(record) > 1 else "–: not defined."
    text += " Every figure on all rows and on rows with 3D is in the files (--out)."
    return text + (
        f" {MARKED} fitted on the reported rows." if record["protocol"]["fitted_on_reported"] else ""
    )
