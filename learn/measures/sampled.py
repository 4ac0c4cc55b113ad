"""Figures over samples: statistics of all predictors, summed once over rows, bootstrap samples, jackknife and swaps.

A metric is a function of summed statistics (:mod:`.metrics`), so that one product of weights and rows serves every
figure of every predictor, on all rows and on the covered ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ...features.predictions import log_softmax
from .complementarity import complementarity_of, cross_statistics
from .intervals import (
    bca_interval,
    bootstrap_sums,
    group_totals,
    mcnemar,
    percentile_interval,
    share_as_extreme,
    swapped_sums,
)
from .metrics import metric_names, metrics_of, own_statistics, recalls_of, shared_statistics
from .results import RuleResult, plain

REFINED = "refined"


@dataclass(frozen=True, slots=True)
class Sums:
    """Summed statistics: of the rows (1, s), of the bootstrap samples (draws, s), without one group each (g, s)."""

    point: np.ndarray
    drawn: np.ndarray
    left: np.ndarray

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Sums:
        return Sums(function(self.point), function(self.drawn), function(self.left))

    def take(self, columns: slice) -> Sums:
        return self.map(lambda sums: sums[:, columns])

    def figure(self) -> dict[str, Any]:
        """Value and BCa interval, where these are (1,), (draws,) and (g,) figures."""
        return self._told(bca_interval(float(self.point[0]), self.drawn, self.left))

    def difference(self, other: Sums) -> dict[str, Any]:
        """Difference to another figure and its percentile interval (:mod:`.intervals` says why)."""
        apart = Sums(self.point - other.point, self.drawn - other.drawn, self.left - other.left)
        return apart._told(percentile_interval(apart.drawn, len(self.left)))

    def _told(self, interval: tuple[float, float]) -> dict[str, Any]:
        # Where all rests on one row or group, so that nothing is left without it, every sample says the same: that
        # is no interval.
        low, high = interval if np.isfinite(self.left).all() else (math.nan, math.nan)
        return {"value": plain(self.point[0]), "low": plain(low), "high": plain(high)}


@dataclass(frozen=True, slots=True)
class Sampled:
    """Metrics and recalls of one rule on one part, over samples."""

    metrics: dict[str, Sums]
    recalls: tuple[Sums, ...]
    support: np.ndarray

    @classmethod
    def of(cls, sums: tuple[Sums, Sums], task: str) -> Sampled:
        shared, own = sums
        every = [
            metrics_of(getattr(shared, name), getattr(own, name), task) for name in ("point", "drawn", "left")
        ]
        metrics = {name: Sums(*(of[name] for of in every)) for name in metric_names(task)}
        if task == "va":
            return cls(metrics, (), np.zeros(0))
        recalls = [
            recalls_of(getattr(shared, name), getattr(own, name)) for name in ("point", "drawn", "left")
        ]
        k = recalls[0].shape[1]
        return cls(metrics, tuple(Sums(*(of[:, c] for of in recalls)) for c in range(k)), shared.point[0, 1:])


@dataclass(frozen=True, slots=True)
class Statistics:
    """Sums of all rules' statistics side by side, so that one product serves them all."""

    totals: dict[str, np.ndarray]  # disjoint parts of the rows -> (g, s)
    parts: dict[str, Sums]
    spans: dict[
        Any, slice
    ]  # "" for the truth, a rule's name, a pair of names, or REFINED and a name -> columns
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
        refined: tuple[str, ...] = (),
    ) -> Statistics:
        values = {
            rule.name: [np.where(rule.present[:, None], one, 0.0) for one in rule.every] for rule in rules
        }
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
        for name, repeats in values.items():
            blocks[name] = np.mean([own_statistics(one, truth, task) for one in repeats], axis=0)
        blocks |= {
            (first, second): cross_statistics(values[first][0], values[second][0], truth, task)
            for first, second in pairs
        }
        for rule in rules:
            if task == "classes" and rule.name in refined:
                blocks[REFINED, rule.name] = refined_losses(rule, truth)[:, None]
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
            part: Sums(of.sum(axis=0, keepdims=True), sums, of.sum(axis=0) - of)
            for (part, of), sums in zip(totals.items(), drawn, strict=True)
        }
        parts["all"] = parts["covered"]
        if "others" in parts:
            every = [(getattr(parts["covered"], n), getattr(parts["others"], n)) for n in Sums.__slots__]
            parts["all"] = Sums(*(inside + outside for inside, outside in every))
        return cls(totals, parts, spans, tuple(pairs), task)

    def sums(self, part: str, name: str) -> tuple[Sums, Sums]:
        """Summed statistics of the truth and of a rule."""
        return self.parts[part].take(self.spans[""]), self.parts[part].take(self.spans[name])

    def refinement(self, name: str) -> tuple[Sums, Sums] | None:
        """Refinement and calibration part of the log loss of a rule on all rows; None where they were not asked for.

        References
        ----------
        Berta, Holzmüller, Jordan and Bach, Rethinking early stopping: refine, then calibrate (2025): the part of a
        proper loss that is left after the best recalibration, and the rest; here by a temperature and offsets.
        """
        span = self.spans.get((REFINED, name))
        if span is None:
            return None
        shared, own = self.sums("all", name)
        k = shared.point.shape[1] - 1
        refined = self.parts["all"].take(span)
        with np.errstate(divide="ignore", invalid="ignore"):
            left, loss = (
                Sums(
                    of.point[:, c] / shared.point[:, 0],
                    of.drawn[:, c] / shared.drawn[:, 0],
                    of.left[:, c] / shared.left[:, 0],
                )
                for of, c in ((refined, 0), (own, 2 * k))
            )
        return left, Sums(loss.point - left.point, loss.drawn - left.drawn, loss.left - left.left)

    def turned(self, *, draws: int, seed: int) -> dict[str, np.ndarray]:
        """part -> (draws, s) sums with the sign of each row or group turned at random.

        The sums of a difference are the difference of sums, so every pair shares those of its rules.
        """
        totals = self.totals
        sums = dict(zip(totals, swapped_sums(list(totals.values()), draws=draws, seed=seed), strict=True))
        return {"covered": sums["covered"], "all": sum(sums.values(), np.zeros(()))}

    def swapped(
        self, turned: dict[str, np.ndarray], part: str, one: str, other: str
    ) -> dict[str, tuple[float, np.ndarray]]:
        """metric -> the difference of two rules, and (draws,) differences where their predictions are swapped."""
        shared, mine = (sums.point[0] for sums in self.sums(part, one))
        theirs = self.sums(part, other)[1].point[0]
        half = (turned[part][:, self.spans[one]] - turned[part][:, self.spans[other]]) / 2
        plus, minus = (metrics_of(shared, (mine + theirs) / 2 + sign * half, self.task) for sign in (1, -1))
        given = [metrics_of(shared, own, self.task) for own in (mine, theirs)]
        return {
            metric: (float(given[0][metric] - given[1][metric]), plus[metric] - minus[metric])
            for metric in metric_names(self.task)
        }

    def p_value(self, part: str, value: float, swapped: np.ndarray) -> float | None:
        """Two-sided p of a difference against (draws,) differences under swaps; None of a single row or group."""
        return plain(share_as_extreme(value, swapped)) if self.units(part) > 1 else None

    def units(self, part: str) -> int:
        """How many rows or groups a part has, which are resampled and swapped."""
        totals = self.totals if part == "all" else {part: self.totals[part]}
        rows = sum(of[:, self.spans[""]][:, 0] for of in totals.values())
        return int(np.count_nonzero(rows))

    def complementarity(self, first: str, second: str) -> dict[str, Any]:
        """Measures of a pair on the covered rows, with intervals."""
        part = self.parts["covered"]
        every = []
        for name in Sums.__slots__:
            keys = ("", first, second, (first, second))
            shared, one, other, cross = (getattr(part, name)[:, self.spans[key]] for key in keys)
            every.append(complementarity_of(shared, one, other, cross, self.task))
        return {name: Sums(*(of[name] for of in every)).figure() for name in every[0]}


