"""The figures of a table of predictors: every metric with its interval, and paired differences to references.

One bootstrap and one jackknife serve all figures of all predictors, on all rows and on the covered ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .calibration import reliability
from .intervals import max_t
from .metrics import measure, metric_names
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
    family: tuple[str, ...] | None = None,
    refined: tuple[str, ...] = (),
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
    family : metrics whose differences are tested together, all by default
        Those that something was fitted for. Differences in others have no adjusted p.
    refined : names of rules whose log loss is split into a calibration and a refinement part

    Returns
    -------
    dict
        A figure is ``value, low, high`` (95 %); a difference has ``p`` and ``test`` as well, and ``p_adjusted``:
        by the bootstrap maximum over all differences of all rules in the metrics of the family. Where a rule was
        cross-fitted several times, figures are means over these, and ``repeats`` has that of each. For classes an
        entry also holds ``per_class`` (support and recall of each class), ``confusion`` (truth by prediction) and
        ``calibration``, and under ``all`` maybe ``refinement`` and ``calibration_loss``, which add up to the log loss;
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
    statistics = Statistics.of(
        rules, truth, covered, groups, task=task, draws=draws, seed=seed, refined=refined
    )
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
                _add_repeats(entry, rule, compared, truth, rows, task)
                if part == "all":
                    entry |= _loss_parts(statistics, rule.name, compared)
                for key, other in compared.items():
                    for metric, test in tests.of_pair(rule, other, part, truth[rows], rows).items():
                        entry[metric][key] |= test
                if task == "classes":
                    entry |= counted([values[rows] for values in rule.every], truth[rows])
                figures[rule.name][part] = {"rows": int(rows.sum()), **entry}
        judged = [rule.name for rule in there if rule.kind in ("rule", "head")]
        metrics = metric_names(task) if family is None else family
        _adjust(figures, part, judged, sampled, opponents, metrics, statistics.units(part))
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


def _adjust(
    figures: dict[str, dict[str, Any]],
    part: str,
    names: list[str],
    sampled: dict[str, Sampled],
    opponents: dict[str, dict[str, RuleResult]],
    metrics: tuple[str, ...],
    units: int,
) -> None:
    """Put the adjusted p beside each p: by the bootstrap maximum over one family.

    A single difference's p is a lower bound: swaps are exact where few rows tell two rules apart.
    """
    tested, values, drawn = [], [], []
    for name in names:
        for key, other in opponents[name].items():
            for metric in metrics if other.name in sampled else ():
                figure = figures[name][part][metric][key]
                if figure.get("p") is None:
                    if "p" in figure:
                        figure["p_adjusted"] = None
                    continue
                mine, theirs = (sampled[of].metrics[metric].drawn for of in (name, other.name))
                tested.append(figure)
                values.append(figure["value"])
                drawn.append(mine - theirs)
    for figure, p in zip(tested, max_t(values, drawn, units), strict=True):
        # Where every sample says the same there is no standard error: Bonferroni's bound of the exact p.
        bound = min(1.0, figure["p"] * len(tested)) if figure["value"] else 1.0
        figure["p_adjusted"] = plain(bound if p is None else max(p, figure["p"]))


def _add_repeats(
    entry: dict[str, Any],
    rule: RuleResult,
    compared: dict[str, RuleResult],
    truth: np.ndarray,
    rows: np.ndarray,
    task: str,
) -> None:
    """Put the figure of each cross-fitting into figures and differences of a rule that has several."""
    if not rule.repeats:
        return
    mine = [measure(values[rows], truth[rows], task) for values in rule.every]
    for metric in metric_names(task):
        entry[metric]["repeats"] = [plain(of[metric]) for of in mine]
    for key, other in compared.items():
        if "control" in (rule.kind, other.kind):  # permutations are no repeats
            continue
        theirs = [measure(values[rows], truth[rows], task) for values in other.every]
        if len(theirs) not in (1, len(mine)):
            continue
        for metric in metric_names(task):
            apart = [
                one[metric] - theirs[min(number, len(theirs) - 1)][metric] for number, one in enumerate(mine)
            ]
            entry[metric][key]["repeats"] = [plain(of) for of in apart]


def _loss_parts(
    statistics: Statistics, name: str, compared: dict[str, RuleResult]
) -> dict[str, dict[str, Any]]:
    """Refinement and calibration part of the log loss with their differences, where they were asked for."""
    mine = statistics.refinement(name)
    if mine is None:
        return {}
    found = {}
    for place, part in enumerate(("refinement", "calibration_loss")):
        found[part] = mine[place].figure()
        for key, other in compared.items():
            theirs = statistics.refinement(other.name)
            if theirs is not None:
                found[part][key] = mine[place].difference(theirs[place])
    return found


def counted(values: Sequence[np.ndarray], truth: np.ndarray) -> dict[str, Any]:
    """Confusion matrix (row: truth, column: prediction) and calibration errors of log-probabilities.

    Of several repeats or trainings: means over them, and reliability bins of all their rows together.
    """
    k = values[0].shape[1]
    counts = [np.bincount(truth * k + array.argmax(axis=1), minlength=k * k) for array in values]
    confusion = (counts[0] if len(values) == 1 else np.mean(counts, axis=0)).reshape(k, k)
    together = reliability(np.vstack(values), np.tile(truth, len(values)))
    bins = [
        {
            "low": plain(low),
            "high": plain(high),
            "rows": plain(n / len(values)) if len(values) > 1 else int(n),
            "confidence": plain(confidence),
            "accuracy": plain(accuracy),
        }
        for low, high, n, confidence, accuracy in zip(
            together.low, together.high, together.rows, together.confidence, together.accuracy, strict=True
        )
    ]
    errors = {
        name: plain(float(np.mean([reliability(of, truth, adaptive=adaptive).error for of in values])))
        for name, adaptive in (("ece", False), ("ece_adaptive", True))
    }
    return {"confusion": confusion.tolist(), "calibration": {**errors, "bins": bins}}
