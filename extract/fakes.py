"""Detector and regressor without networks, for tests.

``--regressor ig3d.extract.fakes:FakeRegressor --detector ig3d.extract.fakes:FakeDetector`` runs a whole extraction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ..features.values import Block, CropSpec, Face, FaceBatch
from .detectors import Detector
from .regressors import Regressor


class FakeDetector(Detector):
    """Detector that returns one face in the middle of every image, and none for an all-black image."""

    name = "fake"

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        return [[_middle(image)] if image.any() else [] for image in images]


class FakeRegressor(Regressor):
    """Regressor that returns the mean colour of a crop in [0, 1].

    To test failures: the code of a pure red crop is not finite, and a pure blue crop raises an error.
    """

    name = "fake"
    needs = CropSpec(size=8, scale=1.0)
    detectors = ("ig3d.extract.fakes:FakeDetector", "none")
    blocks: ClassVar = {
        "colour": Block(3, "1", "rgb", "Mean red, green and blue of the crop.", ("red", "green", "blue"))
    }

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        if faces.crops is None:
            raise ValueError("the batch has no crops")
        colour = faces.crops.reshape(len(faces), -1, 3).mean(axis=1).astype(np.float32) / 255
        if (colour == (0, 0, 1)).all(axis=1).any():
            raise ValueError("a crop is pure blue")
        colour[(colour == (1, 0, 0)).all(axis=1)] = np.nan
        return {"colour": colour}


def _middle(image: np.ndarray) -> Face:
    height, width = image.shape[:2]
    return Face(np.array([width / 4, height / 4, 3 * width / 4, 3 * height / 4], np.float32), score=0.9)
