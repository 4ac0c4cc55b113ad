"""The embedded face model: 478 points, their mean, and what identity and expression change about them.

Extraction aligns a detector's landmarks to the mean face and encodes them here; :mod:`ig3d.faces.synth` decodes
random codes. Axes are those of FaceMesh: x right in the image, y down, z away from the camera. Lengths are in units
of the mean face's centroid size (the root of the summed squares of its centred points is 1). Rotations turn the mean
face, which looks straight into the camera, into the photographed head; they act on column vectors.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import ModelError

FORMAT_VERSION = 2
POINTS = 478
# Of face_model.npz as scripts/build_face_model.py wrote it; the script prints it.
SHA256 = "3db6becbebbbb1e7f0fbe9acff9be31f799d14e34f3ac2fe1aaef40e3ee53a42"
EMBEDDED = Path(__file__).with_name("face_model.npz")


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where n heads stand: ``points = scale * rotation @ aligned + translation`` for each of them.

    Attributes
    ----------
    rotation : (n, 3, 3)
        From the mean face to the photographed head.
    scale : (n,)
        Size of the head in the unit of the points (pixels), relative to the mean face.
    translation : (n, 3)
        Where the mean face's origin lies, unit of the points.
    aligned : (n, p, 3)
        The points in the frame and size of the mean face.
    """

    rotation: np.ndarray
    scale: np.ndarray
    translation: np.ndarray
    aligned: np.ndarray


def align(points: np.ndarray, reference: np.ndarray, *, weights: np.ndarray | None = None) -> Alignment:
    """Fit rotation, scale and translation of each face to a reference by weighted least squares.

    Parameters
    ----------
    points : (n, p, 3) array
        Any unit; z in the unit of x.
    reference : (p, 3) array
    weights : (p,) array of numbers >= 0, optional
        How far each point counts; equal by default. The model's ``rigid`` weights rest on the points that
        expression hardly moves, so that an opening mouth does not pitch the head: see :meth:`FaceModel.align`.

    Returns
    -------
    Alignment. A face without extent (all points equal) or with a coordinate that is not finite gives NaN.

    Raises
    ------
    ModelError : shapes that do not fit.

    References
    ----------
    Kabsch 1976; Umeyama 1991 (scale, and the reflection that is kept out).
    """
    points = np.asarray(points, float)
    reference = np.asarray(reference, float)
    if points.ndim != 3 or points.shape[1:] != reference.shape or reference.shape[-1] != 3:
        raise ModelError(
            f"points: expected (n, {len(reference)}, 3), got {points.shape}; pass one row of points per face"
        )
    weight = np.ones(len(reference)) if weights is None else np.asarray(weights, float)
    weight = weight / weight.sum()
    finite = np.isfinite(points).all(axis=(1, 2))
    safe = np.where(finite[:, None, None], points, 0.0)
    middle = np.einsum("p,npi->ni", weight, safe)
    anchor = weight @ reference
    there, here = safe - middle[:, None], reference - anchor
    covariance = np.einsum("p,npi,pj->nij", weight, there, here, optimize=True)
    left, singular, right = np.linalg.svd(covariance)
    sign = np.ones((len(points), 3))
    sign[:, 2] = np.sign(np.linalg.det(left @ right))
    rotation = (left * sign[:, None]) @ right
    # The scale that maps the face onto the reference is fitted that way round: its noise then does not shrink faces.
    spread = np.einsum("p,npi,npi->n", weight, there, there, optimize=True)
    agreement = np.einsum("ni,ni->n", singular, sign)
    flat = ~finite | (spread <= 1e-18 * (safe**2).max(axis=(1, 2), initial=1e-200)) | (agreement <= 0)
    scale = np.where(flat, np.nan, spread / np.where(flat, 1.0, agreement))
    rotation = np.where(flat[:, None, None], np.nan, rotation)
    translation = middle - scale[:, None] * np.einsum("nij,j->ni", rotation, anchor)
    aligned = np.einsum("nji,npj->npi", rotation, there) / scale[:, None, None] + anchor
    return Alignment(rotation, scale, translation, aligned)