@dataclass(frozen=True, slots=True)
class Tests:
    """Metrics' differences when two rules' predictions are swapped at random, by row or by group.

    Controls are not tested: that one does no harm is what its interval says.
    """

    statistics: Statistics
    turned: dict[str, np.ndarray]  # as Statistics.turned gives it
    pairs: frozenset[tuple[str, str]]
    groups: np.ndarray | None

    @classmethod
    def of(
        cls,
        statistics: Statistics,
        rules: tuple[RuleResult, ...],
        opponents: dict[str, dict[str, RuleResult]],
        groups: np.ndarray | None,
        *,
        draws: int,
        seed: int,
    ) -> Tests:
        pairs = frozenset(
            (rule.name, other.name)
            for rule in rules
            for other in opponents[rule.name].values()
            if rule.kind != "control"
        )
        turned = statistics.turned(draws=draws, seed=seed) if pairs else {}
        return cls(statistics, turned, pairs, groups)

    def of_pair(
        self, rule: RuleResult, other: RuleResult, part: str, truth: np.ndarray, rows: np.ndarray
    ) -> dict[str, dict[str, Any]]:
        """metric -> p that two rules are equally good.

        For accuracy of single rows the exact test is McNemar's, to which swaps only come close.
        """
        if (rule.name, other.name) not in self.pairs:
            return {}
        task = self.statistics.task
        test = f"swaps of {'rows' if self.groups is None else 'groups'}"
        found = {}
        for metric, (value, drawn) in self.statistics.swapped(
            self.turned, part, rule.name, other.name
        ).items():
            if math.isfinite(value):
                found[metric] = {"p": self.statistics.p_value(part, value, drawn), "test": test}
        single = not rule.repeats and not other.repeats
        if task == "classes" and self.groups is None and len(truth) > 1 and single:
            right, wrong = (of.values[rows].argmax(axis=1) == truth for of in (rule, other))
            found["accuracy"] = {"p": plain(mcnemar(right, wrong)), "test": "McNemar, exact"}
        return found


def refined_losses(rule: RuleResult, truth: np.ndarray) -> np.ndarray:
    """(n,) log loss of rows after the temperature and offsets that are best on these very rows, mean over repeats."""
    from ..rules.calibrate import Calibration

    known = rule.present
    map_ = Calibration("bias").fit(rule.values[known], truth[known])
    losses = np.zeros(len(truth))
    for values in rule.every:
        logs = log_softmax(map_.apply(values[known]))
        losses[known] -= logs[np.arange(len(logs)), truth[known]] / len(rule.every)
    return losses


def _varies(values: np.ndarray) -> bool:
    """Whether a predictor looks at its rows: a prior, even one for each fold, says the same of most."""
    return len(values) > 1 and 2 * len(np.unique(values, axis=0)) > len(values)
