"""FLAME as a layer in torch: codes to vertices and landmarks, on any device, differentiable.

Needed for meshes and previews, never for codes. Codes describe a head in FLAME's frame (metres, x to the image's
right, y up, z towards the camera); :func:`project` puts it into the crop that the codes were made from. Rotations are
axis-angle vectors in radians.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from ..errors import ModelError
from .flame_files import EXPRESSIONS, JOINTS, PARENTS, SHAPES, FlameModel, LandmarkTable, SurfacePoints

_WIDTHS = {"shape": None, "expression": None, "pose": 3, "jaw": 3, "eyelid": 2, "neck": 3, "eyes": 6}
_MOST_YAW = 39


@dataclass(frozen=True, slots=True)
class FlameCodes:
    """Codes of n heads, arrays or tensors; what is None counts as zero.

    Attributes
    ----------
    shape : (n, up to 300)
    expression : (n, up to 100)
    pose, jaw, neck : (n, 3) rad
        Rotations of the head, the jaw against the head, the head against the trunk.
    eyes : (n, 6) rad
        Left, then right.
    eyelid : (n, 2)
        How far the left and the right lid are closed; needs SMIRK's eyelids.
    """

    shape: Any = None
    expression: Any = None
    pose: Any = None
    jaw: Any = None
    eyelid: Any = None
    neck: Any = None
    eyes: Any = None

    @classmethod
    def from_blocks(cls, blocks: Mapping[str, np.ndarray]) -> FlameCodes:
        """The blocks of a store that a FLAME regressor (``smirk``, ``emoca``, ``deca``) wrote; others are left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: values for name, values in blocks.items() if name in known})


