"""Alignment of ids to samples: by exact id, else by path or file name. Different ids never get the same sample.

Predictions, features, face boxes, imported codes, split tables and label tables all use it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import PredictionsError, listed, plural
from .image_names import without_image_suffix
from .samples import Split
from .table_columns import increases, normalised, split_named

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

_MAX_DROPPED_FOLDERS = 12
# Levels that compare whole ids or paths. Ids and paths are unique even without suffix: no dataset has a.jpg and a.png.
_STRICT = ("id", "path", "path without suffix", "id without suffix")
# Names of columns and arrays that are always taken as ids.
_ID_NAMES = ("id", "ids", "sample_id", "sample_ids")

NamedColumns = Mapping[str, np.ndarray]


def find_rows(keys: ArrayLike, among: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Row of each key in ``among``.

    Parameters
    ----------
    keys : (m,) str or bytes
    among : (n,) of the same type

    Returns
    -------
    rows : (m,) int64
        -1 where no row, or more than one, is equal to the key.
    several : (m,) bool
        Keys that are equal to more than one row.
    """
    import pandas as pd

    wanted, index = (pd.Index(np.asarray(names, dtype=object)) for names in (keys, among))
    repeated = index.duplicated(keep=False)
    unique_rows = np.flatnonzero(~repeated)
    at = index[~repeated].get_indexer(wanted)
    rows = np.where(at >= 0, unique_rows[at] if len(unique_rows) else -1, -1)
    return rows, wanted.isin(index[repeated])


@dataclass(frozen=True, slots=True)
class Alignment:
    """Result of matching m ids to samples.

    Attributes
    ----------
    rows : (m,) int64
        Row of the samples, -1 where no sample has the id, or more than one fits it.
    level : str
        How ids and samples were compared (:func:`align`); empty if no id has a sample.
    several : (m,) bool
        Ids that fitted several samples at one of the levels that were tried, even if another level matched them.
    """

    rows: np.ndarray
    level: str
    several: np.ndarray

    @property
    def aligned(self) -> np.ndarray:
        """(m,) bool: ids with a sample."""
        return np.asarray(self.rows >= 0)

    @property
    def complete(self) -> bool:
        """Whether every id has its sample."""
        return bool(self.aligned.all())

    @property
    def strict(self) -> bool:
        """Whether whole ids or paths were compared, so that an unmatched id certainly belongs to no sample."""
        return self.level in _STRICT

    def report(self, source: str, to: str, column: str = "") -> str:
        """Line for the user: how many rows of ``source`` are aligned to ``to``, by which level and column."""
        aligned = int(self.aligned.sum())
        line = f"{source}: {plural(aligned, 'row')} matched to {to}"
        line += f" by {self.level}" if self.level else ""
        line += f" (ids: {column})" if column else ""
        left = len(self.rows) - aligned
        return line + (f"; {plural(left, 'row')} left out, no sample has their id" if left else "")


def align(ids: ArrayLike, samples: pd.DataFrame) -> Alignment:
    """Match ids to samples at the strictest level at which every id has a sample.

    The levels are: exact ids, paths (also after leading folders of the ids are dropped), file names. An id that fits
    several samples at a level is not matched by it. A level is skipped if two different ids match the same sample. A
    level that ignores folders (some, or all for file names) is also skipped if an id and its sample lie in folders of
    different splits. If no level matches all ids, the one that matches most is used. Equal ids get the same sample.

    Parameters
    ----------
    ids : (m,) str
    samples : sample table of n rows
    """
    import pandas as pd

    inverse, unique = pd.factorize(np.asarray(ids, dtype=object))
    names, paths = [str(name) for name in unique], samples["path"].tolist()
    best_rows, best_level = np.full(len(names), -1), ""
    several = np.zeros(len(names), bool)
    for level, id_keys, sample_keys in _levels(names, samples["id"].tolist(), paths):
        rows, repeated = find_rows(id_keys, sample_keys)
        matched = np.flatnonzero(rows >= 0).tolist()
        if not pd.Index(rows[matched]).is_unique:
            continue
        if level not in _STRICT and _splits_differ(
            [names[i] for i in matched], [paths[row] for row in rows[matched]]
        ):
            continue
        if len(matched) > np.sum(best_rows >= 0):
            best_rows, best_level = rows, level
        if len(matched) == len(names):
            break
        several |= repeated
    return Alignment(best_rows[inverse], best_level, several[inverse])


