"""An intermediate fusion as a small table for the terminal: 2D as given, masked, with codes, permuted."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..metrics import metric_names
from .run import IntermediateResult

_HEADS = {
    "accuracy": "acc",
    "balanced_accuracy": "bal",
    "macro_f1": "F1",
    "log_loss": "loss",
    "rmse_joint": "RMSE VA",
    "ccc_valence": "CCC V",
    "ccc_arousal": "CCC A",
    "ccc_joint": "CCC VA",
}
_PERCENT = frozenset({"accuracy", "balanced_accuracy", "macro_f1"})
# what the differences of the terminal are of; metrics.json has all
_ANSWER = {"classes": "accuracy", "va": "ccc_joint"}


def print_intermediate(result: IntermediateResult, console: Console) -> None:
    """What was assumed, then for each task and part the figures and the differences that matter."""
    for line in result.notes:
        console.print(f"- {line}", markup=False, highlight=False, soft_wrap=True)
    for task, parts in result.figures.items():
        for part, figures in parts.items():
            console.print()
            console.print(_table(result, task, part, figures), crop=False)
    console.print()
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
    console.print(last, markup=False, highlight=False, soft_wrap=True)


def _table(result: IntermediateResult, task: str, part: str, figures: dict[str, Any]) -> Table:
    """One row per predictor."""
    answer = _ANSWER[task]
    rows = figures["rows"]
    where = f"{rows} reported rows" if part == "all" else f"the {rows} with a face"
    unit = "in %, differences in points of accuracy" if task == "classes" else "differences in CCC VA"
    table = Table(
        title=f"{result.config.module}, {where}; {unit}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("predictor", no_wrap=True)
    names = [name for name in metric_names(task) if name in _HEADS]
    for name in names:
        table.add_column(_HEADS[name], justify="right", no_wrap=True)
    for other in ("masked", "2d"):
        if other in figures["predictors"]:
            table.add_column(f"to {other}", justify="right", no_wrap=True)
    for predictor, measured in figures["predictors"].items():
        cells = [_number(measured[name]["value"], name) for name in names]
        for other in ("masked", "2d"):
            if other in figures["predictors"]:
                found = figures["differences"].get(f"{predictor} - {other}")
                cells.append("–" if found is None else _interval(found[answer], answer))
        table.add_row(predictor, *cells, style="dim" if predictor == "permuted" else "")
    return table


def _number(value: float | None, metric: str) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f}" if metric in _PERCENT else f"{value:.4f}"


def _interval(figure: dict[str, Any], metric: str) -> str:
    """Value and interval."""
    scale, digits = (100, 1) if metric in _PERCENT else (1, 4)
    if None in (figure["value"], figure["low"], figure["high"]):
        return "–"
    # adding zero turns a rounded -0.0 into 0.0
    value, low, high = (
        f"{round(scale * figure[key], digits) + 0.0:+.{digits}f}" for key in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"
