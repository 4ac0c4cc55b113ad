"""The sample table: a pandas DataFrame with one row per sample, from the dataset to the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ..errors import DatasetError, number, some

if TYPE_CHECKING:
    import pandas as pd  # imported where it is used: reading a store's codes does not need it

TEXT_COLUMNS = ("id", "path", "group")
BOX_COLUMNS = ("x0", "y0", "x1", "y1")
_NEEDED = ("id", "path")
_OPTIONAL = ("time", *BOX_COLUMNS)
# Records that are held as objects at a time.
_STEP = 4096
_TEXTS = ("id", "path", "group")
_NOWHERE = (math.nan,) * 4


class Split(IntEnum):
    """Part of the dataset that a sample belongs to; the codes of the sample table's column ``split``."""

    none = -1
    train = 0
    val = 1
    test = 2


SPLITS = tuple(split.name for split in Split if split is not Split.none)
# Column -> value of a sample that does not have one.
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
        Folder or address that the paths are relative to.
    samples : pandas.DataFrame
        The sample table (:func:`sample_table`).
    notes : tuple of str
        Findings of the adapter, for the user to read.
    """

    dataset: str
    root: str
    samples: pd.DataFrame
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the dataset's order; empty for a dataset without classes."""
        return classes_of(self.samples)


def classes_of(samples: pd.DataFrame) -> tuple[str, ...]:
    """Names of the classes of a sample table, in the dataset's order."""
    return tuple(samples["label"].cat.categories)


def boxes_of(samples: pd.DataFrame) -> np.ndarray:
    """(n, 4) float64 face boxes x0, y0, x1, y1 of a sample table, pixels; NaN for none."""
    return samples.reindex(columns=list(BOX_COLUMNS)).to_numpy(np.float64)


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
    rows : records (mappings of column to value), which may come one by one; or all columns
        Columns as below; ``id`` and ``path`` are needed. A label is an index into ``classes`` (-1: none) or a name of
        them, a split is a :class:`Split` or its name.
    classes : names of the classes, in the dataset's order
    dataset, root : str
        For messages.

    Returns
    -------
    pandas.DataFrame
        ========================== =========== =======================================================================
        ``id``                     str         unique: the path under the root without extension (``file#1`` for a
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
    DatasetError : there are no samples, an id is there twice, a name is not UTF-8, or a label or split is unknown.

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
    parts.clear()  # half of the memory
    if not len(table):
        raise DatasetError(f"{dataset}: expected images under {root}, found none")
    if not table["id"].is_monotonic_increasing:
        table = table.sort_values("id", kind="stable", ignore_index=True)
    ids = table["id"].array
    twice = ids[1:][np.asarray(ids[1:] == ids[:-1], bool)].unique().tolist()
    if twice:
        raise DatasetError(
            f"{dataset}: expected one sample per id, got {number(len(twice), 'id')} more than once ({some(twice)}); "
            "rename files that differ only in extension, or give ids in a manifest"
        )
    return table


def _in_columns(records: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, list[Any]]]:
    """Records as columns, some thousand at a time."""
    rest = iter(records)
    while part := list(islice(rest, _STEP)):
        names = dict.fromkeys(name for record in part for name in record)
        yield {name: [record.get(name, _DEFAULTS.get(name)) for record in part] for name in names}


def _typed(columns: Mapping[str, Sequence[Any]], classes: Sequence[str], dataset: str) -> pd.DataFrame:
    """Columns in the order and of the types of a sample table."""
    import pandas as pd

    missing, unknown = set(_NEEDED) - set(columns), set(columns) - set(_DEFAULTS)
    if missing or unknown:
        raise DatasetError(
            f"{dataset}: expected samples with the columns {', '.join(_DEFAULTS)} (id and path at least), got "
            f"{', '.join(columns)}"
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
    """Refuse names that cannot be written: undecodable bytes of a file name are lone surrogates."""
    texts = [columns[name] for name in TEXT_COLUMNS]
    if all(map(_is_utf8, map("".join, texts))):
        return
    odd = [
        repr(path) for path, *row in zip(columns["path"], *texts, strict=True) if not _is_utf8("".join(row))
    ]
    raise DatasetError(
        f"{dataset}: expected names in UTF-8, got {number(len(odd), 'other')} ({some(odd)}); rename them"
    )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _categories(values: Sequence[Any], names: Sequence[str], what: str) -> pd.Categorical:
    """Indices into ``names`` (-1: none) or names themselves as a Categorical."""
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
            f"{what}: expected {some(list(names), 12) or 'none'} (or -1 to {len(names) - 1}), got "
            f"{some(sorted(map(str, column[bad].unique())))}"
        )
    return pd.Categorical.from_codes(codes, list(names))