def align_or_raise(
    ids: np.ndarray, samples: pd.DataFrame, *, source: str, to: str, allow_missing: bool = False
) -> Alignment:
    """Match ids as :func:`align` does; raise an error if an id has no sample.

    Parameters
    ----------
    ids : (m,) str
    samples : sample table of n rows
    source, to : str
        Names of the file of the ids and of the file of the samples, for messages.
    allow_missing : bool
        Accept rows of the file that match no sample, if whole ids or whole paths were compared (with or without the
        suffix of images).

    Raises
    ------
    PredictionsError : an id matches no sample, or several.
    """
    alignment = align(ids, samples)
    if alignment.complete or (allow_missing and alignment.strict):
        return alignment
    unmatched = ids[~alignment.aligned]
    sample_ids = samples["id"].tolist()
    by = f" by {alignment.level}" if alignment.level else ""
    several = int((alignment.several & ~alignment.aligned).sum())
    advice = _advice(several, sample_ids)
    raise PredictionsError(
        f"{source}: {len(unmatched)} of {plural(len(ids), 'id')} cannot be matched to the "
        f"{plural(len(sample_ids), 'sample')} of {to}{by}: "
        f"{listed(unmatched.tolist(), 3)}; the samples are {listed(sample_ids, 2)}{advice}"
        f"{spelling_hint(unmatched, samples)}"
    )


def _advice(several: int, sample_ids: list[str]) -> str:
    """End of the message on unmatched ids, of which ``several`` fit more than one sample by file name."""
    if faces := sum(re.search(r"@\d+$", sample) is not None for sample in sample_ids):
        return (
            f"; the samples include {plural(faces, 'further face')} of images (--faces all): each face needs its own "
            "prediction, by ig3d logits --like STORE"
        )
    return (
        f"; ids that fit several samples by file name: {several}; give their whole paths" if several else ""
    )


def choose_id_column(columns: NamedColumns, samples: pd.DataFrame) -> tuple[str, Alignment] | None:
    """Name of the column that matches most samples (the first on ties), and its alignment; None without columns."""
    best: tuple[str, Alignment] | None = None
    for name, ids in columns.items():
        alignment = align(ids, samples)
        if best is None or alignment.aligned.sum() > best[1].aligned.sum():
            best = name, alignment
    return best


def align_columns(
    ids: NamedColumns,
    others: NamedColumns,
    samples: pd.DataFrame,
    *,
    source: str,
    to: str,
    allow_missing: bool = False,
) -> tuple[np.ndarray, str] | None:
    """Rows of the samples, by the column of a file that matches them best, and a message; None without ids.

    Parameters
    ----------
    ids : name -> (m,) str
        Columns of text that may hold the ids, the likeliest first.
    others : name -> (m,) str
        Columns of whole numbers, which are used only if no text column matches, and columns of repeated text, which
        are never used: if they hold file names, the error asks for whole paths.
    samples, source, to, allow_missing : as for :func:`align_or_raise`

    Returns
    -------
    rows : (m,) int64, row of the samples, -1 where no sample has the id
    message : how many rows were matched, and how

    Raises
    ------
    PredictionsError : no column matches; or two columns match equally many rows but different samples, and the first
        is not named id, ids, sample_id or sample_ids.
    """
    matching: dict[str, Alignment] = {}
    refusals: list[PredictionsError] = []
    for name, column in ids.items():
        try:
            matching[name] = align_or_raise(
                column, samples, source=source, to=to, allow_missing=allow_missing
            )
        except PredictionsError as exc:
            refusals.append(exc)
    if not matching:
        aligned = _align_numbers(others, samples, source=source, to=to)
        if aligned is None and len(refusals) > 1:
            raise PredictionsError(
                f"{refusals[0]}; none of the columns with text matches the samples ({listed([*ids], 12)})"
            )
        if aligned is None and refusals:
            raise refusals[0]
        return aligned
    name, best = max(matching.items(), key=lambda item: int(item[1].aligned.sum()))
    differing = [
        other
        for other, alignment in matching.items()
        if alignment.aligned.sum() == best.aligned.sum() and not np.array_equal(alignment.rows, best.rows)
    ]
    if differing and name not in _ID_NAMES:
        raise PredictionsError(
            f"{source}: the columns {name} and {', '.join(differing)} match different samples; rename the column of "
            "ids to id"
        )
    return best.rows, best.report(source, to, "" if name in _ID_NAMES else name)


