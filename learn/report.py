"""A fusion result as a table for the terminal, and as files: predictions, figures, table, model.

Every file is written beside its final name and renamed; the same result gives the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from ..errors import RunError
from .figures import REFERENCES
from .fuse import FuseResult
from .metrics import LOWER_IS_BETTER, metric_names
from .model import save_model
from .versions import versions

FORMAT = "ig3d-fusion-metrics"
FILES = ("predictions.csv", "table.csv", "metrics.json", "model.skops")
_HEADS = {
    "accuracy": "acc",
    "balanced_accuracy": "bal",
    "macro_f1": "F1",
    "log_loss": "loss",
    "brier": "Brier",
    "rmse_valence": "RMSE V",
    "rmse_arousal": "RMSE A",
    "rmse_joint": "RMSE VA",
    "ccc_valence": "CCC V",
    "ccc_arousal": "CCC A",
    "ccc_joint": "CCC VA",
}
_PERCENT = frozenset({"accuracy", "balanced_accuracy", "macro_f1"})
# Valence-arousal: the metrics whose differences stand in the terminal; all are in the files.
_SHOWN = ("rmse_joint", "ccc_joint")


def print_result(result: FuseResult, console: Console) -> None:
    """Assumptions, protocol and tables; whole at 80 columns, differences beside the figures where they fit."""
    for line in (*result.notes, *result.protocol.sentences):
        console.print(f"- {line}", markup=False, highlight=False, soft_wrap=True)
    parts = ["all"]
    if not result.covered.all() and result.covered.any():
        parts.append("covered")
    tables = [_table(result, part) for part in parts]
    if result.task == "va":
        tables += [_difference_table(result, metric, "all") for metric in _SHOWN]
    elif max(_needed(console, table) for table in tables) > console.width:
        tables = [_table(result, part, differences=False) for part in parts]
        tables += [_difference_table(result, "accuracy", part) for part in parts]
    for table in tables:
        # What is still too narrow is left to the terminal to wrap: rich would cut figures short.
        needed = _needed(console, table)
        table.width = needed if needed > console.width else None
        console.print()
        console.print(table, crop=False)
    console.print()
    last = (
        f"In brackets 95 % intervals of the paired bootstrap ({result.config.draws} draws), conditional on the trained "
        "networks. What the 3D face adds is the difference to 2d-recalibrated, or to 2d where that is smaller; "
        "-permuted are controls."
    )
    if result.protocol.marked:
        last += " * fitted on the reported rows."
    console.print(last, markup=False, highlight=False, soft_wrap=True)


def _label(result: FuseResult, name: str, fits: bool) -> str:
    return f"{name}*" if result.protocol.marked and fits else name


def _needed(console: Console, table: Table) -> int:
    """Columns of the terminal that a table takes in full."""
    return Measurement.get(console, console.options.update(width=10_000), table).maximum


def _new_table(title: str) -> Table:
    table = Table(
        title=title,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("rule", no_wrap=True)
    return table


def _table(result: FuseResult, part: str, *, differences: bool = True) -> Table:
    """Every rule's metrics over one part of the rows; for classes with the differences in accuracy, if wanted."""
    differences = differences and result.task == "classes"
    names = [name for name in metric_names(result.task) if name != "brier"]  # it is in the files
    covered = int(result.covered.sum())
    title = (
        f"{len(result.ids)} reported rows, {covered} with 3D"
        if part == "all"
        else f"The {covered} rows with 3D"
    )
    if result.task == "classes":
        title += "; in %, differences in points of accuracy" if differences else "; in %"
    table = _new_table(title)
    for name in names:
        table.add_column(_HEADS[name], justify="right", no_wrap=True)
    if differences:
        for reference in REFERENCES:
            table.add_column(f"to {reference}", justify="right", no_wrap=True)
    table.add_column("n 3D", justify="right", no_wrap=True)
    for rule in result.rules:
        figures = result.figures[rule.name][part]
        cells = [_number(figures[name]["value"] if figures else None, name) for name in names]
        if differences:
            cells += _differences(figures, "accuracy")
        style = "dim" if rule.kind == "control" else ""
        table.add_row(_label(result, rule.name, rule.fits), *cells, str(covered), style=style)
    return table


def _difference_table(result: FuseResult, metric: str, part: str) -> Table:
    """Every rule's differences to both references in one metric, over one part of the rows."""
    what = metric.replace("_", " ").replace("rmse", "RMSE").replace("ccc", "CCC")
    better = "lower" if metric in LOWER_IS_BETTER else "higher"
    unit = ", in points" if metric in _PERCENT else ""
    rows = "all reported rows" if part == "all" else f"the {int(result.covered.sum())} rows with 3D"
    table = _new_table(f"Difference in {what}{unit} ({better} is better), {rows}")
    for reference in REFERENCES:
        table.add_column(f"to {reference}", justify="right", no_wrap=True)
    for rule in result.rules:
        figures = result.figures[rule.name][part]
        if figures:
            style = "dim" if rule.kind == "control" else ""
            table.add_row(_label(result, rule.name, rule.fits), *_differences(figures, metric), style=style)
    return table


def _differences(figures: dict[str, Any] | None, metric: str) -> list[str]:
    keys = [f"minus_{reference}".replace("-", "_") for reference in REFERENCES]
    return [_interval(figures[metric].get(key) if figures else None, metric) for key in keys]


def _number(value: float | None, metric: str) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f}" if metric in _PERCENT else f"{value:.4f}"


