"""The figures of a fused table: every metric of every rule, with intervals, and paired differences to references."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .intervals import mcnemar, percentile_interval, resampled_sums, sign_flip
from .metrics import metric_names, metrics_of, own_statistics, shared_statistics

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


def figures_of(
    rules: tuple[RuleResult, ...],
    truth: np.ndarray,
    covered: np.ndarray,
    groups: np.ndarray | None,
    *,
    task: str,
    draws: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """rule -> ``all`` or ``covered`` -> metric -> value, low, high, and the differences to the references.

    Parameters
    ----------
    rules : results over n rows
    truth : (n,) labels or (n, 2) targets
    covered : (n,) bool
    groups : (n,) int, resampled and flipped as wholes; None where rows stand for themselves
    draws, seed : of the bootstrap and of the sign flips

    Notes
    -----
    A rule without a prediction in some rows (``3d`` where there are no codes) has None under ``all``.
    """
    unit = np.arange(len(truth)) if groups is None else groups
    parts = {"all": np.ones(len(truth), bool), "covered": covered}
    statistics = _Statistics.of(rules, truth, parts, task)
    sums = resampled_sums(statistics.matrix, unit, draws=draws, seed=seed)
    point = statistics.matrix.sum(axis=0, keepdims=True)
    figures: dict[str, dict[str, Any]] = {rule.name: {} for rule in rules}
    for part, rows in parts.items():
        values, drawn = statistics.metrics(part, point), statistics.metrics(part, sums)
        for rule in rules:
            if not rows.any() or not rule.present[rows].all():
                figures[rule.name][part] = None
                continue
            entry = {
                name: _figure(values[rule.name][name][0], drawn[rule.name][name])
                for name in metric_names(task)
            }
            for reference in REFERENCES:
                other = next((known for known in rules if known.name == reference), None)
                if other is None or other.name == rule.name:
                    continue
                key = f"minus_{reference}".replace("-", "_")
                for name in metric_names(task):
                    gain = values[rule.name][name][0] - values[reference][name][0]
                    entry[name][key] = _figure(gain, drawn[rule.name][name] - drawn[reference][name])
                tested = "rmse_joint" if task == "va" else "accuracy"
                entry[tested][key] |= _test(
                    rule, other, truth, rows, groups, task=task, draws=draws, seed=seed
                )
            figures[rule.name][part] = {"rows": int(rows.sum()), **entry}
    return figures


def _figure(value: float, drawn: np.ndarray) -> dict[str, Any]:
    low, high = percentile_interval(drawn)
    return {"value": _plain(value), "low": _plain(low), "high": _plain(high)}


def _plain(value: float) -> float | None:
    """A number for JSON: 12 significant digits, None where it is not defined."""
    return float(f"{value:.12g}") if math.isfinite(value) else None


def _test(
    rule: RuleResult,
    other: RuleResult,
    truth: np.ndarray,
    rows: np.ndarray,
    groups: np.ndarray | None,
    *,
    task: str,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """p of no difference in accuracy, or in squared error."""
    mine, theirs = rule.values[rows], other.values[rows]
    if task == "classes":
        right, wrong = (values.argmax(axis=1) == truth[rows] for values in (mine, theirs))
        if groups is None:
            return {"p": _plain(mcnemar(right, wrong)), "test": "McNemar, exact"}
        difference = right.astype(float) - wrong.astype(float)
    else:
        difference = ((mine - truth[rows]) ** 2).sum(axis=1) - ((theirs - truth[rows]) ** 2).sum(axis=1)
    unit = np.arange(len(difference)) if groups is None else groups[rows]
    p = sign_flip(difference, unit, draws=draws, seed=seed)
    return {"p": _plain(p), "test": f"sign flips over {'rows' if groups is None else 'groups'}"}


@dataclass(frozen=True, slots=True)
class _Statistics:
    """Per-row statistics of all rules side by side, so that one product serves them all."""

    matrix: np.ndarray
    spans: dict[tuple[str, str], slice]  # (part, rule or "" for the truth) -> columns
    task: str

    @classmethod
    def of(
        cls, rules: tuple[RuleResult, ...], truth: np.ndarray, parts: dict[str, np.ndarray], task: str
    ) -> _Statistics:
        k = rules[0].values.shape[1]
        columns, spans, width = [], {}, 0
        whole: dict[str, slice] = {}
        for part, rows in parts.items():
            for name, rule in (("", None), *((rule.name, rule) for rule in rules)):
                if rows.all() and name in whole:  # covered rows are all rows: nothing to add up twice
                    spans[part, name] = whole[name]
                    continue
                if rule is None:
                    block = shared_statistics(truth, task, k)
                else:
                    block = own_statistics(np.where(rule.present[:, None], rule.values, 0.0), truth, task)
                columns.append(block * rows[:, None])
                spans[part, name] = slice(width, width + block.shape[1])
                width += block.shape[1]
                if rows.all():
                    whole[name] = spans[part, name]
        return cls(np.hstack(columns), spans, task)

    def metrics(self, part: str, sums: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        """rule -> metric -> (draws,) of one part."""
        shared = sums[:, self.spans[part, ""]]
        return {
            name: metrics_of(shared, sums[:, span], self.task)
            for (of_part, name), span in self.spans.items()
            if of_part == part and name
        }
