"""Shards, and the batches of images and of faces in which a shard passes through the stages."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..features.samples import files_of
from ..features.values import FaceBatch, Rows, Status
from .boxes import FaceBoxes
from .read import Image

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Shard:
    """Consecutive samples of the dataset that are written to one small store.

    Attributes
    ----------
    path : Path
        Path of the finished store.
    samples : DataFrame
        Rows of the sample table.
    boxes : FaceBoxes
        Stored face boxes of the samples.
    """

    path: Path
    samples: pd.DataFrame
    boxes: FaceBoxes


@dataclass(slots=True)
class Batch:
    """Consecutive samples of a shard that pass through the stages together.

    Attributes
    ----------
    shard : int
        Index of the shard.
    files : sequence of (str, int)
        Path and size in bytes (-1 if unknown) of n images.
    boxes : FaceBoxes
        Stored face boxes of the images.
    rows : Rows
        Outcomes of the n samples. The status is ``pending`` until a stage finishes the row.
    images : dict of row to Image
        Decoded images; used only if the detector runs in another process than the reading.
    cropped : list of int
        Rows with a face.
    faces : FaceBatch or None
        Input of the regressor for the rows ``cropped``, until a :class:`FaceQueue` takes it.
    """

    shard: int
    files: Sequence[tuple[str, int]]
    boxes: FaceBoxes
    rows: Rows
    images: dict[int, Image] = field(default_factory=dict)
    cropped: list[int] = field(default_factory=list)
    faces: FaceBatch | None = None

    @property
    def finished(self) -> bool:
        """Whether every row is finished."""
        return bool(self.rows.status.all())  # Status.pending is 0

    def end(self, row: int, status: Status, message: str) -> None:
        """Finish a row without codes: set its status and message."""
        self.rows.status[row], self.rows.message[row] = status, " ".join(message.split())

    def add(self, rows: Sequence[int], faces: FaceBatch) -> None:
        """Add the input of the regressor for rows with a face."""
        self.cropped += rows
        self.faces = faces if self.faces is None else FaceBatch.join([self.faces, faces])

    def pin_memory(self) -> Batch:
        """Move crops to pinned memory, from which a GPU copies in the background; torch's DataLoader calls this."""
        if self.faces is not None and hasattr(self.faces.crops, "pin_memory"):
            self.faces = replace(self.faces, crops=self.faces.crops.pin_memory())
        return self


def batches_of(shards: Sequence[Shard], size: int) -> Iterator[Batch]:
    """Batches of up to ``size`` samples, shard after shard."""
    for number, shard in enumerate(shards):
        files = files_of(shard.samples)
        for start in range(0, len(files), size):
            span = slice(start, start + size)
            yield Batch(number, files[span], shard.boxes[span], Rows.pending(len(files[span]), {}))


@dataclass(frozen=True, slots=True)
class FaceGroup:
    """Faces whose codes are computed together.

    Attributes
    ----------
    faces : FaceBatch
    origins : list of (Batch, (k,) int array)
        Batch and rows to which the next k faces belong.
    """

    faces: FaceBatch
    origins: list[tuple[Batch, np.ndarray]]


class FaceQueue:
    """Queue of faces, which regroups batches of images, some without a face, to full batches for the networks.

    Parameters
    ----------
    device : str, optional
        Device to which crops are copied, as torch tensors; by default, they stay NumPy arrays.
    """

    def __init__(self, device: str | None) -> None:
        self._device = device
        self._waiting = deque[tuple[Batch, np.ndarray, FaceBatch]]()
        self._faces = 0

    def __len__(self) -> int:
        return self._faces

    def add(self, batch: Batch) -> None:
        """Move the faces of a batch to the queue."""
        if batch.faces is not None:
            self._waiting.append((batch, np.array(batch.cropped), batch.faces.to(self._device)))
            self._faces += len(batch.cropped)
            batch.faces = None

    def take(self, size: int) -> FaceGroup:
        """Remove and return the first ``size`` faces, or all if there are fewer."""
        parts, origins, missing = [], [], min(size, self._faces)
        self._faces -= missing
        while missing:
            batch, rows, faces = self._waiting.popleft()
            if len(rows) > missing:
                self._waiting.appendleft((batch, rows[missing:], faces[missing:]))
                rows, faces = rows[:missing], faces[:missing]
            parts.append(faces)
            origins.append((batch, rows))
            missing -= len(rows)
        return FaceGroup(FaceBatch.join(parts), origins)
