"""``facemesh``: MediaPipe's Face Mesh, whose weights lie inside the package; 478 points, a score, a count.

The graph that ``mp.solutions.FaceMesh`` runs also computes its face detections; asking for that stream gives the
score that the solution's own class leaves out. Kartynnik et al., "Real-time Facial Surface Geometry from Monocular
Video on Mobile GPUs" (2019).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import MissingExtra
from ...features.values import Face
from .common import PADDING, find_twice, put_off, quiet_stderr

with put_off("matplotlib.pyplot"):
    import mediapipe

try:
    from mediapipe.python.solution_base import SolutionBase
    from mediapipe.python.solutions import face_mesh
except ModuleNotFoundError as exc:  # mediapipe is there, or its import above had failed
    raise MissingExtra(
        f"detector facemesh: expected mediapipe 0.10.21 (Python 3.11 or 3.12), whose package holds its weights, got "
        f"{mediapipe.__version__}; --regressor blendshapes works with that"
    ) from exc

MAX_FACES = 5
MIN_CONFIDENCE = 0.5
_WEIGHTS = (
    "modules/face_detection/face_detection_short_range.tflite",
    "modules/face_landmark/face_landmark_with_attention.tflite",
)
# a point on the wire, and what tells that it holds just three numbers
_POINT = np.dtype(
    [
        ("tag", "<u2"),
        ("tag_x", "u1"),
        ("x", "<f4"),
        ("tag_y", "u1"),
        ("y", "<f4"),
        ("tag_z", "u1"),
        ("z", "<f4"),
    ]
)
_TAGS = {"tag": 0x0F0A, "tag_x": 0x0D, "tag_y": 0x15, "tag_z": 0x1D}


class FaceMesh:
    """Faces with 478 points each, in pixels; z grows away from the camera, in the unit of x.

    One object serves one thread; it cannot be pickled, so it is built where it works.
    """

    name = "facemesh"

    def __init__(self) -> None:
        with quiet_stderr():
            self._graph = SolutionBase(
                binary_graph_path=face_mesh._BINARYPB_FILE_PATH,
                side_inputs={"num_faces": MAX_FACES, "with_attention": True, "use_prev_landmarks": False},
                calculator_params={
                    "facedetectionshortrangecpu__facedetectionshortrange__facedetection__"
                    "TensorsToDetectionsCalculator.min_score_thresh": MIN_CONFIDENCE,
                    "facelandmarkcpu__ThresholdingCalculator.threshold": MIN_CONFIDENCE,
                },
                outputs=["multi_face_landmarks", "face_detections"],
            )
            # the runtime talks on stderr when it starts on an image, and again at the first face
            self._graph.process(np.zeros((64, 64, 3), np.uint8))
        self._before_first_face = True

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": mediapipe.__version__,
            "runtime": "tflite-cpu",
            "weights_sha256": _weights_sha256(),
            "max_faces": MAX_FACES,
            "min_confidence": MIN_CONFIDENCE,
            "padding": PADDING,
        }

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        return [find_twice(self._find, image) for image in images]

    def _find(self, image: np.ndarray) -> list[Face]:
        with quiet_stderr() if self._before_first_face else nullcontext():
            found = self._graph.process(np.ascontiguousarray(image))
        meshes = found.multi_face_landmarks or []
        self._before_first_face &= not meshes
        if not meshes:
            return []
        height, width = image.shape[:2]
        points = np.stack([points_of(mesh) for mesh in meshes])
        points *= np.array([width, height, width], np.float32)
        boxes = np.concatenate([points[..., :2].min(1), points[..., :2].max(1)], axis=1)
        scores = _scores(boxes, found.face_detections or [], width, height)
        return [
            Face(xyxy=box, score=float(score), landmarks=mesh)
            for box, score, mesh in zip(boxes, scores, points, strict=True)
        ]


def points_of(mesh: Any) -> np.ndarray:
    """(p, 3) float32 x, y, z of a ``NormalizedLandmarkList``; from its bytes at once, where they hold nothing else.

    Protocol Buffers write a point of three numbers in 17 bytes: a tag and its length, and a tag before each number.
    """
    content = mesh.SerializeToString()
    if len(content) == _POINT.itemsize * len(mesh.landmark):
        points = np.frombuffer(content, _POINT)
        if all((points[name] == tag).all() for name, tag in _TAGS.items()):
            return np.stack([points["x"], points["y"], points["z"]], axis=1)
    return np.array([(point.x, point.y, point.z) for point in mesh.landmark], np.float32).reshape(-1, 3)


def _scores(boxes: np.ndarray, detections: Sequence[Any], width: int, height: int) -> np.ndarray:
    """(n,) score of the detection that overlaps each mesh most (the two streams need not agree in order)."""
    if not detections:
        return np.full(len(boxes), np.nan)
    relative = [detection.location_data.relative_bounding_box for detection in detections]
    found = np.array([(b.xmin, b.ymin, b.xmin + b.width, b.ymin + b.height) for b in relative])
    found *= np.array([width, height, width, height])
    corner0 = np.maximum(boxes[:, None, :2], found[None, :, :2])
    corner1 = np.minimum(boxes[:, None, 2:], found[None, :, 2:])
    overlap = np.clip(corner1 - corner0, 0, None).prod(-1)
    union = _area(boxes)[:, None] + _area(found)[None] - overlap
    iou = overlap / np.maximum(union, 1e-9)
    scores = np.array([detection.score[0] for detection in detections])
    return np.where(iou.max(1) > 0, scores[iou.argmax(1)], np.nan)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


@lru_cache(maxsize=1)
def _weights_sha256() -> str:
    root = Path(mediapipe.__file__).parent
    total = hashlib.sha256()
    for name in _WEIGHTS:
        total.update((root / name).read_bytes())
    return total.hexdigest()
