"""Statistics of all predictors, summed over rows, bootstrap samples, jackknife samples and random exchanges.

Metrics are functions of summed statistics (:mod:`.metrics`). One product of weights and rows therefore gives all
metrics of all predictors, on all rows and on the covered rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np

from ...features.predictions import log_softmax
from .complementarity import complementarity_of, cross_statistics
from .intervals import (
    bca_interval,
    bootstrap_sums,
    group_totals,
    half_rows,
    percentile_interval,
    share_as_extreme,
    swapped_sums,
)
from .metrics import column_of, metric_names, metrics_of, own_statistics, recalls_of, shared_statistics
from .predictors import Predictor

Interval = tuple[float, float, float]  # value, low, high
_TRUTH, _REFINED = "truth", "refined"


@dataclass(frozen=True, slots=True)
class Sums:
    """Summed statistics: of the rows (1, s), of bootstrap samples (draws, s), with each group left out (g, s)."""

    point: np.ndarray
    drawn: np.ndarray
    left: np.ndarray

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Sums:
        return Sums(function(self.point), function(self.drawn), function(self.left))

    def take(self, columns: slice) -> Sums:
        return self.map(lambda sums: sums[:, columns])

    def minus(self, other: Sums) -> Sums:
        return Sums(self.point - other.point, self.drawn - other.drawn, self.left - other.left)

    def with_answers(self, answers: np.ndarray) -> Sums:
        """Sums with (draws, 2k) predictions and right predictions added to the bootstrap samples."""
        drawn = self.drawn.copy()
        drawn[:, : answers.shape[1]] += answers
        return Sums(self.point, drawn, self.left)

    def figure(self) -> Interval:
        """Value and BCa interval; the sums must be figures of shapes (1,), (draws,) and (g,)."""
        return self._with(bca_interval(float(self.point[0]), self.drawn, self.left))

    def difference(self, other: Sums, most: float = math.inf) -> Interval:
        """Difference relative to another figure, and its percentile interval (see :mod:`.intervals`).

        Samples are limited to the greatest possible difference ``most``, which half rows may exceed if rows are few.
        """
        apart = self.minus(other)
        return apart._with(percentile_interval(np.clip(apart.drawn, -most, most), len(self.left)))

    def _with(self, interval: tuple[float, float]) -> Interval:
        # With a single row or group, every sample is the same: there is no interval.
        low, high = interval if np.isfinite(self.left).all() else (math.nan, math.nan)
        return float(self.point[0]), low, high


@dataclass(frozen=True, slots=True)
class Sampled:
    """Metrics and recalls of one predictor on one part, over samples."""

    metrics: dict[str, Sums]
    recalls: tuple[Sums, ...]

    @classmethod
    def of(cls, shared: Sums, own: Sums, task: str) -> Sampled:
        each = [(getattr(shared, name), getattr(own, name)) for name in Sums.__slots__]
        measured = [metrics_of(*sums, task) for sums in each]
        metrics = {name: Sums(*(of[name] for of in measured)) for name in metric_names(task)}
        if task == "va":
            return cls(metrics, ())
        recalls = [recalls_of(*sums) for sums in each]
        return cls(metrics, tuple(Sums(*(of[:, c] for of in recalls)) for c in range(recalls[0].shape[1])))

    @classmethod
    def mean(cls, each: Sequence[Sampled], seed: int) -> Sampled:
        """Mean over trainings, which are resampled with the rows."""
        if len(each) == 1:
            return each[0]
        return cls(
            {name: mean_over_trainings([of.metrics[name] for of in each], seed) for name in each[0].metrics},
            tuple(mean_over_trainings(sums, seed) for sums in zip(*(of.recalls for of in each), strict=True)),
        )


def mean_over_trainings(trainings: Sequence[Sums], seed: int) -> Sums:
    """Mean over trainings; in each bootstrap sample, the mean over a sample of the trainings.

    Predictors with equally many trainings have the same draws, because their trainings have the same seeds. The spread
    is scaled by the root of n / (n - 1), as for an unbiased variance.
    """
    points, drawn, left = ([getattr(of, name) for of in trainings] for name in Sums.__slots__)
    count = len(trainings)
    random = np.random.default_rng([seed, 4, count])
    counts = random.multinomial(count, np.full(count, 1 / count), size=len(drawn[0]))
    weights = 1 / count + (counts - 1) / count * np.sqrt(count / (count - 1))
    samples = np.sum(weights.T * np.array(drawn), axis=0)
    return Sums(np.mean(points, axis=0), samples, np.mean(left, axis=0))


@dataclass(frozen=True, slots=True)
class Statistics:
    """Sums of the statistics of all predictors, as columns of one matrix.

    Attributes
    ----------
    totals : disjoint parts of the rows -> (g, s)
    parts : ``covered``, ``all`` -> sums
    spans : truth, (key, training), pair of keys or (refined, key) -> columns
    half_rows : (draws, 2k) answers that are added to the first and to the second of two predictors of classes whose
        difference is taken (:func:`half_rows`); None of valence and arousal
    pairs : keys of single predictors whose complementarity is measured
    seed : of the draws
    """

    totals: dict[str, np.ndarray]
    parts: dict[str, Sums]
    spans: dict[Any, slice]
    pairs: tuple[tuple[Predictor, Predictor], ...]
    half_rows: tuple[np.ndarray, np.ndarray] | None
    task: str
    seed: int

    @classmethod
    def of(
        cls,
        predictors: Sequence[Predictor],
        truth: np.ndarray,
        covered: np.ndarray,
        groups: np.ndarray | None,
        *,
        task: str,
        draws: int,
        seed: int,
        refined: Sequence[str] = (),
    ) -> Statistics:
        filled = {
            of.key: [np.where(of.present[:, None], values, 0.0) for values in of.every] for of in predictors
        }
        single = [
            of
            for of in predictors
            if of.role in ("reference", "head") and not of.fits and _varies(of.values[covered])
        ]
        pairs = [
            (first, second)
            for first, second in combinations(single, 2)
            if (first.present & second.present)[covered].all()
        ]
        blocks: dict[Any, np.ndarray] = {
            _TRUTH: shared_statistics(truth, task, predictors[0].values.shape[1])
        }
        for of in predictors:
            each = [own_statistics(values, truth, task) for values in filled[of.key]]
            for number, block in enumerate(each if of.trained else [np.mean(each, axis=0)]):
                blocks[of.key, number] = block
        blocks |= {
            (first.key, second.key): cross_statistics(
                filled[first.key][0], filled[second.key][0], truth, task
            )
            for first, second in pairs
        }
        for of in predictors:
            if task == "classes" and of.name in refined and of.role != "control":
                blocks[_REFINED, of.key] = refined_losses(of, truth)[:, None]
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
        classes = predictors[0].values.shape[1]
        halves = (
            half_rows(np.bincount(truth, minlength=classes), draws=draws, seed=seed)
            if task == "classes"
            else None
        )
        return cls(totals, parts, spans, tuple(pairs), halves, task, seed)

    def sampled(self, part: str, of: Predictor, side: int | None = None) -> Sampled:
        """Metrics over samples.

        Parameters
        ----------
        part : ``all`` or ``covered``
        of : the predictor
        place : 0 for the first and 1 for the second of two predictors whose difference is taken, None for one alone
        """
        shared = self.parts[part].take(self.spans[_TRUTH])
        each = [self.parts[part].take(self.spans[key]) for key in self._keys(of)]
        if side is not None and self.half_rows is not None:
            each = [own.with_answers(self.half_rows[side]) for own in each]
        return Sampled.mean([Sampled.of(shared, own, self.task) for own in each], self.seed)

    def _keys(self, of: Predictor) -> list[tuple[tuple[str, str], int]]:
        return [(of.key, number) for number in range(len(of.every) if of.trained else 1)]

    def loss_parts(self, of: Predictor) -> dict[str, Sums]:
        """Refinement and calibration part of the log loss on all rows; empty for predictors that are not ``refined``.

        References
        ----------
        Berta, Holzmüller, Jordan and Bach, Rethinking early stopping: refine, then calibrate (2025): the part of a
        proper loss that is left after the best recalibration, and the rest; here by a temperature and offsets.
        """
        span = self.spans.get((_REFINED, of.key))
        if span is None:
            return {}
        every = self.parts["all"]
        shared = every.take(self.spans[_TRUTH])
        column = self.spans[of.key, 0].start + column_of("log_loss", shared.point.shape[1] - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            refined, loss = (
                Sums(*(getattr(every, name)[:, c] / getattr(shared, name)[:, 0] for name in Sums.__slots__))
                for c in (span.start, column)
            )
        return {"refinement": refined, "calibration_loss": loss.minus(refined)}

    def exchanged(self, *, draws: int, seed: int) -> dict[str, np.ndarray]:
        """part -> (draws, s) sums with random signs of the rows or groups: random exchanges of two predictors.

        The sums of a difference are the difference of sums, so every pair shares those of its predictors.
        """
        totals = self.totals
        sums = dict(zip(totals, swapped_sums(list(totals.values()), draws=draws, seed=seed), strict=True))
        return {"covered": sums["covered"], "all": sum(sums.values(), np.zeros(()))}

    def swap_tests(
        self, exchanged: dict[str, np.ndarray], part: str, of: Predictor, other: Predictor
    ) -> dict[str, float]:
        """metric -> two-sided p of the hypothesis that two predictors are equally good.

        Row statistics are exchanged, averaged over cross-fittings or permutations; those of all trainings by the same
        draws. p is NaN for a single row or group; a metric whose difference is not defined is left out. Of the 2^g
        exchanges of g rows or groups, two give the greatest difference: p is at least 2 / 2^g, also if few exchanges
        are drawn.
        """
        own, others = self._keys(of), self._keys(other)
        # equal numbers of trainings: pairs by seed; else all pairs, so that the mean is that of the table
        matched = zip(own, others, strict=True) if len(own) == len(others) else product(own, others)
        each = [self._swapped(exchanged, part, *pair) for pair in matched]
        units = self.units(part)
        p_values = {}
        for metric in metric_names(self.task):
            value = float(np.mean([of[metric][0] for of in each]))
            if math.isfinite(value):
                drawn = np.mean([of[metric][1] for of in each], axis=0)
                p_values[metric] = (
                    max(share_as_extreme(value, drawn), 2.0 ** (1 - units)) if units > 1 else math.nan
                )
        return p_values

    def _swapped(
        self, exchanged: dict[str, np.ndarray], part: str, first: Any, other: Any
    ) -> dict[str, tuple[float, np.ndarray]]:
        """metric -> the difference of two predictors, and (draws,) differences where predictions are swapped."""
        point = self.parts[part].point[0]
        shared, first_sums, other_sums = (point[self.spans[key]] for key in (_TRUTH, first, other))
        half = (exchanged[part][:, self.spans[first]] - exchanged[part][:, self.spans[other]]) / 2
        plus, minus = (
            metrics_of(shared, (first_sums + other_sums) / 2 + sign * half, self.task) for sign in (1, -1)
        )
        unswapped = [metrics_of(shared, own, self.task) for own in (first_sums, other_sums)]
        return {
            metric: (float(unswapped[0][metric] - unswapped[1][metric]), plus[metric] - minus[metric])
            for metric in metric_names(self.task)
        }

    def units(self, part: str) -> int:
        """Number of rows or groups of a part, which are resampled and exchanged."""
        totals = self.totals if part == "all" else {part: self.totals[part]}
        rows = sum(of[:, self.spans[_TRUTH]][:, 0] for of in totals.values())
        return int(np.count_nonzero(rows))

    def complementarity(self, first: Predictor, second: Predictor) -> dict[tuple[str, str], Interval]:
        """(measure, label) -> value and interval, of a pair on the covered rows."""
        part = self.parts["covered"]
        keys = (_TRUTH, (first.key, 0), (second.key, 0), (first.key, second.key))
        every = []
        for name in Sums.__slots__:
            shared, first_sums, second_sums, cross = (getattr(part, name)[:, self.spans[key]] for key in keys)
            every.append(complementarity_of(shared, first_sums, second_sums, cross, self.task))
        return {name: Sums(*(of[name] for of in every)).figure() for name in every[0]}


def refined_losses(of: Predictor, truth: np.ndarray) -> np.ndarray:
    """(n,) log loss of rows after temperature and offsets are fitted to these rows, mean over repeats.

    The fit is not repeated in bootstrap samples.
    """
    from ..rules.calibrate import Calibration

    predicted = of.present
    map_ = Calibration("bias").fit(of.values[predicted], truth[predicted])
    losses = np.zeros(len(truth))
    for values in of.every:
        logs = log_softmax(map_.apply(values[predicted]))
        losses[predicted] -= logs[np.arange(len(logs)), truth[predicted]] / len(of.every)
    return losses


def _varies(values: np.ndarray) -> bool:
    """Whether predictions differ between rows; those of a prior, even one for each fold, are the same for most."""
    return len(values) > 1 and 2 * len(np.unique(values, axis=0)) > len(values)
