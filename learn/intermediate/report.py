"""An intermediate fusion as a small table for the terminal: 2D as given, masked, with codes, permuted."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from ..metrics import metric_names
from ..report.tables import new_table, print_lines, print_tables
from ..report.words import HEADS, LEADING, bounds, number
from .run import IntermediateResult

_IN_FILES = frozenset({"brier", "rmse_valence", "rmse_arousal"})  # and not on the terminal


def print_intermediate(result: IntermediateResult, console: Console) -> None:
    """What was assumed, then for each task and part the figures and the differences that matter."""
    print_lines([f"- {line}" for line in result.notes], console)
    tables = [
        _table(result, task, part, figures)
        for task, parts in result.figures.items()
        for part, figures in parts.items()
    ]
    seeds = len(result.config.seeds)
    last = (
        f"Figures are means over {seeds} seed{'s' if seeds > 1 else ''}; in brackets 95 % intervals of the paired "
        f"bootstrap ({result.config.draws} draws), conditional on the trained networks."
    )
    if "masked" in result.config.arms:
        last += (
            " masked is the same module with every code block masked: what the codes add is codes to masked; permuted "
            "should add nothing."
        )
    print_tables(tables, [last], console)


def _table(result: IntermediateResult, task: str, part: str, figures: dict[str, Any]) -> Table:
    """One row per predictor."""
    answer = LEADING[task][0]
    rows = figures["rows"]
    where = f"{rows} reported rows" if part == "all" else f"the {rows} with a face"
    unit = "in %, differences in points of accuracy" if task == "classes" else "differences in CCC VA"
    table = new_table(f"{result.config.module}, {where}; {unit}", "predictor")
    names = [name for name in metric_names(task) if name not in _IN_FILES]
    others = [other for other in ("masked", "2d") if other in figures["predictors"]]
    for head in (*(HEADS[name] for name in names), *(f"to {other}" for other in others)):
        table.add_column(head, justify="right", no_wrap=True)
    for predictor, measured in figures["predictors"].items():
        cells = [number(measured[name]["value"], name) for name in names]
        for other in others:
            found = figures["differences"].get(f"{predictor} - {other}")
            cells.append(bounds(found and found[answer], answer))
        table.add_row(predictor, *cells, style="dim" if predictor == "permuted" else "")
    return table
