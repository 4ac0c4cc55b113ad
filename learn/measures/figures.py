"""The figures of a table of predictors: every metric with its interval, and paired differences to references.

One bootstrap and one jackknife serve all figures of all predictors, on all rows and on the covered ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .calibration import reliability
from .intervals import holm
from .metrics import metric_names
from .results import RuleResult, control_of, difference_key, plain
from .sampled import Sampled, Statistics, Sums, Tests

REFERENCES = ("2d-recalibrated", "2d")


def figures_of(
    rules: tuple[RuleResult, ...],
    truth: np.ndarray,
    covered: np.ndarray,
    groups: np.ndarray | None,
    *,
    task: str,
    draws: int,
    seed: int,
    references: tuple[str, ...] = REFERENCES,
) -> dict[str, dict[str, Any]]:
    """rule -> ``all`` or ``covered`` -> metric -> value, low, high, and the differences to what it is compared with.

    Parameters
    ----------
    rules : results over n rows
    truth : (n,) labels or (n, 2) targets
    covered : (n,) bool
    groups : (n,) int, resampled and swapped as wholes; None where rows stand for themselves
    draws, seed : of the bootstrap and of the swaps
    references : names of rules that every rule is compared with; those that are not there are left out

    Returns
    -------
    dict
        A figure is ``value, low, high`` (95 %); a difference has ``p`` and ``test`` as well, and ``p_holm``
        among the rules of the table, for each reference and metric apart. For classes an entry also holds
        ``per_class`` (support and recall of each class), ``confusion`` (truth by prediction) and ``calibration``;
        ``complementarity`` of a single predictor with those before it stands on the covered rows.
        What rests on a single row or group has no interval, and two rules in a single one no test: None.
        A rule has its difference to its own control as ``minus_control``, to ``3d`` as ``minus_3d``, and to itself with
        a second 2D network in place of the 3D (``minus_stack+NAME``).

    Notes
    -----
    A rule without a prediction in some rows (``3d`` where there are no codes) has None under ``all``.
    """
    known = [rule for name in references for rule in rules if rule.name == name]
    parts = {"all": np.ones(len(truth), bool), "covered": covered}
    statistics = Statistics.of(rules, truth, covered, groups, task=task, draws=draws, seed=seed)
    opponents = {rule.name: _opponents(rule, rules, known) for rule in rules}
    tests = Tests.of(statistics, rules, opponents, groups, draws=draws, seed=seed)
    figures: dict[str, dict[str, Any]] = {rule.name: {} for rule in rules}
    for part, rows in parts.items():
        if part == "covered" and covered.all():
            for rule in rules:
                figures[rule.name]["covered"] = figures[rule.name]["all"]
            break
        there = [rule for rule in rules if rows.any() and rule.present[rows].all()]
        sampled = {rule.name: Sampled.of(statistics.sums(part, rule.name), task) for rule in there}
        for rule in rules:
            figures[rule.name][part] = None
            if rule in there:
                compared = {
                    key: other for key, other in opponents[rule.name].items() if other.name in sampled
                }
                entry = _entry(sampled, rule.name, compared, known, task)
                for key, other in compared.items():
                    for metric, test in tests.of_pair(rule, other, part, truth[rows], rows).items():
                        entry[metric][key] |= test
                if task == "classes":
                    entry |= _counted(rule.values[rows], truth[rows])
                figures[rule.name][part] = {"rows": int(rows.sum()), **entry}
        _correct([figures[rule.name][part] for rule in there if rule.kind in ("rule", "head")], task)
    for first, second in statistics.pairs:
        where = figures[second]["covered"]
        if where and figures[first]["covered"]:
            where.setdefault("complementarity", {})[first] = statistics.complementarity(first, second)
    return figures


def _opponents(
    rule: RuleResult, rules: tuple[RuleResult, ...], references: list[RuleResult]
) -> dict[str, RuleResult]:
    """Name of a difference -> what a rule is compared with."""
    found = {difference_key(other.name): other for other in references if other.name != rule.name}
    if rule.kind != "rule":
        return found
    by_name = {other.name: other for other in rules}
    control = control_of(rule.name, by_name)
    if control is not None:
        found["minus_control"] = by_name[control]
    beside = ["3d", *(name for name in by_name if name.startswith(f"{rule.name}+"))]
    return found | {difference_key(name): by_name[name] for name in beside if name in by_name}


def _entry(
    sampled: dict[str, Sampled],
    name: str,
    compared: dict[str, RuleResult],
    references: list[RuleResult],
    task: str,
) -> dict[str, Any]:
    """Metrics of one rule on one part with every difference, and recalls with those to the references."""
    mine = sampled[name]
    others = {key: sampled[other.name] for key, other in compared.items()}
    leading = {difference_key(other.name) for other in references}
    leading_only = {key: other for key, other in others.items() if key in leading}

    def told(of: Sums, theirs: dict[str, Sums]) -> dict[str, Any]:
        return of.figure() | {key: of.difference(other) for key, other in theirs.items()}

    entry: dict[str, Any] = {
        metric: told(of, {key: other.metrics[metric] for key, other in others.items()})
        for metric, of in mine.metrics.items()
    }
    if task == "classes":
        recalls = [
            told(of, {key: other.recalls[index] for key, other in leading_only.items()})
            for index, of in enumerate(mine.recalls)
        ]
        entry["per_class"] = [
            {"support": int(support), "recall": recall}
            for support, recall in zip(mine.support, recalls, strict=True)
        ]
    return entry


def _correct(parts: list[dict[str, Any]], task: str) -> None:
    """Put Holm's adjusted p beside each p: over the rules of the table, for a difference and a metric apart."""
    for metric in metric_names(task):
        tested: dict[str, list[dict[str, Any]]] = {}
        for part in parts:
            for key, figure in part[metric].items():
                if isinstance(figure, dict) and "p" in figure:
                    figure["p_holm"] = None
                    # What a second 2D network does is one question, whatever rule it is asked of.
                    tested.setdefault(key.rpartition("+")[2], []).append(figure)
        for family in tested.values():
            figures = [figure for figure in family if figure["p"] is not None]
            for figure, adjusted in zip(figures, holm([of["p"] for of in figures]), strict=True):
                figure["p_holm"] = plain(adjusted)


def _counted(values: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Confusion matrix (row: truth, column: prediction) and calibration of log-probabilities."""
    k = values.shape[1]
    confusion = np.bincount(truth * k + values.argmax(axis=1), minlength=k * k).reshape(k, k)
    equal, adaptive = reliability(values, truth), reliability(values, truth, adaptive=True)
    bins = [
        {"low": plain(low), "high": plain(high), "rows": int(n), "confidence": plain(c), "accuracy": plain(a)}
        for low, high, n, c, a in zip(
            equal.low, equal.high, equal.rows, equal.confidence, equal.accuracy, strict=True
        )
    ]
    calibration = {"ece": plain(equal.error), "ece_adaptive": plain(adaptive.error), "bins": bins}
    return {"confusion": confusion.tolist(), "calibration": calibration}
