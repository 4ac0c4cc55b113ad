"""What detectors share: a second look at a padded image, a quick and quiet start, one face once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

import numpy as np

from ...features.values import Face

# A face that fills its image is often missed; black all round, this share of the longer side, shows it again.
PADDING = 0.25
# Of the smaller of two boxes: a face that shares more than this with a surer one is the same face again.
SAME_FACE = 0.5


def find_twice(find: Callable[[np.ndarray], list[Face]], image: np.ndarray) -> list[Face]:
    """What ``find`` sees in an (H, W, 3) image, or in the image with a border where it sees nothing."""
    return find(image) or find_padded(find, image)


def find_padded(find: Callable[[np.ndarray], list[Face]], image: np.ndarray) -> list[Face]:
    """What ``find`` sees in an (H, W, 3) image with a black border, in pixels of the image without it."""
    border = max(1, round(PADDING * max(image.shape[:2])))
    faces = find(np.pad(image, ((border, border), (border, border), (0, 0))))
    return [
        replace(face, xyxy=face.xyxy - border, landmarks=_shifted(face.landmarks, border)) for face in faces
    ]


def _shifted(points: np.ndarray | None, border: int) -> np.ndarray | None:
    if points is None:
        return None
    moved = points.copy()
    moved[:, :2] -= border
    return moved


def distinct(boxes: np.ndarray) -> np.ndarray:
    """Which of n boxes, the surest first, show faces of their own.

    Detectors that are content with little confidence find a face several times, and a mouth as a face in the face.
    The overlap counts against the smaller box, so that a small box within a large one is the same face.

    Parameters
    ----------
    boxes : (n, 4) float array, pixels

    Returns
    -------
    (m,) int array of rows, ascending
    """
    size = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1)
    corner0 = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    corner1 = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(corner1 - corner0, 0, None).prod(-1)
    same = shared > SAME_FACE * np.minimum(size[:, None], size[None])
    kept: list[int] = []
    for row in range(len(boxes)):  # a handful of boxes, each against those kept before it
        if not same[row, kept].any():
            kept.append(row)
    return np.array(kept, int)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Send what C++ writes on stderr while a graph starts to nowhere; Python's own stream is flushed first."""
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


@contextmanager
def put_off(name: str) -> Iterator[None]:
    """Import a module only when it is first used, where something imports it within; it works as ever then.

    Half of mediapipe's import is pyplot, for drawings that nobody asks for here, in every worker.
    """
    finder = _PutOff(name)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _PutOff(MetaPathFinder):
    """Finds one module, as always, and has the standard library's lazy loader load it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(fullname, path, target) if fullname == self._name else None
        if found is not None and found.loader is not None:
            found.loader = LazyLoader(found.loader)
        return found
