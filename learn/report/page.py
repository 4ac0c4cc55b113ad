"""One self-contained HTML page of one or several runs: no script, no outside resource, every text escaped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from ...errors import plural, require
from ...features.predictions import VA
from ..evaluate.complementarity import MEASURES, SHARES
from ..evaluate.predictors import INTERMEDIATE, NULL_INPUT, PERMUTED, REAL
from ..rules import RECALIBRATED
from .columns import PAGE, VS_CONTROL, Column, columns_of, on_covered_rows, rows_of
from .compare import Comparison, by_predictor
from .findings import findings_of
from .format import NOTHING, difference, interval, number
from .record import Run
from .render import MINUS, html_environment
from .view import Key, View

GENERATOR = '<meta name="generator" content="ig3d">'
_PER_COLUMN = frozenset({"w", "offset", "scale"})  # fitted numbers, one for each class or dimension
# Names of fitted parameters in the record, as the page shows them.
_PARAMETERS = {
    "w": "weight of the 3D",
    "rounds": "boosting rounds",
    "coefficients": "coefficients of standardised inputs",
    "weight_at_mean_inputs": "weight of the 3D at the mean of all inputs",
    "penalty": "penalty (larger is stronger)",
    "weight_3d_columns": "factor on the standardised 3D columns (smaller: stronger penalty)",
    "weight_code_columns": "factor on the standardised codes (smaller: stronger penalty)",
    "coefficient_of_3d_residuals": "common coefficient of the 3D scores, after the part explained by the 2D is removed",
    "temperature": "temperature (scores are divided by it)",
    "base": "2d-recalibrated, from which boosting starts",
    "inner_accuracy": "accuracy in inner folds",
    "inner_balanced": "balanced accuracy in inner folds",
    "inner_logloss": "log loss in inner folds",
    "inner_rmse": "RMSE in inner folds",
    "inner_ccc": "CCC in inner folds",
    "chosen": "chosen rule",
}
# stack and 2d-recalibrated of classes
_INVERSE_PENALTY = "c of the penalty sum(w²)/(2c) (smaller is stronger)"
_ROLES = ("reference", "rule", "head", "control")
_SHARES = {"both_right": "both", "only_first": "only1", "only_second": "only2", "double_fault": "none"}


def page_html(runs: Sequence[Run], comparison: Comparison | None = None) -> str:
    """The page of one or several runs, with their comparison.

    Raises
    ------
    MissingExtra : matplotlib is not installed.
    """
    require("matplotlib", wanted_by="report")
    template = html_environment().get_template("page.html.j2")
    return str(
        template.render(
            sections=[_section(View(run)) for run in runs],
            comparison=None if comparison is None else _compared(comparison),
            generator=GENERATOR,
        )
    )


def _compared(comparison: Comparison) -> dict[str, Any]:
    """Runs side by side, and their paired differences."""
    return {
        "runs": comparison.runs,
        "first": comparison.first,
        "metrics": comparison.metrics,
        "unit": comparison.unit,
        "rows": comparison.rows(),
        "paired": by_predictor(comparison),
        "remarks": comparison.remarks,
    }


def _section(view: View) -> dict[str, Any]:
    """Values of one run for the template."""
    shown, columns = view.shown_rule, columns_of(view, PAGE)
    labels = [name for name in dict.fromkeys((view.baseline, shown)) if name]
    return {
        "view": view,
        "findings": findings_of(view),
        "fitted": fitted_on(view),
        "shown": shown,
        "table": _table(columns, rows_of(view, columns, *_ROLES)),
        "covered": _table(columns, on_covered_rows(view, columns, *_ROLES)) if view.partial else None,
        "controlled": any(column.head == VS_CONTROL for column in columns),
        "pictures": _pictures(view, shown),
        "pairs": [_pair(view, first, second) for first, second in view.pairs],
        "trainings": _trainings(view) if view.trainings > 1 else [],
        "compared": labels,
        "confusions": _confusions(view) if view.task == "classes" else [],
        "calibration": _calibration(view) if view.task == "classes" else [],
        "parameters": _parameters(view),
    }


def fitted_on(view: View) -> str:
    """Text on which rows were fitted."""
    protocol = view.protocol
    if view.intermediate:
        times = "time" if view.trainings == 1 else "times"
        fits = protocol["fits"]
        # the record of a development version has no split
        row = {"val": "val row", "train": "held-out train row"}.get(fits.get("validation_split"), "other row")
        return (
            f"{view.record['config']['module']} trained {view.trainings} {times} on "
            f"{plural(fits['train'], 'train row')}, its epoch chosen on {plural(fits['validation'], row)}"
        )
    rules = "rules" if any(of.fits for of in view.of_role("rule")) else RECALIBRATED
    fitted = rules if view.has_2d else "heads"
    if not view.cross_fitted:
        return f"{fitted} fitted on {protocol['fitted_on']}"
    models = "a head" if fitted == "heads" else "parameters"
    return (
        f"{fitted} cross-fitted in {protocol['fitted_on']} (no row is predicted with {models} fitted on it)"
    )


def _table(columns: Sequence[Column], rows: list[Any]) -> dict[str, Any]:
    groups = [(text, len(list(of))) for text, of in groupby(columns, key=lambda column: column.group)]
    return {"columns": columns, "rows": rows, "groups": groups if any(text for text, _ in groups) else []}


def _pictures(view: View, shown: str | None) -> dict[str, Any]:
    from . import plots

    pictures: dict[str, Any] = {"gains": [], "controls": [], "change": [], "reliability": []}
    if view.references:
        pictures["gains"] = [(metric, plots.gains_svg(view, metric)) for metric in view.leading]
        if view.of_role("control"):
            pictures["controls"] = [
                (metric, plots.gains_svg(view, metric, controls=True)) for metric in view.leading
            ]
        if shown is not None and view.has_2d:
            pictures["change"] = plots.changes_svg(view, shown)
    if view.task == "classes":
        names = [name for name in dict.fromkeys((view.baseline, shown)) if name]
        pictures["reliability"] = [
            plots.reliability_svg(view, name, colour=plots.FIRST if name == shown else plots.SECOND)
            for name in names
        ]
    pictures["weights"] = plots.weights_svg(view)
    return pictures


def _pair(view: View, first: str, second: str) -> dict[str, Any]:
    """Complementarity of two single predictors: shares for the bar, and all measures."""
    measures = view.pair(first, second)
    titles = MEASURES[view.task]
    rows = []
    for measure, label, figure in measures:
        text = titles[measure].format(first=first, second=second)
        share = measure in SHARES
        values = [f"{100 * of:.1f}" if share else f"{of:.3f}".replace("-", MINUS) for of in figure[:3]]
        cell = NOTHING if not math.isfinite(figure.value) else values[0] + (" %" if share else "")
        if math.isfinite(figure.low) and math.isfinite(figure.value):
            cell += f" [{values[1]}, {values[2]}]"
        rows.append((f"{label}: {text}" if label else text, cell))
    shares = [
        (_SHARES[measure], titles[measure].format(first=first, second=second), max(figure.value, 0.0))
        for measure, _, figure in measures
        if measure in _SHARES and math.isfinite(figure.value)
    ]
    return {"first": first, "second": second, "rows": rows, "shares": shares}


def _trainings(view: View) -> list[tuple[str, list[str]]]:
    """The leading metric of every training, then its differences."""
    metric = view.leading[0]
    lines = []
    for of in view.entries:
        values = view.repeats(of.key, metric)
        if values:
            lines.append((of.label, [number(value, metric) for value in values]))
    pairs: list[tuple[str, Key, Key]] = [
        (f"{INTERMEDIATE} {MINUS} {NULL_INPUT}", (INTERMEDIATE, REAL), (NULL_INPUT, REAL)),
        (f"permuted {MINUS} {NULL_INPUT}", (INTERMEDIATE, PERMUTED), (NULL_INPUT, REAL)),
        (f"{INTERMEDIATE} {MINUS} permuted", (INTERMEDIATE, REAL), (INTERMEDIATE, PERMUTED)),
    ]
    for text, key, versus in pairs:
        values = view.repeats(key, metric, versus)
        if values:
            lines.append((text, [difference(value, metric).replace("-", MINUS) for value in values]))
    return lines


def _confusions(view: View) -> list[dict[str, Any]]:
    """Confusion matrices in per cent of the true class, of every predictor but controls."""
    table = view.run.tables["confusion.csv"]
    k, matrices = len(view.record["classes"]), []
    for of in view.of_role("reference", "rule", "head"):
        counts = table[(table["predictor"] == of.name) & (table["condition"] == of.condition)]
        counts = counts[counts["rows"] == of.rows]
        if len(counts) != k * k:
            continue
        matrix = counts["count"].to_numpy().reshape(k, k)
        rows = [
            [{"count": count, "share": count / line.sum() if line.sum() else None} for count in line]
            for line in matrix
        ]
        matrices.append({"label": of.name, "rows": rows, "n": round(matrix.sum()), "repeats": of.repeats})
    return matrices


def _calibration(view: View) -> list[tuple[Any, list[str]]]:
    """Calibration errors and Brier score of every predictor."""
    lines = []
    for of in view.entries:
        figures = {
            metric: view.figure(of.key, metric, rows=of.rows) for metric in ("ece", "ece_adaptive", "brier")
        }
        cells = [number(of.value, name) if of else NOTHING for name, of in figures.items()]
        brier = figures["brier"]
        if brier is not None and math.isfinite(brier.low):
            cells[2] = interval(brier, "brier").replace("+", "")
        lines.append((of, cells))
    return lines


def _parameters(view: View) -> list[dict[str, str]]:
    """Fitted parameters in words: the mean over the fold models, and their range."""
    columns = view.record["classes"] or list(VA)
    lines = []
    for of in view.entries:
        models = [_named(values, columns) for values in of.fitted]
        for key in dict.fromkeys(key for values in models for key in values):
            # 2d-recalibrated does not use the 3D predictions, and therefore not their calibration
            if not (of.name == RECALIBRATED and key == "3d"):
                values = [model[key] for model in models if key in model]
                lines.append({"label": of.label, "name": key, "value": _range(values)})
    return lines


def _named(values: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    """Fitted parameters of one fold model; numbers of a class or dimension have its name."""

    def value_of(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return _named(value, columns)
        per_column = key in _PER_COLUMN and isinstance(value, list) and len(value) == len(columns)
        return dict(zip(columns, value, strict=True)) if per_column else value

    titles = dict(_PARAMETERS)
    if "weight_3d_columns" in values and columns != list(VA):
        titles["penalty"] = _INVERSE_PENALTY
    if "chosen" in values:
        titles["fitted"] = f"parameters of {values['chosen']}"
    kept = {key: value for key, value in values.items() if value not in (None, {}) and key != "classes_seen"}
    return {titles.get(key, key.replace("_", " ")): value_of(key, value) for key, value in kept.items()}


def _range(values: list[Any], *, inside: bool = False) -> str:
    numeric = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numeric) == len(values):
        low, high = min(numeric), max(numeric)
        if _short(low) == _short(high):
            return _short(low)
        mean = sum(numeric) / len(numeric)
        return f"{_short(mean)} ({_short(low)} to {_short(high)} in {len(numeric)} folds)"
    if all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1:
        return ", ".join(_range(list(column)) for column in zip(*values, strict=True)) or NOTHING
    if all(isinstance(value, dict) for value in values):
        keys = dict.fromkeys(key for value in values for key in value)
        parts = {key: _range([value[key] for value in values if key in value], inside=True) for key in keys}
        text = "; ".join(f"{key} {part}" for key, part in parts.items())
        return f"({text})" if inside else text
    counts = Counter(str(value) for value in values).most_common()
    if len(counts) == 1:
        return counts[0][0]
    return ", ".join(f"{text} ({count}×)" for text, count in counts[:4]) + (" …" if len(counts) > 4 else "")


def _short(value: float) -> str:
    """A fitted number with three digits, of which none is below a thousandth."""
    text = f"{value:.3g}" if abs(value) >= 5e-4 else f"{round(value, 3) + 0.0:g}"
    return text.replace("-", MINUS)
