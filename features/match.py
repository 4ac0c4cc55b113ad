"""Which sample does each row of a file belong to? By id, or by the one order that fits in length; never by luck.

:mod:`.place` puts the values where the rows belong.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import PredictionsError, number, some
from .labels import SampleColumns
from .samples import Split

_DEEPEST = 12

# How ids may match, strictest first: what is compared of the file's ids and of the samples (their path or id).
_Level = tuple[str, Callable[[str], str], str, Callable[[str], str]]


def _clean(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _stemmed(name: str) -> str:
    """A path without its extension; ``face.2#1`` has none."""
    path = _clean(name)
    folder, slash, file = path.rpartition("/")
    stem, _, extension = file.rpartition(".")
    return f"{folder}{slash}{stem}" if stem and extension and "#" not in extension else path


def _file(name: str) -> str:
    return _clean(name).rpartition("/")[2]


def _stem(name: str) -> str:
    return _stemmed(name).rpartition("/")[2]


def _tail(name: str, drop: int) -> str:
    return "/".join(_stemmed(name).strip("/").split("/")[drop:])


_LEVELS: tuple[_Level, ...] = (
    ("id", lambda name: name, "id", lambda name: name),
    ("path", _clean, "path", _clean),
    ("path without extension", _stemmed, "id", _stemmed),
    ("file name", _file, "path", _file),
    ("stem", _stem, "id", _stem),
    # RAF-DB's ids are those of its list, its files are called test_0001_aligned.jpg
    ("stem of the path", _stem, "path", _stem),
)


def _find(keys: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row in ``among`` of each key, -1 where there is none or several; and whether there are several."""
    order = np.argsort(among, kind="stable")
    first = np.searchsorted(among, keys, side="left", sorter=order)
    count = np.searchsorted(among, keys, side="right", sorter=order) - first
    rows = np.where(count == 1, order[np.minimum(first, len(order) - 1)], -1)
    return rows, count > 1


def match_ids(
    ids: np.ndarray, samples: SampleColumns, *, source: str, allow_missing: bool = False
) -> tuple[np.ndarray, str]:
    """Row of the samples for each id of a file, and in words how they matched.

    Exact ids first, else paths (also with the file's leading folders dropped), file names, stems; a level counts
    only when every id of the file finds exactly one sample by it, and no two the same one.

    Parameters
    ----------
    ids : (m,) str
    samples : n samples
    source : str
        The file, for messages.
    allow_missing : bool
        Rows of the file whose exact id or path no sample has are left out (-1) instead of refused.

    Raises
    ------
    PredictionsError : ids that no sample has, or that several have; with counts and the first of them.
    """
    best_rows, best_how, clash = np.full(len(ids), -1), "", np.zeros(len(ids), bool)
    for how, of_id, column, of_sample in _levels(ids):
        keys = np.array([of_id(name) for name in ids.tolist()], dtype=str)
        among = np.array([of_sample(name) for name in getattr(samples, column).tolist()], dtype=str)
        rows, several = _find(keys, among)
        found = rows[rows >= 0]
        if len(np.unique(found)) != len(found):
            continue
        if len(found) == len(ids):
            return rows, f"{source}: {number(len(ids), 'row')} joined to {samples.source} by {how}"
        if len(found) > np.sum(best_rows >= 0):
            best_rows, best_how = rows, how
        clash |= several
    left = np.flatnonzero(best_rows < 0)
    if allow_missing and best_how in ("id", "path", "path without extension"):
        return best_rows, (
            f"{source}: {number(len(ids) - len(left), 'row')} joined to {samples.source} by {best_how}; "
            f"{number(len(left), 'row')} left out, no sample has the id"
        )
    by = f" by {best_how}" if best_how else ""
    several_words = f"; ids that fit several samples by file name: {int(clash.sum())}" if clash.any() else ""
    raise PredictionsError(
        f"{source}: expected every id to be one of the {len(samples)} samples of {samples.source} "
        f"({some(samples.id.tolist(), 2)}), got {len(left)} of {len(ids)} that are not{by} "
        f"({some(ids[left].tolist(), 3)}){several_words}"
    )


def _levels(ids: np.ndarray) -> list[_Level]:
    """The levels of matching, with one more for every leading folder that all ids of the file could lose."""
    depth = min((_clean(name).strip("/").count("/") for name in ids.tolist()), default=0)
    dropped = [
        (
            f"path less {drop or 'no'} leading folders",
            lambda name, drop=drop: _tail(name, drop),
            "path",
            _stemmed,
        )
        for drop in range(min(depth, _DEEPEST))
    ]
    return [*_LEVELS[:3], *dropped, *_LEVELS[3:]]


def match_order(
    n: int, samples: SampleColumns, *, source: str, remedy: str = "give the ids with --2d-ids"
) -> tuple[np.ndarray, str]:
    """Rows of the samples, in their order, that a file of ``n`` rows without ids can only be.

    Parameters
    ----------
    n : rows of the file
    samples : SampleColumns
    source : str
        The file, for messages.
    remedy : str
        What to do where it is open.

    Raises
    ------
    PredictionsError : no split and not the whole fits in length, or several do.
    """
    lengths = {"all samples": np.arange(len(samples))}
    for split in Split:
        rows = np.flatnonzero(samples.split == split)
        if split is not Split.none and 0 < len(rows) < len(samples):
            lengths[f"the {split.name} split"] = rows
    fitting = [name for name, rows in lengths.items() if len(rows) == n]
    said = ", ".join(f"{name} {len(rows)}" for name, rows in lengths.items())
    if len(fitting) != 1:
        got = "which fits none" if not fitting else f"which fits {' and '.join(fitting)}"
        raise PredictionsError(
            f"{source}: expected ids, or as many rows as one part of {samples.source} ({said}), got "
            f"{number(n, 'row')}, {got}; {remedy}"
        )
    return lengths[fitting[0]], (
        f"{source}: has no ids; its {number(n, 'row')} were taken as {fitting[0]} of {samples.source} in order of "
        "their ids (assumed)"
    )
