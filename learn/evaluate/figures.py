"""The results of a run as one tidy table, a line for each value.

One bootstrap and one jackknife serve all metrics of all predictors, on all rows and on the covered ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ...features.order import mcnemar
from .calibration import reliability
from .intervals import Difference, max_t
from .metrics import METRICS, measure, metric_names
from .predictors import REAL, Predictor, control_of, find, repeated
from .sampled import Interval, Sampled, Statistics

REFERENCES = ("2d-recalibrated", "2d")
KEYS = ("predictor", "condition", "rows", "metric", "label", "versus", "versus_condition")
COLUMNS = (
    "predictor", "role", "condition", "rows", "metric", "label", "versus", "versus_condition",
    "value", "low", "high", "p", "p_adjusted", "repeat",
)  # fmt: skip
_NOTHING = (math.nan, math.nan, math.nan)


class Figure(NamedTuple):
    """One line of the table; NaN where something is not defined."""

    value: float
    low: float
    high: float
    p: float
    p_adjusted: float


def figures_of(
    predictors: Sequence[Predictor],
    truth: np.ndarray,
    covered: np.ndarray,
    groups: np.ndarray | None,
    *,
    task: str,
    classes: Sequence[str] = (),
    draws: int,
    seed: int,
    references: Sequence[str] = REFERENCES,
    family: Sequence[str] | None = (),
    refined: Sequence[str] = (),
) -> pd.DataFrame:
    """Every metric with its interval, and paired differences to references and controls.

    Parameters
    ----------
    predictors : over n rows
    truth : (n,) labels or (n, 2) targets
    covered : (n,) bool
    groups : (n,) int, resampled and exchanged as wholes; None if every row is a unit
    classes : names of the classes, for recalls
    draws, seed : of the bootstrap and of the exchanges
    references : names of predictors that all others are compared with; missing ones are left out
    family : metrics whose differences are tested together
        The objectives of fitting; differences in other metrics have no adjusted p. None: every difference is a
        separate question, and its adjusted p is its p.
    refined : names of predictors whose log loss is split into a calibration and a refinement part

    Returns
    -------
    DataFrame with ``COLUMNS``
        The value of a metric has no ``versus``; a difference has the name and condition of the predictor that is
        subtracted. ``rows`` is ``all`` or, where some rows have no codes, also ``covered``. ``low`` and ``high`` are
        the ends of a 95 % interval.

        ``p_adjusted`` is adjusted by the bootstrap maximum over all differences of all rules and heads in the metrics
        of the family; differences on all rows and on the covered ones are one family.

        Where a predictor has several cross-fittings, permutations or trainings, values are computed from their mean
        statistics (accuracy, log loss: the mean of the values), and lines with a ``repeat`` have the value of each.
        ``recall`` has the class as its ``label``. ``refinement`` and ``calibration_loss`` add up to the log loss.
        Measures of complementarity (:mod:`.complementarity`) belong to a predictor and ``versus``, on the covered rows.

        A predictor without predictions in some rows (``3d`` where there are no codes) has no lines of ``all``. Values
        on a single row or group have no interval, and their differences no test. A rule has differences to its
        control, to ``3d``, and to itself with a second 2D network in place of the 3D.
    """
    baselines = [of for name in references if (of := find(predictors, name)) is not None]
    parts = {"all": np.ones(len(truth), bool), "covered": covered}
    if covered.all() or not covered.any():
        del parts["covered"]
    names = classes or [str(number) for number in range(predictors[0].values.shape[1])]
    statistics = Statistics.of(
        predictors, truth, covered, groups, task=task, draws=draws, seed=seed, refined=refined
    )
    opponents = {of.key: _opponents(of, predictors, baselines) for of in predictors}
    tested = any(_is_tested(of, other) for of in predictors for other in opponents[of.key])
    exchanged = statistics.exchanged(draws=draws, seed=seed) if tested else {}
    lines = _Lines()
    tested_together: list[tuple[dict[str, Any], Difference]] = []
    for part, rows in parts.items():
        complete = [of for of in predictors if of.present[rows].all()]
        sampled = {of.key: statistics.sampled(part, of) for of in complete}
        first, second = ({of.key: statistics.sampled(part, of, side) for of in complete} for side in (0, 1))
        for of in complete:
            compared = [other for other in opponents[of.key] if other.key in sampled]
            own = sampled[of.key]
            for metric, sums in own.metrics.items():
                lines.add(of, part, metric, sums.figure())
                for other in compared:
                    opposing = second[other.key].metrics[metric]
                    limit = (
                        1.0 if METRICS[metric].percent else math.inf
                    )  # with half rows, a share may exceed 1
                    difference = first[of.key].metrics[metric].difference(opposing, limit)
                    lines.add(of, part, metric, difference, other)
            for other in compared:
                if not _is_tested(of, other):
                    continue
                for metric, p in _tests(statistics, exchanged, part, of, other, groups, truth, rows).items():
                    line = lines.of(of, part, metric, other)
                    line["p"] = p
                    if family is None and of.role in ("rule", "head"):
                        line["p_adjusted"] = p
            for number, recall in enumerate(own.recalls):
                lines.add(of, part, "recall", recall.figure(), label=names[number])
                for other in (other for other in compared if other.name in references):
                    difference = (
                        first[of.key].recalls[number].difference(second[other.key].recalls[number], 1.0)
                    )
                    lines.add(of, part, "recall", difference, other, label=names[number])
            if task == "classes":
                for metric, error in calibration_errors([v[rows] for v in of.every], truth[rows]).items():
                    lines.add(of, part, metric, (error, math.nan, math.nan))
            if part == "all":
                _add_loss_parts(lines, statistics, of, compared)
            _add_repeats(lines, part, of, compared, truth, rows, task)
        judged = [of for of in complete if of.role in ("rule", "head")]
        if family:
            units = statistics.units(part)
            tested_together += _family(lines, part, judged, sampled, opponents, family, units)
    _adjust(tested_together)
    where = "covered" if "covered" in parts else "all"
    for first_network, other in statistics.pairs if covered.any() else ():
        for (metric, label), interval in statistics.complementarity(first_network, other).items():
            lines.add(other, where, metric, interval, first_network, label=label)
    return lines.table()


class _Lines:
    """Lines of the table, with an index by predictor, rows, metric and opponent."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.found: dict[Any, dict[str, Any]] = {}

    def add(
        self,
        of: Predictor,
        part: str,
        metric: str,
        interval: Interval,
        other: Predictor | None = None,
        *,
        label: str = "",
        repeat: int | None = None,
    ) -> None:
        name, condition = ("", "") if other is None else other.key
        line = dict.fromkeys(COLUMNS) | {
            "predictor": of.name,
            "role": of.role,
            "condition": of.condition,
            "rows": part,
            "metric": metric,
            "label": label,
            "versus": name,
            "versus_condition": condition,
            "repeat": repeat,
        }
        line |= dict(zip(("value", "low", "high"), interval, strict=True))
        self.lines.append(line)
        if repeat is None:
            self.found[of.key, part, metric, label, (name, condition)] = line

    def of(self, of: Predictor, part: str, metric: str, other: Predictor) -> dict[str, Any]:
        return self.found[of.key, part, metric, "", other.key]

    def table(self) -> pd.DataFrame:
        table = pd.DataFrame(self.lines, columns=list(COLUMNS))
        numbers = ("value", "low", "high", "p", "p_adjusted")
        return table.astype(dict.fromkeys(numbers, np.float64) | {"repeat": "Int64"})


