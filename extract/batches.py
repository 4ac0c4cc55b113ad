"""Work on its way through the stages: chunks of a shard, batches of images, faces, and the rows of a shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..features.samples import files_of
from ..features.store.format import StoreInfo
from ..features.store.writer import StoreWriter
from ..features.values import Block, FaceBatch, Rows, Status, by_status
from .boxes import FaceBoxes
from .read import Image

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Shard:
    """Work of one shard.

    Attributes
    ----------
    path : final name of its store
    samples : rows of the sample table
    boxes : FaceBoxes of the samples
    """

    path: Path
    samples: pd.DataFrame
    boxes: FaceBoxes


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive samples of a shard, read together.

    Attributes
    ----------
    shard : int
        Index of the shard.
    start : int
        First row in the shard.
    files : path and size in bytes (-1: unknown) of n images
    boxes : FaceBoxes of the images
    """

    shard: int
    start: int
    files: Sequence[tuple[str, int]]
    boxes: FaceBoxes


def chunks_of(shards: Sequence[Shard], size: int) -> Iterator[Chunk]:
    """Chunks of up to ``size`` samples of each shard in turn."""
    for number, shard in enumerate(shards):
        files = list(files_of(shard.samples))
        for start in range(0, len(files), size):
            span = slice(start, start + size)
            yield Chunk(number, start, files[span], shard.boxes[span])


@dataclass(slots=True)
class Batch:
    """Images of a chunk and what became of them.

    Attributes
    ----------
    chunk : Chunk
    rows : Rows
        Outcomes so far, without codes.
    images : row -> decoded image
        Until it is cropped.
    cropped : list of int
        Rows whose faces the regressor gets.
    faces : FaceBatch or None
        These faces.
    """

    chunk: Chunk
    rows: Rows
    images: dict[int, Image] = field(default_factory=dict)
    cropped: list[int] = field(default_factory=list)
    faces: FaceBatch | None = None

    def end(self, row: int, status: Status, message: str) -> None:
        """Finish a row without codes."""
        self.rows.status[row] = status
        self.rows.message[row] = " ".join(message.split())

    def add(self, rows: Sequence[int], faces: Sequence[FaceBatch]) -> None:
        """Add faces, one of each row."""
        if faces:
            self.cropped += rows
            self.faces = FaceBatch.join([*([self.faces] if self.faces else []), *faces])

    def pin_memory(self) -> Batch:
        """The same with crops in pinned memory, from which a GPU copies without waiting; called by torch."""
        if self.faces is not None and hasattr(self.faces.crops, "pin_memory"):
            self.faces = replace(self.faces, crops=self.faces.crops.pin_memory())
        return self


class FaceQueue:
    """Faces that wait until the regressor's batch is full, also across chunks and shards.

    Parameters
    ----------
    device : str, optional
        Device to which crops are copied, as torch tensors; by default, they stay NumPy arrays.
    """

    def __init__(self, device: str | None) -> None:
        self._device = device
        self._keys = np.empty((0, 2), int)
        self._faces: list[FaceBatch] = []

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, batch: Batch) -> None:
        if batch.faces is not None:
            rows = batch.chunk.start + np.array(batch.cropped)
            shard = np.full(len(rows), batch.chunk.shard)
            self._keys = np.concatenate([self._keys, np.column_stack([shard, rows])])
            self._faces.append(batch.faces.to(self._device))

    def take(self, size: int) -> tuple[np.ndarray, FaceBatch]:
        """Index of the shard and row in the shard (n, 2), and faces, of the first ``size``."""
        faces = FaceBatch.join(self._faces)
        keys, self._keys = self._keys[:size], self._keys[size:]
        self._faces = [faces[size:]] if len(self._keys) else []
        return keys, faces[:size]


class Table:
    """Rows of a shard, until all of them are finished and written.

    Parameters
    ----------
    shard : Shard
    blocks : block name -> Block of the codes
    """

    def __init__(self, shard: Shard, blocks: dict[str, Block]) -> None:
        self._shard, self._blocks = shard, blocks
        self._rows: Rows | None = Rows.pending(len(shard.samples), blocks)
        self._left = len(shard.samples)

    @property
    def rows(self) -> Rows:
        if self._rows is None:
            raise RuntimeError(f"{self._shard.path} is written already")
        return self._rows

    def add(self, batch: Batch) -> None:
        """Rows of a batch before the regressor."""
        self.rows.put(batch.chunk.start, batch.rows)
        self._left -= int(np.count_nonzero(batch.rows.status))

    def end(self, row: int, status: Status, message: str) -> None:
        """Finish a row without codes."""
        self.rows.status[row], self.rows.message[row] = status, " ".join(message.split())
        self._left -= 1

    def put(self, rows: np.ndarray, crop_boxes: np.ndarray, codes: dict[str, np.ndarray]) -> None:
        """Codes of some rows; a row whose codes are not all finite has none."""
        self.rows.crop_box[rows] = crop_boxes
        finite = {name: np.isfinite(values).all(axis=1) for name, values in codes.items()}
        ok = np.logical_and.reduce(list(finite.values()))
        self.rows.status[rows[ok]] = Status.ok
        self._left -= int(np.count_nonzero(ok))
        for name, values in codes.items():
            self.rows.codes[name][rows[ok]] = values[ok]
        for face in np.flatnonzero(~ok):
            bad = ", ".join(name for name in codes if not finite[name][face])
            self.end(rows[face], Status.failed, f"not finite: {bad}")

    def write_if_finished(self, info: StoreInfo) -> Counter[str]:
        """Write the shard after its last row; rows by status, none if it is not finished or written before."""
        if self._left or self._rows is None:
            return Counter()
        with StoreWriter(self._shard.path, info, self._shard.samples, self._blocks) as writer:
            writer.write(0, self._rows)
        counts = Counter(by_status(self._rows.status))
        self._rows = None
        return counts
