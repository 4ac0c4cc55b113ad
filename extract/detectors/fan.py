"""FAN, the 2D landmark network of face-alignment: 68 points of one face in each image.

References
----------
Bulat and Tzimiropoulos, "How far are we from solving the 2D & 3D Face Alignment problem?" (2017); face-alignment 1.5.0,
``api.py``, with ``flip_input=False`` as EMOCA and DECA call it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from face_alignment.models import FAN
from face_alignment.utils import crop
from torch import nn

from ...features.device import device_kind
from ..engine import load_module
from ..weights import find_weights, weights_sha256
from .official import load_network

POINTS = 68
BATCH = {"cpu": 4, "cuda": 16}
SIDE = 256  # side of a crop, pixels
# A crop covers 200 * scale pixels of the image; scale = (width + height of the face) / 195
_REFERENCE, _SPAN, _CENTRE_UP = 195, 200, 0.12
STAGES = 4  # of the released network; the output of the last one is used


class Points:
    """FAN with the weights of its official file.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda:0``, ...
    path : path, optional
        Weights file; default: the one that ``ig3d weights`` lists.

    Raises
    ------
    WeightsError : the file is missing or is not the official one.
    """

    def __init__(self, device: str, *, path: str | Path | None = None) -> None:
        file = find_weights("fan2d") if path is None else Path(path)
        sha256 = weights_sha256(file)
        self._network = load_module(
            lambda: _Peaks(file),
            key=f"{STAGES} stages {sha256}",
            name=f"fan2d ({file.name})",
            inputs=[((SIDE, SIDE, 3), "uint8")],
            batch=BATCH[device_kind(device)],
            device=device,
            backend="openvino" if device == "cpu" else "torch",
        )

    def __call__(self, images: Sequence[np.ndarray], xyxy: np.ndarray) -> np.ndarray:
        """Landmarks of one face in each image.

        Parameters
        ----------
        images : n arrays (H, W, 3) uint8 RGB
        xyxy : (n, 4) boxes of the detector, pixels

        Returns
        -------
        (n, 68, 2) float32, integer pixels
        """
        if not len(images):
            return np.empty((0, POINTS, 2), np.float32)
        centre, scale = _frames(np.asarray(xyxy, float))
        crops = np.stack([crop(*frame) for frame in zip(images, centre, scale, strict=True)])
        return _to_image(self._network(crops)[0], centre, scale)


class _Peaks(nn.Module):
    """Module that maps (n, 256, 256, 3) uint8 crops to landmarks."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        with torch.device("meta"):
            self.network = FAN(STAGES)
        load_network(self.network, "fan2d", file)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        return peaks(self.network(crops.permute(0, 3, 1, 2).float() / 255)[-1])


def _frames(xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (n, 2) and scales (n,) of FAN's crops."""
    size = xyxy[:, 2:] - xyxy[:, :2]
    centre = xyxy[:, 2:] - size / 2
    centre[:, 1] -= _CENTRE_UP * size[:, 1]
    return centre, size.sum(1) / _REFERENCE


def peaks(heatmaps: torch.Tensor) -> torch.Tensor:
    """(n, p, 2) positions of the maxima of (n, p, s, s) heat maps, in cells.

    A maximum is moved by a quarter of a cell towards the higher neighbour, except on the border. The centre of the
    first cell is at 0.5.
    """
    side = heatmaps.shape[-1]
    flat = heatmaps.flatten(2)
    best = flat.argmax(2)
    x, y = best % side, best // side
    inside = (x > 0) & (x < side - 1) & (y > 0) & (y < side - 1)

    def slope(step: int) -> torch.Tensor:
        after, before = (best + step).clamp(max=side * side - 1), (best - step).clamp(min=0)
        return torch.sign(flat.gather(2, after[..., None]) - flat.gather(2, before[..., None]))[..., 0]

    moved = 0.25 * torch.stack([slope(1), slope(side)], dim=-1) * inside[..., None]
    return torch.stack([x, y], dim=-1) + 0.5 + moved


def _to_image(cells: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(n, 68, 2) pixels of the image, truncated to integers as in face-alignment."""
    side = 64  # cells of a heat map
    span = (_SPAN * scale)[:, None, None]
    return np.trunc((cells.astype(float) / side - 0.5) * span + centre[:, None]).astype(np.float32)
