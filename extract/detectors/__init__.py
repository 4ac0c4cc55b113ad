"""Detectors: images to faces. A detector is an object with a ``name``, a ``describe()`` and a call over a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...features.values import Face
from ..plugins import load

# name -> "module:Class", imported on use; other packages add theirs by the entry point group ig3d.detectors
DETECTORS: Mapping[str, str] = {
    "boxes": "ig3d.extract.detectors.given:GivenBoxes",
    "facemesh": "ig3d.extract.detectors.facemesh:FaceMesh",
    "facemesh-smirk": "ig3d.extract.detectors.facemesh:SmirkFaceMesh",
    "none": "ig3d.extract.detectors.whole:WholeImage",
    "sfd": "ig3d.extract.detectors.sfd:Sfd",
    "sfd-box": "ig3d.extract.detectors.sfd:SfdBox",
}

# Below this a face is passed over when others are surer.
CONFIDENT = 0.5


class Detector(Protocol):
    """What a detector has."""

    name: str

    def describe(self) -> dict[str, Any]:
        """Name, version, runtime and weights' SHA-256, for the run's identity and the store."""
        ...

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """The faces in each (H, W, 3) uint8 RGB image; an empty list where there is none."""
        ...


def load_detector(name: str, *, device: str = "auto") -> Detector:
    """A detector by name.

    Parameters
    ----------
    name : str
    device : str
        For detectors whose networks can run on several: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.

    Raises
    ------
    UsageError : there is no such detector or device.
    MissingExtra, WeightsError : it cannot be built here.
    """
    detector: Detector = load("detector", name, DETECTORS, where_taken={"device": device})
    return detector


def choose_face(faces: Sequence[Face]) -> Face:
    """The largest of the confident faces; the largest of all where none is confident."""
    sure = [face for face in faces if math.isnan(face.score) or face.score >= CONFIDENT]
    return max(sure or faces, key=lambda face: face.area)
