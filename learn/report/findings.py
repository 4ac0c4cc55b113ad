"""Findings: the conclusions of a run as data.

The primary comparison follows from the options of a run, not from its results: one rule, one metric, and its opponents.
These are the references and the control of the rule: three in late fusion, two in intermediate fusion. The rule must be
significantly better than each of them at 5 %; because all are needed, p-values are not adjusted for their number. The
effect size, too, is that of one rule, which follows from the options. Everything else is exploratory
(docs/statistics.md). docs/report.md lists the fields. Templates turn findings into sentences (``sentences.j2``).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..config import FITTED_METRICS
from ..evaluate.figures import Figure
from ..evaluate.intervals import FEW_UNITS, LEVEL, chance_of
from ..evaluate.metrics import METRICS, better_by
from ..evaluate.predictors import CONDITIONAL, INTERMEDIATE, NULL_INPUT, PERMUTED, REAL, label_of, repeated
from ..rules import RECALIBRATED
from .format import LEVELS, is_better
from .view import Key, View

FORMAT, FORMAT_VERSION = "ig3d-findings", 4
# Differences below it are of the order at which optimisers stop.
NUMERICAL = 1e-6
_MAX_PAIRS = 3
_NOTHING = Figure(math.nan, math.nan, math.nan, math.nan, math.nan)


def findings_of(view: View) -> dict[str, Any]:
    """Primary comparison, effect size and further findings of a run.

    Returns
    -------
    dict
        ``primary`` and ``effect`` are None where nothing is fused (codes alone). Differences are raw: the rule minus
        ``versus``, so that a negative difference is an improvement where ``better`` is ``lower``.
        ``upper_limit_of_gain`` is the end of the 95 % interval on the side of improvement, as a positive number or 0.
        Up to ``FEW_UNITS`` rows or groups, nothing is stated from intervals: there is no claim, and the upper limits
        and the gain of the effect size are None.
        ``exploratory``: other findings; ``diagnostics``: warnings that limit the interpretation. Each has a ``code``
        and its values.
    """
    fused = view.intermediate or (view.record["primary"] is not None and bool(view.of_role("rule")))
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "primary": _primary(view) if fused else None,
        "effect": _effect(view) if fused else None,
        "exploratory": _exploratory(view, fused=fused),
        "diagnostics": _warnings(view) + _chance(view),
    }


def _numbers(figure: Figure | None, *names: str) -> dict[str, float | None]:
    """Numbers of a figure by name; None if not defined."""
    of = figure or _NOTHING
    values = {name: getattr(of, name) for name in names or ("value", "low", "high", "p")}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _primary(view: View) -> dict[str, Any]:
    rule, metric, control = view.primary_rule, view.primary_metric, view.control(view.primary_rule)
    opponents: list[Key] = [(name, REAL) for name in ([NULL_INPUT] if view.intermediate else view.references)]
    if control is not None:
        opponents.append(control)
    entry, reason = view.entry(rule), _reason(view, rule, control)
    comparisons = [_comparison(view, rule, metric, key) for key in opponents] if entry else []
    if not view.protocol["rows_covered"]:
        comparisons = []
    decisive = _decisive(comparisons)
    return {
        "claim": reason is None and all(of["significant"] for of in comparisons),
        "input": view.three,
        "rule": rule,
        "metric": metric,
        "better": _better(metric),
        **decisive,
        "upper_limit_of_gain": _upper_limit(view, decisive, metric),
        "reason": reason,
        "comparisons": comparisons,
        "loss_parts": _loss_parts(view, rule, opponents) if comparisons else [],
    }


def _better(metric: str) -> str:
    """Direction of improvement of a metric."""
    return "lower" if METRICS[metric].lower else "higher"


def _decisive(comparisons: list[dict[str, Any]]) -> dict[str, Any]:
    """Numbers of the comparison that decides: one that is not significant, else the one with the greatest p."""
    decisive: dict[str, Any] = max(
        comparisons, key=lambda of: (not of["significant"], 1.0 if of["p"] is None else of["p"]), default={}
    )
    return {key: decisive.get(key) for key in ("versus", "condition", "value", "low", "high", "p")}


def _reason(view: View, rule: str, control: Key | None) -> str | None:
    """Reason why a claim is impossible for any results; None if it is possible."""
    protocol, entry = view.protocol, view.entry(rule)
    if not protocol["rows_covered"]:
        return f"no reported row has {view.three}"
    if entry is None or entry.rows != "all":
        return f"the rule {rule} was not run"
    if view.units == 1:
        return (
            "all reported rows are of one group" if protocol["rows_reported"] > 1 else "one row is reported"
        )
    if view.few:
        units = "groups" if view.grouped else "rows"
        return f"only {view.units} {units} are reported, and a claim needs at least {FEW_UNITS + 1}"
    if view.intermediate and view.entry(NULL_INPUT) is None:
        return "no null-input baseline was trained"
    return "no control was run" if control is None else None


def _comparison(view: View, rule: str | Key, metric: str, versus: Key) -> dict[str, Any]:
    """One comparison of the rule with an opponent."""
    figure = view.figure(rule, metric, versus=versus)
    comparison = {"versus": versus[0], "condition": versus[1], **_numbers(figure)}
    repeats = [value for value in view.repeats(rule, metric, versus) if math.isfinite(value)]
    if len(repeats) > 1:
        comparison |= {"repeats": len(repeats), "sd_of_one_repeat": float(np.std(repeats, ddof=1))}
    return comparison | {"significant": _is_significant(figure, metric)}


def _is_significant(figure: Figure | None, metric: str) -> bool:
    """Whether a difference is a significant improvement by its test and by its interval."""
    if figure is None or not all(map(math.isfinite, (figure.value, figure.low, figure.p))):
        return False
    nearest = min(better_by(metric, figure.low), better_by(metric, figure.high))
    return bool(nearest > 0 and abs(figure.value) > NUMERICAL and figure.p < LEVELS[0])


def _upper_limit(view: View, figure: dict[str, Any], metric: str) -> float | None:
    """End of the interval of a difference on the side of improvement, as a gain of at least 0."""
    end = figure["low" if METRICS[metric].lower else "high"]
    return None if end is None or view.few else max(better_by(metric, end), 0.0)


def _loss_parts(view: View, rule: str, opponents: list[Key]) -> list[dict[str, Any]]:
    """Differences in log loss, split into refinement and calibration."""
    parts = []
    for versus in opponents:
        refinement, calibration = (
            view.figure(rule, metric, versus=versus) for metric in ("refinement", "calibration_loss")
        )
        if refinement is not None and calibration is not None:
            parts.append(
                {
                    "versus": versus[0],
                    "condition": versus[1],
                    "refinement": _numbers(refinement, "value", "low", "high"),
                    "calibration": _numbers(calibration, "value", "low", "high"),
                }
            )
    return parts


def _effect(view: View) -> dict[str, Any]:
    """Gain of one rule relative to the references, in the metrics that papers report; options determine the rule.

    ``gain`` is ``shown`` where the intervals of the differences to all references lie on the side of improvement, and
    ``loss shown`` where all lie on the other side; else it is ``not shown``. ``versus`` is the reference of the upper
    limit.
    """
    rule = view.effect_rule
    metrics = []
    for metric in view.leading:
        figure = view.figure(rule, metric)
        differences = {name: view.figure(rule, metric, versus=name) for name in view.references}
        defined = {name: of for name, of in differences.items() if of is not None and math.isfinite(of.value)}
        if figure is None or not defined:
            continue
        versus = next(iter(defined))
        numbers = {name: _numbers(of) for name, of in defined.items()}
        metrics.append(
            {
                "metric": metric,
                "better": _better(metric),
                "metric_value": _numbers(figure, "value", "low", "high"),
                "gain": None if view.few else _gain(list(defined.values()), metric),
                "differences": numbers,
                "versus": versus,
                "upper_limit_of_gain": _upper_limit(view, numbers[versus], metric),
            }
        )
    return {"rule": rule, "metrics": metrics, "other_objective": _other_objective(view)}


def _gain(differences: list[Figure], metric: str) -> str | None:
    """Whether a gain is shown by the intervals of all differences; None where these are not defined."""
    ends = [better_by(metric, end) for of in differences for end in (of.low, of.high)]
    if not all(map(math.isfinite, ends)):
        return None
    return "shown" if min(ends) > 0 else "loss shown" if max(ends) < 0 else "not shown"


def _other_objective(view: View) -> str | None:
    """The objective of the rules, if it is not the metric of the effect size; else None."""
    if view.intermediate or not any(of.fits for of in view.of_role("rule")):
        return None
    return None if view.leading[0] in FITTED_METRICS[view.objective] else view.objective


def _exploratory(view: View, *, fused: bool) -> list[dict[str, Any]]:
    """Findings other than the primary comparison and the effect size; for codes alone, the best head first."""
    if not view.protocol["rows_covered"] or view.units == 1:
        return []
    if view.intermediate:
        return [*_modules(view), *_complementarity(view)]
    if not fused:
        return [*_heads(view), *_complementarity(view)]
    judged = [] if view.few else [*_alone(view), *_controls(view), *_second_networks(view)]
    return [*judged, *_beyond_both(view), *_complementarity(view)]


def _alone(view: View) -> list[dict[str, Any]]:
    """Whether the rule of the effect size is significantly better than the 3D predictions alone."""
    metric, rule = view.leading[0], view.effect_rule
    for rows in ("all", "covered"):
        figure = view.figure(rule, metric, rows=rows, versus="3d")
        if figure is not None and math.isfinite(figure.low):
            finding = {
                "code": "better_than_3d_alone",
                "rule": rule,
                "metric": metric,
                "rows": rows,
                "versus": "3d",
            }
            return [finding | _numbers(figure) | {"significant": _is_significant(figure, metric)}]
    return []


def _controls(view: View) -> list[dict[str, Any]]:
    """Controls with permuted codes that gain over every reference, in the metric of the primary comparison."""
    controls = [of for of in view.of_role("control") if of.condition in (PERMUTED, CONDITIONAL)]
    if not controls:
        return []
    gaining = [label_of(*of.key) for of in controls if _gains_by_interval(view, of.key, view.primary_metric)]
    return [
        {
            "code": "controls",
            "metric": view.primary_metric,
            "count": len(controls),
            "permuted_once": sum(of.condition == PERMUTED for of in controls),
            "gaining": gaining,
            "versus": view.references,
        }
    ]


def _gains_by_interval(view: View, key: Key, metric: str) -> bool:
    """Whether the whole intervals of a predictor's differences to every reference are on the better side."""
    figures = [view.figure(key, metric, versus=name) for name in view.references]
    defined = [of for of in figures if of is not None and math.isfinite(of.low)]
    return bool(defined) and all(
        min(better_by(metric, of.low), better_by(metric, of.high)) > 0 for of in defined
    )


