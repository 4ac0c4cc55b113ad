"""``facemesh``: MediaPipe's face detector, 478-point mesh (V2) and 52 blendshapes, batched over images.

The networks come from the official Face Landmarker bundle; the steps between them follow MediaPipe 0.10 and 1.x.

References
----------
Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs" (2019).
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ...features.values import Face
from ..engine import Network, load_tflite, runtime_of
from ..regions import Regions, crop
from ..weights import find_weights
from . import Detector, blazeface

POINTS = 478
_MESH_SIDE = 256  # pixels of the mesh network's input
# Side of a face's region over the longer side of its box.
_REGION = 1.5
# The detector often misses a face that fills the image: such images are tried again with a black border of this width,
# relative to the longer side.
_PADDING = 0.25
_SIGNED = np.linspace(-1, 1, 256, dtype=np.float32)
_UNIT = np.linspace(0, 1, 256, dtype=np.float32)
# Input points of the blendshape network.
BLENDSHAPE_POINTS = np.array([
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78,
    80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150,
    152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197,
    234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308,
    310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377,
    378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466,
    468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
])  # fmt: skip
# Batch sizes on the CPU; a small batch wastes less work when few images or faces remain.
_GRAPHS = {"face_detector": 4, "face_landmarks_detector": 4, "face_blendshapes": 8}
_CUDA_BATCH = 64


class FaceMesh(Detector):
    """Detector of faces with a score, 478 points in pixels (z increases away from the camera) and 52 blendshape scores.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda:0``, ...
    backend : {"openvino", "torch"}, optional
        Default: chosen by the engine for the device.

    Raises
    ------
    MissingExtra : a package is not installed.
    WeightsError : the file of the networks is missing and cannot be downloaded, or is not the official one.
    """

    name = "facemesh"
    version = "2"
    licence = "Apache-2.0 (Google)"
    # many CPU processes that detect and crop are faster than one that prepares crops for a GPU
    gpu = False
    weights = ("facemesh",)
    landmarks = POINTS
    blendshapes = True
    min_detection: ClassVar[float] = 0.5
    min_presence: ClassVar[float] = 0.3
    max_faces: ClassVar[int] = 5

    def __init__(self, device: str = "cpu", *, backend: str | None = None) -> None:
        super().__init__(device)
        with zipfile.ZipFile(find_weights("facemesh")) as bundle:
            self._detector, self._mesh, self._blendshapes = (
                load_tflite(
                    bundle.read(f"{name}.tflite"),
                    name=name,
                    batch=batch if device == "cpu" else _CUDA_BATCH,
                    device=device,
                    backend=backend,
                )
                for name, batch in _GRAPHS.items()
            )

    @classmethod
    def runtime(cls, device: str, precision: str) -> str:
        return runtime_of(device)

    @classmethod
    def describe(cls, device: str = "cpu", precision: str = "fp32") -> dict[str, Any]:
        return {
            **super().describe(device, precision),
            "max_faces": cls.max_faces,
            "min_detection": cls.min_detection,
            "min_presence": cls.min_presence,
            "padding": _PADDING,
        }

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        if not images:
            return []
        faces = self._find(images)
        missed = [row for row, detected in enumerate(faces) if not detected]
        if missed:
            retried = self._find([images[row] for row in missed], padded=True)
            for row, detected in zip(missed, retried, strict=True):
                faces[row] = detected
        return faces

    def _find(self, images: Sequence[np.ndarray], *, padded: bool = False) -> list[list[Face]]:
        """Faces of images, best first, in pixels of the images; ``padded`` adds a black border before detection."""
        faces: list[list[Face]] = [[] for _ in images]
        image, keypoints, scores, best = self._detect(images, padded=padded)
        regions = _face_regions(keypoints)
        done = np.zeros(len(image), bool)
        # try the best detection of each face first; if the mesh network rejects it, the next one of the same face
        rank = np.array([np.count_nonzero(best[:row] == best[row]) for row in range(len(best))], int)
        for attempt in range(rank.max(initial=-1) + 1):
            rows = np.flatnonzero((rank == attempt) & ~done[best])
            if not len(rows):
                break
            meshes, presence, *_ = _run(
                self._mesh,
                [images[index] for index in image[rows]],
                regions[rows],
                size=_MESH_SIDE,
                values=_UNIT,
                replicate=not padded,
            )
            present = _sigmoid(presence.reshape(len(rows))) > self.min_presence
            rows, meshes = rows[present], meshes[present].reshape(-1, POINTS, 3)
            done[best[rows]] = True
            points = regions[rows].to_image(meshes / np.float32(_MESH_SIDE))
            (blendshapes,) = self._blendshapes(points[:, BLENDSHAPE_POINTS, :2])
            boxes = np.concatenate([points[..., :2].min(1), points[..., :2].max(1)], axis=1)
            for index, box, score, mesh, values in zip(
                image[rows], boxes, scores[rows], points, blendshapes.reshape(-1, 52), strict=True
            ):
                faces[index].append(Face(box, float(score), mesh, values))
        return [_distinct(detected) for detected in faces]

    def _detect(
        self, images: Sequence[np.ndarray], *, padded: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Detections of images, best first in each image.

        Returns
        -------
        (k,) indices of the images, (k, 8, 2) points of the detections in pixels, (k,) scores, (k,) rows of the best
        detection of the same face
        """
        size_wh = np.array([image.shape[1::-1] for image in images], np.float32).reshape(-1, 2)
        longer = size_wh.max(axis=1)
        side = longer + 2 * np.maximum(np.rint(_PADDING * longer), 1) if padded else longer
        square = Regions(size_wh / 2, side, np.zeros(len(images), np.float32))
        values, logits = _run(
            self._detector, images, square, size=blazeface.SIDE, values=_SIGNED, replicate=False
        )
        shape = len(images), blazeface.ANCHORS
        detections = blazeface.decode(
            values.reshape(*shape, blazeface.VALUES), logits.reshape(shape), self.min_detection
        )
        rows, points, scores, best, total = [], [], [], [], 0
        for row, (detected, score) in enumerate(detections):
            same = blazeface.same_face(detected[:, :2].reshape(-1, 4))
            kept = np.flatnonzero(np.isin(same, np.unique(same)[: self.max_faces]))
            corner = square.centre[row] - side[row] / 2
            rows.append(np.full(len(kept), row))
            points.append(detected[kept] * side[row] + corner)
            scores.append(score[kept])
            best.append(total + np.searchsorted(kept, same[kept]))
            total += len(kept)
        return np.concatenate(rows), np.concatenate(points), np.concatenate(scores), np.concatenate(best)


