"""Conditions of a fold model: the input columns on which its rules are fitted and applied.

``real`` are the codes as they are; ``permuted`` and ``conditional`` are controls with the rows of the codes permuted,
in ``conditional`` among rows with similar 2D predictions; ``2d:NAME`` has a second 2D network in place of the 3D
predictions; ``2d+NAME`` has both 2D networks stacked in place of the first; ``2d+NAME repeated`` has the second one in
place of the 3D predictions as well.
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
    rules, choices : the rules that are fitted, and their options
    fit, rows : columns that the rules are fitted on, and their rows of the table
    apply, has_prediction : columns that the rules are applied to, and a mask of these rows among those of the fold
    replicate : index of the repeat or permutation of the same rule and condition
    over_both : whether both 2D networks are stacked before the rule
    """

    name: str
    rules: tuple[str, ...]
    choices: RuleSettings
    fit: Columns
    rows: np.ndarray
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
    choices: RuleSettings,
    repeat: int,
    permutations: range,
    permuted: bool,
    random: tuple[np.random.Generator, np.random.Generator],
) -> Iterator[Condition]:
    """The conditions of a fold model.

    Parameters
    ----------
    table : FusionTable
    model : the rows it is fitted on and applied to
    fit, apply : columns of these rows
    rules : names of the rules
    primary : the rule of the primary comparison, which has the control ``conditional``
    choices : options of the rules
    repeat : index of the cross-fitting
    permutations : indices of the permutations of ``conditional``
    permuted : whether the other rules have their control
    random : generators of the permutations, of ``permuted`` and of ``conditional``
    """
    rows, covered, everywhere = model.fit, apply.covered, np.ones(len(apply), bool)
    there = apply.take(covered)
    yield Condition(REAL, (RECALIBRATED,), choices, fit, rows, apply.without_3d(), everywhere, repeat)
    yield Condition(REAL, rules, choices, fit, rows, there, covered, repeat)
    others = tuple(name for name in rules if name != primary)
    if permuted and others:
        # also for rules without parameters: with any codes, a head predicts the class shares of its training rows
        mixed = fit.permuted(random[0].permutation(len(fit)))
        shown = there.permuted(random[0].permutation(len(there)))
        yield Condition(PERMUTED, others, choices, mixed, rows, shown, covered, 0)
    for number in permutations:
        mixed, shown = (_within_similar(of, random[1], table.task) for of in (fit, there))
        yield Condition(CONDITIONAL, (primary,), choices, mixed, rows, shown, covered, number)
    yield from _second_networks(table, model, fit, apply, rules, primary, choices, repeat)


def _second_networks(
    table: FusionTable,
    model: FoldModel,
    fit: Columns,
    apply: Columns,
    rules: tuple[str, ...],
    primary: str,
    choices: RuleSettings,
    repeat: int,
) -> Iterator[Condition]:
    """Further 2D networks: in place of the 3D predictions, and stacked with the first one."""
    fitted = tuple(name for name in rules if fits(name, choices.calibrate) and not kind_of(name).needs_codes)
    candidates = tuple(name for name in choices.candidates if not kind_of(name).needs_codes)
    without = replace(choices, candidates=candidates)
    for name, other in table.others.items():
        known, there = np.isfinite(other[model.fit]).all(axis=1), np.isfinite(other[model.apply]).all(axis=1)
        there &= apply.covered
        if not known.any():
            continue
        rows, second, shown = model.fit[known], other[model.fit[known]], other[model.apply[there]]
        fit_known, apply_known = fit.take(known), apply.take(there)
        if fitted:
            mixed = replace(fit_known, scores_3d=second, codes=None)
            instead = replace(apply_known, scores_3d=shown, codes=None)
            yield Condition(f"2d:{name}", fitted, without, mixed, rows, instead, there, repeat)
        if fits(primary, choices.calibrate):
            both, shown_both = replace(fit_known, second_2d=second), replace(apply_known, second_2d=shown)
            stacked = Condition(
                f"2d+{name}",
                (RECALIBRATED, primary),
                choices,
                both,
                rows,
                shown_both,
                there,
                repeat,
                over_both=True,
            )
            yield stacked
            # Weights are shrunk: 3D predictions that repeat the second network must not gain from the rest. So it is
            # also repeated in their place, with their spread.
            unit = _spread(fit_known.scores_3d, table.task) / max(_spread(second, table.task), TINY)
            yield replace(
                stacked,
                name=repeated(stacked.name),
                rules=(primary,),
                choices=without,
                fit=replace(both, scores_3d=unit * second, codes=None),
                apply=replace(shown_both, scores_3d=unit * shown, codes=None),
            )


def _spread(scores: np.ndarray, task: str) -> float:
    """Root mean square of (n, k) scores around the mean of each column; of classes around that of each row too."""
    values = scores if task == "va" else centred(scores)
    return float(np.sqrt(np.square(values - values.mean(axis=0)).mean()))


def columns_of(table: FusionTable, rows: np.ndarray, three: np.ndarray) -> Columns:
    """Columns of rows of a table, with these (len(rows), k) 3D scores."""
    return Columns(
        scores_2d=table.two_d[rows],
        scores_3d=three,
        codes=None if table.codes is None else table.codes[rows],
        quality=None if table.quality is None else table.quality[rows],
        quality_columns=table.quality_columns,
    )


def as_predictions(scores: np.ndarray, task: str) -> np.ndarray:
    """(n, k) log-probabilities of scores, argmax kept; valence and arousal as they are."""
    return scores if task == "va" else log_probabilities(scores)


def _within_similar(columns: Columns, random: np.random.Generator, task: str) -> Columns:
    """Columns with the 3D permuted within bins of rows with similar 2D predictions."""
    two = columns.scores_2d if task == "va" else centred(columns.scores_2d)
    return columns.permuted(similar_order(two, random))


def similar_order(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(n,) random permutation of the rows of (n, k) values in which each row is replaced by a similar one.

    The rows are halved at the median of the column that varies most, again and again, down to bins of 8 to 15 rows;
    each bin is permuted in one cycle, so that no row stays where it is.
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
