"""The figures of a table of predictors: every metric with its interval, and paired differences to references.

One bootstrap and one jackknife serve all figures of all predictors, on all rows and on the covered ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from .calibration import reliability
from .complementarity import complementarity_of, cross_statistics
from .intervals import (
    bca_interval,
    bootstrap_sums,
    group_totals,
    holm,
    mcnemar,
    percentile_interval,
    share_as_extreme,
    swapped_sums,
)
from .metrics import metric_names, metrics_of, own_statistics, recalls_of, shared_statistics

REFERENCES = ("2d-recalibrated", "2d")


@dataclass(frozen=True, slots=True)
class RuleResult:
    """The reported predictions of one rule.

    Attributes
    ----------
    name : str
    kind : ``reference``, ``rule`` or ``control`` (the codes' rows permuted)
    fits : bool
        Whether anything was fitted to 2D predictions.
    values : (n, k) float64 log-probabilities, or (n, 2) valence and arousal; NaN where there is none
    fitted : what was fitted in each copy, for the record
    """

    name: str
    kind: str
    fits: bool
    values: np.ndarray
    fitted: tuple[dict[str, Any], ...] = ()

    @property
    def present(self) -> np.ndarray:
        """(n,) bool: rows that have a prediction of this rule."""
        return np.asarray(np.isfinite(self.values).all(axis=1))


def difference_key(reference: str) -> str:
    """Under what name a figure holds its difference to a reference: ``minus_2d_recalibrated``."""
    return f"minus_{reference}".replace("-", "_")


def control_of(name: str, names: Iterable[str]) -> str | None:
    """The control that repeats a rule with the codes permuted, if it is among ``names``."""
    return next((other for other in (f"{name}-permuted", "permuted") if other in names), None)


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
        A rule has its difference to its own control as ``minus_control``, to ``3d`` as ``minus_3d``, and to itself with
        a second 2D network in place of the 3D (``minus_stack+NAME``).

    Notes
    -----
    A rule without a prediction in some rows (``3d`` where there are no codes) has None under ``all``.
    """
    known = [rule for name in references for rule in rules if rule.name == name]
    parts = {"all": np.ones(len(truth), bool), "covered": covered}
    statistics = _Statistics.of(rules, truth, covered, groups, task=task, draws=draws, seed=seed)
    opponents = {rule.name: _opponents(rule, rules, known) for rule in rules}
    tests = _Tests.of(statistics, rules, opponents, groups, draws=draws, seed=seed)
    figures: dict[str, dict[str, Any]] = {rule.name: {} for rule in rules}
    for part, rows in parts.items():
        if part == "covered" and covered.all():
            for rule in rules:
                figures[rule.name]["covered"] = figures[rule.name]["all"]
            break
        there = [rule for rule in rules if rows.any() and rule.present[rows].all()]
        sampled = {rule.name: _Sampled.of(statistics.sums(part, rule.name), task) for rule in there}
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


@dataclass(frozen=True, slots=True)
class _Sums:
    """Summed statistics: of the rows (1, s), of the bootstrap samples (draws, s), without one group each (g, s)."""

    point: np.ndarray
    drawn: np.ndarray
    left: np.ndarray

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> _Sums:
        return _Sums(function(self.point), function(self.drawn), function(self.left))

    def take(self, columns: slice) -> _Sums:
        return self.map(lambda sums: sums[:, columns])

    def figure(self) -> dict[str, Any]:
        """Value and BCa interval, where these are (1,), (draws,) and (g,) figures."""
        return _told(self.point, bca_interval(float(self.point[0]), self.drawn, self.left))

    def difference(self, other: _Sums) -> dict[str, Any]:
        """Difference to another figure and its percentile interval (:mod:`.intervals` says why)."""
        return _told(self.point - other.point, percentile_interval(self.drawn - other.drawn))


def _told(value: np.ndarray, interval: tuple[float, float]) -> dict[str, Any]:
    return {"value": plain(value[0]), "low": plain(interval[0]), "high": plain(interval[1])}


@dataclass(frozen=True, slots=True)
class _Sampled:
    """Metrics and recalls of one rule on one part, over samples."""

    metrics: dict[str, _Sums]
    recalls: tuple[_Sums, ...]
    support: np.ndarray

    @classmethod
    def of(cls, sums: tuple[_Sums, _Sums], task: str) -> _Sampled:
        shared, own = sums
        every = [
            metrics_of(getattr(shared, name), getattr(own, name), task) for name in ("point", "drawn", "left")
        ]
        metrics = {name: _Sums(*(of[name] for of in every)) for name in metric_names(task)}
        if task == "va":
            return cls(metrics, (), np.zeros(0))
        recalls = [
            recalls_of(getattr(shared, name), getattr(own, name)) for name in ("point", "drawn", "left")
        ]
        k = recalls[0].shape[1]
        return cls(
            metrics, tuple(_Sums(*(of[:, c] for of in recalls)) for c in range(k)), shared.point[0, 1:]
        )


@dataclass(frozen=True, slots=True)
class _Statistics:
    """Sums of all rules' statistics side by side, so that one product serves them all."""

    totals: dict[str, np.ndarray]  # disjoint parts of the rows -> (g, s)
    parts: dict[str, _Sums]
    spans: dict[Any, slice]  # "" for the truth, a rule's name, or a pair of names -> columns
    pairs: tuple[tuple[str, str], ...]
    task: str

    @classmethod
    def of(
        cls,
        rules: tuple[RuleResult, ...],
        truth: np.ndarray,
        covered: np.ndarray,
        groups: np.ndarray | None,
        *,
        task: str,
        draws: int,
        seed: int,
    ) -> _Statistics:
        values = {rule.name: np.where(rule.present[:, None], rule.values, 0.0) for rule in rules}
        single = [
            rule
            for rule in rules
            if rule.kind in ("reference", "head") and not rule.fits and _varies(rule.values[covered])
        ]
        pairs = [
            (first.name, second.name)
            for first, second in combinations(single, 2)
            if (first.present & second.present)[covered].all()
        ]
        blocks: dict[Any, np.ndarray] = {"": shared_statistics(truth, task, rules[0].values.shape[1])}
        blocks |= {name: own_statistics(of, truth, task) for name, of in values.items()}
        blocks |= {
            (first, second): cross_statistics(values[first], values[second], truth, task)
            for first, second in pairs
        }
        ends = np.cumsum([0, *(block.shape[1] for block in blocks.values())])
        spans = {key: slice(ends[place], ends[place + 1]) for place, key in enumerate(blocks)}
        matrix = np.hstack(list(blocks.values()))
        unit = np.arange(len(truth)) if groups is None else groups
        # Covered rows and the others are resampled by the same draws and added: all rows cost no second pass.
        totals = {"covered": group_totals(matrix * covered[:, None], unit)}
        if not covered.all():
            totals["others"] = group_totals(matrix * ~covered[:, None], unit)
        drawn = bootstrap_sums(list(totals.values()), draws=draws, seed=seed)
        parts = {
            part: _Sums(of.sum(axis=0, keepdims=True), sums, of.sum(axis=0) - of)
            for (part, of), sums in zip(totals.items(), drawn, strict=True)
        }
        parts["all"] = parts["covered"]
        if "others" in parts:
            every = [(getattr(parts["covered"], n), getattr(parts["others"], n)) for n in _Sums.__slots__]
            parts["all"] = _Sums(*(inside + outside for inside, outside in every))
        return cls(totals, parts, spans, tuple(pairs), task)

    def sums(self, part: str, name: str) -> tuple[_Sums, _Sums]:
        """Summed statistics of the truth and of a rule."""
        return self.parts[part].take(self.spans[""]), self.parts[part].take(self.spans[name])

    def complementarity(self, first: str, second: str) -> dict[str, Any]:
        """Measures of a pair on the covered rows, with intervals."""
        part = self.parts["covered"]
        every = []
        for name in _Sums.__slots__:
            keys = ("", first, second, (first, second))
            shared, one, other, cross = (getattr(part, name)[:, self.spans[key]] for key in keys)
            every.append(complementarity_of(shared, one, other, cross, self.task))
        return {name: _Sums(*(of[name] for of in every)).figure() for name in every[0]}


def _varies(values: np.ndarray) -> bool:
    """Whether a predictor looks at its rows: a prior, even one for each fold, says the same of most."""
    return len(values) > 1 and 2 * len(np.unique(values, axis=0)) > len(values)


def _entry(
    sampled: dict[str, _Sampled],
    name: str,
    compared: dict[str, RuleResult],
    references: list[RuleResult],
    task: str,
) -> dict[str, Any]:
    """Metrics of one rule on one part with every difference, and recalls with those to the references."""
    mine = sampled[name]
    leading = {difference_key(other.name) for other in references}
    leading_only = {key: other for key, other in compared.items() if key in leading}

    def told(of: Callable[[_Sampled], _Sums], compared: dict[str, RuleResult]) -> dict[str, Any]:
        found = {key: of(mine).difference(of(sampled[other.name])) for key, other in compared.items()}
        return of(mine).figure() | found

    entry: dict[str, Any] = {
        metric: told(lambda of, metric=metric: of.metrics[metric], compared)  # type: ignore[misc]
        for metric in metric_names(task)
    }
    if task == "classes":
        recalls = [
            told(lambda of, index=index: of.recalls[index], leading_only)  # type: ignore[misc]
            for index in range(len(mine.recalls))
        ]
        entry["per_class"] = [
            {"support": int(support), "recall": recall}
            for support, recall in zip(mine.support, recalls, strict=True)
        ]
    return entry


@dataclass(frozen=True, slots=True)
class _Tests:
    """Metrics' differences when two rules' predictions are swapped at random, by row or by group.

    Controls are not tested: that one does no harm is what its interval says.
    """

    statistics: _Statistics
    swapped: dict[str, np.ndarray]  # part -> (draws, s) sums of differences, pair after pair
    spans: dict[tuple[str, str], slice]
    groups: np.ndarray | None

    @classmethod
    def of(
        cls,
        statistics: _Statistics,
        rules: tuple[RuleResult, ...],
        opponents: dict[str, dict[str, RuleResult]],
        groups: np.ndarray | None,
        *,
        draws: int,
        seed: int,
    ) -> _Tests:
        pairs = [
            (rule.name, other.name)
            for rule in rules
            for other in opponents[rule.name].values()
            if rule.kind != "control"
        ]
        if not pairs:
            return cls(statistics, {}, {}, groups)
        spans = statistics.spans
        blocks = [
            np.hstack([totals[:, spans[one]] - totals[:, spans[other]] for one, other in pairs])
            for totals in statistics.totals.values()
        ]
        sums = dict(zip(statistics.totals, swapped_sums(blocks, draws=draws, seed=seed), strict=True))
        width = blocks[0].shape[1] // len(pairs)
        return cls(
            statistics,
            {"covered": sums["covered"], "all": sum(sums.values(), np.zeros(()))},
            {pair: slice(place * width, (place + 1) * width) for place, pair in enumerate(pairs)},
            groups,
        )

    def of_pair(
        self, rule: RuleResult, other: RuleResult, part: str, truth: np.ndarray, rows: np.ndarray
    ) -> dict[str, dict[str, Any]]:
        """metric -> p that two rules are equally good.

        For accuracy of single rows the exact test is McNemar's, to which swaps only come close.
        """
        if (rule.name, other.name) not in self.spans:
            return {}
        task = self.statistics.task
        shared, mine = (sums.point[0] for sums in self.statistics.sums(part, rule.name))
        theirs = self.statistics.sums(part, other.name)[1].point[0]
        half = self.swapped[part][:, self.spans[rule.name, other.name]] / 2
        swapped = [metrics_of(shared, (mine + theirs) / 2 + sign * half, task) for sign in (1, -1)]
        given = [metrics_of(shared, own, task) for own in (mine, theirs)]
        test = f"swaps of {'rows' if self.groups is None else 'groups'}"
        found = {}
        for metric in metric_names(task):
            value = float(given[0][metric] - given[1][metric])
            if math.isfinite(value):
                p = share_as_extreme(value, swapped[0][metric] - swapped[1][metric])
                found[metric] = {"p": plain(p), "test": test}
        if task == "classes" and self.groups is None:
            right, wrong = (of.values[rows].argmax(axis=1) == truth for of in (rule, other))
            found["accuracy"] = {"p": plain(mcnemar(right, wrong)), "test": "McNemar, exact"}
        return found


def _correct(parts: list[dict[str, Any]], task: str) -> None:
    """Put Holm's adjusted p beside each p: over the rules of the table, for a difference and a metric apart."""
    for metric in metric_names(task):
        tested: dict[str, list[dict[str, Any]]] = {}
        for part in parts:
            for key, figure in part[metric].items():
                if isinstance(figure, dict) and figure.get("p") is not None:
                    # What a second 2D network does is one question, whatever rule it is asked of.
                    tested.setdefault(key.rpartition("+")[2], []).append(figure)
        for figures in tested.values():
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


def plain(value: float) -> float | None:
    """A number for JSON: 12 significant digits, None where it is not defined."""
    return float(f"{value:.12g}") if math.isfinite(value) else None