def _align_numbers(
    columns: NamedColumns, samples: pd.DataFrame, *, source: str, to: str
) -> tuple[np.ndarray, str] | None:
    """Rows of the samples, by the first column of numbers that are all sample ids; None if there is no such column.

    Columns with repeated cells are only checked for file names.

    Raises
    ------
    PredictionsError : numbers may be row numbers instead of ids, or a column holds repeated file names.
    """
    for name, cells in columns.items():
        unique = np.unique(cells)
        if len(unique) < len(cells):
            if _are_file_names(unique, samples):
                raise PredictionsError(
                    f"{source}: the names in column {name} occur more than once ({listed(unique.tolist(), 3)}); give "
                    "whole paths in one column"
                )
            continue
        alignment = align(cells, samples)
        if not alignment.complete:
            continue
        # Samples are sorted by id as text (1, 10, 2). Numbers that increase in the file may be ids, or positions in the
        # list of samples: both match all samples, but give the rows of the file to different samples.
        in_file_order, in_sample_order = increases(cells), bool((np.diff(alignment.rows) >= 0).all())
        if in_file_order and not in_sample_order and not normalised(name).endswith("id"):
            raise PredictionsError(
                f"{source}: the numbers in column {name} may be ids or row numbers (as ids, they give "
                "another order of the samples than as row numbers); rename the column to id, or remove it"
            )
        return alignment.rows, alignment.report(source, to, name)
    return None


def align_in_order(
    n: int, splits: np.ndarray, *, labelled: np.ndarray, source: str, to: str, remedy: str
) -> tuple[np.ndarray, str]:
    """Rows of the samples for a file of ``n`` rows without ids, and a warning that their order is assumed.

    Row i of the file belongs to the i-th sample of the only part of the samples that has ``n`` rows: all samples, or
    one split.

    Parameters
    ----------
    n : number of rows of the file
    splits : (samples,) int8 codes of :class:`~.samples.Split`
    labelled : (samples,) bool
        Samples with a label of the task: without labels the order cannot be checked.
    source, to : str
        Names of the file and of the file of the samples, for messages.
    remedy : str
        Advice at the end of the error or warning, such as to give ids.

    Raises
    ------
    PredictionsError : none or several of the parts have ``n`` rows, or the part has no label.
    """
    parts = {"all samples": np.arange(len(splits))}
    for split in Split:
        rows = np.flatnonzero(splits == split)
        if split is not Split.none and 0 < len(rows) < len(splits):
            parts[f"the {split.name} split"] = rows
    fitting = [name for name, rows in parts.items() if len(rows) == n]
    counts = ", ".join(f"{name} {len(rows)}" for name, rows in parts.items())
    if len(fitting) != 1:
        fit = " and ".join(fitting) or "none of the parts"
        raise PredictionsError(
            f"{source}: has no ids, and its {plural(n, 'row')} fit {fit} of {to} ({counts}); {remedy}"
        )
    rows = parts[fitting[0]]
    if not labelled[rows].any():
        raise PredictionsError(
            f"{source}: has no ids, and {fitting[0]} of {to} has no labels to check the order of the rows; {remedy}"
        )
    return rows, (
        f"WARNING {source}: has no ids; its {plural(n, 'row')} were taken as {fitting[0]} of {to}, "
        f"sorted by sample id (assumed). A different order of rows within a class cannot be detected; {remedy}"
    )