class Flame:
    """The layer.

    Parameters
    ----------
    model : FlameModel
    landmarks : LandmarkTable, optional
        For 68 landmarks.
    mediapipe : SurfacePoints, optional
        For 105 landmarks.
    eyelids : (2, 5023, 3) array, optional
        For codes with eyelids.
    dtype, device : of everything it gives

    Examples
    --------
    ``Flame(read_model("generic_model.pkl")).vertices(FlameCodes.from_blocks(blocks))``
    """

    def __init__(
        self,
        model: FlameModel,
        *,
        landmarks: LandmarkTable | None = None,
        mediapipe: SurfacePoints | None = None,
        eyelids: np.ndarray | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        self.dtype, self.device = dtype, torch.device(device)
        self.triangles = torch.as_tensor(model.triangles, device=self.device)
        self._template = self.tensor(model.template)
        # (v * 3, columns): one matrix product per basis
        self._shape = self.tensor(model.shape_basis).reshape(-1, SHAPES)
        self._expression = self.tensor(model.expression_basis).reshape(-1, EXPRESSIONS)
        self._pose = self.tensor(model.pose_basis).reshape(-1, 9 * (JOINTS - 1))
        self._regressor = self.tensor(model.joint_regressor)
        self._skinning = self.tensor(model.skinning)
        self._eyelids = None if eyelids is None else self.tensor(eyelids)
        self._landmarks = landmarks
        self._mediapipe = mediapipe

    @property
    def has_eyelids(self) -> bool:
        """Whether codes may have eyelids."""
        return self._eyelids is not None

    def tensor(self, values: Any) -> torch.Tensor:
        """``values`` with the layer's type, on its device."""
        return torch.as_tensor(values, dtype=self.dtype, device=self.device)

    def vertices(self, codes: FlameCodes) -> torch.Tensor:
        """(n, 5023, 3) vertices in metres, posed.

        Raises
        ------
        ModelError : codes of a width FLAME does not have, of unequal length, or with eyelids that were not loaded.
        """
        given = self._given(codes)
        count = len(next(iter(given.values())))
        shaped = self._template + sum(
            (
                (given[name] @ basis[:, : given[name].shape[1]].T).reshape(count, -1, 3)
                for name, basis in (("shape", self._shape), ("expression", self._expression))
                if name in given
            ),
            torch.zeros((count, 1, 3), dtype=self.dtype, device=self.device),
        )
        rotations = self._rotations(given, count)
        eye = torch.eye(3, dtype=self.dtype, device=self.device)
        bent = (rotations[:, 1:] - eye).reshape(count, -1)
        corrected = shaped + (bent @ self._pose.T).reshape(count, -1, 3)
        moves = _chain(rotations, self._regressor @ shaped)
        per_vertex = (self._skinning @ moves.reshape(count, JOINTS, 12)).reshape(count, -1, 3, 4)
        posed = (per_vertex[..., :3] @ corrected[..., None])[..., 0] + per_vertex[..., 3]
        if "eyelid" in given:
            # as SMIRK does: the lids' offsets are not turned with the head
            assert self._eyelids is not None
            posed = posed + torch.einsum("nl,lvc->nvc", given["eyelid"], self._eyelids)
        return posed

    def landmarks68(self, vertices: torch.Tensor, codes: FlameCodes) -> torch.Tensor:
        """(n, 68, 3) landmarks: 17 along the visible edge of the turned head, 51 that stay on their places."""
        table = self._table()
        rotations = self._rotations(self._given(codes), len(vertices))
        rows = contour_rows(rotations[:, 0] @ rotations[:, 1]).cpu().numpy()
        contour = SurfacePoints(table.contour.triangle[rows], table.contour.weights[rows])
        return torch.cat(
            [self._on_surface(vertices, contour), self._on_surface(vertices, table.inner)], dim=1
        )

    def landmarks68_still(self, vertices: torch.Tensor) -> torch.Tensor:
        """(n, 68, 3) landmarks that stay on their places of the head."""
        return self._on_surface(vertices, self._table().still)

    def landmarks105(self, vertices: torch.Tensor) -> torch.Tensor:
        """(n, 105, 3) landmarks that correspond to points of MediaPipe's mesh."""
        if self._mediapipe is None:
            raise ModelError(
                "flame: expected the MediaPipe landmark embedding for 105 landmarks, got none; give it"
            )
        return self._on_surface(vertices, self._mediapipe)

    def _table(self) -> LandmarkTable:
        if self._landmarks is None:
            raise ModelError("flame: expected the landmark embedding for 68 landmarks, got none; give it")
        return self._landmarks

    def _on_surface(self, vertices: torch.Tensor, points: SurfacePoints) -> torch.Tensor:
        """(n, p, 3) from (n, v, 3); the points are (p,), or (n, p) where each head has its own."""
        corners = self.triangles[torch.as_tensor(points.triangle, device=self.device)]
        if corners.ndim == 3:
            at = torch.arange(len(vertices), device=self.device)[:, None, None]
            found = vertices[at, corners]
        else:
            found = vertices[:, corners]
        return (found * self.tensor(points.weights)[..., None]).sum(-2)

    def _given(self, codes: FlameCodes) -> dict[str, torch.Tensor]:
        given = {
            field.name: self.tensor(getattr(codes, field.name))
            for field in fields(codes)
            if getattr(codes, field.name) is not None
        }
        lengths = {len(values) for values in given.values()}
        if len(lengths) != 1:
            raise ModelError(f"flame: expected codes of as many heads in each block, got {sorted(lengths)}")
        for name, values in given.items():
            width = _WIDTHS[name]
            most = {"shape": SHAPES, "expression": EXPRESSIONS}.get(name, width)
            if values.ndim != 2 or values.shape[1] > (most or 0) or (width and values.shape[1] != width):
                raise ModelError(
                    f"flame: expected {name} codes (n, {'' if width else 'at most '}{most}), got {tuple(values.shape)}"
                )
        if "eyelid" in given and self._eyelids is None:
            raise ModelError(
                "flame: expected SMIRK's eyelids for codes with eyelids, got none; give them or leave out the block"
            )
        return given

    def _rotations(self, given: Mapping[str, torch.Tensor], count: int) -> torch.Tensor:
        """(n, 5, 3, 3) of root, neck, jaw, left and right eye."""
        none = torch.zeros((count, 6), dtype=self.dtype, device=self.device)
        vectors = torch.cat(
            [given.get(name, none[:, : _WIDTHS[name]]) for name in ("pose", "neck", "jaw", "eyes")], dim=1
        )
        return rotation_matrices(vectors.reshape(count, JOINTS, 3))


def rotation_matrices(vectors: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) rotations of (..., 3) axis-angle vectors (rad), by Rodrigues' formula.

    The small number inside the norm is that of SMPL's and FLAME's layers: it makes the zero vector the identity and
    moves others by 1e-8.
    """
    angle = torch.linalg.vector_norm(vectors + 1e-8, dim=-1)[..., None, None]
    x, y, z = (vectors / angle[..., 0]).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return eye + torch.sin(angle) * cross + (1 - torch.cos(angle)) * (cross @ cross)


def contour_rows(rotation: torch.Tensor) -> torch.Tensor:
    """(n,) rows of the contour's table for heads turned by (n, 3, 3).

    Rows 0..39 are for 0..39 degrees of yaw, 40..78 for -1..-39; beyond, the last of each.
    The sign is that of SMIRK's, DECA's and EMOCA's layers (FLAME_PyTorch's has the other).
    """
    yaw = torch.rad2deg(torch.atan2(-rotation[:, 2, 0], torch.hypot(rotation[:, 0, 0], rotation[:, 1, 0])))
    degrees = yaw.round().clamp(-_MOST_YAW, _MOST_YAW).long()
    return torch.where(degrees >= 0, degrees, _MOST_YAW - degrees)


def project(points: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
    """(n, p, 3) points seen by (n, 3) weak-perspective cameras (scale, tx, ty): moved, then scaled.

    Returns
    -------
    (n, p, 3) : x right and y down in [-1, 1] over the crop, z away from the camera
    """
    shift = torch.nn.functional.pad(camera[:, None, 1:], (0, 1))
    flip = torch.tensor([1.0, -1.0, -1.0], dtype=points.dtype, device=points.device)
    return (points + shift) * camera[:, :1, None] * flip


def to_image(projected: torch.Tensor | np.ndarray, crop_boxes: np.ndarray, *, size: int = 224) -> np.ndarray:
    """Projected points as pixels of the images.

    Parameters
    ----------
    projected : (n, p, 3) as :func:`project` gives them
    crop_boxes : (n, 4) as a store holds them
        x0, y0, x1, y1 of the points under the centres of the crop's corner pixels, pixels of the image.
    size : side of the crop, pixels

    Returns
    -------
    (n, p, 3) float64 : pixels; z in the same unit
    """
    crop = np.asarray(projected, float) * (size / 2)
    crop[..., :2] += size / 2
    boxes = np.asarray(crop_boxes, float)[:, None]
    zoom = (boxes[..., 2:] - boxes[..., :2]) / (size - 1)
    pixels = np.empty_like(crop)
    pixels[..., :2] = boxes[..., :2] + crop[..., :2] * zoom
    pixels[..., 2] = crop[..., 2] * np.sqrt(zoom.prod(axis=-1))
    return pixels


def _chain(rotations: torch.Tensor, joints: torch.Tensor) -> torch.Tensor:
    """(n, 5, 3, 4) moves of the joints: rotations (n, 5, 3, 3) about (n, 5, 3), each carried along by its parent's."""
    turns, places = [rotations[:, 0]], [joints[:, 0]]
    for joint, parent in enumerate(PARENTS[1:], start=1):
        step = joints[:, joint] - joints[:, parent]
        turns.append(turns[parent] @ rotations[:, joint])
        places.append(places[parent] + (turns[parent] @ step[..., None])[..., 0])
    turn, place = torch.stack(turns, dim=1), torch.stack(places, dim=1)
    return torch.cat([turn, (place - (turn @ joints[..., None])[..., 0])[..., None]], dim=-1)
