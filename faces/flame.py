"""FLAME as a differentiable torch layer: codes to vertices, on any device.

Meshes and previews use it; extraction does not. Codes describe a head in FLAME's coordinates (metres, x to the image's
right, y up, z towards the camera); :func:`project` maps it to the crop of the regressor. Rotations are axis-angle
vectors in radians.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from ..errors import ModelError
from .flame_files import EXPRESSIONS, JOINTS, PARENTS, SHAPES, FlameModel

_WIDTHS = {"shape": None, "expression": None, "pose": 3, "jaw": 3, "eyelid": 2, "neck": 3, "eyes": 6}


@dataclass(frozen=True, slots=True)
class FlameCodes:
    """Codes of n heads, arrays or tensors; None means zero.

    Attributes
    ----------
    shape : (n, up to 300)
    expression : (n, up to 100)
    pose, jaw, neck : (n, 3) rad
        Rotation of the head, of the jaw relative to the head, and of the head relative to the trunk.
    eyes : (n, 6) rad
        Left eye, then right eye.
    eyelid : (n, 2)
        Closure of the left and the right lid; needs SMIRK's eyelids.
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
        """Codes from the blocks of ``smirk``, ``emoca`` or ``deca``; blocks that FLAME does not use are left out."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: values for name, values in blocks.items() if name in names})


class Flame:
    """FLAME layer.

    Parameters
    ----------
    model : FlameModel
    eyelids : (2, 5023, 3) array, optional
        Needed for codes with eyelids.
    dtype, device : type and device of all tensors

    Examples
    --------
    ``Flame(read_model("generic_model.pkl")).vertices(FlameCodes.from_blocks(blocks))``
    """

    def __init__(
        self,
        model: FlameModel,
        *,
        eyelids: np.ndarray | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        self.dtype, self.device = dtype, torch.device(device)
        self.triangles = torch.as_tensor(model.triangles, device=self.device)
        self._template = self.tensor(model.template)
        # (v * 3, columns), so that each basis is one matrix product
        self._shape = self.tensor(model.shape_basis).reshape(-1, SHAPES)
        self._expression = self.tensor(model.expression_basis).reshape(-1, EXPRESSIONS)
        self._pose = self.tensor(model.pose_basis).reshape(-1, 9 * (JOINTS - 1))
        self._regressor = self.tensor(model.joint_regressor)
        self._skinning = self.tensor(model.skinning)
        self._eyelids = None if eyelids is None else self.tensor(eyelids)

    @property
    def has_eyelids(self) -> bool:
        """Whether the layer accepts codes with eyelids."""
        return self._eyelids is not None

    def tensor(self, values: Any) -> torch.Tensor:
        """``values`` as a tensor with the type and device of the layer."""
        return torch.as_tensor(values, dtype=self.dtype, device=self.device)

    def vertices(self, codes: FlameCodes) -> torch.Tensor:
        """(n, 5023, 3) posed vertices in metres.

        Raises
        ------
        ModelError : codes have a wrong width or unequal lengths, or have eyelids that were not loaded.
        """
        blocks = self._blocks(codes)
        count = len(next(iter(blocks.values())))
        shaped = self._template + sum(
            (
                (blocks[name] @ basis[:, : blocks[name].shape[1]].T).reshape(count, -1, 3)
                for name, basis in (("shape", self._shape), ("expression", self._expression))
                if name in blocks
            ),
            torch.zeros((count, 1, 3), dtype=self.dtype, device=self.device),
        )
        rotations = self._rotations(blocks, count)
        eye = torch.eye(3, dtype=self.dtype, device=self.device)
        pose_features = (rotations[:, 1:] - eye).reshape(count, -1)
        corrected = shaped + (pose_features @ self._pose.T).reshape(count, -1, 3)
        transforms = _chain(rotations, self._regressor @ shaped)
        per_vertex = (self._skinning @ transforms.reshape(count, JOINTS, 12)).reshape(count, -1, 3, 4)
        posed = (per_vertex[..., :3] @ corrected[..., None])[..., 0] + per_vertex[..., 3]
        if "eyelid" in blocks:
            # as in SMIRK, the offsets of the lids do not rotate with the head
            assert self._eyelids is not None
            posed = posed + torch.einsum("nl,lvc->nvc", blocks["eyelid"], self._eyelids)
        return posed

    def _blocks(self, codes: FlameCodes) -> dict[str, torch.Tensor]:
        """Blocks that are not None, as checked tensors."""
        blocks = {
            field.name: self.tensor(getattr(codes, field.name))
            for field in fields(codes)
            if getattr(codes, field.name) is not None
        }
        lengths = {len(values) for values in blocks.values()}
        if len(lengths) != 1:
            raise ModelError(f"flame: blocks have different numbers of heads: {sorted(lengths)}")
        for name, values in blocks.items():
            width = _WIDTHS[name]
            most = {"shape": SHAPES, "expression": EXPRESSIONS}.get(name, width)
            if values.ndim != 2 or values.shape[1] > (most or 0) or (width and values.shape[1] != width):
                raise ModelError(
                    f"flame: the shape of the {name} codes is {tuple(values.shape)}; it must be "
                    f"(n, {'' if width else 'at most '}{most})"
                )
        if "eyelid" in blocks and self._eyelids is None:
            raise ModelError(
                "flame: codes with eyelids need SMIRK's eyelids; pass eyelids to Flame or leave out the block"
            )
        return blocks

    def _rotations(self, blocks: Mapping[str, torch.Tensor], count: int) -> torch.Tensor:
        """(n, 5, 3, 3) rotations of root, neck, jaw, left and right eye."""
        zero = torch.zeros((count, 6), dtype=self.dtype, device=self.device)
        vectors = torch.cat(
            [blocks.get(name, zero[:, : _WIDTHS[name]]) for name in ("pose", "neck", "jaw", "eyes")], dim=1
        )
        return rotation_matrices(vectors.reshape(count, JOINTS, 3))


def rotation_matrices(vectors: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) rotations of (..., 3) axis-angle vectors (rad), by Rodrigues' formula.

    As in the layers of SMPL and FLAME, 1e-8 is added to the vector before its norm is taken, so that the zero vector
    gives the identity.
    """
    angle = torch.linalg.vector_norm(vectors + 1e-8, dim=-1)[..., None, None]
    x, y, z = (vectors / angle[..., 0]).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return eye + torch.sin(angle) * cross + (1 - torch.cos(angle)) * (cross @ cross)


