"""Face detectors: base class, table of names, and choice of one face of an image."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from ...features.device import resolve_device
from ...features.values import CropSpec, Face, LandmarkSpec
from ..plugins import Plugin, construct, find

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
CROPS = ("face", "full image")


class Detector(Plugin, ABC):
    """Base class of face detectors.

    A subclass sets the class attributes and implements :meth:`__call__`.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda:0``, ...; see :class:`~ig3d.extract.plugins.Plugin`.

    Attributes
    ----------
    landmarks : int
        Points of each face, or of the chosen face; 0 for boxes only.
    blendshapes : bool
        Whether faces have the 52 blendshape scores.
    crop : str
        Region that a regressor of crops gets: ``face`` (around landmarks or box) or ``full image``.
    detects : bool
        Whether it looks for faces; false for the faces of stored boxes.
    """

    landmarks: ClassVar[int] = 0
    blendshapes: ClassVar[bool] = False
    crop: ClassVar[str] = "face"
    detects: ClassVar[bool] = True

    attributes: ClassVar[Mapping[str, type | tuple[type, ...]]] = {
        **Plugin.attributes,
        "landmarks": int,
        "blendshapes": bool,
        "crop": str,
        "detects": bool,
    }

    @abstractmethod
    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """Faces of each (H, W, 3) uint8 RGB image; an empty list if an image has no face."""

    @classmethod
    def problems(cls) -> Iterator[str]:
        yield from super().problems()
        if cls.crop not in CROPS:
            yield f"the class attribute crop is {cls.crop!r}; it must be one of {', '.join(CROPS)}"

    @classmethod
    def gives(cls, needs: CropSpec | LandmarkSpec) -> bool:
        """Whether its faces have the landmarks and blendshapes that a regressor needs."""
        return isinstance(needs, CropSpec) or (
            cls.landmarks == needs.points and (cls.blendshapes or not needs.blendshapes)
        )


def find_detector(name: str) -> type[Detector]:
    """Class of a detector; nothing is built.

    Parameters
    ----------
    name : str
        In :data:`DETECTORS`, of an entry point, or ``package.module:Class``.

    Raises
    ------
    UsageError, MissingExtra, PluginError : see :func:`~ig3d.extract.plugins.find`.
    """
    return find("detector", name, DETECTORS, Detector)  # type: ignore[type-abstract]


def load_detector(name: str, *, device: str = "auto") -> Detector:
    """Build a detector by name.

    Parameters
    ----------
    name : str
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``; not used by a detector without networks on a GPU.

    Raises
    ------
    UsageError : the detector or the device does not exist.
    MissingExtra, WeightsError : a package or a weights file of the detector is missing.
    PluginError : a class attribute is missing or wrong, or the constructor failed.
    """
    kind = find_detector(name)
    return construct("detector", kind, device=resolve_device(device) if kind.gpu else "cpu")


def choose_face(faces: Sequence[Face]) -> Face:
    """Largest face with a score of at least :data:`CONFIDENT` or without score; if there is none, the largest face."""
    confident = [face for face in faces if math.isnan(face.score) or face.score >= CONFIDENT]
    return max(confident or faces, key=lambda face: face.area)


def in_order(faces: Sequence[Face]) -> list[Face]:
    """Faces of an image: that of :func:`choose_face`, then the others by size."""
    if not faces:
        return []
    first = choose_face(faces)
    return [first, *sorted((face for face in faces if face is not first), key=lambda face: -face.area)]
