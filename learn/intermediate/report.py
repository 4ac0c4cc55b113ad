"""An intermediate fusion as a small table for the terminal: 2D as given, masked, with codes, permuted."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from ..measures.metrics import metric_names
from ..report.tables import new_table, print_lines, print_tables
from ..report.words import HEADS, LEADING, bounds, difference, number
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
            "should add nothing. Intervals are over rows and not over trainings: a small difference of permuted, "
            "either way, is the noise of training."
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
    heads = [HEADS[name] for name in names]
    if task == "va":
        heads.append("(V+A)/2")
    for other in others:
        heads.append(f"to {other}")
        if other == "masked" and len(result.config.seeds) > 1:
            heads.append("over seeds")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for predictor, measured in figures["predictors"].items():
        cells = [number(measured[name]["value"], name) for name in names]
        if task == "va":
            cells.append(_mean_ccc(measured))
        for other in others:
            found = figures["differences"].get(f"{predictor} - {other}")
            cells.append(bounds(found and found[answer], answer))
            if "over seeds" in heads and other == "masked":
                cells.append(_over_seeds(found and found[answer], answer))
        table.add_row(predictor, *cells, style="dim" if predictor == "permuted" else "")
    return table


def _mean_ccc(measured: dict[str, Any]) -> str:
    """Mean of the concordances of valence and of arousal, as papers have it; ``CCC VA`` is of both in one vector."""
    values = [measured[name]["value"] for name in ("ccc_valence", "ccc_arousal")]
    return number(None if None in values else sum(values) / 2, "ccc_joint")


def _over_seeds(figure: dict[str, Any] | None, metric: str) -> str:
    """``+9.1 … +12.3``: the difference in the training where it is least, and where it is most."""
    values = [value for value in (figure or {}).get("seeds", ()) if value is not None]
    if not values:
        return "–"
    return f"{difference(min(values), metric)} … {difference(max(values), metric)}"
