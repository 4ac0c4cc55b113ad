"""All stages on a few images in this process, without a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ig3d.extract.batches import Batch
from ig3d.extract.boxes import FaceBoxes
from ig3d.extract.detectors import Detector
from ig3d.extract.regressors import Regressor
from ig3d.extract.stages import read_detect_crop, regress
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
    batch = Batch(0, files, boxes, Rows.pending(len(files), {}))
    read_detect_crop(batch, root, detector, regressor.needs)
    (finished,) = regress([batch], regressor, len(files))
    return finished.rows
