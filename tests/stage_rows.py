"""All stages on a few images in this process, without a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ig3d.extract.batches import Chunk, FaceQueue, Shard, Table
from ig3d.extract.boxes import FaceBoxes
from ig3d.extract.detectors import Detector
from ig3d.extract.regressors import Regressor
from ig3d.extract.stages import Cropper, Running
from ig3d.features.values import Rows


def rows_of(
    files: Sequence[tuple[str, int]],
    root: str | Path,
    detector: Detector,
    regressor: Regressor,
    boxes: FaceBoxes | None = None,
) -> Rows:
    """Rows of images, given by path and size in bytes (-1: unknown)."""
    boxes = FaceBoxes.unknown(len(files)) if boxes is None else boxes
    table = Table(Shard(Path(), pd.DataFrame(index=range(len(files))), boxes), dict(regressor.blocks))
    queue = FaceQueue(None)
    batch = Cropper(root, detector, regressor.needs)(Chunk(0, 0, files, boxes))
    table.add(batch)
    queue.add(batch)
    if len(queue):
        Running(regressor, *queue.take(len(queue))).finish([table])
    return table.rows
