"""Findings: the conclusions of a run as data, and in sentences.

record -> findings. The primary comparison is fixed before any figure is looked at: one rule, one metric, and three
opponents that each have to be beaten at 5 %. As all of them are needed, none is corrected for the others. The effect
size is of one rule too. Everything else in a record is exploratory (docs/statistics.md).
"""

from __future__ import annotations

from typing import Any

from ..config import FITTED_METRICS
from ..evaluate.metrics import LOWER_IS_BETTER
from .words import (
    FITTED_FOR,
    LEVELS,
    TITLES,
    bounds,
    difference,
    few_units,
    is_intermediate,
    leading,
    names_of,
    objective_of,
    p_value,
    to_reference,
    unit_of,
    units,
    warnings_of,
)

FORMAT, FORMAT_VERSION = "ig3d-findings", 1
# Differences below it are of the order at which optimisers stop.
NUMERICAL = 1e-6
_NOTHING = {"value": None, "low": None, "high": None, "p": None}


def findings_of(record: dict[str, Any]) -> dict[str, Any]:
    """Primary comparison, effect size and diagnostics of a run.

    Returns
    -------
    dict
        ``primary`` and ``effect`` are None where nothing is fused (codes alone). Values are differences of the rule
        minus ``versus``, in the metric's own direction (``better``: lower or higher).
    """
    late = record["primary"] is not None and bool(names_of(record, "rule"))
    fused = late or is_intermediate(record)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "primary": _primary(record) if fused else None,
        "effect": _effect(record) if fused else None,
        "diagnostics": [line.removeprefix("WARNING ") for line in warnings_of(record)],
    }


def primary_rule(record: dict[str, Any]) -> str:
    """The rule of the primary comparison."""
    return "codes" if is_intermediate(record) else str(record["primary"]["rule"])


def effect_rule(record: dict[str, Any]) -> str:
    """The rule whose gain is reported as effect size: ``best``, which chooses on fitting rows, where it was run."""
    return "best" if "best" in record["rules"] else primary_rule(record)


def _primary(record: dict[str, Any]) -> dict[str, Any]:
    rule = primary_rule(record)
    metric = leading(record)[0] if is_intermediate(record) else record["primary"]["metric"]
    part = record["results"].get(rule, {}).get("all")
    references = ["masked"] if is_intermediate(record) else record["references"]
    control = _control(rule, record["rules"])
    comparisons = [_comparison(part, metric, name) for name in references]
    if control is not None:
        comparisons.append(_comparison(part, metric, control, control=True))
    # The comparison that decides: one that fails before all that do not, and of these the least certain.
    decisive = max(
        comparisons, key=lambda of: (not of["passes"], 1.0 if of["p"] is None else of["p"]), default=_NOTHING
    )
    reason = _reason(record, rule, control)
    if not record["protocol"]["rows_covered"]:
        comparisons, decisive = [], _NOTHING
    return {
        "claim": reason is None and all(of["passes"] for of in comparisons),
        "rule": rule,
        "metric": metric,
        "better": "lower" if metric in LOWER_IS_BETTER else "higher",
        **{key: decisive.get(key) for key in ("versus", "value", "low", "high", "p")},
        "reason": reason,
        "comparisons": comparisons,
        "loss_parts": _loss_parts(part, comparisons),
    }


def _control(rule: str, names: Any) -> str | None:
    return next((of for of in (f"{rule}-conditional", f"{rule}-permuted", "permuted") if of in names), None)


def _reason(record: dict[str, Any], rule: str, control: str | None) -> str | None:
    """Why no claim can be made with any figures; None where one can."""
    if not record["protocol"]["rows_covered"]:
        return "no reported row has 3D"
    if rule not in record["rules"] or record["results"][rule]["all"] is None:
        return f"{rule} was not run"
    if units(record) == 1:
        return "all reported rows are of one group" if record["protocol"]["rows_reported"] > 1 else "one row"
    if record["rules"][rule]["fitted_on_reported"]:
        return f"{rule} was fitted on the reported rows"
    if is_intermediate(record) and "masked" not in record["rules"]:
        return "no masked baseline was trained"
    return "no control was run" if control is None else None


