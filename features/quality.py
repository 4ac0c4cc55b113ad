"""Quality of the view of each face, as inputs of the rule ``gate``."""

from __future__ import annotations

import numpy as np

from .pose import pose_degrees
from .store import CodeStore

QUALITY_COLUMNS = (
    "quality:score",
    "quality:yaw",
    "quality:pitch",
    "quality:roll",
    "quality:size",
    "quality:faces",
)


def face_quality(store: CodeStore) -> np.ndarray:
    """Quality of the faces of a store.

    Returns
    -------
    (n, 6) float64, NaN if unknown, the columns of ``QUALITY_COLUMNS``:
        score of the detector in [0, 1]; absolute yaw, pitch and roll in degrees (from the block ``pose``); side of
        the face box over that of the image (square roots of their areas); number of faces in the image.
    """
    n = len(store)
    box = store.column("face/box").astype(np.float64)
    area = np.prod(np.clip(box[:, 2:] - box[:, :2], 0, None), axis=1)
    image = store.column("sample/width").astype(np.float64) * store.column("sample/height")
    side = np.sqrt(np.divide(area, image, out=np.full(n, np.nan), where=image > 0))
    angles = np.full((n, 3), np.nan)
    if "pose" in store.blocks:
        angles = np.abs(pose_degrees(store.codes("pose")[:, :3]))
    count, score = store.column("face/count"), store.column("face/score").astype(np.float64)
    return np.column_stack([score, angles, side, np.where(count > 0, count, np.nan)])
