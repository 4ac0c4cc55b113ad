"""Match the ids of a file to samples: exactly, else by path or file name, and only one-to-one.

:mod:`.place` puts the values where the rows belong.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import PredictionsError, number, some
from .image_names import without_image_suffix
from .samples import Split
from .tables import split_named

if TYPE_CHECKING:
    from .labels import SampleColumns

_DEEPEST = 12
# Levels by which an id stands for one sample of the whole dataset; by file name or stem it need not.
_STRICT = ("id", "path", "path without extension")

# How ids may match, strictest first: what is compared of the file's ids and of the samples (their path or id).
_Level = tuple[str, Callable[[str], str], str, Callable[[str], str]]


def _clean(name: str) -> str:
    """A path with slashes, without ``./``, without blanks around its parts, and in one Unicode form."""
    path = unicodedata.normalize("NFC", name).replace("\\", "/").strip().removeprefix("./")
    return "/".join(part.strip() for part in path.split("/")) if " " in path else path


def _stemmed(name: str) -> str:
    return without_image_suffix(_clean(name)).rstrip()


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


@dataclass(frozen=True, slots=True)
class Match:
    """Outcome of matching m ids.

    Attributes
    ----------
    rows : (m,) int
        Row of the samples, -1 where none was found.
    level : str
        How they matched; empty where none did.
    several : (m,) bool
        Ids that fit several samples at some level.
    """

    rows: np.ndarray
    level: str
    several: np.ndarray

    @property
    def complete(self) -> bool:
        """Whether every id has its sample."""
        return bool((self.rows >= 0).all())

    @property
    def strict(self) -> bool:
        """Whether ids were compared as a whole, so that an id without a sample is a row of no sample."""
        return self.level in _STRICT


def _find(keys: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row in ``among`` of each key, -1 where there is none or several; and whether there are several."""
    order = np.argsort(among, kind="stable")
    first = np.searchsorted(among, keys, side="left", sorter=order)
    count = np.searchsorted(among, keys, side="right", sorter=order) - first
    rows = np.where(count == 1, order[np.minimum(first, len(order) - 1)], -1)
    return rows, count > 1


def match_names(ids: np.ndarray, sample_ids: np.ndarray, paths: np.ndarray) -> Match:
    """Samples of some ids, by the strictest level by which each of them finds one.

    Exact ids first, else paths (also without leading folders), file names, stems. A level counts only when no two ids
    find the same sample by it, and below whole paths only when no id names another split than its sample does. Where
    no level finds all, the one that finds most is returned.

    Parameters
    ----------
    ids : (m,) str
    sample_ids, paths : (n,) str
    """
    best = Match(np.full(len(ids), -1), "", np.zeros(len(ids), bool))
    several = np.zeros(len(ids), bool)
    columns = {"id": sample_ids, "path": paths}
    for level, of_id, column, of_sample in _levels(ids):
        keys = np.array([of_id(name) for name in ids.tolist()], dtype=str)
        among = np.array([of_sample(name) for name in columns[column].tolist()], dtype=str)
        rows, more = _find(keys, among)
        found = np.flatnonzero(rows >= 0)
        if len(np.unique(rows[found])) != len(found):
            continue
        if level not in _STRICT and _other_split(ids[found], paths[rows[found]]):
            continue
        if len(found) == len(ids):
            return Match(rows, level, several)
        if len(found) > np.sum(best.rows >= 0):
            best = Match(rows, level, several)
        several |= more
    return Match(best.rows, best.level, several)


def matching_column(
    columns: Mapping[str, np.ndarray], sample_ids: np.ndarray, paths: np.ndarray
) -> str | None:
    """Name of the column of ids that finds most samples (:func:`match_names`), the first of equal ones."""

    def matched(name: str) -> int:
        unique = np.unique(columns[name])
        return int((match_names(unique, sample_ids, paths).rows >= 0).sum())

    return next(iter(columns), None) if len(columns) < 2 else max(columns, key=matched)


def _other_split(ids: np.ndarray, paths: np.ndarray) -> bool:
    """Whether a folder of an id names another split than one of its sample's path."""
    pairs = {
        (_clean(name).rpartition("/")[0], _clean(path).rpartition("/")[0])
        for name, path in zip(ids.tolist(), paths.tolist(), strict=True)
    }
    return any(
        (mine := _split_in(folder)) is not None
        and (other := _split_in(its)) is not None
        and mine is not other
        for folder, its in pairs
    )


