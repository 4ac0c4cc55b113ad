"""``boxes``: no detection; the face boxes are those of the dataset or of the store given by ``--boxes``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...features.values import Face
from . import Detector


class KnownBoxes(Detector):
    """Detector that finds no face: it runs only on samples without a known box."""

    name = "boxes"
    detects = False

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        return [[] for _ in images]