def _second_networks(view: View) -> list[dict[str, Any]]:
    """Differences of a rule to itself with a second 2D network in place of the 3D.

    ``second_network_gains``: whether the rule with the second network gains over every reference.
    """
    names = [of.name for of in view.seconds]
    rule = view.primary_rule if view.primary_rule in names else "stack"
    metric = view.primary_metric
    return [
        {
            "code": "second_network",
            "rule": rule,
            "network": of.condition,
            "metric": metric,
            "versus": of.name,
            "condition": of.condition,
            **_numbers(figure),
            "second_network_gains": _gains_by_interval(view, of.key, metric),
        }
        for of in view.seconds
        if of.name == rule and (figure := view.figure(rule, metric, versus=of.key)) is not None
    ]


def _beyond_both(view: View) -> list[dict[str, Any]]:
    """Differences of the primary rule over two stacked 2D networks to its two opponents.

    These are the reference over both networks, and the rule itself with the second network repeated in place of the 3D.
    """
    metric, findings = view.primary_metric, []
    for of in view.beyond_both:
        opponents = [(RECALIBRATED, of.condition), (of.name, repeated(of.condition))]
        comparisons = [_comparison(view, of.key, metric, key) for key in opponents]
        findings.append(
            {
                "code": "beyond_both",
                "rule": of.name,
                "network": of.condition,
                "metric": metric,
                "shown": all(each["significant"] for each in comparisons),
                **_decisive(comparisons),
                "comparisons": comparisons,
            }
        )
    return findings


