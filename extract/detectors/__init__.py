"""Face detectors: protocol, table of names, and choice of one face of an image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...features.values import Face
from ..plugins import load

# name -> "module:Class", imported on use; other packages register theirs as entry points in the group ig3d.detectors
DETECTORS: Mapping[str, str] = {
    "boxes": "ig3d.extract.detectors.boxes:KnownBoxes",
    "facemesh": "ig3d.extract.detectors.facemesh:FaceMesh",
    "facemesh-smirk": "ig3d.extract.detectors.facemesh:SmirkFaceMesh",
    "none": "ig3d.extract.detectors.full_image:FullImage",
    "sfd": "ig3d.extract.detectors.sfd:Sfd",
    "sfd-box": "ig3d.extract.detectors.sfd:SfdBox",
}

# Faces with a lower score are used only if no face of the image reaches it.
CONFIDENT = 0.5


class Detector(Protocol):
    """Protocol of face detectors."""

    name: str

    def describe(self) -> dict[str, Any]:
        """Name, version, runtime and SHA-256 of the weights; part of a run's identity and stored with the codes."""
        ...

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """Faces of each (H, W, 3) uint8 RGB image; an empty list if an image has no face."""
        ...


def load_detector(name: str, *, device: str = "auto") -> Detector:
    """Build a detector by name.

    Parameters
    ----------
    name : str
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``; passed to detectors that have this parameter.

    Raises
    ------
    UsageError : the detector or the device does not exist.
    MissingExtra, WeightsError : a package or a weights file of the detector is missing.
    """
    detector: Detector = load("detector", name, DETECTORS, optional={"device": device})
    return detector


def choose_face(faces: Sequence[Face]) -> Face:
    """Largest face with a score of at least :data:`CONFIDENT` or without score; if there is none, the largest face."""
    confident = [face for face in faces if math.isnan(face.score) or face.score >= CONFIDENT]
    return max(confident or faces, key=lambda face: face.area)