def _are_file_names(names: np.ndarray, samples: pd.DataFrame) -> bool:
    """Whether each name is the file name, with or without its suffix, of at least one sample."""
    levels = _levels(names.tolist(), samples["id"].tolist(), samples["path"].tolist())
    return any(
        set(id_keys) <= set(sample_keys)
        for level, id_keys, sample_keys in levels
        if level.startswith("file name")
    )


def spelling_hint(ids: np.ndarray, samples: pd.DataFrame) -> str:
    """End of a message on unmatched ids: the first that differs from a sample id in its spelling only; else empty.

    The spelling includes case, accents, blanks, punctuation and invisible characters.
    """

    def letters_of(name: str) -> str:
        text = unicodedata.normalize("NFKD", name).casefold()
        return "".join(letter for letter in text if letter.isalnum())

    sample_ids = samples["id"].tolist()
    for part_of in (_without_suffix, _file_stem):
        by_spelling = {letters_of(part_of(name)): name for name in sample_ids}
        for name in ids[:1000].tolist():
            spelling = letters_of(part_of(name))
            other = by_spelling.get(spelling) if spelling else None
            if other is not None and part_of(other) != part_of(name):
                return f"; {name!a} is spelled differently from {other!a}"
    return ""


def _clean(name: str) -> str:
    """A path with slashes, without ``./``, without blanks around its parts, and in one Unicode form."""
    path = unicodedata.normalize("NFC", name).replace("\\", "/").strip().removeprefix("./")
    return "/".join(part.strip() for part in path.split("/")) if " " in path else path


def _without_suffix(name: str) -> str:
    """A cleaned path without its image suffix."""
    return without_image_suffix(_clean(name)).rstrip()


def _file_stem(name: str) -> str:
    """A file name without its image suffix."""
    return _without_suffix(name).rpartition("/")[2]


def _file_names(names: list[str]) -> list[str]:
    """File names of cleaned paths."""
    return [name.rpartition("/")[2] for name in names]


def _levels(
    ids: list[str], sample_ids: list[str], paths: list[str]
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Levels of alignment, strictest first: name, keys of the ids, keys of the samples.

    There is one level for each number of leading folders that can be dropped from all ids, so that a folder remains.
    """
    yield "id", ids, sample_ids
    clean_ids, clean_paths = list(map(_clean, ids)), list(map(_clean, paths))
    yield "path", clean_ids, clean_paths
    bare_ids, bare_sample_ids, bare_paths = (
        list(map(_without_suffix, names)) for names in (ids, sample_ids, paths)
    )
    yield "id without suffix", bare_ids, bare_sample_ids
    parts = [name.strip("/").split("/") for name in bare_ids]
    shortest = min(map(len, parts), default=1)
    for drop in range(max(1, min(shortest - 1, _MAX_DROPPED_FOLDERS + 1))):
        level = f"path without {plural(drop, 'leading folder')}" if drop else "path without suffix"
        yield level, ["/".join(part[drop:]) for part in parts], bare_paths
    yield "file name", _file_names(clean_ids), _file_names(clean_paths)
    # The samples of RAF-DB have the ids of its list (test_0001); the files have other names (test_0001_aligned.jpg).
    yield "file name without suffix", _file_names(bare_ids), _file_names(bare_sample_ids)
    yield "file name of the image without suffix", _file_names(bare_ids), _file_names(bare_paths)


def _splits_differ(ids: list[str], paths: list[str]) -> bool:
    """Whether an id and the path of its sample lie in folders of different splits."""
    folders = {
        (_clean(name).rpartition("/")[0], _clean(path).rpartition("/")[0])
        for name, path in zip(ids, paths, strict=True)
    }
    for id_folder, path_folder in folders:
        splits = {_split_in(id_folder), _split_in(path_folder)} - {None}
        if len(splits) > 1:
            return True
    return False


def _split_in(folder: str) -> Split | None:
    """The split named by the innermost folder that names one."""
    splits = [split_named(name) for name in folder.split("/") if name]
    return next((split for split in reversed(splits) if split is not None), None)
