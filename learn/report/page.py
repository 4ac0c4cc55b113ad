"""One self-contained HTML page of one or several runs: no script, no outside resource, every text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...console import plain
from ...errors import require
from ..evaluate.metrics import LOWER_IS_BETTER
from ..rules import RECALIBRATED
from . import words
from .compare import Comparison
from .findings import answers, effect_rule
from .methods import paragraph
from .nested import difference_list
from .record import Run
from .verdict import remarks

GENERATOR = '<meta name="generator" content="ig3d">'
_TEMPLATE = "page.html.j2"
_PER_COLUMN = frozenset({"w", "offset", "scale"})  # fitted numbers, one for each class or dimension


def page_html(runs: Sequence[Run], comparison: Comparison | None = None) -> str:
    """The page of some runs, with how they compare.

    Raises
    ------
    MissingExtra : Jinja2 or matplotlib is not installed.
    """
    jinja2 = require("jinja2", wanted_by="report")
    require("matplotlib", wanted_by="report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    environment.globals |= {
        "number": words.number,
        "bounds": lambda figure, metric: words.bounds(figure, metric).replace("-", "−"),
        "decimal": lambda value: f"{value:.3f}".replace("-", "−"),
        "measure": words.measure,
        "generator": GENERATOR,
        "stars": words.stars,
        "p_value": words.p_value,
        "heads": words.HEADS,
        "titles": words.TITLES,
        "to_reference": words.to_reference,
        "ordered": words.ordered,
        "over_seeds": lambda figure, metric: words.over_seeds(figure, metric).replace("-", "−"),
    }
    sections = [_section(run) for run in runs]
    differences = difference_list(comparison.differences) if comparison else []
    return str(
        environment.get_template(_TEMPLATE).render(
            sections=sections,
            comparison=comparison,
            differences=differences,
        )
    )


def _section(run: Run) -> dict[str, Any]:
    """What the template shows of one run."""
    from . import plots

    record = run.record
    shown = effect_rule(record) if words.is_intermediate(record) or words.has_2d(record) else None
    if shown not in record["rules"]:
        shown = next(iter(words.ranked(record, words.leading(record)[0])), None)
    inside = words.is_intermediate(record)
    before = next((name for name in ("masked", RECALIBRATED, "2d", "3d") if name in record["rules"]), None)
    has_2d = inside or words.has_2d(record)
    classes = record["task"] == "classes"
    pictures: dict[str, Any] = {"gains": [], "reliability": [], "change": [], "weights": None}
    if record["references"]:
        pictures["gains"] = [plots.gain_svg(record, metric) for metric in words.leading(record)]
        if shown and has_2d:
            pictures["change"] = (
                [plots.recall_svg(record, shown)] if classes else plots.dimensions_svg(record, shown)
            )
    pictures["weights"] = plots.weights_svg(record)
    pair = list(dict.fromkeys(name for name in (before, shown) if name))
    if classes:
        pictures["reliability"] = [
            plots.reliability_svg(record, name, colour=(plots.SECOND, plots.FIRST)[name == shown])
            for name in pair
        ]
    return {
        "name": run.name,
        "record": record,
        "shown": shown,
        "primary": record["primary"]["rule"] if record["primary"] else shown,
        "has_2d": has_2d,
        "inside": inside,
        "what": "predictor" if inside else "rule" if has_2d else "head",
        "fitted_on": _fitted_on(record),
        "seeds": _by_seed(record) if words.trainings(record) > 1 else [],
        "controls": words.names_of(record, "control"),
        "controlled": any(
            words.to_control(record, name, words.leading(record)[0]) for name in record["rules"]
        ),
        "partial": any(not parts["all"] and parts["covered"] for parts in record["results"].values()),
        "pair": pair,
        "metrics": words.metrics_of_record(record),
        "leading": words.leading(record),
        "best": {metric: _best(record, metric) for metric in words.metrics_of_record(record)},
        "answers": answers(record),
        "remarks": remarks(record),
        "warnings": words.warnings_of(record),
        "pictures": pictures,
        "complementarity": words.complementarity_of_record(record),
        "confusions": _confusions(record) if classes else [],
        "fitted": _fitted(record),
        "paragraph": paragraph(record),
    }


def _fitted_on(record: dict[str, Any]) -> str:
    """Who was fitted on what, for the line below the title."""
    if words.is_intermediate(record):
        fits = record["protocol"]["fits"]
        seeds = words.trainings(record)
        return (
            f"{record['config']['module']} fitted on {fits['train']} train rows, the epoch chosen on "
            f"{fits['validation']} others, {seeds} {'times' if seeds > 1 else 'time'}"
        )
    return words.fitted_here(record)


def _by_seed(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The leading metric of every training, then the differences that answer."""
    metric = words.leading(record)[0]
    lines = []
    for name in words.ordered(record):
        figure = (record["results"][name]["all"] or {}).get(metric, {})
        if "seeds" in figure:
            lines.append({"what": name, "cells": [words.number(value, metric) for value in figure["seeds"]]})
    for name, key, what in (
        ("codes", "minus_masked", "codes − masked"),
        ("permuted", "minus_masked", "permuted − masked"),
        ("codes", "minus_control", "codes − permuted"),
    ):
        figure = ((record["results"].get(name) or {}).get("all") or {}).get(metric, {}).get(key, {})
        if "seeds" in figure:
            cells = [words.difference(value, metric).replace("-", "−") for value in figure["seeds"]]
            lines.append({"what": what, "cells": cells})
    return lines


