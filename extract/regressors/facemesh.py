"""``facemesh``: codes of the embedded face model, computed from 478 landmarks, and blendshape scores."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ...errors import UsageError
from ...faces import model
from ...features.values import Block, FaceBatch, LandmarkSpec
from .. import arkit
from . import Regressor

# Points of the subject's right and left eye: two corners, then pairs of upper and lower lid.
_EYES = ((33, 133, (160, 144), (159, 145), (158, 153)), (263, 362, (387, 373), (386, 374), (385, 380)))
# From FaceMesh's axes (y down, z away from the camera) to FLAME's (y up, z towards it): rotation by pi about x.
_TO_FLAME = np.array([1.0, -1.0, -1.0])


def _blocks(face: model.FaceModel) -> dict[str, Block]:
    return {
        "expression": Block(
            len(face.expression_basis),
            "1",
            face.basis,
            "Expression codes of the embedded face model, in standard deviations within a person.",
        ),
        "pose": Block(
            3,
            "rad",
            "axis-angle",
            "Rotation of the head from facing the camera; axes as FLAME's: x to the image's right, y up, z towards "
            "the camera.",
            ("x", "y", "z"),
        ),
        "eyelid": Block(
            2,
            "1",
            "facemesh-478",
            "Openness: mean height of the lid gap over the eye's width, right then left eye of the subject "
            "(eye aspect ratio, Soukupova and Cech 2016).",
            ("right", "left"),
        ),
        "shape": Block(
            len(face.shape_basis),
            "1",
            face.basis,
            "Shape (identity) codes of the embedded face model, in standard deviations over persons.",
        ),
        "camera": Block(
            3,
            "1",
            "weak-perspective",
            "Scale and translation: image point = scale * (rotated aligned point) + (tx, ty), where the image's "
            "longer side spans [-1, 1], origin in its middle, y down.",
            ("scale", "tx", "ty"),
        ),
        "blendshapes": Block(
            len(arkit.NAMES),
            "1",
            arkit.BASIS,
            "Blendshape scores in [0, 1] of MediaPipe's Face Landmarker: ARKit's names, _neutral for tongueOut; left "
            "and right are the subject's.",
            arkit.NAMES,
        ),
        "landmarks": Block(
            3 * model.POINTS,
            "1",
            face.basis,
            "478 points x, y, z after Procrustes alignment to the mean face, whose centroid size is 1; x to the "
            "image's right, y down, z away from the camera.",
            tuple(f"{point}{axis}" for point in range(model.POINTS) for axis in "xyz"),
        ),
    }


class FaceMeshCodes(Regressor):
    """Regressor of expression, shape, pose, eyelid and camera codes and of blendshape scores."""

    name = "facemesh"
    version = "2"
    licence = "the same as ig3d's; the networks of the detector are Apache-2.0 (Google)"
    packages = ("numpy",)
    needs = LandmarkSpec(model.POINTS, blendshapes=True)
    detectors = ("facemesh",)
    blocks = _blocks(model.load())
    optional = ("landmarks",)
    sets: ClassVar[dict[str, tuple[str, ...]]] = {"short": ("expression", "pose", "eyelid")}

    @classmethod
    def describe(cls, device: str = "cpu", precision: str = "fp32") -> dict[str, Any]:
        return {**super().describe(device, precision), "face_model": model.load().basis}

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        if faces.landmarks is None or faces.blendshapes is None:
            raise UsageError(
                "facemesh: the detector gives no landmarks with blendshapes; use --detector facemesh"
            )
        face = model.load()
        fitted = face.align(faces.landmarks)
        codes = {
            **face.encode(fitted.aligned),
            "pose": rotation_vectors(fitted.rotation),
            "eyelid": eye_openness(fitted.aligned),
            "camera": weak_perspective(fitted.scale, fitted.translation, faces.size_wh),
            "blendshapes": faces.blendshapes,
            "landmarks": fitted.aligned.reshape(len(faces), -1),
        }
        return {name: codes[name].astype(np.float32) for name in self.blocks}


def rotation_vectors(rotation: np.ndarray) -> np.ndarray:
    """(n, 3) axis-angle vectors in FLAME's axes of (n, 3, 3) rotations in FaceMesh's axes; NaN stays NaN."""
    finite = np.isfinite(rotation).all(axis=(1, 2))
    vectors = np.full((len(rotation), 3), np.nan)
    vectors[finite] = axis_angle(rotation[finite]) * _TO_FLAME
    return vectors


def axis_angle(rotation: np.ndarray) -> np.ndarray:
    """Rotation vectors of rotation matrices; used instead of SciPy's ``Rotation``, which takes 0.2 s to import.

    Parameters
    ----------
    rotation : (n, 3, 3)

    Returns
    -------
    (n, 3) rad; angles in [0, pi]

    References
    ----------
    Bar-Itzhack, "New Method for Extracting the Quaternion from a Rotation Matrix" (2000).
    """
    r = rotation
    # The unit quaternion is the eigenvector of the largest eigenvalue of this symmetric matrix.
    matrix = np.zeros((len(r), 4, 4))
    matrix[:, :3, :3] = r + r.transpose(0, 2, 1)
    trace = np.trace(r, axis1=1, axis2=2)
    matrix[:, (0, 1, 2), (0, 1, 2)] -= trace[:, None]
    turn = np.stack([r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], axis=1)
    matrix[:, :3, 3] = matrix[:, 3, :3] = turn
    matrix[:, 3, 3] = trace
    quaternion = np.linalg.eigh(matrix)[1][..., -1]
    quaternion *= np.where(quaternion[:, 3:] < 0, -1, 1)
    sine = np.linalg.norm(quaternion[:, :3], axis=1, keepdims=True)
    angle = 2 * np.arctan2(sine, quaternion[:, 3:])
    # the limit of angle / sine is 2 where the angle is 0
    return np.asarray(quaternion[:, :3] * np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0))


def eye_openness(points: np.ndarray) -> np.ndarray:
    """(n, 2) eye aspect ratios (right, left) of (n, 478, 3) points in any unit.

    References
    ----------
    Soukupova and Cech, "Real-Time Eye Blink Detection using Facial Landmarks" (2016).
    """

    def distance(first: int, second: int) -> np.ndarray:
        return np.asarray(np.linalg.norm(points[:, first] - points[:, second], axis=-1))

    ratios = [
        np.mean([distance(*pair) for pair in lids], axis=0) / np.maximum(distance(outer, inner), 1e-12)
        for outer, inner, *lids in _EYES
    ]
    return np.stack(ratios, axis=1)


def to_flame_axes(points: np.ndarray) -> np.ndarray:
    """(..., 3) points in FLAME's axes (y up, z towards the camera) of points in FaceMesh's axes, or the reverse."""
    return points * _TO_FLAME


def project(points: np.ndarray, pose: np.ndarray, camera: np.ndarray, size_wh: np.ndarray) -> np.ndarray:
    """Project aligned points into the image: the inverse of the alignment.

    Parameters
    ----------
    points : (n, p, 3) in the coordinates of the mean face
    pose : (n, 3) axis-angle in FLAME's axes
    camera : (n, 3)
    size_wh : (n, 2) size of the images, pixels

    Returns
    -------
    (n, p, 3) pixels; z relative to the face's origin
    """
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_rotvec(pose * _TO_FLAME).as_matrix()
    half = size_wh.max(axis=1)[:, None, None] / 2
    turned: np.ndarray = np.einsum("nij,npj->npi", rotation, points) * camera[:, :1, None] * half
    turned[..., :2] += camera[:, None, 1:] * half + size_wh[:, None] / 2
    return turned


def weak_perspective(scale: np.ndarray, translation: np.ndarray, size_wh: np.ndarray) -> np.ndarray:
    """(n, 3) scale, tx, ty in units of half the image's longer side, with the origin at the image's centre.

    Parameters
    ----------
    scale : (n,) pixels per unit of the mean face
    translation : (n, 3) pixels
    size_wh : (n, 2) pixels
    """
    half = size_wh.max(axis=1) / 2
    offset = (translation[:, :2] - size_wh / 2) / half[:, None]
    return np.column_stack([scale / half, offset])
