"""The sample table: a pandas DataFrame with one row per sample, from the dataset to the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DatasetError, listed, plural

if TYPE_CHECKING:
    import pandas as pd  # imported where it is used: reading a store's codes does not need it

TEXT_COLUMNS = ("id", "path", "group")
BOX_COLUMNS = ("x0", "y0", "x1", "y1")
_NEEDED = ("id", "path")
_OPTIONAL = ("time", *BOX_COLUMNS)
# Number of records that are converted at a time.
_STEP = 4096


class Split(IntEnum):
    """Part of a dataset; the values are the codes of the column ``split`` of a sample table."""

    none = -1
    train = 0
    val = 1
    test = 2


SPLITS = tuple(split.name for split in Split if split is not Split.none)
# Column -> value for a missing value.
_DEFAULTS: Mapping[str, Any] = {
    "id": "",
    "path": "",
    "split": Split.none,
    "label": -1,
    "valence": math.nan,
    "arousal": math.nan,
    "group": "",
    "size_bytes": -1,
    **dict.fromkeys(_OPTIONAL, math.nan),
}


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """Samples of one dataset.

    Attributes
    ----------
    dataset : str
        Name of the adapter.
    root : str
        Folder or address of the dataset, from which paths start.
    samples : pandas.DataFrame
        The sample table (:func:`sample_table`).
    notes : tuple of str
        Notes of the adapter for the user.
    detected : bool
        Whether the boxes are those of a detector in the full images, with a row for each face
        (:func:`ig3d.extract.every_face.list_faces`), not known boxes of the dataset.
    """

    dataset: str
    root: str
    samples: pd.DataFrame
    notes: tuple[str, ...] = ()
    detected: bool = False

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the dataset; empty for a dataset without classes."""
        return classes_of(self.samples)

    @property
    def labels(self) -> np.ndarray:
        """(n,) int16 indices into ``classes``, -1 for none."""
        return self.samples["label"].cat.codes.to_numpy(np.int16)

    @property
    def splits(self) -> np.ndarray:
        """(n,) int8 codes of :class:`Split`."""
        return self.samples["split"].cat.codes.to_numpy(np.int8, copy=True)


def classes_of(samples: pd.DataFrame) -> tuple[str, ...]:
    """Names of the classes of a sample table, in the order of the dataset."""
    return tuple(samples["label"].cat.categories)


def boxes_of(samples: pd.DataFrame) -> np.ndarray:
    """(n, 4) float64 face boxes x0, y0, x1, y1 of a sample table, pixels; NaN for none."""
    if BOX_COLUMNS[0] not in samples:
        return np.broadcast_to(np.nan, (len(samples), 4))
    return samples[list(BOX_COLUMNS)].to_numpy(np.float64)


def files_of(samples: pd.DataFrame) -> list[tuple[str, int]]:
    """Path and size in bytes of each sample of a sample table."""
    return list(zip(samples["path"].tolist(), samples["size_bytes"].tolist(), strict=True))


def sample_table(
    rows: Iterable[Mapping[str, Any]] | Mapping[str, Sequence[Any]] | pd.DataFrame,
    *,
    classes: Sequence[str] = (),
    dataset: str = "samples",
    root: str = "",
) -> pd.DataFrame:
    """Build and validate a sample table: one row per sample, sorted by id.

    Parameters
    ----------
    rows : iterable of records (mappings of column to value), or a table of all columns
        Columns as below; ``id`` and ``path`` are needed. A label is an index into ``classes`` (-1: none) or the name of
        a class, a split is a :class:`Split` or its name.
    classes : names of the classes, in the order of the dataset
    dataset, root : str
        For messages.

    Returns
    -------
    pandas.DataFrame
        ========================== =========== =======================================================================
        ``id``                     str         unique: the path under the root without extension (``file@1`` for a
                                               second face)
        ``path``                   str         POSIX path of the image under the root; ``ARCHIVE!MEMBER`` for a member
                                               of an archive
        ``split``                  Categorical categories train, val, test; NaN: none
        ``label``                  Categorical categories ``classes``; NaN: unlabelled
        ``valence``, ``arousal``   float64     in [-1, 1]; NaN: none
        ``group``                  str         person or video, which no fold divides; empty: unknown
        ``size_bytes``             int64       of the file (or archive) when the dataset was listed; -1: unknown
        ``time``                   float64     optional: seconds from the start of a video
        ``x0``, ``y0``, ``x1``,    float64     optional: box of the face that the dataset gives, pixels; NaN: none
        ``y1``
        ========================== =========== =======================================================================

    Raises
    ------
    DatasetError : there are no samples, an id is repeated, a name is not UTF-8, or a label or split is unknown.

    Examples
    --------
    >>> rows = [{"id": "b", "path": "b.jpg", "label": 1}, {"id": "a", "path": "a.jpg"}]
    >>> table = sample_table(rows, classes=["sad", "happy"])
    >>> table[["id", "label"]].to_dict("list"), table["label"].cat.codes.tolist()
    ({'id': ['a', 'b'], 'label': [nan, 'happy']}, [-1, 1])
    """
    import pandas as pd

    if isinstance(rows, Mapping | pd.DataFrame):
        parts = [_typed({name: rows[name] for name in rows}, classes, dataset)]
    else:
        parts = [_typed(columns, classes, dataset) for columns in _in_columns(rows)]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    parts.clear()  # frees half of the memory
    if not len(table):
        raise DatasetError(f"{dataset}: no images under {root}; check the path and --dataset")
    if not table["id"].is_monotonic_increasing:
        table = table.sort_values("id", kind="stable", ignore_index=True)
    ids = table["id"].array
    twice = ids[1:][np.asarray(ids[1:] == ids[:-1], bool)].unique().tolist()
    if twice:
        raise DatasetError(
            f"{dataset}: {plural(len(twice), 'duplicate id')} ({listed(twice)}); rename files that differ only in "
            "their extension, or give ids in a manifest"
        )
    return table