def _split_in(folder: str) -> Split | None:
    """The split that the last folder with such a name says."""
    found = [split_named(name) for name in folder.split("/") if name]
    return next((split for split in reversed(found) if split is not None), None)


def names_files(names: np.ndarray, samples: SampleColumns) -> bool:
    """Whether each name is the file name or the stem of a sample or of several."""
    for of_name, column in ((_file, samples.path), (_stem, samples.id), (_stem, samples.path)):
        there = {of_name(path) for path in column.tolist()}
        if all(of_name(name) in there for name in names.tolist()):
            return True
    return False


def match_ids(
    ids: np.ndarray, samples: SampleColumns, *, source: str, allow_missing: bool = False
) -> tuple[np.ndarray, str]:
    """Row of the samples for each id of a file, and in words how they matched (:func:`match_names`).

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
    found = match_names(ids, samples.id, samples.path)
    if found.complete:
        return found.rows, f"{source}: {number(len(ids), 'row')} joined to {samples.source} by {found.level}"
    left = np.flatnonzero(found.rows < 0)
    if allow_missing and found.strict:
        return found.rows, (
            f"{source}: {number(len(ids) - len(left), 'row')} joined to {samples.source} by {found.level}; "
            f"{number(len(left), 'row')} left out, no sample has the id"
        )
    by = f" by {found.level}" if found.level else ""
    several = (
        f"; ids that fit several samples by file name: {int(found.several.sum())}; give their whole paths"
        if found.several.any()
        else ""
    )
    hint = difference(ids[left], samples.id)
    raise PredictionsError(
        f"{source}: expected every id to be one of the {len(samples)} samples of {samples.source} "
        f"({some(samples.id.tolist(), 2)}), got {len(left)} of {len(ids)} that are not{by} "
        f"({some(ids[left].tolist(), 3)}){several}{hint}"
    )


def difference(ids: np.ndarray, sample_ids: np.ndarray) -> str:
    """Words on the first id that looks like a sample's and is another text; empty where none does.

    Such are ids that differ by case, accents, blanks, marks or invisible characters.
    """

    def alike(name: str) -> str:
        text = unicodedata.normalize("NFKD", name).casefold()
        return "".join(letter for letter in text if letter.isalnum())

    for part in (_stemmed, _stem):
        there = {alike(part(name)): name for name in sample_ids.tolist()}
        for name in ids[:1000].tolist():
            other = there.get(alike(part(name))) if alike(part(name)) else None
            if other is None or part(other) == part(name):
                continue
            return f"; {name!a} is written another way than {other!a}"
    return ""


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
    n: int,
    samples: SampleColumns,
    *,
    labelled: np.ndarray,
    source: str,
    remedy: str = "give the ids with --2d-ids",
) -> tuple[np.ndarray, str]:
    """Rows of the samples, in their order, that a file of ``n`` rows without ids can only be.

    Parameters
    ----------
    n : rows of the file
    samples : SampleColumns
    labelled : (samples,) bool
        Samples with a label of the task: without labels the order cannot be checked.
    source : str
        The file, for messages.
    remedy : str
        What to do where the rows are not certain.

    Raises
    ------
    PredictionsError : no split and not the whole fits in length, or several do, or the rows have no labels.
    """
    lengths = {"all samples": np.arange(len(samples))}
    for split in Split:
        rows = np.flatnonzero(samples.split == split)
        if split is not Split.none and 0 < len(rows) < len(samples):
            lengths[f"the {split.name} split"] = rows
    fitting = [name for name, rows in lengths.items() if len(rows) == n]
    counts = ", ".join(f"{name} {len(rows)}" for name, rows in lengths.items())
    if len(fitting) != 1:
        got = "which fits none" if not fitting else f"which fits {' and '.join(fitting)}"
        raise PredictionsError(
            f"{source}: expected ids, or as many rows as one part of {samples.source} ({counts}), got "
            f"{number(n, 'row')}, {got}; {remedy}"
        )
    rows = lengths[fitting[0]]
    if not labelled[rows].any():
        raise PredictionsError(
            f"{source}: expected ids: {fitting[0]} of {samples.source} has no labels, by which the order of the rows "
            f"could be checked; {remedy}"
        )
    return rows, (
        f"WARNING {source}: has no ids; its {number(n, 'row')} were taken as {fitting[0]} of {samples.source} in order "
        f"of their ids (assumed). Rows in another order within a class cannot be noticed; {remedy}"
    )
