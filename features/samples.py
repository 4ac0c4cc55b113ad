"""The samples of a dataset: what adapters list, what a run goes through, what a store begins with.

A list of them is held as columns (:class:`Samples`), some fifty bytes a row where objects take two hundred and fifty,
so that a run's memory hardly grows with its dataset.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import overload

import numpy as np

from ..errors import DatasetError, number, some

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