def _in_columns(records: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, list[Any]]]:
    """Columns of the next ``_STEP`` records, until there are no more."""
    remaining = iter(records)
    while part := list(islice(remaining, _STEP)):
        names = dict.fromkeys(name for record in part for name in record)
        yield {name: [record.get(name, _DEFAULTS.get(name)) for record in part] for name in names}


def _typed(columns: Mapping[str, Sequence[Any]], classes: Sequence[str], dataset: str) -> pd.DataFrame:
    """Columns in the order and of the types of a sample table."""
    import pandas as pd

    missing, unknown = set(_NEEDED) - set(columns), set(columns) - set(_DEFAULTS)
    if missing or unknown:
        raise DatasetError(
            f"{dataset}: the samples have the columns {', '.join(columns)}; give id and path, and any of "
            f"{', '.join(name for name in _DEFAULTS if name not in _NEEDED)}"
        )
    n = len(columns["id"])
    full = {name: columns.get(name, [default] * n) for name, default in _DEFAULTS.items()}
    _check_utf8(full, dataset)
    typed: dict[str, Any] = {}
    for name in _DEFAULTS:
        if name in TEXT_COLUMNS:
            typed[name] = pd.array(list(full[name]), dtype="str")
        elif name == "label":
            typed[name] = _categories(full[name], classes, f"{dataset}: labels")
        elif name == "split":
            typed[name] = _categories(full[name], SPLITS, f"{dataset}: splits")
        elif name not in _OPTIONAL or name in columns:
            typed[name] = np.asarray(full[name], np.int64 if name == "size_bytes" else np.float64)
    return pd.DataFrame(typed)


def _check_utf8(columns: Mapping[str, Sequence[str]], dataset: str) -> None:
    """Raise an error for names that cannot be written as UTF-8; undecodable bytes of names are lone surrogates."""
    texts = [columns[name] for name in TEXT_COLUMNS]
    if all(map(_is_utf8, map("".join, texts))):
        return
    invalid = [
        repr(path) for path, *row in zip(columns["path"], *texts, strict=True) if not _is_utf8("".join(row))
    ]
    raise DatasetError(
        f"{dataset}: {plural(len(invalid), 'name')} not in UTF-8 ({listed(invalid)}); rename the files"
    )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _categories(values: Sequence[Any], names: Sequence[str], source: str) -> pd.Categorical:
    """Categorical of ``names``, from indices into them (-1: none) or from names; ``source`` is for messages."""
    import pandas as pd

    column = pd.Series(values)
    if pd.api.types.is_integer_dtype(column.dtype):
        codes = column.to_numpy(np.int64)
        bad = (codes < -1) | (codes >= len(names))
    else:
        codes = pd.Index(list(names), dtype=object).get_indexer(pd.Index(column, dtype=object))
        bad = (codes < 0) & column.notna().to_numpy()
    if bad.any():
        raise DatasetError(
            f"{source}: unknown value {listed(sorted(map(str, column[bad].unique())))}; use "
            f"{listed(list(names), 12) or 'none'}, or -1 to {len(names) - 1}"
        )
    return pd.Categorical.from_codes(codes, list(names))
