"""``blendshapes``: the 52 scores that MediaPipe's Face Landmarker gives beside its points; no licence to sign."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ...errors import UsageError
from ...features.values import Block, FaceBatch, LandmarkSpec
from ..arkit import BASIS, NAMES


class BlendshapeCodes:
    """The scores as they come; the work was the detector's."""

    name = "blendshapes"
    needs = LandmarkSpec(478, blendshapes=True)
    detectors = ("landmarker",)
    blocks: ClassVar = {
        "blendshapes": Block(
            len(NAMES),
            "1",
            BASIS,
            "Blendshape scores in [0, 1] of MediaPipe's Face Landmarker: ARKit's names, _neutral for tongueOut; left "
            "and right are the subject's.",
            NAMES,
        )
    }

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "version": "1", "runtime": "none"}

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        if faces.blendshapes is None:
            raise UsageError(
                "blendshapes: expected scores of the Face Landmarker, got none; use --detector landmarker"
            )
        return {"blendshapes": np.asarray(faces.blendshapes, np.float32)}
