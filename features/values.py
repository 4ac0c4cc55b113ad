"""Value objects of the extraction: status, faces, crops, batches, code blocks and rows.

Pixel coordinates have their origin at the top left corner, x right, y down; boxes are ``x0, y0, x1, y1``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import numpy as np


class Status(IntEnum):
    """Status of a sample. ``pending`` is 0, the value of rows that were never written."""

    pending = 0
    ok = 1
    no_face = 2
    missing = 3
    unreadable = 4
    failed = 5


@dataclass(frozen=True, slots=True)
class Face:
    """A face that a detector found in an image.

    Attributes
    ----------
    xyxy : (4,) float32, pixels
        Box; it may extend beyond the image.
    score : float in [0, 1]
        NaN if the detector has no scores.
    landmarks : (p, 2 or 3) float32, pixels, or None
        A third coordinate z has the unit of x and increases away from the camera.
    blendshapes : (52,) float32 in [0, 1], or None
        Scores of ARKit's 52 names, in the order of MediaPipe's Face Landmarker.
    """

    xyxy: np.ndarray
    score: float = math.nan
    landmarks: np.ndarray | None = None
    blendshapes: np.ndarray | None = None

    @property
    def area(self) -> float:
        x0, y0, x1, y1 = self.xyxy
        return float(max(x1 - x0, 0) * max(y1 - y0, 0))


@dataclass(frozen=True, slots=True)
class CropSpec:
    """A square crop around a face, as in the original code of a regressor.

    The side of the crop is that of a box times ``scale``. The box is the extent of all landmarks, or the box of the
    detector if it has no landmarks. The centres of the corner pixels of the crop are on the corners of the square.

    Attributes
    ----------
    size : int
        Side of the crop fed to the network, pixels; at least 2.
    scale : float
        Side of the crop over the side of the box; the product is truncated to whole pixels.
    points_factor : float
        Side of the box over the mean side of the extent of the landmarks.
    box_shift, points_shift : float
        Distance of the centre of the crop below the centre of the box of the detector, or of the extent of the
        landmarks, in sides of the box.
    longer_side : bool
        Whether the side of the box is its longer side; otherwise the mean of width and height.
    floats : bool
        Whether the crop is float32 in [0, 1]; otherwise it is truncated to bytes.
    """

    size: int = 224
    scale: float = 1.4
    points_factor: float = 1.0
    box_shift: float = 0.0
    floats: bool = False
    points_shift: float = 0.0
    longer_side: bool = False

    def __post_init__(self) -> None:
        if self.size < 2 or not min(self.scale, self.points_factor) > 0:
            raise ValueError(
                f"CropSpec: size {self.size}, scale {self.scale}, points_factor {self.points_factor}; size must be "
                "at least 2, the others above 0"
            )


@dataclass(frozen=True, slots=True)
class LandmarkSpec:
    """Input of a regressor that uses landmarks instead of pixels.

    Attributes
    ----------
    points : int
        Number of points per face.
    blendshapes : bool
        Whether the regressor also uses the 52 blendshape scores.
    """

    points: int
    blendshapes: bool = False


@dataclass(frozen=True, slots=True)
class FaceBatch:
    """Input of a regressor: n faces, one per image.

    Attributes
    ----------
    size_wh : (n, 2) int32
        Width and height of the images, pixels.
    xyxy : (n, 4) float32, pixels
    landmarks : (n, p, 3) float32, pixels, or None
    crops : (n, size, size, 3) uint8 RGB, or float32 RGB in [0, 1] (:attr:`CropSpec.floats`), or None
        A NumPy array, or a torch tensor on a device (:meth:`to`).
    crop_boxes : (n, 4) float64, pixels
        Points of the image under the centres of the top left and bottom right pixels of the crop; NaN without a crop.
    blendshapes : (n, 52) float32 in [0, 1], or None
    """

    size_wh: np.ndarray
    xyxy: np.ndarray
    landmarks: np.ndarray | None
    crops: Any
    crop_boxes: np.ndarray
    blendshapes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.size_wh)

    def __getitem__(self, faces: slice) -> FaceBatch:
        """Consecutive faces."""
        columns = {name: getattr(self, name) for name in self.__slots__}
        part: dict[str, Any] = {
            name: None if column is None else column[faces] for name, column in columns.items()
        }
        return FaceBatch(**part)

    @classmethod
    def join(cls, batches: Sequence[FaceBatch]) -> FaceBatch:
        """Concatenate batches with the same fields."""
        if len(batches) == 1:
            return batches[0]
        columns = {name: [getattr(batch, name) for batch in batches] for name in cls.__slots__}
        joined: dict[str, Any] = {name: _joined(parts) for name, parts in columns.items()}
        return cls(**joined)

    def to(self, device: str | None) -> FaceBatch:
        """The batch with crops as a torch tensor on a device, or without a device as a NumPy array."""
        if self.crops is None:
            return self
        if device is None:
            return replace(self, crops=np.asarray(self.crops))
        import torch

        return replace(self, crops=torch.as_tensor(self.crops).to(device, non_blocking=True))


def _joined(parts: Sequence[Any]) -> Any:
    """Concatenation of arrays, or of tensors on one device; None if the first part is None."""
    if parts[0] is None:
        return None
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import torch

    return torch.cat(list(parts))


@dataclass(frozen=True, slots=True)
class Block:
    """A named group of code columns.

    Attributes
    ----------
    width : int
    unit : str
        ``rad``, ``1`` for a ratio or coefficient, ...
    basis : str
        Meaning of the columns: ``flame-2020``, ``ig3d-face-1:<hash>``, ``arkit-52``. A fitted model cannot be applied
        to codes of another basis.
    description : str
    columns : tuple of str
        Names of the columns; empty if they have none.
    """

    width: int
    unit: str
    basis: str
    description: str
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.width < 1 or (self.columns and len(self.columns) != self.width):
            raise ValueError(
                f"Block: width {self.width} with {len(self.columns)} column names; give a width of at least 1 and as "
                "many names"
            )


@dataclass(frozen=True, slots=True)
class Rows:
    """Results of n samples, one row each.

    Attributes
    ----------
    status : (n,) int8 codes of :class:`Status`
    message : n strings
        Reason if the status is not ``ok``, else empty.
    size_wh : (n, 2) int32
        Width and height of the decoded image, pixels; 0 if it was not decoded.
    digest : (n, 16) uint8
        BLAKE2b-128 of the bytes of the file; zeros if it was not read.
    xyxy : (n, 4) float32;  score : (n,) float32;  count : (n,) int16
        Box and score of the face, and number of faces; NaN, NaN and 0 without a face.
    landmark_box : (n, 4) float32
        Extent of the landmarks of the detector, pixels; NaN without landmarks.
    crop_box : (n, 4) float32
        As :attr:`FaceBatch.crop_boxes`.
    codes : block name -> (n, width) float32
        NaN if the status is not ``ok``, and only then.
    """

    status: np.ndarray
    message: list[str]
    size_wh: np.ndarray
    digest: np.ndarray
    xyxy: np.ndarray
    score: np.ndarray
    count: np.ndarray
    landmark_box: np.ndarray
    crop_box: np.ndarray
    codes: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.status)

    @classmethod
    def pending(cls, n: int, blocks: dict[str, Block]) -> Rows:
        """``n`` rows with the status ``pending``."""
        return cls(
            status=np.zeros(n, np.int8),
            message=[""] * n,
            size_wh=np.zeros((n, 2), np.int32),
            digest=np.zeros((n, 16), np.uint8),
            xyxy=np.full((n, 4), np.nan, np.float32),
            score=np.full(n, np.nan, np.float32),
            count=np.zeros(n, np.int16),
            landmark_box=np.full((n, 4), np.nan, np.float32),
            crop_box=np.full((n, 4), np.nan, np.float32),
            codes={name: np.full((n, block.width), np.nan, np.float32) for name, block in blocks.items()},
        )

    @classmethod
    def join(cls, parts: Sequence[Rows]) -> Rows:
        """Concatenate rows with the same blocks."""
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in cls.__slots__
            if name not in ("message", "codes")
        }
        codes = {name: np.concatenate([part.codes[name] for part in parts]) for name in parts[0].codes}
        return cls(message=[text for part in parts for text in part.message], codes=codes, **columns)


def by_status(status: np.ndarray) -> dict[str, int]:
    """Number of rows of each status, by name."""
    values, counts = np.unique(status, return_counts=True)
    return {Status(int(value)).name: int(count) for value, count in zip(values, counts, strict=True)}


def sound_array(value: object) -> np.ndarray:
    """The value, if it is an array with valid text.

    NumPy returns members of an ``.npz`` that are not arrays as bytes, and does not check text.

    Raises
    ------
    ValueError : the value is not an array, or its text is not Unicode, for which many functions of NumPy fail.
    """
    if not isinstance(value, np.ndarray):
        raise ValueError("a member is not an array")
    if value.dtype.kind == "U" and value.dtype.itemsize:
        points = np.ascontiguousarray(value).reshape(-1).view(value.dtype.str[0] + "u4")
        if points.size and points.max() > sys.maxunicode:
            raise ValueError("text is not Unicode")
    return value
