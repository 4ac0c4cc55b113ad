"""Cropping: from chosen faces to what a regressor is fed; the third step of the flow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UsageError
from ..features.values import CropSpec, Face, FaceBatch, LandmarkSpec


def square_crop(xyxy: np.ndarray, spec: CropSpec) -> np.ndarray:
    """Affine map of a square crop around a face box.

    Parameters
    ----------
    xyxy : (4,) float array, pixels
        May leave the image.
    spec : CropSpec

    Returns
    -------
    (2, 3) float64 array, image pixels to crop pixels.
    """
    x0, y0, x1, y1 = np.asarray(xyxy, float)
    side = spec.scale * ((x1 - x0) + (y1 - y0)) / 2
    zoom = spec.size / max(side, 1e-6)
    centre = np.array([x0 + x1, y0 + y1]) / 2
    return np.column_stack([np.eye(2) * zoom, spec.size / 2 - zoom * centre])


def whole_crop(size_wh: Sequence[int], spec: CropSpec) -> np.ndarray:
    """Affine map that resizes the whole image to the crop, whatever its aspect."""
    return np.column_stack([np.diag([spec.size / size_wh[0], spec.size / size_wh[1]]), np.zeros(2)])


def warp(image: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3) uint8 crop, bilinear; black where it leaves the image."""
    import cv2  # only regressors that are fed crops pay for it

    crop: np.ndarray = cv2.warpAffine(image, transform, (size, size), flags=cv2.INTER_LINEAR)
    return crop


def prepare(
    images: Sequence[np.ndarray],
    faces: Sequence[Face],
    needs: CropSpec | LandmarkSpec,
    *,
    whole: bool = False,
) -> FaceBatch:
    """Feed n faces, one per image, to a regressor.

    Parameters
    ----------
    images : n arrays (H, W, 3) uint8 RGB
    faces : n faces
    needs : what the regressor is fed
    whole : bool
        Resize the whole image instead of cropping around the box.

    Raises
    ------
    UsageError : the regressor needs landmarks that the detector does not give.
    """
    size_wh = np.array([(image.shape[1], image.shape[0]) for image in images], np.int32).reshape(-1, 2)
    xyxy = np.array([face.xyxy for face in faces], np.float32).reshape(-1, 4)
    if isinstance(needs, LandmarkSpec):
        points = [face.landmarks for face in faces]
        lengths = {0 if one is None else len(one) for one in points}
        if lengths - {needs.points}:
            raise UsageError(
                f"detector: expected {needs.points} landmarks per face for this regressor, got {max(lengths)}; "
                "choose another --detector"
            )
        landmarks = np.array(points, np.float32).reshape(-1, needs.points, 3)
        scores = _blendshapes(faces) if needs.blendshapes else None
        return FaceBatch(size_wh, xyxy, landmarks, None, np.full((len(faces), 2, 3), np.nan), scores)
    maps = [
        whole_crop(size, needs) if whole else square_crop(box, needs)
        for size, box in zip(size_wh, xyxy, strict=True)
    ]
    crops = [warp(image, transform, needs.size) for image, transform in zip(images, maps, strict=True)]
    return FaceBatch(
        size_wh,
        xyxy,
        None,
        np.array(crops, np.uint8).reshape(-1, needs.size, needs.size, 3),
        np.array(maps).reshape(-1, 2, 3),
    )


def _blendshapes(faces: Sequence[Face]) -> np.ndarray:
    scores = [face.blendshapes for face in faces]
    if any(one is None for one in scores):
        raise UsageError(
            "detector: expected 52 blendshape scores per face for this regressor, got none; use --detector landmarker"
        )
    return np.array(scores, np.float32).reshape(len(faces), -1)
