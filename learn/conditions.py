"""Conditions of a fold model: the input columns on which its rules are fitted and applied.

- ``real``: 2D predictions, 3D predictions and codes as they are.
- ``permuted``: a control in which the 3D predictions and codes are permuted among all rows.
- ``conditional``: a control in which they are permuted among rows with similar 2D predictions.
- ``2d:NAME``: the predictions of a second 2D network in place of the 3D predictions.
- ``2d+NAME``: a stack of both 2D networks in place of the 2D predictions.
- ``2d+NAME repeated``: as ``2d+NAME``, with the second 2D network also in place of the 3D predictions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..features.fusion_table import FusionTable
from ..features.predictions import log_probabilities
from .evaluate.predictors import CONDITIONAL, PERMUTED, REAL, repeated
from .plan import FoldModel
from .rules import RECALIBRATED, Columns, RuleSettings, fits, kind_of
from .rules.columns import TINY, centred

_SIMILAR = 8  # least number of rows in a bin of similar 2D predictions


@dataclass(frozen=True, slots=True)
class Condition:
    """Columns of one fold model under one condition.

    Attributes
    ----------
    name : ``real``, ``permuted``, ``conditional``, ``2d:NAME``, ``2d+NAME`` or ``2d+NAME repeated``
    rules, settings : names of the rules that are fitted, and their settings
    fit : Columns of the rows that the rules are fitted on
    fit_rows : (m,) indices of these rows in the table
    apply : Columns of the rows that the rules are applied to
    has_prediction : (n,) bool, these rows among the n rows that the fold model is applied to
    replicate : index of the repeat or permutation of the same rule and condition
    over_both : whether both 2D networks are stacked before the rule
    """

    name: str
    rules: tuple[str, ...]
    settings: RuleSettings
    fit: Columns
    fit_rows: np.ndarray
    apply: Columns
    has_prediction: np.ndarray
    replicate: int
    over_both: bool = False


def conditions_of(
    table: FusionTable,
    model: FoldModel,
    fit: Columns,
    apply: Columns,
    *,
    rules: tuple[str, ...],
    primary: str,
    settings: RuleSettings,
    repeat: int,
    permutations: range,
    permuted: bool,
    random: tuple[np.random.Generator, np.random.Generator],
) -> Iterator[Condition]:
    """The conditions of a fold model.

    Parameters
    ----------
    table : FusionTable
    model : FoldModel
    fit, apply : columns of the rows that it is fitted on and applied to
    rules : names of the rules
    primary : name of the rule of the primary comparison, which has the control ``conditional``
    settings : RuleSettings
    repeat : index of the cross-fitting
    permutations : indices of the permutations of ``conditional``
    permuted : whether the other rules have the control ``permuted``
    random : generators of the permutations, of ``permuted`` and of ``conditional``
    """
    rows, covered, every_row = model.fit, apply.covered, np.ones(len(apply), bool)
    with_3d = apply.take(covered)
    yield Condition(REAL, (RECALIBRATED,), settings, fit, rows, apply.without_3d(), every_row, repeat)
    yield Condition(REAL, rules, settings, fit, rows, with_3d, covered, repeat)
    others = tuple(name for name in rules if name != primary)
    if permuted and others:
        # Also for rules without parameters: with any codes, a head predicts the class shares of its training rows.
        permuted_fit = fit.permuted(random[0].permutation(len(fit)))
        permuted_apply = with_3d.permuted(random[0].permutation(len(with_3d)))
        yield Condition(PERMUTED, others, settings, permuted_fit, rows, permuted_apply, covered, 0)
    for number in permutations:
        permuted_fit = _permuted_within_similar(fit, random[1], table.task)
        permuted_apply = _permuted_within_similar(with_3d, random[1], table.task)
        yield Condition(
            CONDITIONAL, (primary,), settings, permuted_fit, rows, permuted_apply, covered, number
        )
    yield from _second_networks(table, model, fit, apply, rules, primary, settings, repeat)


def _second_networks(
    table: FusionTable,
    model: FoldModel,
    fit: Columns,
    apply: Columns,
    rules: tuple[str, ...],
    primary: str,
    settings: RuleSettings,
    repeat: int,
) -> Iterator[Condition]:
    """Conditions with each further 2D network, on the rows for which it has predictions."""
    fitted_rules = tuple(
        name for name in rules if fits(name, settings.calibrate) and not kind_of(name).needs_codes
    )
    candidates = tuple(name for name in settings.candidates if not kind_of(name).needs_codes)
    without_codes = replace(settings, candidates=candidates)
    for name, scores in table.others.items():
        has_scores = np.isfinite(scores).all(axis=1)
        in_fit, in_apply = has_scores[model.fit], has_scores[model.apply] & apply.covered
        if not in_fit.any():
            continue
        fit_rows = model.fit[in_fit]
        second_fit, second_apply = scores[fit_rows], scores[model.apply[in_apply]]
        fit_part, apply_part = fit.take(in_fit), apply.take(in_apply)
        if fitted_rules:
            yield Condition(
                f"2d:{name}",
                fitted_rules,
                without_codes,
                replace(fit_part, scores_3d=second_fit, codes=None),
                fit_rows,
                replace(apply_part, scores_3d=second_apply, codes=None),
                in_apply,
                repeat,
            )
        if fits(primary, settings.calibrate):
            stacked = Condition(
                f"2d+{name}",
                (RECALIBRATED, primary),
                settings,
                replace(fit_part, second_2d=second_fit),
                fit_rows,
                replace(apply_part, second_2d=second_apply),
                in_apply,
                repeat,
                over_both=True,
            )
            yield stacked
            # The stack is shrunk and does not use all information of the second network. 3D predictions that only
            # repeat this network could seem to improve it. The reference therefore also has the second network in
            # place of the 3D predictions, scaled to their spread.
            factor = _spread(fit_part.scores_3d, table.task) / max(_spread(second_fit, table.task), TINY)
            yield replace(
                stacked,
                name=repeated(stacked.name),
                rules=(primary,),
                settings=without_codes,
                fit=replace(stacked.fit, scores_3d=factor * second_fit, codes=None),
                apply=replace(stacked.apply, scores_3d=factor * second_apply, codes=None),
            )


def _spread(scores: np.ndarray, task: str) -> float:
    """Root mean square of (n, k) scores after centring each column, and for classes each row before."""
    values = scores if task == "va" else centred(scores)
    return float(np.sqrt(np.square(values - values.mean(axis=0)).mean()))


def columns_of(table: FusionTable, rows: np.ndarray, scores_3d: np.ndarray) -> Columns:
    """Inputs of rules for m ``rows`` of a table, with their (m, k) 3D scores."""
    return Columns(
        scores_2d=table.two_d[rows],
        scores_3d=scores_3d,
        codes=None if table.codes is None else table.codes[rows],
        quality=None if table.quality is None else table.quality[rows],
        quality_columns=table.quality_columns,
    )


def as_predictions(scores: np.ndarray, task: str) -> np.ndarray:
    """(n, k) log-probabilities from scores, with the same most probable class; valence and arousal unchanged."""
    return scores if task == "va" else log_probabilities(scores)


def _permuted_within_similar(columns: Columns, random: np.random.Generator, task: str) -> Columns:
    """Columns with the 3D permuted within bins of rows with similar 2D predictions."""
    scores = columns.scores_2d if task == "va" else centred(columns.scores_2d)
    return columns.permuted(similar_order(scores, random))


def similar_order(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(n,) random permutation of the rows of (n, k) values in which each row is replaced by a similar one.

    The rows are halved at the median of the column that varies most, repeatedly, down to bins of 8 to 15 rows. Each bin
    is permuted in one cycle, so that every row is replaced by another.
    """
    order, todo = np.arange(len(values)), [np.arange(len(values))]
    while todo:
        rows = todo.pop()
        if len(rows) < 2 * _SIMILAR:
            cycle = random.permutation(rows)
            order[cycle] = np.roll(cycle, 1)
            continue
        column = int(np.argmax(values[rows].std(axis=0)))
        rows = rows[np.argsort(values[rows, column], kind="stable")]
        todo += [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return order