# Rows that are there as objects at a time, where all are gone through.
_STEP = 1024
_TEXTS = ("id", "path", "group")
_NOWHERE = (math.nan,) * 4


class Split(IntEnum):
    """Part of the dataset a sample belongs to."""

    none = -1
    train = 0
    val = 1
    test = 2


@dataclass(frozen=True, slots=True)
class Sample:
    """One row-to-be: an image (or one face of it) with what the dataset says about it.

    Attributes
    ----------
    id : str
        Unique in the dataset: the path under the root without extension (``file#1`` for a second face).
    path : str
        POSIX path of the image under the dataset's root; ``CONTAINER!MEMBER`` for one inside a container.
    label : int
        Index into the dataset's classes; -1 where there is none.
    split : Split
    valence, arousal : float in [-1, 1]
        NaN where there is none.
    group : str
        Person or video; rows of one group never stand on both sides of a fold. Empty where unknown.
    size_bytes : int
        Size of the file (of the container, where the image is a row of it) when the dataset was listed, -1 where it
        was not there.
    box : (x0, y0, x1, y1), pixels, or None
        Where the dataset itself says the face is; then no detector looks for one.
    """

    id: str
    path: str
    label: int = -1
    split: Split = Split.none
    valence: float = math.nan
    arousal: float = math.nan
    group: str = ""
    size_bytes: int = -1
    box: tuple[float, float, float, float] | None = None


class Samples(Sequence[Sample]):
    """Samples as columns: each is made when it is asked for, and slices are views.

    Parameters
    ----------
    columns : field of :class:`Sample` -> array of n
        Texts as UTF-8 bytes, boxes (n, 4) with NaN for none.
    """

    __slots__ = ("_columns",)

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        self._columns = columns

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Samples:
        """The same samples as columns; they may come one by one, and are never all there as objects."""
        if isinstance(samples, Samples):
            return samples
        rest, parts = iter(samples), [Samples(_columns(()))]
        while some_rows := tuple(islice(rest, _STEP)):
            parts.append(Samples(_columns(some_rows)))
        return cls.together(parts)

    @classmethod
    def together(cls, parts: Sequence[Samples]) -> Samples:
        """Some lists, one of them at least, as one, in order."""
        return cls(
            {name: _once(np.concatenate([part.column(name) for part in parts])) for name in Sample.__slots__}
        )

    def __len__(self) -> int:
        return len(self._columns["id"])

    @overload
    def __getitem__(self, row: int) -> Sample: ...
    @overload
    def __getitem__(self, row: slice) -> Samples: ...
    def __getitem__(self, row: int | slice) -> Sample | Samples:
        if isinstance(row, slice):
            return Samples({name: values[row] for name, values in self._columns.items()})
        return _sample(*(values[row].tolist() for values in self._columns.values()))

    def __iter__(self) -> Iterator[Sample]:
        for start in range(0, len(self), _STEP):
            some_rows = (values[start : start + _STEP].tolist() for values in self._columns.values())
            yield from map(_sample, *some_rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )

    def take(self, rows: np.ndarray) -> Samples:
        """Some of the rows, in the order given."""
        return Samples({name: _once(values[rows]) for name, values in self._columns.items()})

    def with_column(self, name: str, values: np.ndarray) -> Samples:
        """The same samples with other values of one field."""
        return Samples({**self._columns, name: _once(values.astype(self._columns[name].dtype))})

    def column(self, name: str) -> np.ndarray:
        """(n,) array of one field, not to be written to; texts as UTF-8 bytes."""
        return self._columns[name]


