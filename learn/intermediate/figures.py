"""What the codes add inside the network: every arm's figures and their paired differences, averaged over seeds.

A figure is the mean over seeds of the metric of each training, never the metric of their mean: an ensemble is another
predictor. All trainings are resampled by the same draws, and a difference is taken within each draw. Of one training
each, figures are those of :func:`~..measures.figures.figures_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ..measures.figures import counted, figures_of
from ..measures.metrics import metric_names
from ..measures.results import RuleResult, difference_key, plain
from ..measures.sampled import Sampled, Statistics, Sums


@dataclass(frozen=True, slots=True)
class Arm:
    """One predictor, trained as often as there are seeds.

    Attributes
    ----------
    name : str
    kind : ``reference``, ``rule`` or ``control``
    values : one (n, k) array of log-probabilities, or (n, 2) of valence and arousal, for each training
    """

    name: str
    kind: str
    values: tuple[np.ndarray, ...]

    @property
    def trainings(self) -> tuple[RuleResult, ...]:
        """Each training as a predictor of its own, numbered where there are several."""
        several = len(self.values) > 1
        return tuple(
            RuleResult(f"{self.name}#{number}" if several else self.name, self.kind, True, array)
            for number, array in enumerate(self.values)
        )


def figures_over_seeds(
    arms: Sequence[Arm],
    truth: np.ndarray,
    covered: np.ndarray,
    groups: np.ndarray | None,
    *,
    task: str,
    draws: int,
    seed: int,
    references: tuple[str, ...],
) -> dict[str, dict[str, Any]]:
    """Figures of each predictor and of its differences, as :func:`~..measures.figures.figures_of` has them.

    Parameters
    ----------
    arms : predictors of all n rows
    truth : (n,) labels, or (n, 2) targets
    covered : (n,) bool
    groups : (n,) int, resampled as wholes; None where rows stand for themselves
    task : ``classes`` or ``va``
    draws, seed : of the bootstrap and of the swaps
    references : names of arms that every other is compared with; those that are not there are left out

    Returns
    -------
    arm -> ``all`` or ``covered`` -> metric -> value, low, high and differences
        Where an arm has several trainings, figures and differences also hold ``seeds``, the figure of each.

    Notes
    -----
    Of several trainings, intervals are over rows and trainings: both are resampled. Tests are over rows, conditional on
    the trained networks: a test exchanges the predictions of two arms at random by row or group, in all their trainings
    at once.
    """
    if all(len(arm.values) == 1 for arm in arms):
        rules = tuple(arm.trainings[0] for arm in arms)
        single = figures_of(
            rules,
            truth,
            covered,
            groups,
            task=task,
            draws=draws,
            seed=seed,
            references=references,
            family=(),
        )
        _one_test_each(single, arms, task)
        return single
    every = tuple(one for arm in arms for one in arm.trainings)
    statistics = Statistics.of(every, truth, covered, groups, task=task, draws=draws, seed=seed)
    opponents = {arm.name: _opponents(arm, arms, references) for arm in arms}
    turned = statistics.turned(draws=draws, seed=seed)
    kind = f"swaps of {'rows' if groups is None else 'groups'}"
    figures: dict[str, dict[str, Any]] = {arm.name: {} for arm in arms}
    for part, rows in {"all": np.ones(len(truth), bool), "covered": covered}.items():
        sampled = {
            arm.name: [Sampled.of(statistics.sums(part, one.name), task) for one in arm.trainings]
            for arm in arms
        }
        for arm in arms:
            if not rows.any():
                figures[arm.name][part] = None
                continue
            entry = _entry(sampled, arm.name, opponents[arm.name], task, seed)
            for key, other in opponents[arm.name].items() if arm.kind != "control" else ():
                for metric, p in _tested(statistics, turned, arm, other, part).items():
                    # one rule and so one test for each question: no correction changes it
                    entry[metric][key] |= {"p": p, "test": kind} | (
                        {"p_adjusted": p} if arm.kind == "rule" else {}
                    )
            if task == "classes":
                entry |= counted([array[rows] for array in arm.values], truth[rows])
            figures[arm.name][part] = {"rows": int(rows.sum()), **entry}
    return figures


def _one_test_each(figures: dict[str, dict[str, Any]], arms: Sequence[Arm], task: str) -> None:
    """One rule and so one test for each question: no correction changes its p."""
    for arm in arms:
        for part in figures[arm.name].values() if arm.kind == "rule" else ():
            for metric in metric_names(task) if part else ():
                for difference in part[metric].values():
                    if isinstance(difference, dict) and "p" in difference:
                        difference["p_adjusted"] = difference["p"]


def _opponents(arm: Arm, arms: Sequence[Arm], references: tuple[str, ...]) -> dict[str, Arm]:
    """Name of a difference -> what an arm is compared with."""
    by_name = {other.name: other for other in arms}
    found = {
        difference_key(name): by_name[name] for name in references if name in by_name and name != arm.name
    }
    control = next((other for other in arms if other.kind == "control"), None)
    return found | ({"minus_control": control} if arm.kind == "rule" and control is not None else {})


def _entry(
    sampled: Mapping[str, list[Sampled]], name: str, opponents: Mapping[str, Arm], task: str, seed: int
) -> dict[str, Any]:
    """Metrics of one arm on one part with every difference, and recalls with those to the references."""

    mine = sampled[name]
    others = {key: sampled[other.name] for key, other in opponents.items()}

    def told(each: list[Sums], theirs: Mapping[str, list[Sums]]) -> dict[str, Any]:
        found = _mean(each, seed).figure() | _of_each([sums.point[0] for sums in each])
        for key, other in theirs.items():
            change = _mean(each, seed).difference(_mean(other, seed))
            if len(each) == len(other) or len(other) == 1:
                apart = np.array([sums.point[0] for sums in each]) - [sums.point[0] for sums in other]
                change |= _of_each(apart)
            found[key] = change
        return found

    entry: dict[str, Any] = {
        metric: told(
            [one.metrics[metric] for one in mine],
            {key: [one.metrics[metric] for one in other] for key, other in others.items()},
        )
        for metric in metric_names(task)
    }
    if task == "classes":
        leading = {key: other for key, other in others.items() if key != "minus_control"}
        entry["per_class"] = [
            {
                "support": int(support),
                "recall": told(
                    [one.recalls[c] for one in mine],
                    {key: [one.recalls[c] for one in other] for key, other in leading.items()},
                ),
            }
            for c, support in enumerate(mine[0].support)
        ]
    return entry


def _mean(trainings: Sequence[Sums], seed: int) -> Sums:
    """The mean over trainings; of a bootstrap sample the mean over a sample of the trainings.

    Arms with as many trainings share the draws, as these have the same seeds. The spread of so few trainings is
    scaled by the root of n / (n - 1), as for an unbiased variance.
    """
    points, drawn, left = ([getattr(one, name) for one in trainings] for name in Sums.__slots__)
    count = len(trainings)
    if count == 1:
        return trainings[0]
    random = np.random.default_rng([seed, 4, count])
    counts = random.multinomial(count, np.full(count, 1 / count), size=len(drawn[0]))
    weights = 1 / count + (counts - 1) / count * np.sqrt(count / (count - 1))
    samples = np.sum(weights.T * np.array(drawn), axis=0)
    return Sums(np.mean(points, axis=0), samples, np.mean(left, axis=0))


def _of_each(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    return {"seeds": [plain(float(value)) for value in values]} if len(values) > 1 else {}


def _tested(
    statistics: Statistics, turned: dict[str, np.ndarray], arm: Arm, other: Arm, part: str
) -> dict[str, float | None]:
    """metric -> p that two arms are equally good, all their trainings swapped by the same draws."""
    # as many trainings: one of each seed; else each with each, so that the mean is that of the figures
    matched = (
        zip(arm.trainings, other.trainings, strict=True)
        if len(arm.values) == len(other.values)
        else product(arm.trainings, other.trainings)
    )
    each = [statistics.swapped(turned, part, one.name, two.name) for one, two in matched]
    found: dict[str, float | None] = {}
    for metric in metric_names(statistics.task):
        value = float(np.mean([of[metric][0] for of in each]))
        if np.isfinite(value):
            drawn = np.mean([of[metric][1] for of in each], axis=0)
            found[metric] = statistics.p_value(part, value, drawn)
    return found
