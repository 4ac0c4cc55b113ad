"""Which rows each head and each copy of the rules is fitted on, case by case (docs/protocol.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ...errors import ProtocolError
from ...features.fusion_table import FusionTable
from ..config import FuseConfig
from .folds import folds_of, strata_of
from .rows import FuserFit, HeadFit

_EMPTY = np.zeros(0, np.intp)
_PAIRED_FOLDS, _INNER_BLOCKS = 10, 5


@dataclass(frozen=True, slots=True)
class Drawn:
    """Folds of some rows: ``number`` (m,) aligned with ``rows``."""

    rows: np.ndarray
    number: np.ndarray
    count: int
    notes: tuple[str, ...]

    @classmethod
    def of(cls, table: FusionTable, rows: np.ndarray, config: FuseConfig, *, least: int = 2) -> Drawn:
        """Folds of rows, as many as were asked for or as there are groups."""
        groups = table.group_codes[rows]
        distinct = len(np.unique(groups))
        count = min(config.folds, distinct)
        if count < least:
            what = "groups" if table.grouped else "rows"
            raise ProtocolError(
                f"folds: expected at least {least}, from as many {what}, got {count} folds of {distinct} {what}; "
                "more rows, more folds, or a val split to fit on are needed"
            )
        number = folds_of(strata_of(table.truth[rows], table.task), groups, count, config.seed)
        notes = (
            () if count == config.folds else (f"{config.folds} folds were asked for; {count} are possible.",)
        )
        return cls(rows, number, count, notes)

    def of_fold(self, *folds: int) -> np.ndarray:
        """Rows of some folds."""
        return self.rows[np.isin(self.number, folds)]

    def but(self, *folds: int) -> np.ndarray:
        """Rows of all other folds."""
        return self.rows[~np.isin(self.number, folds)]


Plan = tuple[tuple[HeadFit, ...], tuple[FuserFit, ...], FuserFit, int]


def with_codes(table: FusionTable, rows: np.ndarray) -> np.ndarray:
    """Those of some rows that a head can read and a rule can be fitted on."""
    return rows[table.covered[rows]]


def in_folds(table: FusionTable, reported: np.ndarray, train: np.ndarray, drawn: Drawn, case: str) -> Plan:
    """Rules fitted on the other folds of the reported rows: on those of their rows that have 3D."""
    others = [with_codes(table, drawn.but(i)) for i in range(drawn.count)]
    every = with_codes(table, reported)
    if case != "nested":
        heads: tuple[HeadFit, ...] = (HeadFit(train, every),) if case == "once" else ()
        used = (0,) if heads else ()
        fusers = tuple(FuserFit(others[i], drawn.of_fold(i), used, used) for i in range(drawn.count))
        return heads, fusers, FuserFit(every, _EMPTY, used, used), 0 if heads else -1
    inner = _inner_heads(drawn.count)
    heads = tuple(
        HeadFit(with_codes(table, drawn.but(*left_out)), with_codes(table, drawn.of_fold(*asked)))
        for left_out, asked, _ in inner
    ) + tuple(HeadFit(others[i], with_codes(table, drawn.of_fold(i))) for i in range(drawn.count))
    outer = tuple(len(inner) + i for i in range(drawn.count))
    fusers = tuple(
        FuserFit(
            others[i],
            drawn.of_fold(i),
            tuple(number for number, (_, _, users) in enumerate(inner) if i in users),
            (outer[i],),
        )
        for i in range(drawn.count)
    )
    heads = (*heads, HeadFit(every, _EMPTY))
    return heads, fusers, FuserFit(every, _EMPTY, outer, ()), len(heads) - 1


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
) -> Plan:
    """Rules fitted on rows of another split, which have 3D."""
    if case == "ready":
        return (), (FuserFit(calibration, reported),), FuserFit(calibration, _EMPTY), -1
    if case == "once":
        asked = np.sort(np.concatenate([calibration, with_codes(table, reported)]))
        final = FuserFit(calibration, _EMPTY, (0,), (0,))
        return (HeadFit(train, asked),), (FuserFit(calibration, reported, (0,), (0,)),), final, 0
    drawn = Drawn.of(table, calibration, config)
    notes.extend(drawn.notes)
    # Train rows without a 2D prediction teach the head all the same; they are in no fold.
    rest = np.setdiff1d(train, calibration)
    heads = tuple(
        HeadFit(
            np.sort(np.concatenate([drawn.but(i), _rest_for(table, rest, drawn.of_fold(i))])),
            drawn.of_fold(i),
        )
        for i in range(drawn.count)
    )
    last = HeadFit(np.sort(np.concatenate([calibration, rest])), with_codes(table, reported))
    inner, number = tuple(range(drawn.count)), drawn.count
    final = FuserFit(calibration, _EMPTY, inner, (number,))
    return (*heads, last), (FuserFit(calibration, reported, inner, (number,)),), final, number


def fewer(table: FusionTable, fuser: FuserFit, most: int, seed: int) -> FuserFit:
    """A copy of the rules fitted on at most so many of its rows, groups whole.

    Groups come in one shuffled order for all sizes and all folds, so that more rows hold fewer.
    """
    codes = table.group_codes
    place = np.random.default_rng([seed, 2]).permutation(codes.max() + 1)
    groups, sizes = np.unique(codes[fuser.fit], return_counts=True)
    order = np.argsort(place[groups])
    taken = groups[order][np.cumsum(sizes[order]) <= most]
    if not len(taken):
        raise ProtocolError(
            f"calibration-rows: expected as many as a group has, got {most} and a first group of "
            f"{sizes[order[0]]} rows; give more"
        )
    return replace(fuser, fit=fuser.fit[np.isin(codes[fuser.fit], taken)])


def _rest_for(table: FusionTable, rest: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Train rows outside of all folds, less those of the groups in a fold."""
    groups = table.group_codes
    return rest[~np.isin(groups[rest], groups[fold])]


def on_reported(
    table: FusionTable,
    reported: np.ndarray,
    train: np.ndarray,
    case: str,
    config: FuseConfig,
    notes: list[str],
) -> Plan:
    """Rules fitted on the rows they are reported on, as papers do; the heads still never saw them."""
    every = with_codes(table, reported)
    if case == "ready":
        fit = FuserFit(every, reported)
        return (), (fit,), replace(fit, apply=_EMPTY), -1
    if len(train):
        fit = FuserFit(every, reported, (0,), (0,))
        return (HeadFit(train, every),), (fit,), replace(fit, apply=_EMPTY), 0
    drawn = Drawn.of(table, reported, config)
    notes.extend(drawn.notes)
    heads = tuple(
        HeadFit(with_codes(table, drawn.but(i)), with_codes(table, drawn.of_fold(i)))
        for i in range(drawn.count)
    )
    inner = tuple(range(drawn.count))
    fit = FuserFit(every, reported, inner, inner)
    last = HeadFit(every, _EMPTY)
    return (*heads, last), (fit,), replace(fit, apply=_EMPTY, heads_apply=()), drawn.count
