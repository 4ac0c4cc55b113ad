"""BlazeFace, short range: decoding of the network's outputs and weighted non-maximum suppression.

References
----------
Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs" (2019).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

SIDE = 128  # pixels of the network's input
ANCHORS = 896
VALUES = 16  # per anchor: x, y, width, height of the box; x, y of six keypoints
# Boxes with a larger intersection over union are averaged.
_OVERLAP = 0.5
# Two boxes show the same face if they share more than this part of the smaller one's area.
_SAME_FACE = 0.5


def _anchor_centres() -> np.ndarray:
    """(896, 2) centres in units of the input's side: 16 x 16 cells with 2 anchors each, then 8 x 8 with 6."""
    grids = []
    for cells, per_cell in ((16, 2), (8, 6)):
        row, column = np.divmod(np.arange(cells * cells), cells)
        grids.append(np.repeat((np.stack([column, row], axis=1) + 0.5) / cells, per_cell, axis=0))
    return np.concatenate(grids).astype(np.float32)


_CENTRES = _anchor_centres()


def decode(values: np.ndarray, logits: np.ndarray, threshold: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Detections of n images, best first.

    Parameters
    ----------
    values : (n, 896, 16) float32
    logits : (n, 896) float32
    threshold : float
        Lowest score of a detection.

    Returns
    -------
    For each image, (k, 8, 2) points in units of the input's side (two corners of the box, then the keypoints: right
    eye, left eye, nose, mouth, right ear, left ear), and (k,) scores.
    """
    scores = 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
    image, anchor = np.nonzero(scores >= threshold)
    score = scores[image, anchor]
    points = values[image, anchor].reshape(-1, 8, 2) / np.float32(SIDE)
    half = points[:, 1] / 2
    points[:, 1] = points[:, 0]
    points += _CENTRES[anchor][:, None]
    points[:, 1] += half
    points[:, 0] -= half
    bounds = np.searchsorted(image, np.arange(len(values) + 1))
    return [suppress(points[start:end], score[start:end]) for start, end in pairwise(bounds)]


def suppress(points: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted non-maximum suppression: overlapping detections become their mean, weighted by their scores.

    Parameters
    ----------
    points : (k, 8, 2), of which the first two are the corners of the box
    scores : (k,)

    Returns
    -------
    (m, 8, 2) points and (m,) scores, best first; a score is the highest of the averaged detections.
    """
    order = np.argsort(-scores, kind="stable")
    points, scores = points[order], scores[order]
    shared, area = intersections(points[:, :2].reshape(-1, 4))
    union = area[:, None] + area[None] - shared
    near = shared > _OVERLAP * np.maximum(union, 1e-12)
    np.fill_diagonal(near, val=True)
    rest, means, best = np.arange(len(scores)), [], []
    while len(rest):
        together = near[rest[0], rest]
        rows = rest[together]
        weights = scores[rows] / scores[rows].sum()
        means.append(np.tensordot(weights, points[rows], 1))
        best.append(scores[rows[0]])
        rest = rest[~together]
    return np.array(means, np.float32).reshape(-1, 8, 2), np.array(best, np.float32)


def same_face(boxes: np.ndarray) -> np.ndarray:
    """Group boxes that show the same face.

    The network often detects one face several times, and sometimes a mouth within a face. The overlap is relative to
    the smaller box, so that a small box inside a large one belongs to the same face.

    Parameters
    ----------
    boxes : (n, 4), best first

    Returns
    -------
    (n,) int array: for each box, the row of the best box of the same face (for the best box its own row)
    """
    shared, area = intersections(boxes)
    same = shared > _SAME_FACE * np.minimum(area[:, None], area[None])
    best = np.arange(len(boxes))
    for row in range(1, len(boxes)):  # compare each box with the better ones
        better = np.flatnonzero(same[row, :row] & (best[:row] == np.arange(row)))
        if len(better):
            best[row] = better[0]
    return best


def intersections(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, n) areas of the intersections of n boxes, and (n,) areas of the boxes."""
    size = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    corner0 = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    corner1 = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    return np.clip(corner1 - corner0, 0, None).prod(-1), size.prod(1)
