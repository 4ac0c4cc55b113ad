"""What a store is: its format's name, its attributes and columns, and the hash of its content.

``docs/format.md`` states the format; :mod:`ig3d.features.store` reads it, :mod:`ig3d.features.store_writer` writes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import h5py
import numpy as np

from .. import __version__
from .values import Status

FORMAT = "ig3d-codes"
FORMAT_VERSION = 1
TEXT_COLUMNS = ("id", "path", "group", "message")
# Rows read at a time where all are gone through.
STEP = 4096
# Not part of the content hash: where and when, not what.
_UNHASHED = frozenset({"created", "root", "content_sha256"})


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """The store's attributes: what was extracted, from what, by what.

    Attributes
    ----------
    dataset : str
        Name of the adapter.
    root : str
        Folder the paths are relative to, when it was extracted.
    classes : tuple of str
    regressor, detector, crop, config : dict
        As JSON: names, versions, runtimes, weights' SHA-256, options.
    ig3d_version : str
    created : str
        ISO 8601, UTC.
    """

    dataset: str
    root: str
    classes: tuple[str, ...]
    regressor: dict[str, Any] = field(default_factory=dict)
    detector: dict[str, Any] = field(default_factory=dict)
    crop: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    ig3d_version: str = __version__
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


@dataclass(frozen=True, slots=True)
class SampleTable:
    """The ``/sample`` columns as arrays of n rows (units and codes as in :class:`Sample` and :class:`Rows`)."""

    id: np.ndarray
    path: np.ndarray
    group: np.ndarray
    message: np.ndarray
    split: np.ndarray
    label: np.ndarray
    valence: np.ndarray
    arousal: np.ndarray
    status: np.ndarray
    width: np.ndarray
    height: np.ndarray
    digest: np.ndarray

    def __len__(self) -> int:
        return len(self.id)

    @property
    def ok(self) -> np.ndarray:
        """(n,) bool: rows that have codes."""
        return np.asarray(self.status == Status.ok)


@dataclass(frozen=True, slots=True)
class FaceTable:
    """The ``/face`` columns: box (n, 4), score (n,), count (n,), transform (n, 2, 3)."""

    box: np.ndarray
    score: np.ndarray
    count: np.ndarray
    transform: np.ndarray


def content_hash(file: h5py.File) -> str:
    """SHA-256 over names, types and bytes of all datasets and attributes, less where and when it was made."""
    total = hashlib.sha256()

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        for key in sorted(item.attrs):
            if key not in _UNHASHED:
                total.update(f"{name}@{key}={item.attrs[key]!s}\n".encode())
        if isinstance(item, h5py.Dataset):
            total.update(f"{name}:{item.dtype.str}:{item.shape}\n".encode())
            for span in spans_of(item):
                total.update(np.ascontiguousarray(item[span]).data)

    add("/", file)
    names: list[str] = []
    file.visit(names.append)
    for name in sorted(names):
        add(name, file[name])
    return total.hexdigest()


def spans_of(column: h5py.Dataset) -> Iterator[slice]:
    """All rows, some thousand at a time, in whole chunks: so that none is read and checked twice."""
    chunk = column.chunks[0] if column.chunks else 1
    step = max(1, STEP // chunk) * chunk
    return (slice(start, start + step) for start in range(0, len(column), step))