class SmirkFaceMesh(FaceMesh):
    """FaceMesh with the settings of SMIRK's demo (commit c7de404): one face, low thresholds."""

    name = "facemesh-smirk"
    min_detection = 0.1
    min_presence = 0.1
    max_faces = 1


def _run(
    network: Network, images: Sequence[np.ndarray], regions: Regions, **options: Any
) -> tuple[np.ndarray, ...]:
    """Outputs of a network for crops; crops are made batch by batch, so that they stay in the processor's cache."""
    parts = []
    for start in range(0, len(images), network.batch):
        batch = slice(start, start + network.batch)
        parts.append(network(crop(images[batch], regions[batch], **options)))
    return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))


def _face_regions(points: np.ndarray) -> Regions:
    """Regions around n detections, (n, 8, 2) points, rotated so that the eyes are level."""
    size = points[:, 1] - points[:, 0]
    across = points[:, 3] - points[:, 2]  # right eye to left eye
    return Regions(
        (points[:, 0] + points[:, 1]) / 2,
        np.float32(_REGION) * size.max(axis=1),
        -np.arctan2(-across[:, 1], across[:, 0]),
    )


def _distinct(faces: list[Face]) -> list[Face]:
    """Faces without duplicates, by the boxes of their meshes."""
    if len(faces) < 2:
        return faces
    best = blazeface.same_face(np.array([face.xyxy for face in faces]))
    return [face for row, face in enumerate(faces) if best[row] == row]


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