def _best(record: dict[str, Any], metric: str) -> str | None:
    """The best printed number among what can be used; equal numbers are all marked."""
    names = words.names_of(record, "reference", "rule", "head")
    parts = [
        record["results"][name]["all"] for name in names if not record["rules"][name]["fitted_on_reported"]
    ]
    values = [part[metric]["value"] for part in parts if part and part[metric]["value"] is not None]
    if not values:
        return None
    return words.number((min if metric in LOWER_IS_BETTER else max)(values), metric)


def _confusions(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Confusion matrices in per cent of the true class, for every rule but controls."""
    found = []
    for name in words.names_of(record, "reference", "rule", "head"):
        part = record["results"][name]["all"] or record["results"][name]["covered"]
        if part:
            rows = [
                [{"count": count, "share": count / sum(line) if sum(line) else None} for count in line]
                for line in part["confusion"]
            ]
            found.append({"rule": name, "rows": rows, "n": part["rows"]})
    return found


def _fitted(record: dict[str, Any]) -> list[dict[str, str]]:
    """What was fitted, as words: the mean over the copies, and their range."""
    columns = record["classes"] or ["valence", "arousal"]
    lines = []
    for name, rule in record["rules"].items():
        copies = [_named(said, columns) for said in rule["fitted"]]
        for key in dict.fromkeys(key for said in copies for key in said):
            # The calibration of what a rule does not see is none of its fit.
            if not (name == RECALIBRATED and key == "3d"):
                values = [said[key] for said in copies if key in said]
                lines.append({"rule": name, "what": key, "value": _spread(values)})
    return lines


def _named(said: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    """What one copy was fitted, in words: numbers of a class or dimension by its name, nothing that was not fitted.

    Which classes the fitting rows have is said among the notes where one is missing.
    """

    def value_of(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return _named(value, columns)
        per_column = key in _PER_COLUMN and isinstance(value, list) and len(value) == len(columns)
        return dict(zip(columns, value, strict=True)) if per_column else value

    kept = {key: value for key, value in said.items() if value is not None and key != "classes_seen"}
    return {key.replace("_", " "): value_of(key, value) for key, value in kept.items()}


def _spread(values: list[Any], *, inside: bool = False) -> str:
    numeric = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numeric) == len(values):
        low, high = min(numeric), max(numeric)
        if low == high:
            return _short(low)
        mean = sum(numeric) / len(numeric)
        return f"{_short(mean)} ({_short(low)} to {_short(high)} in {len(numeric)} copies)"
    if all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1:
        return ", ".join(_spread(list(column)) for column in zip(*values, strict=True)) or "–"
    if all(isinstance(value, dict) for value in values):
        keys = dict.fromkeys(key for value in values for key in value)
        told = {key: _spread([value[key] for value in values if key in value], inside=True) for key in keys}
        text = "; ".join(f"{key} {said}" for key, said in told.items())
        return f"({text})" if inside else text
    different = list(dict.fromkeys(str(value) for value in values))
    return ", ".join(different[:4]) + (" …" if len(different) > 4 else "")


def _short(value: float) -> str:
    """A fitted number with three digits; nothing is told apart below a thousandth of one."""
    return f"{value:.3g}" if abs(value) >= 5e-4 else f"{round(value, 3) + 0.0:g}"