def _heads(view: View) -> list[dict[str, Any]]:
    """Codes alone: the best head, with its differences to the references."""
    metric = view.leading[0]
    ranked = view.ranked(metric)
    if not ranked or not view.references:
        return []
    best = ranked[0]
    compared = [
        {
            "versus": name,
            "significant": is_better(figure, metric),
            **_numbers(figure, "value", "low", "high", "p_adjusted"),
        }
        for name in view.references
        if name != best and (figure := view.figure(best, metric, versus=name)) is not None
    ]
    return [
        {"code": "best_head", "head": best, "heads": len(ranked), "metric": metric, "comparisons": compared}
    ]


def _modules(view: View) -> list[dict[str, Any]]:
    """Intermediate fusion: permuted codes against the null-input baseline, codes against the 2D network."""
    metric = view.leading[0]
    findings: list[dict[str, Any]] = []
    permuted = view.figure((INTERMEDIATE, PERMUTED), metric, versus=NULL_INPUT)
    if permuted is not None and math.isfinite(permuted.low) and not view.few:
        gains = min(better_by(metric, permuted.low), better_by(metric, permuted.high)) > 0
        finding = {"code": "permuted_codes", "metric": metric, "versus": NULL_INPUT, **_numbers(permuted)}
        findings.append(finding | {"gains": gains})
    network = view.figure(INTERMEDIATE, metric, versus="2d")
    if network is not None and math.isfinite(network.value):
        # with several trainings, the interval includes variation between them, which the test does not
        gain, sure = (
            better_by(metric, network.value),
            network.p < LEVELS[0] and network.low * network.high > 0,
        )
        direction = "not shown" if not sure else "better" if gain > 0 else "worse"
        finding = {"code": "codes_against_2d", "metric": metric, "versus": "2d", **_numbers(network)}
        findings.append(finding | {"direction": direction})
    repeats = [of for of in view.repeats(INTERMEDIATE, metric, NULL_INPUT) if math.isfinite(of)]
    findings.append(
        {
            "code": "trainings",
            "metric": metric,
            "versus": NULL_INPUT,
            "count": view.trainings,
            "lowest": min(repeats, default=None),
            "highest": max(repeats, default=None),
        }
    )
    return findings


