"""Rows that each head and each fold model of the rules is fitted on (docs/protocol.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ..errors import ProtocolError, plural
from ..features.fusion_table import FusionTable
from .config import FuseConfig
from .folds import folds_of, strata_of

_EMPTY = np.zeros(0, np.intp)
_PAIRED_FOLDS, _INNER_BLOCKS = 10, 5
# How heads are fitted: see EvaluationPlan.head_fitting.
ONCE, NESTED, OUT_OF_FOLD, NO_HEAD, IN_FOLDS = "once", "nested", "out-of-fold", "none", "in folds"


@dataclass(frozen=True, slots=True)
class HeadFit:
    """Rows of one head, as indices into the table: fitted on ``train``, applied to ``predict``."""

    train: np.ndarray
    predict: np.ndarray


@dataclass(frozen=True, slots=True)
class FoldModel:
    """Rows of the rules that are fitted together: in one fold, on a separate split, or for the saved model.

    Attributes
    ----------
    fit : row indices; the rules are fitted on these rows, all with 3D
    apply : row indices; the rules are applied to these rows; empty for the saved model
    heads_fit, heads_apply : indices of the heads that predict the rows of ``fit`` and of ``apply``
    """

    fit: np.ndarray
    apply: np.ndarray
    heads_fit: tuple[int, ...] = ()
    heads_apply: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Folds:
    """Partition of rows into folds.

    Attributes
    ----------
    rows : (m,) row indices
    number : (m,) int, fold of each row
    count : number of folds
    notes : deviations from the requested folds
    """

    rows: np.ndarray
    number: np.ndarray
    count: int
    notes: tuple[str, ...]

    @classmethod
    def of(cls, table: FusionTable, rows: np.ndarray, folds: int, seed: int, *, least: int = 2) -> Folds:
        """Divide rows into ``folds`` folds, or into fewer if there are fewer groups; a group is in one fold.

        Raises
        ------
        ProtocolError : fewer than ``least`` folds are possible.
        """
        groups = table.group_codes[rows]
        distinct = len(np.unique(groups))
        count = min(folds, distinct)
        if count < least:
            units = plural(distinct, "group" if table.grouped else "row")
            raise ProtocolError(
                f"folds: at least {least} are needed, but {units} can only be divided into {count} (--folds {folds}); "
                "use more rows, more folds, or a val split to fit on"
            )
        number = folds_of(strata_of(table.truth[rows], table.task), groups, count, seed)
        notes = () if count == folds else (f"{folds} folds were requested; {count} are possible.",)
        return cls(rows, number, count, notes)

    def rows_of(self, *folds: int) -> np.ndarray:
        """Rows of these folds."""
        return self.rows[np.isin(self.number, folds)]

    def rows_except(self, *folds: int) -> np.ndarray:
        """Rows of all other folds."""
        return self.rows[~np.isin(self.number, folds)]


# heads, fold models, final model, index of the final head (-1 if there is none)
Fits = tuple[tuple[HeadFit, ...], tuple[FoldModel, ...], FoldModel, int]


def with_codes(table: FusionTable, rows: np.ndarray) -> np.ndarray:
    """The rows with codes (or 3D predictions) among these rows."""
    return rows[table.covered[rows]]


def fit_in_folds(
    table: FusionTable, reported: np.ndarray, train: np.ndarray, folds: Folds, head_fitting: str
) -> Fits:
    """A model for each fold: rules are fitted on the rows with 3D of the other folds."""
    others = [with_codes(table, folds.rows_except(i)) for i in range(folds.count)]
    every = with_codes(table, reported)
    if head_fitting != NESTED:
        heads: tuple[HeadFit, ...] = (HeadFit(train, every),) if head_fitting == ONCE else ()
        used = (0,) if heads else ()
        models = tuple(FoldModel(others[i], folds.rows_of(i), used, used) for i in range(folds.count))
        return heads, models, FoldModel(every, _EMPTY, used, used), 0 if heads else -1
    inner = _inner_heads(folds.count)
    heads = tuple(
        HeadFit(with_codes(table, folds.rows_except(*left_out)), with_codes(table, folds.rows_of(*predicted)))
        for left_out, predicted, _ in inner
    ) + tuple(HeadFit(others[i], with_codes(table, folds.rows_of(i))) for i in range(folds.count))
    outer = tuple(len(inner) + i for i in range(folds.count))
    models = tuple(
        FoldModel(
            others[i],
            folds.rows_of(i),
            tuple(number for number, (_, _, users) in enumerate(inner) if i in users),
            (outer[i],),
        )
        for i in range(folds.count)
    )
    heads = (*heads, HeadFit(every, _EMPTY))
    return heads, models, FoldModel(every, _EMPTY, outer, ()), len(heads) - 1


_Folds = tuple[int, ...]


def _inner_heads(count: int) -> list[tuple[_Folds, _Folds, _Folds]]:
    """Heads of the inner out-of-fold predictions: folds left out, folds predicted, folds whose rules use the head.

    A head fitted without folds i and j predicts j for the rules that are applied to i, and i for those applied to j:
    half the fits of separate inner folds. Of many folds there are too many pairs; the folds other than i are then
    predicted in a few blocks, so that the number of fits is proportional to the number of folds.
    """
    if count <= _PAIRED_FOLDS:
        return [(pair, pair, pair) for pair in combinations(range(count), 2)]
    heads: list[tuple[_Folds, _Folds, _Folds]] = []
    for i in range(count):
        others = np.delete(np.arange(count), i)
        for block in np.array_split(others, _INNER_BLOCKS):
            predicted = tuple(block.tolist())
            heads.append(((i, *predicted), predicted, (i,)))
    return heads


def fit_on_split(
    table: FusionTable,
    reported: np.ndarray,
    calibration: np.ndarray,
    train: np.ndarray,
    head_fitting: str,
    config: FuseConfig,
    notes: list[str],
) -> Fits:
    """One fold model: rules are fitted on the rows with 3D of another split, ``calibration``."""
    if head_fitting == NO_HEAD:
        return (), (FoldModel(calibration, reported),), FoldModel(calibration, _EMPTY), -1
    if head_fitting == ONCE:
        predicted = np.sort(np.concatenate([calibration, with_codes(table, reported)]))
        final = FoldModel(calibration, _EMPTY, (0,), (0,))
        return (HeadFit(train, predicted),), (FoldModel(calibration, reported, (0,), (0,)),), final, 0
    folds = Folds.of(table, calibration, config.folds, config.seed)
    notes.extend(folds.notes)
    # Heads are also trained on the train rows without a 2D prediction, which are in no fold.
    rest = np.setdiff1d(train, calibration)
    heads = tuple(
        HeadFit(
            np.sort(
                np.concatenate([folds.rows_except(i), _without_groups_of(table, rest, folds.rows_of(i))])
            ),
            folds.rows_of(i),
        )
        for i in range(folds.count)
    )
    last = HeadFit(np.sort(np.concatenate([calibration, rest])), with_codes(table, reported))
    inner, number = tuple(range(folds.count)), folds.count
    final = FoldModel(calibration, _EMPTY, inner, (number,))
    return (*heads, last), (FoldModel(calibration, reported, inner, (number,)),), final, number


def subsample(table: FusionTable, model: FoldModel, most: int, seed: int) -> FoldModel:
    """The fold model with at most ``most`` of its calibration rows; groups are not divided.

    The order in which groups are drawn is the same for all sizes and folds, so that a larger sample contains a smaller
    one.
    """
    codes = table.group_codes
    rank = np.random.default_rng([seed, 2]).permutation(codes.max() + 1)
    groups, sizes = np.unique(codes[model.fit], return_counts=True)
    order = np.argsort(rank[groups])
    taken = groups[order][np.cumsum(sizes[order]) <= most]
    if not len(taken):
        raise ProtocolError(
            f"calibration-rows: {most} is less than the first group drawn, of {plural(int(sizes[order[0]]), 'row')}; "
            "groups are kept whole, so use more"
        )
    return replace(model, fit=model.fit[np.isin(codes[model.fit], taken)])


def _without_groups_of(table: FusionTable, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The rows whose group contains none of the other rows."""
    groups = table.group_codes
    return rows[~np.isin(groups[rows], groups[others])]
