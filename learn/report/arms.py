"""An intermediate fusion in words and on the terminal: 2D as given, masked, with codes, permuted, one line each."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ..evaluate.metrics import LOWER_IS_BETTER, metric_names
from .tables import new_table
from .words import (
    HEADS,
    LEADING,
    LEVELS,
    better,
    bounds,
    few_units,
    number,
    over_seeds,
    p_value,
    to_control,
    to_reference,
    trainings,
    unit_of,
)

_IN_FILES = frozenset({"brier", "rmse_valence", "rmse_arousal"})  # and not on the terminal


def arms_remarks(record: dict[str, Any]) -> list[str]:
    """What the codes add to the module without them, whether permuted codes do too, and how far luck goes."""
    metric = LEADING[record["task"]][0]
    said = _answer(record, metric)
    codes, permuted = (record["results"].get(name, {}).get("all") for name in ("codes", "permuted"))
    figure = to_reference(permuted, metric, "masked")
    if figure and figure["low"] is not None and not few_units(record):
        gains = figure["low"] > 0
        over = f"over masked: {bounds(figure, metric)}{unit_of(metric)}"
        said.append(
            f"Permuted codes gain {over}. What they gain, the codes did not bring."
            if gains
            else f"Permuted codes do not gain {over}, as it should be."
        )
    against = to_reference(codes, metric, "2d")
    if against and against["value"] is not None:
        tested = against.get("p_adjusted") is not None and against["p_adjusted"] < LEVELS[0]
        word = "better" if better(against, metric) else "worse" if tested else "neither better nor worse"
        said.append(
            f"codes is {word}{'' if tested else ' beyond chance'} than the 2D network as given: "
            f"{bounds(against, metric)}{unit_of(metric)} (p {p_value(against.get('p_adjusted'))})."
        )
    over = over_seeds(to_reference(codes, metric, "masked"), metric)
    if trainings(record) == 1:
        said.append(
            "Each arm was trained once: no interval here tells the luck of training; --seeds 3 or more do."
        )
    elif over != "–":
        said.append(
            f"From training to training the difference of codes to masked goes from {over.replace('…', 'to')} "
            f"({trainings(record)} seeds)."
        )
    return said


def _ahead(figure: dict[str, Any], metric: str) -> bool:
    """Whether a difference is a gain by its test and by its interval, which includes the variation of trainings."""
    end = figure["high"] if metric in LOWER_IS_BETTER else figure["low"]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    return better(figure, metric) and end is not None and sign * end > 0


def _answer(record: dict[str, Any], metric: str) -> list[str]:
    """What the codes add: to the masked module, and to the module with permuted codes."""
    gain = to_reference(record["results"]["codes"]["all"], metric, "masked")
    if gain is None:
        return ["No masked baseline was trained: what codes gains over 2d may come from training once more."]
    if gain["value"] is None:
        return [f"The difference of codes to masked is not defined in {metric.replace('_', ' ')}."]
    found = f"{bounds(gain, metric)}{unit_of(metric)}"
    p = f"(p {p_value(gain.get('p_adjusted'))})"
    if not _ahead(gain, metric):
        return [f"codes is not better than masked beyond chance: {found} {p}."]
    control = to_control(record, "codes", metric)
    if control is None:
        return [f"codes adds {found} to masked {p}."]
    over = f"{bounds(control, metric)} (p {p_value(control.get('p_adjusted'))})"
    if _ahead(control, metric):
        return [f"codes adds {found} to masked {p}, and {over} to itself with permuted codes."]
    return [
        f"codes gains {found} over masked {p}, but no more than with permuted codes: the difference to those is "
        f"{over}. What it gains is not from the 3D."
    ]


def arms_tables(record: dict[str, Any]) -> list[Table]:
    """The figures and the differences that matter, of all reported rows and of those with 3D."""
    partial = record["protocol"]["rows_covered"] < record["protocol"]["rows_reported"]
    return [_table(record, part) for part in (("all", "covered") if partial else ("all",))]


def arms_legend(record: dict[str, Any]) -> str:
    """What the figures of :func:`arms_tables` are."""
    seeds = trainings(record)
    text = (
        f"Figures are means over {seeds} seed{'s' if seeds > 1 else ''}; in brackets 95 % intervals of the paired "
        f"bootstrap ({record['config']['draws']} draws) over rows{' and trainings' if seeds > 1 else ''}."
    )
    if "masked" in record["rules"]:
        text += (
            " masked is the same module with every code block masked: what the codes add is codes to masked; permuted "
            "should add nothing: a small difference of permuted, either way, is the noise of training."
        )
    if record["config"].get("task") == "both" and record["task"] == "classes":
        text += " Valence and arousal have a record of their own: ig3d report RUN/record-va.json."
    return text


def _table(record: dict[str, Any], part: str) -> Table:
    """One row per predictor."""
    task = record["task"]
    answer = LEADING[task][0]
    rows = record["protocol"]["rows_reported" if part == "all" else "rows_covered"]
    where = f"{rows} reported rows" if part == "all" else f"the {rows} with a face"
    unit = "in %, differences in points of accuracy" if task == "classes" else "differences in CCC VA"
    table = new_table(f"{record['config']['module']}, {where}; {unit}", "predictor")
    names = [name for name in metric_names(task) if name not in _IN_FILES]
    heads = [HEADS[name] for name in names]
    if task == "va":
        heads.append("(V+A)/2")
    for other in record["references"]:
        heads.append(f"to {other}")
        if other == "masked" and trainings(record) > 1:
            heads.append("over seeds")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for predictor in sorted(record["rules"], key=lambda name: name != "2d"):
        measured = record["results"][predictor][part]
        if not measured:
            continue
        cells = [number(measured[name]["value"], name) for name in names]
        if task == "va":
            cells.append(_mean_ccc(measured))
        for other in record["references"]:
            # the 2D network was not trained here: the module is measured against it, not it against the module
            found = None if predictor == "2d" else to_reference(measured, answer, other)
            cells.append(bounds(found, answer))
            if "over seeds" in heads and other == "masked":
                cells.append(over_seeds(found, answer))
        table.add_row(predictor, *cells, style="dim" if predictor == "permuted" else "")
    return table


def _mean_ccc(measured: dict[str, Any]) -> str:
    """Mean of the concordances of valence and of arousal, as papers have it; ``CCC VA`` is of both in one vector."""
    values = [measured[name]["value"] for name in ("ccc_valence", "ccc_arousal")]
    return number(None if None in values else sum(values) / 2, "ccc_joint")
