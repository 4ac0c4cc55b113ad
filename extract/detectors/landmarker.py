"""``landmarker``: MediaPipe's Face Landmarker task; 478 points and 52 blendshape scores, from a file of its own.

The landmark source of SMIRK's demo (commit c7de404), with its confidences; the runtime is ``mediapipe.tasks``, which
0.10.21 and 1.x have alike. Faces come surest first, without a score.
"""

from __future__ import annotations

import ctypes
import hashlib
import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import WeightsError, require
from ...features.values import Face
from ..arkit import NAMES
from ..weights import find_weights
from .common import PADDING, distinct, find_twice, put_off, quiet_stderr

MAX_FACES = 5
# SMIRK's demo; what such a low bar finds twice is taken once (common.distinct).
MIN_CONFIDENCE = 0.1


class Landmarker:
    """Faces with 478 points each, in pixels, and their blendshape scores; z grows away from the camera.

    One object serves one thread; it cannot be pickled, so it is built where it works.

    Parameters
    ----------
    path : path, optional
        Of the task file; by default where ``ig3d weights`` keeps it.

    Raises
    ------
    MissingExtra : mediapipe is not installed.
    WeightsError : the task file is missing or is none.
    """

    name = "landmarker"

    def __init__(self, path: str | Path | None = None) -> None:
        with put_off("matplotlib.pyplot"):
            self._runtime = require("mediapipe", wanted_by="detector landmarker")
        file = find_weights("facemesh") if path is None else Path(path)
        try:
            task = file.read_bytes()
        except OSError as exc:
            raise WeightsError(f"{file}: expected the Face Landmarker task, got {exc.strerror}") from exc
        self._sha256 = hashlib.sha256(task).hexdigest()
        with quiet_stderr():
            self._task = self._start(task, file)
            # the runtime talks on stderr when it sees an image, and again at the first face
            self._detect(np.zeros((64, 64, 3), np.uint8))
        self._before_first_face = True
        weakref.finalize(self, _end, self._task)

    def _start(self, task: bytes, file: Path) -> Any:
        tasks = self._runtime.tasks
        options = tasks.vision.FaceLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_buffer=task),
            running_mode=tasks.vision.RunningMode.IMAGE,
            num_faces=MAX_FACES,
            min_face_detection_confidence=MIN_CONFIDENCE,
            min_face_presence_confidence=MIN_CONFIDENCE,
            output_face_blendshapes=True,
        )
        try:
            return tasks.vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as exc:
            raise WeightsError(
                f"{file}: expected MediaPipe's face_landmarker.task, got another or a damaged file; "
                "fetch it again (docs/detectors.md)"
            ) from exc

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": version("mediapipe"),
            "runtime": "tflite-cpu",
            "weights_sha256": self._sha256,
            "max_faces": MAX_FACES,
            "min_confidence": MIN_CONFIDENCE,
            "padding": PADDING,
        }

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        return [find_twice(self._find, image) for image in images]

    def _detect(self, image: np.ndarray) -> Any:
        pixels = np.ascontiguousarray(image)
        return self._task.detect(
            self._runtime.Image(image_format=self._runtime.ImageFormat.SRGB, data=pixels)
        )

    def _find(self, image: np.ndarray) -> list[Face]:
        with quiet_stderr() if self._before_first_face else nullcontext():
            found = self._detect(image)
        meshes = found.face_landmarks
        self._before_first_face &= not meshes
        if not meshes:
            return []
        height, width = image.shape[:2]
        points = np.array([[(p.x, p.y, p.z) for p in mesh] for mesh in meshes], np.float32)
        points *= np.array([width, height, width], np.float32)
        boxes = np.concatenate([points[..., :2].min(1), points[..., :2].max(1)], axis=1)
        scores = [_in_order(one) for one in found.face_blendshapes]
        return [Face(boxes[row], landmarks=points[row], blendshapes=scores[row]) for row in distinct(boxes)]


def _in_order(categories: Sequence[Any]) -> np.ndarray:
    """(52,) scores by the names' order, whatever order the task gives them in."""
    by_name = {category.category_name: category.score for category in categories}
    if set(by_name) != set(NAMES):
        raise WeightsError(
            f"facemesh: expected the {len(NAMES)} blendshape names of ARKit, got {len(by_name)} others; "
            "fetch the task file again (docs/detectors.md)"
        )
    return np.array([by_name[name] for name in NAMES], np.float32)


def _end(task: Any) -> None:
    """Close the task; at the interpreter's end version 1 cannot any more, and would say so when it is collected."""
    try:
        task.close()
    except RuntimeError:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(task))  # never collected: the process ends with it