def _comparison(
    part: dict[str, Any] | None, metric: str, name: str, *, control: bool = False
) -> dict[str, Any]:
    """One of the differences that are all needed."""
    figure = None
    if part:
        figure = part[metric].get("minus_control") if control else to_reference(part, metric, name)
    figure = figure or _NOTHING
    found = {"versus": name, **{key: figure.get(key) for key in ("value", "low", "high", "p")}}
    if "repeats" in figure:
        found["repeats"] = figure["repeats"]
    return found | {"passes": _passes(figure, metric)}


def _passes(figure: dict[str, Any], metric: str) -> bool:
    """Whether a difference is on the better side by its test and by its interval."""
    if None in (figure["value"], figure["low"], figure["p"]):
        return False
    nearest = -figure["high"] if metric in LOWER_IS_BETTER else figure["low"]
    return bool(nearest > 0 and abs(figure["value"]) > NUMERICAL and figure["p"] < LEVELS[0])


def _loss_parts(part: dict[str, Any] | None, comparisons: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Differences in log loss, split into refinement (information) and calibration; None where it was not split."""
    if not part or "refinement" not in part:
        return None
    found = {}
    for name in (of["versus"] for of in comparisons):
        parts = {
            key: figure
            for key in ("refinement", "calibration_loss")
            if (figure := to_reference(part, key, name)) is not None
        }
        if len(parts) == 2:
            found[name] = {"refinement": parts["refinement"], "calibration": parts["calibration_loss"]}
    return found or None


def _effect(record: dict[str, Any]) -> dict[str, Any]:
    """Gain of one rule in the metrics of papers, over the reference that leaves least of it."""
    rule = effect_rule(record)
    part = record["results"].get(rule, {}).get("all")
    metrics = {}
    for metric in leading(record) if part else ():
        sign = -1 if metric in LOWER_IS_BETTER else 1
        found = {
            name: figure
            for name in record["references"]
            if (figure := to_reference(part, metric, name)) and figure["value"] is not None
        }
        if not found:
            continue
        least = min(found, key=lambda name: sign * found[name]["value"])
        most = found[least]["low" if sign < 0 else "high"]
        metrics[metric] = {
            "value": part[metric]["value"],
            "low": part[metric]["low"],
            "high": part[metric]["high"],
            "versus": least,
            "difference": {key: found[least].get(key) for key in ("value", "low", "high", "p")},
            "excluded_beyond": None if most is None else max(sign * most, 0.0),
            "differences": {
                name: {key: figure.get(key) for key in ("value", "low", "high", "p")}
                for name, figure in found.items()
            },
        }
    return {"rule": rule, "metrics": metrics}


def answers(record: dict[str, Any]) -> list[str]:
    """The primary answer, then the effect size of a late fusion, in sentences; empty for other runs."""
    findings = findings_of(record)
    if findings["primary"] is None or is_intermediate(record):
        return []
    sentences = [_primary_sentence(record, findings["primary"])]
    sentences += _parts_sentence(findings["primary"])
    if units(record) > 1 and record["protocol"]["rows_covered"]:
        sentences += _effect_sentence(record, findings)
    return sentences


def _what(record: dict[str, Any]) -> str:
    return "The 3D predictions" if record["protocol"]["case"] == "ready" else "The 3D codes"


def _name(name: str) -> str:
    """An opponent as a sentence has it."""
    if name.endswith("-conditional"):
        return "itself with the 3D permuted among rows of similar 2D predictions"
    return "itself with permuted codes" if name.endswith("permuted") else name


def _primary_sentence(record: dict[str, Any], primary: dict[str, Any]) -> str:
    metric, rule = primary["metric"], primary["rule"]
    statement = f"{_what(record)[4:]} carry information that the 2D network does not have"
    of = TITLES[metric]
    changes = [
        f"{bounds(one, metric)} against {_name(one['versus'])} (p {p_value(one['p'])})"
        for one in primary["comparisons"]
    ]
    spread = _spread(primary, metric)
    if primary["claim"]:
        listed = f"{', '.join(changes[:-1])} and {changes[-1]}"
        return f"Primary: the {statement}. Change in {of} by {rule}: {listed}.{spread}"
    if primary["reason"] is not None:
        measured = primary["value"] is not None and primary["low"] is not None
        figures = f" Change in {of} by {rule}: {'; '.join(changes)}." if measured else ""
        return f"Primary: no claim that the {statement}: {primary['reason']}.{figures}"
    decisive = next(
        text
        for one, text in zip(primary["comparisons"], changes, strict=True)
        if one["versus"] == primary["versus"]
    )
    text = f"Primary: it is not shown that the {statement}. Change in {of} by {rule}: {decisive}"
    sign = -1 if metric in LOWER_IS_BETTER else 1
    most = primary["low"] if sign < 0 else primary["high"]
    if most is not None and not few_units(record):
        gain = "a decrease" if sign < 0 else "an increase"
        text += f"; {gain} by more than {difference(max(sign * most, 0.0), metric).lstrip('+')} is excluded (95 %)"
    return f"{text}.{spread}"


def _spread(primary: dict[str, Any], metric: str) -> str:
    """How far the first comparison varies over cross-fittings."""
    import numpy as np

    first = primary["comparisons"][0] if primary["comparisons"] else {}
    repeats = [value for value in first.get("repeats", ()) if value is not None]
    if len(repeats) < 2:
        return ""
    deviation = difference(float(np.std(repeats, ddof=1)), metric).lstrip("+")
    return (
        f" Mean of {len(repeats)} cross-fittings; single ones differ by a standard deviation of {deviation}."
    )


def _parts_sentence(primary: dict[str, Any]) -> list[str]:
    versus, parts = next(iter((primary["loss_parts"] or {}).items()), (None, None))
    if parts is None:
        return []
    refinement, calibration = (bounds(parts[key], "log_loss") for key in ("refinement", "calibration"))
    return [
        f"Change in log loss against {versus}: {refinement} is refinement (information), {calibration} calibration."
    ]


def _effect_sentence(record: dict[str, Any], findings: dict[str, Any]) -> list[str]:
    """The effect size, for every combination of claim and gain."""
    effect, claim = findings["effect"], findings["primary"]["claim"]
    if not effect["metrics"]:
        return []
    rule = effect["rule"]
    (metric, first), *others = effect["metrics"].items()
    sign = -1 if metric in LOWER_IS_BETTER else 1
    gain = first["difference"]
    ends = [end for end in (gain["low"], gain["high"]) if end is not None]
    of = TITLES[metric]
    informative = f"informative in {TITLES[findings['primary']['metric']]}"
    if not ends:
        start = "Effect size"
    elif all(sign * end > 0 for end in ends):
        start = (
            "Effect size"
            if claim
            else f"Effect size: {of} is better, but that this is from the 3D is not shown"
        )
    elif all(sign * end < 0 for end in ends):
        start = f"Effect size: {f'{informative}, but ' if claim else ''}{of} is worse"
    else:
        start = f"Effect size: {f'{informative}, but ' if claim else ''}no gain in {of} can be shown"
    differences = [f"{bounds(gain, metric)}{unit_of(metric)}"]
    differences += [f"{bounds(of['difference'], name)} {TITLES[name]}" for name, of in others]
    same = {of["versus"] for of in effect["metrics"].values()}
    against = (
        f"over {first['versus']}"
        if len(same) == 1
        else f"over {first['versus']} (each over its stronger reference)"
    )
    text = f"{start}: {rule} {' and '.join(differences)} {against}"
    if first["excluded_beyond"] is not None and not few_units(record):
        most = difference(first["excluded_beyond"], metric).lstrip("+")
        text += f"; gains above {most}{' points' if metric == 'accuracy' else ''} are excluded (95 %)"
    chosen = ""
    if rule == "best" and not record["rules"][rule]["fitted_on_reported"]:
        chosen = " best chooses among rules on fitting rows only."
    objective = objective_of(record)
    if metric not in FITTED_METRICS[objective] and any(
        record["rules"][name]["fits"] for name in names_of(record, "rule")
    ):
        chosen += f" Rules were fitted for {FITTED_FOR[objective]}."
    return [f"{text}.{chosen}"]