@dataclass(frozen=True, slots=True, eq=False)
class FaceModel:
    """A linear model of faces: points = mean + shape @ shape_basis + expression @ expression_basis.

    Codes are in standard deviations: over persons for shape, within a person for expression.

    Attributes
    ----------
    mean : (478, 3)
        Centred, centroid size 1, left-right symmetric, looking into the camera.
    rigid : (478,)
        Weights of the points in the alignment; sum 1.
    mirror : (478,) int
        ``mirror[i]`` is the point that lies where i lies in a mirror; an involution.
    triangles : (898, 3) int;  part : (898,) int
        Corners of one triangle all run the same way round; 0 skin, 1 eye, 2 inside of the mouth.
    shape_basis, expression_basis : (ks, 478, 3), (ke, 478, 3)
    encoder : (ks + ke, 478, 3)
        Linear map from a face less the mean to the posterior mean of its codes.
    classes : names of the seven expressions, in RAF-DB's order
    class_mean : (7, ke);  class_spread : (ke, ke)
        Expression codes of a class: normal, with this mean and this lower Cholesky factor of the covariance.
    grey_mean : (478,);  grey_basis : (kg, 478);  class_grey : (7, kg)
        Grey values 0..255 of the points in photographs, how they vary, and mean codes of the classes.
    basis : str
        Name of the coordinate system of the codes: ``ig3d-face-2:<first 12 digits of the file's SHA-256>``.
    """

    mean: np.ndarray
    rigid: np.ndarray
    mirror: np.ndarray
    triangles: np.ndarray
    part: np.ndarray
    shape_basis: np.ndarray
    expression_basis: np.ndarray
    encoder: np.ndarray
    classes: tuple[str, ...]
    class_mean: np.ndarray
    class_spread: np.ndarray
    grey_mean: np.ndarray
    grey_basis: np.ndarray
    class_grey: np.ndarray
    basis: str

    def align(self, points: np.ndarray) -> Alignment:
        """Where the heads of (n, 478, 3) points stand, by the points that expression hardly moves."""
        return align(points, self.mean, weights=self.rigid)

    def encode(self, aligned: np.ndarray) -> dict[str, np.ndarray]:
        """Split faces into identity and expression: the posterior mean of both kinds of codes.

        Both have prior N(0, 1); what the codes do not hold (FaceMesh's noise, its distortion by pose) is in the
        encoder as further variance, so codes are drawn towards 0 by as much as one photograph leaves open.

        Parameters
        ----------
        aligned : (n, 478, 3)
            From :meth:`align`.

        Returns
        -------
        ``{"shape": (n, ks), "expression": (n, ke)}``, float64.
        """
        codes = np.tensordot(np.asarray(aligned, float) - self.mean, self.encoder, axes=([1, 2], [1, 2]))
        ks = len(self.shape_basis)
        return {"shape": codes[:, :ks], "expression": codes[:, ks:]}

    def decode(self, shape: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """(n, 478, 3) faces of codes (n, ks) and (n, ke), in the frame of the mean face."""
        return (
            self.mean
            + np.tensordot(shape, self.shape_basis, axes=1)
            + np.tensordot(expression, self.expression_basis, axes=1)
        )


def load(path: Path | None = None, *, sha256: str | None = None) -> FaceModel:
    """The face model: the embedded one, or another file of the same format.

    Parameters
    ----------
    path : Path, optional
        The embedded file by default.
    sha256 : str, optional
        Digest that the file must have; known for the embedded one.

    Raises
    ------
    ModelError : no such file, another digest or format version, or not a face model at all.
    """
    return _embedded() if path is None else _read(Path(path), sha256)


@lru_cache(maxsize=1)
def _embedded() -> FaceModel:
    return _read(EMBEDDED, SHA256)


def _read(path: Path, sha256: str | None) -> FaceModel:
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ModelError(
            f"face model: expected a file at {path}, got {exc.strerror}; reinstall ig3d or rebuild it"
        ) from exc
    digest = hashlib.sha256(data).hexdigest()
    if sha256 and digest != sha256:
        raise ModelError(
            f"face model: expected {path.name} with SHA-256 {sha256[:12]}, got {digest[:12]}; reinstall ig3d"
        )
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as exc:  # zipfile, zlib, tokenize and numpy have no common base
        raise ModelError(f"face model: expected an npz of arrays, got {path.name}; rebuild it") from exc
    version = int(arrays.get("format_version", -1))
    if version != FORMAT_VERSION:
        raise ModelError(f"face model: expected format version {FORMAT_VERSION}, got {version}; rebuild it")
    try:
        return _build(arrays, basis=f"ig3d-face-{FORMAT_VERSION}:{digest[:12]}")
    except (KeyError, ValueError) as exc:
        raise ModelError(
            f"face model: expected all of its arrays, got {path.name} ({exc}); rebuild it"
        ) from exc


def _build(arrays: dict[str, np.ndarray], *, basis: str) -> FaceModel:
    real = {name: values.astype(float) for name, values in arrays.items() if values.dtype.kind == "f"}
    for name in ("shape_basis", "expression_basis", "encoder"):
        real[name] = real[name].reshape(-1, POINTS, 3)
    whole = {name: arrays[name].astype(np.intp) for name in ("mirror", "triangles", "part")}
    for values in (*real.values(), *whole.values()):
        values.flags.writeable = False
    names = set(FaceModel.__dataclass_fields__) - whole.keys() - {"classes", "basis"}
    return FaceModel(
        **{name: real[name] for name in names},
        **whole,
        classes=tuple(arrays["classes"].tolist()),
        basis=basis,
    )
