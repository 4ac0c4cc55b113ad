"""Embedded face model: the mean of 478 points, with linear bases for identity and expression.

Extraction aligns the landmarks of a face to the mean face and encodes them; :mod:`ig3d.faces.synth` decodes random
codes. Axes are those of FaceMesh: x right in the image, y down, z away from the camera. Lengths are in units of the
mean face's centroid size (the root of the summed squares of its centred points is 1). Rotations map the mean face,
which looks into the camera, to the photographed head; they act on column vectors.
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
# Hash of face_model.npz, which scripts/build_face_model.py writes; the script prints the hash.
SHA256 = "3db6becbebbbb1e7f0fbe9acff9be31f799d14e34f3ac2fe1aaef40e3ee53a42"
EMBEDDED = Path(__file__).with_name("face_model.npz")


@dataclass(frozen=True, slots=True)
class Alignment:
    """Position of n heads: ``points = scale * rotation @ aligned + translation`` for each of them.

    Attributes
    ----------
    rotation : (n, 3, 3)
        From the mean face to the photographed head.
    scale : (n,)
        Size of the head in the unit of the points (pixels), relative to the mean face.
    translation : (n, 3)
        Position of the mean face's origin, in the unit of the points.
    aligned : (n, p, 3)
        The points in the coordinates and scale of the mean face.
    """

    rotation: np.ndarray
    scale: np.ndarray
    translation: np.ndarray
    aligned: np.ndarray


def align(points: np.ndarray, reference: np.ndarray, *, weights: np.ndarray | None = None) -> Alignment:
    """Fit rotation, scale and translation between each face and a reference by weighted least squares.

    Parameters
    ----------
    points : (n, p, 3) array
        In any unit, the same for x, y and z.
    reference : (p, 3) array
    weights : (p,) array of numbers >= 0, optional
        Weights of the points; equal by default. :meth:`FaceModel.align` uses the model's ``rigid`` weights, which are
        large for points that expression hardly moves, so that opening the mouth does not change the pitch.

    Returns
    -------
    Alignment; NaN for a face with equal points or with a coordinate that is not finite.

    Raises
    ------
    ModelError : ``points`` and ``reference`` have incompatible shapes.

    References
    ----------
    Kabsch 1976; Umeyama 1991 (scale, and excluding reflections).
    """
    points = np.asarray(points, float)
    reference = np.asarray(reference, float)
    if points.ndim != 3 or points.shape[1:] != reference.shape or reference.shape[-1] != 3:
        raise ModelError(f"points: the shape is {points.shape} and must be (n, {len(reference)}, 3), n faces")
    weight = np.ones(len(reference)) if weights is None else np.asarray(weights, float)
    weight = weight / weight.sum()
    finite = np.isfinite(points).all(axis=(1, 2))
    safe = np.where(finite[:, None, None], points, 0.0)
    centre = np.einsum("p,npi->ni", weight, safe)
    reference_centre = weight @ reference
    centred, target = safe - centre[:, None], reference - reference_centre
    covariance = np.einsum("p,npi,pj->nij", weight, centred, target, optimize=True)
    left, singular, right = np.linalg.svd(covariance)
    sign = np.ones((len(points), 3))
    sign[:, 2] = np.sign(np.linalg.det(left @ right))
    rotation = (left * sign[:, None]) @ right
    # The scale is fitted from the face to the reference: fitted the other way, noise would shrink the faces.
    variance = np.einsum("p,npi,npi->n", weight, centred, centred, optimize=True)
    agreement = np.einsum("ni,ni->n", singular, sign)
    flat = ~finite | (variance <= 1e-18 * (safe**2).max(axis=(1, 2), initial=1e-200)) | (agreement <= 0)
    scale = np.where(flat, np.nan, variance / np.where(flat, 1.0, agreement))
    rotation = np.where(flat[:, None, None], np.nan, rotation)
    translation = centre - scale[:, None] * np.einsum("nij,j->ni", rotation, reference_centre)
    aligned = np.einsum("nji,npj->npi", rotation, centred) / scale[:, None, None] + reference_centre
    return Alignment(rotation, scale, translation, aligned)


@dataclass(frozen=True, slots=True, eq=False)
class FaceModel:
    """Linear face model: points = mean + shape @ shape_basis + expression @ expression_basis.

    Codes are in standard deviations: over persons for shape, within a person for expression.

    Attributes
    ----------
    mean : (478, 3)
        Mean face: centred, centroid size 1, left-right symmetric, looking into the camera.
    rigid : (478,)
        Weights of the points in the alignment; sum 1.
    mirror : (478,) int
        ``mirror[i]`` is the counterpart of point i on the other side of the face.
    triangles : (898, 3) int
        All have the same orientation.
    part : (898,) int
        Part of the face of each triangle: 0 skin, 1 eye, 2 inside of the mouth.
    shape_basis, expression_basis : (ks, 478, 3), (ke, 478, 3)
    encoder : (ks + ke, 478, 3)
        Linear map from the difference of a face to the mean to the posterior mean of its codes.
    classes : names of the seven expressions, in RAF-DB's order
    class_mean, class_spread : (7, ke), (ke, ke)
        Distribution of the expression codes of a class: normal, with this mean and this lower Cholesky factor of the
        covariance.
    grey_mean, grey_basis, class_grey : (478,), (kg, 478), (7, kg)
        Grey values 0..255 of the points in photographs: mean, basis of their variation, and mean codes of the classes.
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
        """Align (n, 478, 3) points to the mean face, mainly by points that expression hardly moves."""
        return align(points, self.mean, weights=self.rigid)

    def encode(self, aligned: np.ndarray) -> dict[str, np.ndarray]:
        """Compute shape and expression codes of faces, as posterior means.

        The prior of both is N(0, 1). The encoder models noise and pose distortion of FaceMesh as additional variance,
        so that codes are shrunk towards 0 in proportion to their uncertainty in one photograph.

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
        """(n, 478, 3) faces of codes (n, ks) and (n, ke), in the coordinates of the mean face."""
        return (
            self.mean
            + np.tensordot(shape, self.shape_basis, axes=1)
            + np.tensordot(expression, self.expression_basis, axes=1)
        )


def load(path: Path | None = None, *, sha256: str | None = None) -> FaceModel:
    """Load the embedded face model, or another file of the same format.

    Parameters
    ----------
    path : Path, optional
        Default: the embedded file.
    sha256 : str, optional
        Required hash of another file; that of the embedded one is always checked.

    Raises
    ------
    ModelError : the file is missing, has another hash or format version, or is no face model.
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
            f"face model: {path} cannot be read: {exc.strerror}; reinstall ig3d or rebuild the file"
        ) from exc
    digest = hashlib.sha256(data).hexdigest()
    if sha256 and digest != sha256:
        raise ModelError(
            f"face model: {path.name} has SHA-256 {digest[:12]}..., not {sha256[:12]}...; reinstall ig3d"
        )
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as exc:  # zipfile, zlib, tokenize and numpy have no common base
        raise ModelError(f"face model: {path.name} is no .npz file of arrays; rebuild it") from exc
    version = int(arrays.get("format_version", -1))
    if version != FORMAT_VERSION:
        raise ModelError(
            f"face model: {path.name} has format version {version}, not {FORMAT_VERSION}; rebuild it"
        )
    try:
        return _build(arrays, basis=f"ig3d-face-{FORMAT_VERSION}:{digest[:12]}")
    except (KeyError, ValueError) as exc:
        raise ModelError(
            f"face model: arrays of {path.name} are missing or wrong ({exc}); rebuild it"
        ) from exc


def _build(arrays: dict[str, np.ndarray], *, basis: str) -> FaceModel:
    real = {name: values.astype(float) for name, values in arrays.items() if values.dtype.kind == "f"}
    for name in ("shape_basis", "expression_basis", "encoder"):
        real[name] = real[name].reshape(-1, POINTS, 3)
    integers = {name: arrays[name].astype(np.intp) for name in ("mirror", "triangles", "part")}
    for values in (*real.values(), *integers.values()):
        values.flags.writeable = False
    names = set(FaceModel.__dataclass_fields__) - integers.keys() - {"classes", "basis"}
    return FaceModel(
        **{name: real[name] for name in names},
        **integers,
        classes=tuple(arrays["classes"].tolist()),
        basis=basis,
    )