def _interval(figure: dict[str, Any] | None, metric: str) -> str:
    if figure is None or figure["value"] is None:
        return "–"
    scale, digits = (100, 1) if metric in _PERCENT else (1, 4)
    # Adding zero turns a rounded -0.0 into 0.0.
    value, low, high = (
        "–" if figure[key] is None else f"{round(scale * figure[key], digits) + 0.0:+.{digits}f}"
        for key in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"


def check_out(out: str | Path) -> None:
    """Whether results can be written to a folder, before any work; results of an earlier run may be replaced.

    Raises
    ------
    RunError : it cannot be written, or holds files of these names that no run of ours wrote.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
        there = [name for name in FILES if (folder / name).exists()]
        ours = "metrics.json" in there and f'"format": "{FORMAT}"' in (folder / "metrics.json").read_text(
            "utf-8"
        )
    except (OSError, UnicodeDecodeError) as exc:
        raise RunError(f"{out}: expected a folder that results can be written to, got {exc}") from exc
    if there and not ours:
        raise RunError(
            f"{out}: expected a new folder or one of an earlier run, got {', '.join(there)} of something else; name "
            "another --out"
        )


def write_result(result: FuseResult, out: str | Path) -> list[Path]:
    """Write ``predictions.csv``, ``metrics.json``, ``table.csv`` and, where there is one, ``model.skops``.

    Returns
    -------
    list of the files

    Raises
    ------
    RunError : the folder cannot be written.
    """
    folder = Path(out)
    texts = {
        "predictions.csv": predictions_csv(result),
        "table.csv": table_csv(result),
        "metrics.json": json.dumps(_json(record_of(result)), indent=1, ensure_ascii=False, allow_nan=False)
        + "\n",
    }
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if result.model is not None:
            save_model(result.model, folder / "model.skops")
            written.append(folder / "model.skops")
        for name, text in texts.items():
            temporary = folder / f".{name}.{os.getpid()}.tmp"
            try:
                temporary.write_text(text, encoding="utf-8", newline="")
                temporary.replace(folder / name)
            finally:
                temporary.unlink(missing_ok=True)
            written.append(folder / name)
    except OSError as exc:
        raise RunError(f"{out}: expected to write results there, got {exc}") from exc
    return sorted(written)


def predictions_csv(result: FuseResult) -> str:
    """Long table: ``id, rule, label, p_<class>..., truth`` or ``id, rule, valence, arousal, *_truth``.

    ``label`` is the predicted class, ``truth`` that of the dataset.
    """
    classes = result.task == "classes"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["id", "rule", "label", *(f"p_{name}" for name in result.classes), "truth"]
        if classes
        else ["id", "rule", "valence", "arousal", "valence_truth", "arousal_truth"]
    )
    for rule in result.rules:
        rows = np.flatnonzero(rule.present)
        values = np.exp(rule.values[rows]) if classes else rule.values[rows]
        # Seven significant digits are more than a prediction has.
        cells = np.char.mod("%.7g", values).tolist()
        said = [[result.classes[index]] for index in values.argmax(axis=1)] if classes else [[]] * len(rows)
        ids = result.ids[rows].tolist()
        truth = (
            [[result.classes[index]] for index in result.truth[rows]]
            if classes
            else np.char.mod("%.7g", result.truth[rows]).tolist()
        )
        writer.writerows(
            [name, rule.name, *label, *line, *true]
            for name, label, line, true in zip(ids, said, cells, truth, strict=True)
        )
    return text.getvalue()


def table_csv(result: FuseResult) -> str:
    """One line per rule, part and metric, with interval and differences."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = ["value", "low", "high"]
    differences = [f"minus_{reference}".replace("-", "_") for reference in REFERENCES]
    header = ["rule", "kind", "fitted_on_reported", "rows", "n", "metric", *keys]
    writer.writerow([*header, *(f"{name}_{key}" for name in differences for key in (*keys, "p"))])
    for rule in result.rules:
        for part, figures in result.figures[rule.name].items():
            if figures is None:
                continue
            marked = int(result.protocol.marked and rule.fits)
            for metric in metric_names(result.task):
                figure = figures[metric]
                line = [
                    rule.name,
                    rule.kind,
                    marked,
                    part,
                    figures["rows"],
                    metric,
                    *(figure[key] for key in keys),
                ]
                for name in differences:
                    line += [figure.get(name, {}).get(key) for key in (*keys, "p")]
                writer.writerow(["" if cell is None else cell for cell in line])
    return text.getvalue()


def record_of(result: FuseResult) -> dict[str, Any]:
    """All that ``metrics.json`` says: figures under ``results``, protocol, choices, assumptions, versions."""
    protocol = result.protocol
    # What changes no figure is no part of the record: the same command gives the same bytes on any machine.
    config = {name: value for name, value in asdict(result.config).items() if name not in ("jobs", "model")}
    return {
        "format": FORMAT,
        "format_version": 1,
        "task": result.task,
        "classes": list(result.classes),
        "results": {rule.name: result.figures[rule.name] for rule in result.rules},
        "rules": {
            rule.name: {
                "kind": rule.kind,
                "fits": rule.fits,
                "fitted_on_reported": protocol.marked and rule.fits,
                "fitted": list(rule.fitted),
            }
            for rule in result.rules
        },
        "protocol": {
            "case": protocol.case,
            "reported": protocol.report_name,
            "fitted_on": protocol.fit_name,
            "fitted_on_reported": protocol.marked,
            "rows_reported": len(protocol.reported),
            "rows_covered": int(result.covered.sum()),
            "rows_calibration": len(protocol.calibration),
            "rows_left_out": protocol.left_out,
            "sentences": list(protocol.sentences),
        },
        "intervals": "95 %, percentile, paired bootstrap; conditional on the trained networks",
        "assumptions": list(result.notes),
        "sources": result.sources,
        "config": config,
        "versions": versions(),
    }


def _json(value: Any) -> Any:
    """Plain values for JSON; None for what is no number."""
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.12g}") if math.isfinite(value) else None
    return value
