"""Figures as nested dicts, for renderers that do not select from the table yet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pandas as pd

from ..evaluate.metrics import metric_names
from ..evaluate.predictors import CONDITIONAL, PERMUTED, REAL, Predictor


def old_name(name: str, condition: str) -> str:
    """Name with a suffix for the condition."""
    if condition == REAL:
        return name
    if condition == PERMUTED and name == "codes":
        return "permuted"
    if condition in (PERMUTED, CONDITIONAL):
        return f"{name}-{condition}"
    return f"{name}+{condition.removeprefix('2d:')}"


def difference_key(reference: str) -> str:
    """Under what name a figure holds its difference to a reference: ``minus_2d_recalibrated``."""
    return f"minus_{reference}".replace("-", "_")


def _plain(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def nested(
    figures: pd.DataFrame,
    confusion: pd.DataFrame | None,
    reliability: pd.DataFrame | None,
    rules: Sequence[Predictor],
    *,
    task: str,
    classes: Sequence[str],
    rows: dict[str, int],
    seeds: bool,
) -> dict[str, dict[str, Any]]:
    """rule -> ``all`` or ``covered`` -> metric -> value, low, high, and the differences."""
    names = {of.key: old_name(*of.key) for of in rules}
    found: dict[str, dict[str, Any]] = {name: {"all": None, "covered": None} for name in names.values()}
    every = "repeats" if not seeds else "seeds"
    for line in figures.to_dict("records"):
        name = names[line["predictor"], line["condition"]]
        part, metric = line["rows"], line["metric"]
        if found[name][part] is None:
            found[name][part] = {"rows": rows[part]}
        entry = found[name][part]
        interval = {key: _plain(line[key]) for key in ("value", "low", "high")}
        repeated = not pd.isna(line["repeat"])
        if metric in ("ece", "ece_adaptive"):
            entry.setdefault("calibration", {})[metric] = interval["value"]
            continue
        if metric == "recall":
            per_class = entry.setdefault("per_class", [{} for _ in classes])
            target = per_class[list(classes).index(line["label"])].setdefault("recall", {})
        elif line["versus"] and metric not in (*metric_names(task), "refinement", "calibration_loss"):
            pair = entry.setdefault("complementarity", {}).setdefault(line["versus"], {})
            pair[f"{metric}_{line['label']}" if line["label"] else metric] = interval
            continue
        else:
            target = entry.setdefault(metric, {})
        if line["versus"]:
            condition = line["versus_condition"]
            key = difference_key(old_name(line["versus"], condition))
            if condition in (PERMUTED, CONDITIONAL):
                key = "minus_control"
            target = target.setdefault(key, {})
            tests = {key: _plain(line[key]) for key in ("p", "p_adjusted")}
            if not repeated:
                interval |= {key: value for key, value in tests.items() if value is not None}
        if repeated:
            target.setdefault(every, []).append(interval["value"])
        else:
            target |= interval
    if task == "classes":
        _add_counts(found, names, confusion, reliability, classes)
    for parts in found.values():
        if rows["all"] == rows["covered"]:
            parts["covered"] = parts["all"]
    return found


def _add_counts(
    found: dict[str, dict[str, Any]],
    names: dict[tuple[str, str], str],
    confusion: pd.DataFrame,
    reliability: pd.DataFrame,
    classes: Sequence[str],
) -> None:
    k = len(classes)
    for (name, condition, part), lines in confusion.groupby(["predictor", "condition", "rows"], sort=False):
        matrix = lines["count"].to_numpy().reshape(k, k)
        entry = found[names[name, condition]][part]
        entry["confusion"] = matrix.tolist()
        for number, of in enumerate(entry["per_class"]):
            of["support"] = round(matrix[number].sum())
    for (name, condition, part), lines in reliability.groupby(["predictor", "condition", "rows"], sort=False):
        found[names[name, condition]][part]["calibration"]["bins"] = [
            {"low": of["low"], "high": of["high"], "rows": of["count"], "confidence": of["confidence"],
             "accuracy": of["accuracy"]}
            for of in lines.to_dict("records")
        ]  # fmt: skip


def difference_list(differences: pd.DataFrame) -> list[SimpleNamespace]:
    """Differences between runs: run, rule, and metric -> figure."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in differences.to_dict("records"):
        rule = old_name(line["predictor"], line["condition"])
        numbers = {key: _plain(line[key]) for key in ("value", "low", "high", "p", "p_adjusted")}
        numbers = {key: value for key, value in numbers.items() if value is not None or key[0] != "p"}
        found.setdefault((line["run"], rule), {})[line["metric"]] = numbers
    return [SimpleNamespace(run=run, rule=rule, figures=of) for (run, rule), of in found.items()]


def complementarity_words(first: str, second: str, found: dict[str, Any], task: str) -> str:
    """One sentence for a reader, from figures with ``value``, ``low`` and ``high`` (fractions or values)."""
    value = {name: figure["value"] for name, figure in found.items() if isinstance(figure, dict)}
    if any(number is None for name, number in value.items() if name not in ("phi", "yule_q", "rescued")):
        return f"Complementarity of {first} and {second} is not defined on these rows."
    if task == "va":
        parts = " and ".join(
            f"{part} {value[f'first_alone_{part}']:.3f} to {value[f'both_linear_{part}']:.3f} "
            f"(errors correlate {value[f'error_correlation_{part}']:+.2f})"
            for part in ("valence", "arousal")
        )
        return f"Linearly, {second} can bring the RMSE of {first} from {parts}, and no further on these rows."
    if value["rescued"] is None:
        return f"{first} is right on every row: there is nothing for {second} to add."
    related = "" if value["phi"] is None else f"; their errors correlate {value['phi']:+.2f}"
    return (
        f"{second} is right on {100 * value['rescued']:.0f} % of the rows that {first} gets wrong "
        f"({100 * value['only_second']:.1f} % of all), and wrong on {100 * value['only_first']:.1f} % of all that "
        f"{first} gets right{related}. Choosing the better of both answers on every row would reach "
        f"{100 * value['oracle']:.1f} %."
    )
