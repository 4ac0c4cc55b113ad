"""``sfd`` and ``sfd-box``: face-alignment's S3FD detector, batched; with the 68 points of its FAN, or boxes alone.

EMOCA and DECA crop by these points (commits fef5472, a11554a). The networks are face-alignment's own, read from files
of the user's; around them stand array operations instead of its loops over candidates, which grow with the square of
the batch.

References
----------
Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector" (2017); face-alignment 1.5.0, ``detection/sfd``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from face_alignment.detection.sfd.net_s3fd import s3fd
from torchvision.ops import batched_nms

from ...features.device import choose_device
from ...features.values import Face
from ..engine import exact_arithmetic
from . import choose_face
from .fan import Points
from .official import load_network

MIN_SCORE = 0.5
MAX_OVERLAP = 0.3
# Images of one size go through the network together, up to this many pixels; the first layers take 0.5 KB for each.
BATCH_PIXELS = 2_000_000
# The network halves an image five times; a smaller one is filled up with the mean colour.
_LEAST_SIDE = 32
_MEAN_BGR = (104.0, 117.0, 123.0)


class SfdBox:
    """Faces with a box and a score.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
    path : path, optional
        Of the detector's file; by default where ``ig3d weights`` or torch's cache has it.

    Raises
    ------
    WeightsError : the file is missing or holds something else.
    UsageError : there is no such device.
    """

    name = "sfd-box"

    def __init__(self, device: str = "auto", *, path: str | Path | None = None) -> None:
        self._device = choose_device(device)
        self.device = self._device.type
        with torch.device("meta"):
            network = s3fd()
        self._sha256 = load_network(network, "sfd", path)
        self._network = network.eval().to(self._device)

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": version("face-alignment"),
            "runtime": f"torch {version('torch')} {self.device}",
            "weights_sha256": self._sha256,
            "min_score": MIN_SCORE,
        }

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        found: list[list[Face]] = [[] for _ in images]
        for rows in _of_one_size(images):
            for row, faces in zip(rows, self._find([images[row] for row in rows]), strict=True):
                found[row] = faces
        return found

    def _find(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """Faces in images of one size, the surest first."""
        with torch.inference_mode(), exact_arithmetic(self._device):
            pixels = torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2).flip(1).float()
            mean = torch.tensor(_MEAN_BGR, device=self._device).view(1, 3, 1, 1)
            right, below = (max(0, _LEAST_SIDE - side) for side in (pixels.shape[3], pixels.shape[2]))
            centred = torch.nn.functional.pad(pixels - mean, (0, right, 0, below))
            boxes, scores, image = _candidates(self._network(centred))
            # the package counts a box's last pixel as part of it
            wide = boxes + torch.tensor([0.0, 0, 1, 1], dtype=boxes.dtype, device=boxes.device)
            kept = batched_nms(wide, scores, image, MAX_OVERLAP)
        at = image[kept].cpu().numpy()
        xyxy, score = boxes[kept].cpu().numpy(), scores[kept].cpu().numpy()
        return [
            [Face(xyxy[row], float(score[row])) for row in np.flatnonzero(at == place)]
            for place in range(len(images))
        ]


class Sfd(SfdBox):
    """Faces with a box and a score, and 68 points for the face that will be chosen.

    Parameters
    ----------
    device : str
    path, fan_path : path, optional
        Of the detector's and the points' file.

    Raises
    ------
    WeightsError : a file is missing or holds something else.
    UsageError : there is no such device.
    """

    name = "sfd"

    def __init__(
        self, device: str = "auto", *, path: str | Path | None = None, fan_path: str | Path | None = None
    ) -> None:
        super().__init__(device, path=path)
        self._points = Points(str(self._device), path=fan_path)

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "fan_sha256": self._points.sha256,
            "fan_runtime": self._points.runtime,
        }

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        found = super().__call__(images)
        rows = [row for row, faces in enumerate(found) if faces]
        # points are dear and the flow uses one face of an image
        chosen = [choose_face(found[row]) for row in rows]
        points = self._points([images[row] for row in rows], np.array([face.xyxy for face in chosen]))
        for row, face, marks in zip(rows, chosen, points, strict=True):
            found[row] = [replace(one, landmarks=marks) if one is face else one for one in found[row]]
        return found


def _of_one_size(images: Sequence[np.ndarray]) -> list[list[int]]:
    """Rows of images that go through the network together: equal size (padding would change what is found)."""
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        alike[image.shape].append(row)
    batches = []
    for (height, width, _), rows in alike.items():
        most = max(1, BATCH_PIXELS // (height * width))
        batches += [rows[start : start + most] for start in range(0, len(rows), most)]
    return batches


def _candidates(outputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes (m, 4) in pixels, scores (m,) and images (m,) of all places of all six scales that may show a face.

    ``outputs`` are pairs of (b, 2, h, w) logits and (b, 4, h, w) offsets from a box of four strides around the place.
    Only a surer box can displace one, so that those below the bar need not be decoded; the package drops them last.
    """
    boxes, scores, images = [], [], []
    for scale, (logits, offsets) in enumerate(zip(outputs[::2], outputs[1::2], strict=True)):
        stride = 4 << scale
        probability = torch.softmax(logits, dim=1)[:, 1]
        image, row, column = torch.nonzero(probability > MIN_SCORE, as_tuple=True)
        offset = offsets[image, :, row, column]
        place = torch.stack([column, row], dim=1).double() * stride + stride / 2
        centre = place + (0.1 * offset[:, :2]).double() * (4 * stride)
        size = torch.exp(0.2 * offset[:, 2:]).double() * (4 * stride)
        corner = centre - size / 2
        boxes.append(torch.cat([corner, corner + size], dim=1))
        scores.append(probability[image, row, column].double())
        images.append(image)
    return torch.cat(boxes), torch.cat(scores), torch.cat(images)