def project(points: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
    """Project (n, p, 3) points with (n, 3) weak-perspective cameras (scale, tx, ty): translate, then scale.

    Returns
    -------
    (n, p, 3) : x right and y down in [-1, 1] over the crop, z away from the camera
    """
    shift = torch.nn.functional.pad(camera[:, None, 1:], (0, 1))
    flip = torch.tensor([1.0, -1.0, -1.0], dtype=points.dtype, device=points.device)
    return (points + shift) * camera[:, :1, None] * flip


def to_image(projected: torch.Tensor | np.ndarray, crop_boxes: np.ndarray, *, size: int = 224) -> np.ndarray:
    """Convert projected points to pixels of the images.

    Parameters
    ----------
    projected : (n, p, 3) from :func:`project`
    crop_boxes : (n, 4) from a store
        x0, y0, x1, y1 of the centres of the crop's corner pixels, in pixels of the image.
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
    """(n, 5, 3, 4) transforms of the joints: rotations (n, 5, 3, 3) about (n, 5, 3), composed along the parents."""
    world, origins = [rotations[:, 0]], [joints[:, 0]]
    for joint, parent in enumerate(PARENTS[1:], start=1):
        step = joints[:, joint] - joints[:, parent]
        world.append(world[parent] @ rotations[:, joint])
        origins.append(origins[parent] + (world[parent] @ step[..., None])[..., 0])
    rotation, origin = torch.stack(world, dim=1), torch.stack(origins, dim=1)
    return torch.cat([rotation, (origin - (rotation @ joints[..., None])[..., 0])[..., None]], dim=-1)