def _columns(samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """Some samples as columns, in the order of the fields."""
    columns = {name: np.array([_encoded(getattr(one, name)) for one in samples], "S") for name in _TEXTS}
    columns |= {
        "label": np.array([one.label for one in samples], np.int32),
        "split": np.array([one.split for one in samples], np.int8),
        "valence": np.array([one.valence for one in samples], np.float64),
        "arousal": np.array([one.arousal for one in samples], np.float64),
        "size_bytes": np.array([one.size_bytes for one in samples], np.int64),
        "box": np.array([one.box or _NOWHERE for one in samples], np.float64).reshape(-1, 4),
    }
    return {name: _once(columns[name]) for name in Sample.__slots__}


def narrowed(texts: np.ndarray) -> np.ndarray:
    """UTF-8 bytes in the width of the longest."""
    letters = np.ascontiguousarray(texts).view(np.uint8).reshape(len(texts), texts.itemsize)
    width = 1 + int(np.flatnonzero(letters.any(axis=0)).max(initial=0))
    return texts.astype(f"S{width}", copy=False)


def _once(values: np.ndarray) -> np.ndarray:
    """A column; where all rows are alike, as many views of one."""
    if not len(values):
        return values
    raw = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    return np.broadcast_to(values[:1].copy(), values.shape) if (raw == raw[0]).all() else values


def _sample(
    identifier: bytes,
    path: bytes,
    label: int,
    split: int,
    valence: float,
    arousal: float,
    group: bytes,
    size_bytes: int,
    box: list[float],
) -> Sample:
    """A row of the columns as an object, equal to the one that it was."""
    return Sample(
        _decoded(identifier),
        _decoded(path),
        label,
        Split(split),
        # the very object, by which equal samples are told
        math.nan if math.isnan(valence) else valence,
        math.nan if math.isnan(arousal) else arousal,
        _decoded(group),
        size_bytes,
        None if math.isnan(box[0]) else (box[0], box[1], box[2], box[3]),
    )


@dataclass(frozen=True, slots=True)
class SampleList:
    """The frozen, sorted list of samples of one dataset.

    Attributes
    ----------
    dataset : str
        Name of the adapter that listed it.
    root : str
        Folder that the paths are relative to.
    classes : tuple of str
        Canonical names, indexed by ``Sample.label``; empty where the dataset has no classes.
    samples : sequence of Sample, sorted by id
        Given in any order; held as :class:`Samples`.
    notes : tuple of str
        What the adapter understood or found odd, for the user to read.
    """

    dataset: str
    root: str
    classes: tuple[str, ...]
    samples: Sequence[Sample]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rows = Samples.of(self.samples)
        if not len(rows):
            raise DatasetError(f"{self.dataset}: expected images under {self.root}, found none")
        ids = rows.column("id")
        if (ids[1:] < ids[:-1]).any():
            rows = rows.take(np.argsort(ids, kind="stable"))  # bytes of UTF-8 sort as their characters do
            ids = rows.column("id")
        object.__setattr__(self, "samples", rows)
        twice = np.unique(ids[1:][ids[1:] == ids[:-1]])
        if len(twice):
            raise DatasetError(
                f"{self.dataset}: expected one sample per id, got {number(len(twice), 'id')} more than once "
                f"({some([_decoded(one) for one in twice])}); rename files that differ only in extension, or give ids "
                "in a manifest"
            )
        odd = _not_text(rows)
        if odd:
            raise DatasetError(
                f"{self.dataset}: expected names in UTF-8, got {number(len(odd), 'other')} ({some(odd)}); rename them"
            )
        worst = int(rows.column("label").max())
        if worst >= len(self.classes):
            raise DatasetError(
                f"{self.dataset}: expected labels below {len(self.classes)} classes, got {worst}"
            )

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labels(self) -> np.ndarray:
        """(n,) int16, -1 where there is none."""
        return Samples.of(self.samples).column("label").astype(np.int16)

    @property
    def splits(self) -> np.ndarray:
        """(n,) int8 codes of :class:`Split`."""
        return Samples.of(self.samples).column("split").astype(np.int8)


def _not_text(samples: Samples) -> list[str]:
    """The paths of samples whose names cannot be written: undecodable bytes of a file name are lone surrogates."""
    odd = []
    for start in range(0, len(samples), _STEP):
        part = samples[start : start + _STEP]
        if not _is_text(b"".join(b"".join(part.column(name).tolist()) for name in _TEXTS)):
            odd += [repr(one.path) for one in part if not _is_text(_encoded(one.id + one.path + one.group))]
    return odd


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _decoded(text: bytes) -> str:
    return text.decode(errors="surrogatepass")
