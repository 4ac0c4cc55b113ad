"""``sfd`` and ``sfd-box``: face-alignment's S3FD detector, batched, with 68 FAN landmarks or with boxes only.

EMOCA and DECA crop by these landmarks (commits fef5472, a11554a). The networks are those of face-alignment, with
weights from the user's files. Candidates are processed with array operations; the time of face-alignment's loops grows
with the square of the batch size.

References
----------
Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector" (2017); face-alignment 1.5.0, ``detection/sfd``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from face_alignment.detection.sfd.net_s3fd import s3fd
from torchvision.ops import batched_nms

from ...features.values import Face
from ..engine import runtime_of
from ..runtime import exact_arithmetic
from . import Detector, choose_face
from .fan import POINTS, Points
from .official import load_network

MIN_SCORE = 0.5
MAX_OVERLAP = 0.3
# Most pixels of a batch, which contains images of one size; the first layers take 0.5 KB for each pixel.
BATCH_PIXELS = 2_000_000
# The network halves the resolution five times; smaller images are padded with the mean colour.
_MIN_SIDE = 32
_MEAN_BGR = (104.0, 117.0, 123.0)


class SfdBox(Detector):
    """Detector of faces with a box and a score.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda:0``, ...
    path : path, optional
        Weights file of the detector; default: the one that ``ig3d weights`` lists, or the one in torch's cache.

    Raises
    ------
    WeightsError : the file is missing or is not the official one.
    """

    name = "sfd-box"
    licence = "BSD-3 (face-alignment)"
    gpu = True
    packages = ("face_alignment", "torch")
    weights: ClassVar[tuple[str, ...]] = ("sfd",)

    def __init__(self, device: str = "cpu", *, path: str | Path | None = None) -> None:
        super().__init__(device)
        self._device = torch.device(device)
        with torch.device("meta"):
            network = s3fd()
        load_network(network, "sfd", path)
        self._network = network.eval().to(self._device)

    @classmethod
    def describe(cls, device: str = "cpu", precision: str = "fp32") -> dict[str, Any]:
        return {**super().describe(device, precision), "min_score": MIN_SCORE}

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        faces: list[list[Face]] = [[] for _ in images]
        for rows in _of_one_size(images):
            for row, detected in zip(rows, self._find([images[row] for row in rows]), strict=True):
                faces[row] = detected
        return faces

    def _find(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """Faces of images of equal size, highest score first."""
        with torch.inference_mode(), exact_arithmetic():
            pixels = torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2).flip(1).float()
            mean = torch.tensor(_MEAN_BGR, device=self._device).view(1, 3, 1, 1)
            right, below = (max(0, _MIN_SIDE - side) for side in (pixels.shape[3], pixels.shape[2]))
            centred = torch.nn.functional.pad(pixels - mean, (0, right, 0, below))
            boxes, scores, image = _candidates(self._network(centred))
            # face-alignment counts the last pixel as part of a box
            inclusive = boxes + torch.tensor([0.0, 0, 1, 1], dtype=boxes.dtype, device=boxes.device)
            kept = batched_nms(inclusive, scores, image, MAX_OVERLAP)
        at = image[kept].cpu().numpy()
        xyxy, score = boxes[kept].cpu().numpy(), scores[kept].cpu().numpy()
        return [
            [Face(xyxy[row], float(score[row])) for row in np.flatnonzero(at == index)]
            for index in range(len(images))
        ]


class Sfd(SfdBox):
    """Detector of faces with a box and a score, and 68 landmarks for the face that :func:`choose_face` chooses.

    Parameters
    ----------
    device : str
    path, fan_path : path, optional
        Weights files of the detector and of FAN.

    Raises
    ------
    WeightsError : a file is missing or is not the official one.
    """

    name = "sfd"
    weights = ("sfd", "fan2d")
    landmarks = POINTS

    def __init__(
        self, device: str = "cpu", *, path: str | Path | None = None, fan_path: str | Path | None = None
    ) -> None:
        super().__init__(device, path=path)
        self._points = Points(device, path=fan_path)

    @classmethod
    def runtime(cls, device: str, precision: str) -> str:
        return f"{super().runtime(device, precision)}, {runtime_of(device)}"

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        faces = super().__call__(images)
        rows = [row for row, detected in enumerate(faces) if detected]
        # FAN is slow, and the extraction uses only one face of an image
        chosen = [choose_face(faces[row]) for row in rows]
        points = self._points([images[row] for row in rows], np.array([face.xyxy for face in chosen]))
        for row, best, landmarks in zip(rows, chosen, points, strict=True):
            faces[row] = [replace(face, landmarks=landmarks) if face is best else face for face in faces[row]]
        return faces


def _of_one_size(images: Sequence[np.ndarray]) -> list[list[int]]:
    """Batches of rows of images of equal size; padding would change the detections."""
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        by_shape[image.shape].append(row)
    batches = []
    for (height, width, _), rows in by_shape.items():
        size = max(1, BATCH_PIXELS // (height * width))
        batches += [rows[start : start + size] for start in range(0, len(rows), size)]
    return batches


def _candidates(outputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Detections before non-maximum suppression: boxes (m, 4) in pixels, scores (m,) and image indices (m,).

    ``outputs`` are, for each of six scales, (b, 2, h, w) logits and (b, 4, h, w) offsets from an anchor box of four
    strides. Boxes with a low score are dropped first, unlike in face-alignment: they never suppress other boxes.
    """
    boxes, scores, images = [], [], []
    for scale, (logits, offsets) in enumerate(zip(outputs[::2], outputs[1::2], strict=True)):
        stride = 4 << scale
        probability = torch.softmax(logits, dim=1)[:, 1]
        image, row, column = torch.nonzero(probability > MIN_SCORE, as_tuple=True)
        offset = offsets[image, :, row, column]
        anchor = torch.stack([column, row], dim=1).double() * stride + stride / 2
        centre = anchor + (0.1 * offset[:, :2]).double() * (4 * stride)
        size = torch.exp(0.2 * offset[:, 2:]).double() * (4 * stride)
        corner = centre - size / 2
        boxes.append(torch.cat([corner, corner + size], dim=1))
        scores.append(probability[image, row, column].double())
        images.append(image)
    return torch.cat(boxes), torch.cat(scores), torch.cat(images)
