"""Safe reader for FLAME's files: model and eyelids, as arrays; chumpy is not needed.

FLAME (Li et al., "Learning a model of facial shape and expression from 4D scans", 2017) has a licence that each user
must accept; ig3d contains none of its files. The releases 2017, 2020, 2023 and 2023 Open have one layout.
:mod:`.flame` uses the arrays.
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
# Parents of the joints 0 root, 1 neck, 2 jaw, 3 left eye, 4 right eye.
PARENTS = (-1, 0, 1, 1, 1)
JOINTS = len(PARENTS)


@dataclass(frozen=True, slots=True)
class FlameModel:
    """Arrays of a FLAME release; lengths in metres, y up, z towards the camera.

    Attributes
    ----------
    template : (5023, 3) float64
        Vertices of the mean head.
    triangles : (t, 3) int64
    shape_basis : (5023, 3, 300) float64
    expression_basis : (5023, 3, 100) float64
    pose_basis : (5023, 3, 36) float64
        Pose correctives: one for each of the nine entries of the rotations of joints 1 to 4.
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


def read_model(path: str | Path) -> FlameModel:
    """Read a FLAME model file (``generic_model.pkl``, ``flame2023.pkl``, ``flame2023_Open.pkl``).

    Raises
    ------
    WeightsError : the file is missing, damaged, or contains another model.
    """
    content = _mapping(path, "a FLAME model")
    shapes = {
        "v_template": (VERTICES, 3),
        "f": (None, 3),
        "shapedirs": (VERTICES, 3, SHAPES + EXPRESSIONS),
        "posedirs": (VERTICES, 3, 9 * (JOINTS - 1)),
        "J_regressor": (JOINTS, VERTICES),
        "weights": (VERTICES, JOINTS),
        "kintree_table": (2, JOINTS),
    }
    arrays = {key: _array(path, "a FLAME model", content, key, shape) for key, shape in shapes.items()}
    parents = arrays["kintree_table"][0, 1:].astype(np.int64)
    if tuple(parents) != PARENTS[1:]:
        raise WeightsError(
            f"{path}: the parents of the joints are {tuple(parents.tolist())}, in FLAME {PARENTS[1:]}; {_ADVICE}"
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


def read_eyelids(left: str | Path, right: str | Path) -> np.ndarray:
    """Read SMIRK's eyelids (``l_eyelid.npy``, ``r_eyelid.npy``): (2, 5023, 3) offsets in metres, left and right.

    Raises
    ------
    WeightsError : a file is missing, damaged, or another file.
    """
    lids = []
    for path in (left, right):
        lid = read_arrays(path)
        lids.append(_array(path, "an eyelid of SMIRK", {"the array": lid}, "the array", (VERTICES, 3)))
    return np.stack(lids).astype(float)


_ADVICE = "use the file of the official release (docs/detectors.md)"


def _mapping(path: str | Path, kind: str) -> Mapping[str, Any]:
    content = read_arrays(path)
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path}: the file contains a {type(content).__name__}, not named arrays as {kind} does; {_ADVICE}"
        )
    return content


def _array(
    path: str | Path, kind: str, content: Mapping[str, Any], key: str, shape: tuple[int | None, ...]
) -> np.ndarray:
    """Array of the file, after checks of type, shape (None: any length) and finite values."""
    if key not in content:
        raise WeightsError(f"{path}: not {kind}: {key} is missing; {_ADVICE}")
    array = content[key]
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        raise WeightsError(
            f"{path}: not {kind}: {key} is no array of numbers but a {type(array).__name__}; {_ADVICE}"
        )
    if array.ndim != len(shape) or any(
        want not in (None, have) for want, have in zip(shape, array.shape, strict=True)
    ):
        wanted = " x ".join("n" if size is None else str(size) for size in shape)
        actual = " x ".join(map(str, array.shape))
        raise WeightsError(f"{path}: not {kind}: the shape of {key} is {actual}, not {wanted}; {_ADVICE}")
    if not np.isfinite(array).all():
        raise WeightsError(f"{path}: {key} contains NaN or infinite numbers; {_ADVICE}")
    return array


def _indices(path: str | Path, array: np.ndarray, below: int) -> np.ndarray:
    if array.size and (array.min() < 0 or array.max() >= below):
        raise WeightsError(
            f"{path}: an index is not in 0 to {below - 1} ({int(array.min())} to {int(array.max())}); {_ADVICE}"
        )
    return array.astype(np.int64)
