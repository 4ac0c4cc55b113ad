"""The files of FLAME as arrays: model, landmark tables, eyelids; read without chumpy, and inertly.

FLAME (Li et al., "Learning a model of facial shape and expression from 4D scans", 2017) is licensed; ig3d only reads
the files of those who have them. The releases 2017, 2020, 2023 and 2023 Open share one layout. :mod:`.flame` computes
with what is read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import WeightsError
from ..features.safe_pickle import read_arrays

VERTICES = 5023
SHAPES, EXPRESSIONS = 300, 100
# Joints: 0 root, 1 neck, 2 jaw, 3 left eye, 4 right eye; each one's parent.
PARENTS = (-1, 0, 1, 1, 1)
JOINTS = len(PARENTS)
# The contour's points are tabled for each degree of yaw: rows 0..39 for 0..39, rows 40..78 for -1..-39.
YAW_ROWS, CONTOUR, FIXED = 79, 17, 51
MEDIAPIPE_POINTS = 105


@dataclass(frozen=True, slots=True)
class FlameModel:
    """The arrays of a FLAME release; lengths in metres, y up, z towards the camera.

    Attributes
    ----------
    template : (5023, 3) float64
        Vertices of the mean head.
    triangles : (t, 3) int64
    shape_basis : (5023, 3, 300) float64
    expression_basis : (5023, 3, 100) float64
    pose_basis : (5023, 3, 36) float64
        Correctives of the rotations of joints 1 to 4, nine numbers each.
    joint_regressor : (5, 5023) float64
    skinning : (5023, 5) float64
    """

    template: np.ndarray
    triangles: np.ndarray
    shape_basis: np.ndarray
    expression_basis: np.ndarray
    pose_basis: np.ndarray
    joint_regressor: np.ndarray
    skinning: np.ndarray


@dataclass(frozen=True, slots=True)
class SurfacePoints:
    """Points on the mesh, as places in triangles.

    Attributes
    ----------
    triangle : (...) int64
    weights : (..., 3) float64
        Barycentric coordinates.
    """

    triangle: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True, slots=True)
class LandmarkTable:
    """Where FLAME's 68 landmarks lie.

    Attributes
    ----------
    contour : SurfacePoints (79, 17)
        The contour's points by the head's yaw.
    inner : SurfacePoints (51,)
        Brows, nose, eyes and mouth.
    still : SurfacePoints (68,)
        All of them for a head that faces the camera.
    """

    contour: SurfacePoints
    inner: SurfacePoints
    still: SurfacePoints


def read_model(path: str | Path) -> FlameModel:
    """A FLAME model file (``generic_model.pkl``, ``flame2023.pkl``, ``flame2023_Open.pkl``).

    Raises
    ------
    WeightsError : the file is missing, broken, or another model's.
    """
    found = _mapping(path, "a FLAME model")
    shapes = {
        "v_template": (VERTICES, 3),
        "f": (None, 3),
        "shapedirs": (VERTICES, 3, SHAPES + EXPRESSIONS),
        "posedirs": (VERTICES, 3, 9 * (JOINTS - 1)),
        "J_regressor": (JOINTS, VERTICES),
        "weights": (VERTICES, JOINTS),
        "kintree_table": (2, JOINTS),
    }
    arrays = {key: _array(path, "a FLAME model", found, key, shape) for key, shape in shapes.items()}
    parents = arrays["kintree_table"][0, 1:].astype(np.int64)
    if tuple(parents) != PARENTS[1:]:
        raise WeightsError(
            f"{path}: expected FLAME's joints (parents {PARENTS[1:]}), got {tuple(parents.tolist())}; {_ADVICE}"
        )
    directions = arrays["shapedirs"].astype(float)
    return FlameModel(
        template=arrays["v_template"].astype(float),
        triangles=_indices(path, arrays["f"], VERTICES),
        shape_basis=directions[..., :SHAPES],
        expression_basis=directions[..., SHAPES:],
        pose_basis=arrays["posedirs"].astype(float),
        joint_regressor=arrays["J_regressor"].astype(float),
        skinning=arrays["weights"].astype(float),
    )


def read_landmarks(path: str | Path, model: FlameModel) -> LandmarkTable:
    """The 68 landmarks (``landmark_embedding.npy`` of SMIRK's and DECA's repositories).

    Raises
    ------
    WeightsError : the file is missing, broken, or another one.
    """
    found = _mapping(path, "FLAME's landmark embedding")

    def points(name: str, shape: tuple[int, ...]) -> SurfacePoints:
        triangle = _array(path, "FLAME's landmark embedding", found, f"{name}_lmk_faces_idx", shape)
        weights = _array(path, "FLAME's landmark embedding", found, f"{name}_lmk_bary_coords", (*shape, 3))
        return SurfacePoints(_indices(path, triangle, len(model.triangles)), weights.astype(float))

    still = points("full", (1, CONTOUR + FIXED))
    return LandmarkTable(
        contour=points("dynamic", (YAW_ROWS, CONTOUR)),
        inner=points("static", (FIXED,)),
        still=SurfacePoints(still.triangle[0], still.weights[0]),
    )


def read_mediapipe_landmarks(path: str | Path, model: FlameModel) -> tuple[SurfacePoints, np.ndarray]:
    """The 105 landmarks (``mediapipe_landmark_embedding.npz``), and (105,) which of MediaPipe's 478 points each is.

    Raises
    ------
    WeightsError : the file is missing, broken, or another one.
    """
    what = "the MediaPipe landmark embedding"
    found = _mapping(path, what)
    triangle = _array(path, what, found, "lmk_face_idx", (MEDIAPIPE_POINTS,))
    weights = _array(path, what, found, "lmk_b_coords", (MEDIAPIPE_POINTS, 3))
    which = _array(path, what, found, "landmark_indices", (MEDIAPIPE_POINTS,))
    points = SurfacePoints(_indices(path, triangle, len(model.triangles)), weights.astype(float))
    return points, _indices(path, which, 478)


def read_eyelids(left: str | Path, right: str | Path) -> np.ndarray:
    """SMIRK's eyelids (``l_eyelid.npy``, ``r_eyelid.npy``): (2, 5023, 3) offsets in metres, left and right.

    Raises
    ------
    WeightsError : a file is missing, broken, or another one.
    """
    lids = []
    for path in (left, right):
        lid = read_arrays(path)
        lids.append(_array(path, "an eyelid of SMIRK", {"the array": lid}, "the array", (VERTICES, 3)))
    return np.stack(lids).astype(float)


_ADVICE = "give the file that the official release holds (docs/detectors.md)"


def _mapping(path: str | Path, what: str) -> Mapping[str, Any]:
    found = read_arrays(path)
    if not isinstance(found, Mapping):
        raise WeightsError(
            f"{path}: expected {what}, a table of arrays, got {type(found).__name__}; {_ADVICE}"
        )
    return found


def _array(
    path: str | Path, what: str, found: Mapping[str, Any], key: str, shape: tuple[int | None, ...]
) -> np.ndarray:
    """An array of the file, of the shape it must have (None: any length)."""
    if key not in found:
        raise WeightsError(f"{path}: expected {what} with {key}, got none in it; {_ADVICE}")
    array = found[key]
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        raise WeightsError(
            f"{path}: expected {what} with numbers in {key}, got {type(array).__name__}; {_ADVICE}"
        )
    if array.ndim != len(shape) or any(
        want not in (None, have) for want, have in zip(shape, array.shape, strict=True)
    ):
        wanted = " x ".join("n" if size is None else str(size) for size in shape)
        got = " x ".join(map(str, array.shape))
        raise WeightsError(f"{path}: expected {what} with {key} {wanted}, got {got}; {_ADVICE}")
    if not np.isfinite(array).all():
        raise WeightsError(f"{path}: expected {what} with finite numbers, got NaN in {key}; {_ADVICE}")
    return array


def _indices(path: str | Path, array: np.ndarray, below: int) -> np.ndarray:
    if array.size and (array.min() < 0 or array.max() >= below):
        raise WeightsError(f"{path}: expected indices below {below}, got {int(array.max())}; {_ADVICE}")
    return array.astype(np.int64)
