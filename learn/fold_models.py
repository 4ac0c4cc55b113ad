"""Rows that each head and each fold model of the rules is fitted on, case by case (docs/protocol.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ..errors import ProtocolError
from ..features.fusion_table import FusionTable
from .config import FuseConfig
from .folds import folds_of, strata_of

_EMPTY = np.zeros(0, np.intp)
_PAIRED_FOLDS, _INNER_BLOCKS = 10, 5


@dataclass(frozen=True, slots=True)
class HeadFit:
    """One head: fitted on the codes of ``train``, applied to ``predict``; row indices of the table."""

    train: np.ndarray
    predict: np.ndarray


@dataclass(frozen=True, slots=True)
class FoldModel:
    """One set of fused rules: fitted on ``fit``, which have 3D, applied to ``apply``; row indices of the table.

    ``heads_fit`` and ``heads_apply`` are numbers of the heads whose predictions stand on either side.
    """

    fit: np.ndarray
    apply: np.ndarray
    heads_fit: tuple[int, ...] = ()
    heads_apply: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Folds:
    """Folds of rows: ``number`` (m,) aligned with ``rows``."""

    rows: np.ndarray
    number: np.ndarray
    count: int
    notes: tuple[str, ...]

    @classmethod
    def of(cls, table: FusionTable, rows: np.ndarray, folds: int, seed: int, *, least: int = 2) -> Folds:
        """Folds of rows with groups kept whole: ``folds``, or as many as there are groups.

        Raises
        ------
        ProtocolError : fewer than ``least`` are possible.
        """
        groups = table.group_codes[rows]
        distinct = len(np.unique(groups))
        count = min(folds, distinct)
        if count < least:
            what = "groups" if table.grouped else "rows"
            raise ProtocolError(
                f"folds: expected at least {least}, from as many {what}, got {count} folds of {distinct} {what}; "
                "more rows, more folds, or a val split to fit on are needed"
            )
        number = folds_of(strata_of(table.truth[rows], table.task), groups, count, seed)
        notes = () if count == folds else (f"{folds} folds were asked for; {count} are possible.",)
        return cls(rows, number, count, notes)

    def rows_of(self, *folds: int) -> np.ndarray:
        """Rows of these folds."""
        return self.rows[np.isin(self.number, folds)]

    def but(self, *folds: int) -> np.ndarray:
        """Rows of all other folds."""
        return self.rows[~np.isin(self.number, folds)]


Fits = tuple[tuple[HeadFit, ...], tuple[FoldModel, ...], FoldModel, int]


def with_codes(table: FusionTable, rows: np.ndarray) -> np.ndarray:
    """Those of some rows that a head can read and a rule can be fitted on."""
    return rows[table.covered[rows]]


def in_folds(table: FusionTable, reported: np.ndarray, train: np.ndarray, folds: Folds, case: str) -> Fits:
    """Rules fitted on the other folds of the reported rows: on those of their rows that have 3D."""
    others = [with_codes(table, folds.but(i)) for i in range(folds.count)]
    every = with_codes(table, reported)
    if case != "nested":
        heads: tuple[HeadFit, ...] = (HeadFit(train, every),) if case == "once" else ()
        used = (0,) if heads else ()
        models = tuple(FoldModel(others[i], folds.rows_of(i), used, used) for i in range(folds.count))
        return heads, models, FoldModel(every, _EMPTY, used, used), 0 if heads else -1
    inner = _inner_heads(folds.count)
    heads = tuple(
        HeadFit(with_codes(table, folds.but(*left_out)), with_codes(table, folds.rows_of(*asked)))
        for left_out, asked, _ in inner
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
    """Heads of the inner out-of-fold predictions: folds left out, folds predicted, folds whose rules are fitted to it.

    A head fitted without folds i and j predicts j for the rules that are applied to i, and i for those applied to j:
    half the fits of separate inner folds. Of many folds there are too many pairs; the folds other than i are then
    predicted in a few blocks, so that the number of fits is proportional to the number of folds.
    """
    if count <= _PAIRED_FOLDS:
        return [(pair, pair, pair) for pair in combinations(range(count), 2)]
    found: list[tuple[_Folds, _Folds, _Folds]] = []
    for i in range(count):
        others = np.delete(np.arange(count), i)
        for block in np.array_split(others, _INNER_BLOCKS):
            asked = tuple(block.tolist())
            found.append(((i, *asked), asked, (i,)))
    return found


def apart(
    table: FusionTable,
    reported: np.ndarray,
    calibration: np.ndarray,
    train: np.ndarray,
    case: str,
    config: FuseConfig,
    notes: list[str],
) -> Fits:
    """Rules fitted on rows of another split, which have 3D."""
    if case == "ready":
        return (), (FoldModel(calibration, reported),), FoldModel(calibration, _EMPTY), -1
    if case == "once":
        asked = np.sort(np.concatenate([calibration, with_codes(table, reported)]))
        final = FoldModel(calibration, _EMPTY, (0,), (0,))
        return (HeadFit(train, asked),), (FoldModel(calibration, reported, (0,), (0,)),), final, 0
    folds = Folds.of(table, calibration, config.folds, config.seed)
    notes.extend(folds.notes)
    # Train rows without a 2D prediction teach the head all the same; they are in no fold.
    rest = np.setdiff1d(train, calibration)
    heads = tuple(
        HeadFit(
            np.sort(np.concatenate([folds.but(i), _rest_for(table, rest, folds.rows_of(i))])),
            folds.rows_of(i),
        )
        for i in range(folds.count)
    )
    last = HeadFit(np.sort(np.concatenate([calibration, rest])), with_codes(table, reported))
    inner, number = tuple(range(folds.count)), folds.count
    final = FoldModel(calibration, _EMPTY, inner, (number,))
    return (*heads, last), (FoldModel(calibration, reported, inner, (number,)),), final, number


def fewer(table: FusionTable, model: FoldModel, most: int, seed: int) -> FoldModel:
    """The fold model fitted on at most so many of its rows, groups whole.

    Groups come in one shuffled order for all sizes and all folds, so that more rows hold fewer.
    """
    codes = table.group_codes
    place = np.random.default_rng([seed, 2]).permutation(codes.max() + 1)
    groups, sizes = np.unique(codes[model.fit], return_counts=True)
    order = np.argsort(place[groups])
    taken = groups[order][np.cumsum(sizes[order]) <= most]
    if not len(taken):
        raise ProtocolError(
            f"calibration-rows: expected as many as a group has, got {most} and a first group of "
            f"{sizes[order[0]]} rows; give more"
        )
    return replace(model, fit=model.fit[np.isin(codes[model.fit], taken)])


def _rest_for(table: FusionTable, rest: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Train rows outside of all folds, less those of the groups in a fold."""
    groups = table.group_codes
    return rest[~np.isin(groups[rest], groups[fold])]
