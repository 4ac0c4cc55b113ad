"""``none``: no detection; the full image is the face, for datasets of cropped faces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...features.values import Face
from . import Detector


class FullImage(Detector):
    """Detector that returns the full image as its only face."""

    name = "none"
    crop = "full image"

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        return [[Face(np.array([0, 0, image.shape[1], image.shape[0]], np.float32))] for image in images]