def figure(
    figures: pd.DataFrame,
    predictor: str,
    metric: str,
    *,
    condition: str = REAL,
    rows: str = "all",
    label: str = "",
    versus: str = "",
    versus_condition: str | None = None,
) -> Figure | None:
    """One figure of the table; None where it has none.

    Parameters
    ----------
    figures : DataFrame of :func:`figures_of`
    predictor, metric, condition, rows, label, versus : as in the table
    versus_condition : ``real`` by default for a difference
    """
    wanted = {
        "predictor": predictor,
        "condition": condition,
        "rows": rows,
        "metric": metric,
        "label": label,
        "versus": versus,
        "versus_condition": (REAL if versus else "") if versus_condition is None else versus_condition,
    }
    chosen = figures["repeat"].isna().to_numpy()
    for column, value in wanted.items():
        chosen = chosen & (figures[column] == value).to_numpy()
    if not chosen.any():
        return None
    line = figures.iloc[int(np.flatnonzero(chosen)[0])]
    return Figure(*(float(line[name]) for name in Figure._fields))


def _is_tested(of: Predictor, other: Predictor) -> bool:
    """Whether a difference has a p-value.

    The difference of a rule to its control has one. Differences of a control to the references have none. A rule over
    two 2D networks (``2d+NAME``) has the role ``control`` too, but its differences to its own two opponents have one.
    """
    return of.role != "control" or other.condition in (of.condition, repeated(of.condition))


def _opponents(
    of: Predictor, predictors: Sequence[Predictor], references: Sequence[Predictor]
) -> list[Predictor]:
    """Predictors that one is compared with."""
    usual = [other for other in references if other.key != of.key]
    # a rule over two stacked 2D networks is compared with the reference over both, and with the second one repeated
    both = [find(predictors, other.name, of.condition) for other in references if of.condition != REAL]
    both.append(find(predictors, of.name, repeated(of.condition)))
    own = [other for other in both if other is not None and other.key != of.key]
    if own or of.role != "rule":
        return own or usual
    control = control_of(of.name, (other.key for other in predictors))
    beside = [find(predictors, *control)] if control else []
    beside.append(find(predictors, "3d"))
    beside += [other for other in predictors if other.name == of.name and other.condition.startswith("2d:")]
    keys = [other.key for other in usual]
    return usual + [other for other in beside if other is not None and other.key not in keys]


