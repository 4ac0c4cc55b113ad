"""Convert rotation vectors of a store to yaw, pitch and roll of the head."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .store import CodeStore
    from .values import Block

ANGLES = ("yaw", "pitch", "roll")
# Bases of pose blocks whose columns are a rotation vector in FLAME's axes.
_BASES = ("axis-angle", "flame-2020")


def pose_degrees(pose: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll of rotation vectors.

    The axes are those of a store: x to the image's right, y up, z towards the camera. Yaw is the angle about y, pitch
    about x and roll about z, each positive by the right-hand rule: with positive yaw the face looks to the image's
    right, with positive pitch down, and with positive roll the head is tilted counterclockwise in the image. The head
    is turned by pitch first, then yaw, then roll, about fixed axes: ``R = Rz(roll) @ Ry(yaw) @ Rx(pitch)``.

    Parameters
    ----------
    pose : (..., 3) float array, rad
        Rotation vectors (axis times angle), as in the block ``pose``.

    Returns
    -------
    (..., 3) float64, degrees
        Yaw in [-90, 90], pitch and roll in [-180, 180]. NaN if the vector has NaN. At a yaw of 90 or -90 degrees
        pitch and roll are not unique, and one of them is 0.

    Examples
    --------
    >>> pose_degrees(np.array([0.0, np.pi / 6, 0.0])).round(6)  # looks to the image's right
    array([30.,  0.,  0.])
    """
    from scipy.spatial.transform import Rotation  # imported here: it takes 0.2 s

    vectors = np.asarray(pose, float)
    flat = vectors.reshape(-1, 3)
    degrees = np.full(flat.shape, np.nan)
    finite = np.isfinite(flat).all(axis=1)
    if finite.any():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Gimbal lock", UserWarning)
            roll_yaw_pitch = Rotation.from_rotvec(flat[finite]).as_euler("ZYX", degrees=True)
        degrees[finite] = roll_yaw_pitch[:, [1, 2, 0]]
    return degrees.reshape(vectors.shape)


def is_axis_angle(block: Block) -> bool:
    """Whether the codes of a block are rotation vectors in FLAME's axes."""
    return block.width == 3 and block.unit == "rad" and block.basis in _BASES


def store_degrees(store: CodeStore) -> np.ndarray | None:
    """(n, 3) yaw, pitch and roll of the rows of a store, degrees; None if its pose is not a rotation vector of FLAME.

    None also for an imported table, whose pose may have any convention.
    """
    block = store.blocks.get("pose")
    if block is None or not is_axis_angle(block):
        return None
    if store.info.regressor.get("source") == "csv":
        return None
    return pose_degrees(store.codes("pose"))