def _complementarity(view: View) -> list[dict[str, Any]]:
    """Complementarity of two predictors: the oracle bounds every rule that chooses one of the two answers."""
    pairs = view.pairs
    if view.of_role("head"):
        best = next(iter(view.ranked(view.leading[0])), None)
        pairs = [pair for pair in pairs if best in pair]
    findings = []
    for first, second in pairs[:_MAX_PAIRS]:
        values = {
            f"{measure}_{label}" if label else measure: _numbers(figure, "value")["value"]
            for measure, label, figure in view.pair(first, second)
        }
        findings.append({"code": f"complementarity_{view.task}", "first": first, "second": second, **values})
    return findings


def _warnings(view: View) -> list[dict[str, Any]]:
    """Warnings of the plan and of the files as text, then those of the data and results."""
    lines = (*view.leaks, *(line for line in view.record["assumptions"] if line.startswith("WARNING")))
    texts = [{"code": "warning", "text": line.removeprefix("WARNING ")} for line in lines]
    return texts + [of for of in view.record["diagnostics"] if of["warning"]]


def _chance(view: View) -> list[dict[str, Any]]:
    """Warning if the 2D network is perfect, at chance, or not significantly above chance."""
    metric = "accuracy" if view.task == "classes" else "ccc_joint"
    figure = view.figure("2d", metric)
    if figure is None or view.units == 1 or not view.protocol["rows_covered"]:
        return []
    error = view.figure("2d", "rmse_joint")
    if figure.value == 1 if view.task == "classes" else error is not None and error.value == 0:
        return [{"code": "2d_perfect"}]
    values = {
        "metric": metric,
        "rows": view.protocol["rows_reported"],
        **_numbers(figure, "value", "low", "high"),
    }
    if view.task == "classes":
        counts = view.run.tables["confusion.csv"]
        counts = counts[
            (counts["predictor"] == "2d") & (counts["condition"] == REAL) & (counts["rows"] == "all")
        ]
        k = len(view.record["classes"])
        confusion = counts["count"].to_numpy().reshape(k, k)
        share, p = chance_of(confusion)
        if p < 1 - LEVEL or (confusion.sum(axis=1) > 0).sum() < 2:
            return []
        code = "2d_near_chance" if figure.value > share + 1e-9 else "2d_at_chance"
        return [{"code": code, "chance": share, "p": p, **values}]
    if not math.isfinite(figure.value) or (figure.value > 0 and not figure.low <= 0):
        return []
    return [{"code": "2d_near_chance" if figure.value > 0 else "2d_at_chance", **values}]