def _tests(
    statistics: Statistics,
    exchanged: dict[str, np.ndarray],
    part: str,
    of: Predictor,
    other: Predictor,
    groups: np.ndarray | None,
    truth: np.ndarray,
    rows: np.ndarray,
) -> dict[str, float]:
    """metric -> p of the hypothesis that two predictors are equally good, by exchanges of rows or groups.

    For accuracy, the test is McNemar's exact test, which the exchanges approximate, if there are no groups and neither
    predictor is a mean over cross-fittings, permutations or trainings.
    """
    p_values = statistics.swap_tests(exchanged, part, of, other)
    if statistics.task == "classes" and groups is None and rows.sum() > 1 and not of.repeats + other.repeats:
        right, wrong = (each.values[rows].argmax(axis=1) == truth[rows] for each in (of, other))
        p_values["accuracy"] = mcnemar(right, wrong)
    return p_values


def _family(
    lines: _Lines,
    part: str,
    judged: Sequence[Predictor],
    sampled: dict[tuple[str, str], Sampled],
    opponents: dict[tuple[str, str], list[Predictor]],
    family: Sequence[str],
    units: int,
) -> list[tuple[dict[str, Any], Difference]]:
    """Lines of the tested differences on one part of the rows, with their bootstrap samples without half rows."""
    tested = []
    for of in judged:
        for other in (other for other in opponents[of.key] if other.key in sampled):
            for metric in family:
                line = lines.of(of, part, metric, other)
                if line["p"] is None or math.isnan(line["p"]):
                    continue
                own, opposing = (sampled[key].metrics[metric].drawn for key in (of.key, other.key))
                # 12 digits: whether a sample of counts is as extreme does not depend on the last bits of a sum
                value = float(f"{line['value']:.12g}")
                tested.append((line, Difference(value, own - opposing, units)))
    return tested


def _adjust(tested: Sequence[tuple[dict[str, Any], Difference]]) -> None:
    """Set the adjusted p of each line by the bootstrap maximum over one family.

    If few rows distinguish two predictors, the bootstrap maximum is too small; the adjusted p is therefore set to at
    least p.
    """
    adjusted = max_t([difference for _, difference in tested])
    for (line, _), p in zip(tested, adjusted, strict=True):
        # if all bootstrap samples are equal, there is no standard error; the p is then adjusted by Bonferroni's bound
        bound = min(1.0, line["p"] * len(tested)) if line["value"] else 1.0
        line["p_adjusted"] = bound if p is None else max(p, line["p"])


def _add_repeats(
    lines: _Lines,
    part: str,
    of: Predictor,
    compared: Sequence[Predictor],
    truth: np.ndarray,
    rows: np.ndarray,
    task: str,
) -> None:
    """Value and differences of each cross-fitting or training.

    Lines of single permutations of a control have values only, no differences.
    """
    if not of.repeats:
        return
    measured = {
        each.key: [measure(values[rows], truth[rows], task) for values in each.every]
        for each in (of, *compared)
    }
    mine = measured[of.key]
    for metric in metric_names(task):
        for number, values in enumerate(mine):
            lines.add(of, part, metric, (values[metric], math.nan, math.nan), repeat=number)
    for other in compared:
        theirs = measured[other.key]
        if len(theirs) not in (1, len(mine)) or ("control" in (of.role, other.role) and not of.trained):
            continue
        for metric in metric_names(task):
            for number, values in enumerate(mine):
                apart = values[metric] - theirs[min(number, len(theirs) - 1)][metric]
                lines.add(of, part, metric, (apart, math.nan, math.nan), other, repeat=number)


def _add_loss_parts(
    lines: _Lines, statistics: Statistics, of: Predictor, compared: Sequence[Predictor]
) -> None:
    """Refinement and calibration part of the log loss with their differences, where they were asked for."""
    for metric, sums in statistics.loss_parts(of).items():
        lines.add(of, "all", metric, sums.figure())
        for other in compared:
            theirs = statistics.loss_parts(other).get(metric)
            if theirs is not None:
                lines.add(of, "all", metric, sums.difference(theirs), other)


def calibration_errors(values: Sequence[np.ndarray], truth: np.ndarray) -> dict[str, float]:
    """Expected calibration errors, with bins of equal width and of equal size: means over repeats."""
    return {
        name: float(np.mean([reliability(of, truth, adaptive=adaptive).error for of in values]))
        for name, adaptive in (("ece", False), ("ece_adaptive", True))
    }
