"""Cropping: the input of a regressor for chosen faces; the third stage of :mod:`ig3d.extract.stages`.

A crop box (x0, y0, x1, y1) has the positions, in pixels of the image, of the centres of the crop's top left and bottom
right pixels. Transforms map pixels of the image to pixels of the crop; the centre of the top left pixel is (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UsageError
from ..features.values import CropSpec, Face, FaceBatch, LandmarkSpec
from .warp import warp


def square_box(face: Face, spec: CropSpec) -> np.ndarray:
    """Box of the square crop around a face.

    Parameters
    ----------
    face : Face
        The crop is around the extent of its landmarks or, without landmarks, around its box. It may leave the image.
    spec : CropSpec

    Returns
    -------
    (4,) float64 : crop box, pixels of the image

    Raises
    ------
    ValueError : the crop would be smaller than one pixel.
    """
    if face.landmarks is not None:
        points = np.asarray(face.landmarks[:, :2], np.float64)
        (x0, y0), (x1, y1) = points.min(0), points.max(0)
        factor, shift = spec.points_factor, spec.points_shift
    else:
        x0, y0, x1, y1 = np.asarray(face.xyxy, np.float64)
        factor, shift = 1.0, spec.box_shift
    side_of_box = max(x1 - x0, y1 - y0) if spec.longer_side else ((x1 - x0) + (y1 - y0)) / 2
    box_side = side_of_box * factor
    # in the order of operations of SMIRK's and EMOCA's code, so that all digits agree
    x, y = x1 - (x1 - x0) / 2, y1 - (y1 - y0) / 2 + shift * box_side
    side = int(box_side * spec.scale)
    if side < 1:
        raise ValueError(
            f"the box of the face has {x1 - x0:.3g} x {y1 - y0:.3g} pixels; its crop is smaller than one pixel"
        )
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])


def square_crop(box: np.ndarray, size: int) -> np.ndarray:
    """(2, 3) float64 transform of a square crop box (4,) to ``size`` x ``size`` pixels: a scale and a shift.

    References
    ----------
    SMIRK's ``demo.py`` (commit c7de404) and the test data sets of EMOCA (fef5472) and DECA (a11554a) estimate a
    similarity transform from three corners, of which the last is at ``size - 1``.
    """
    x0, y0, x1, y1 = box
    last = size - 1.0
    return _similarity(np.array([[x0, y0], [x0, y1], [x1, y0]]), np.array([[0, 0], [0, last], [last, 0]]))


def _similarity(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """(2, 3) similarity transform of points (n, 2) to points ``onto`` (n, 2), by least squares, without reflection.

    The order of operations is that of scikit-image's ``estimate_transform``, because rounding changes bytes of a crop.

    References
    ----------
    Umeyama, Least-squares estimation of transformation parameters between two point patterns, TPAMI 13(4), 1991.
    """
    centre, goal = points.mean(0), onto.mean(0)
    around = points - centre
    left, strengths, right = np.linalg.svd((onto - goal).T @ around / len(points))
    turn = left @ right
    scale = 1 / around.var(0).sum() * strengths.sum()
    return np.column_stack([turn * scale, goal - scale * (turn @ centre)])


def full_box(size_wh: Sequence[int], spec: CropSpec) -> np.ndarray:
    """(4,) float64 crop box of a full image, which is stretched to the square crop.

    For crops of bytes, the edges of image and crop coincide, as in OpenCV's ``resize`` and SMIRK's demo. For crops of
    floats, the centres of the corner pixels coincide, as in EMOCA and DECA for square images.
    """
    size = np.asarray(size_wh, np.float64)
    if spec.floats:
        return np.concatenate([np.zeros(2), np.maximum(size - 1, 1)])
    half_pixel = size / spec.size / 2
    return np.concatenate([half_pixel - 0.5, size - half_pixel - 0.5])


def full_crop(box: np.ndarray, size: int) -> np.ndarray:
    """(2, 3) float64 transform of a crop box (4,) of any aspect ratio to ``size`` x ``size`` pixels."""
    zoom = (size - 1) / (box[2:] - box[:2])
    return np.column_stack([np.diag(zoom), -box[:2] * zoom])


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the full image, resized bilinearly as in SMIRK's demo."""
    import cv2

    resized: np.ndarray = cv2.resize(image, (size, size))
    return resized


def prepare(
    images: Sequence[np.ndarray],
    faces: Sequence[Face],
    needs: CropSpec | LandmarkSpec,
    *,
    whole: bool = False,
) -> FaceBatch:
    """Input of a regressor for n faces, one per image.

    Parameters
    ----------
    images : sequence of n (H, W, 3) uint8 RGB arrays
    faces : sequence of n Face
    needs : CropSpec or LandmarkSpec
        Input that the regressor requires.
    whole : bool
        Resize the full image instead of cropping around the face.

    Returns
    -------
    FaceBatch

    Raises
    ------
    UsageError : the faces do not have the landmarks or blendshapes that the regressor requires.
    ValueError : a face is too small.
    """
    size_wh = np.array([(image.shape[1], image.shape[0]) for image in images], np.int32).reshape(-1, 2)
    xyxy = np.array([face.xyxy for face in faces], np.float32).reshape(-1, 4)
    if isinstance(needs, LandmarkSpec):
        return _landmarks(size_wh, xyxy, faces, needs)
    boxes = [
        full_box(size, needs) if whole else square_box(face, needs)
        for size, face in zip(size_wh.tolist(), faces, strict=True)
    ]
    to_crop = full_crop if whole else square_crop
    crops = [
        resize(image, needs.size)
        if whole and not needs.floats
        else warp(image, to_crop(box, needs.size), needs)
        for image, box in zip(images, boxes, strict=True)
    ]
    return FaceBatch(
        size_wh,
        xyxy,
        None,
        np.array(crops, np.float32 if needs.floats else np.uint8).reshape(-1, needs.size, needs.size, 3),
        np.array(boxes).reshape(-1, 4),
    )


def _landmarks(
    size_wh: np.ndarray, xyxy: np.ndarray, faces: Sequence[Face], needs: LandmarkSpec
) -> FaceBatch:
    points = [face.landmarks for face in faces]
    lengths = {0 if one is None else len(one) for one in points}
    if lengths - {needs.points}:
        raise UsageError(
            f"detector: it finds {max(lengths)} landmarks per face, and this regressor needs {needs.points}; choose "
            "another --detector"
        )
    landmarks = np.array(points, np.float32).reshape(-1, needs.points, 3)
    scores = _blendshapes(faces) if needs.blendshapes else None
    return FaceBatch(size_wh, xyxy, landmarks, None, np.full((len(faces), 4), np.nan), scores)


def _blendshapes(faces: Sequence[Face]) -> np.ndarray:
    scores = [face.blendshapes for face in faces]
    if any(one is None for one in scores):
        raise UsageError(
            "detector: it finds no blendshapes, and this regressor needs them; use --detector facemesh"
        )
    return np.array(scores, np.float32).reshape(len(faces), -1)
