"""Rotated crops against a plain NumPy version of OpenCV 4's arithmetic."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ig3d.extract.regions import Regions, crop

LEVELS = np.arange(256, dtype=np.float32)


def plain(image: np.ndarray, regions: Regions, size: int, *, replicate: bool) -> np.ndarray:
    """Coordinates in 1/32 of a pixel, in the order of operations of ``cv2.warpPerspective``; weights in 1/1024."""
    (centre,), (side,), (angle,) = regions.centre.tolist(), regions.side.tolist(), regions.angle.tolist()
    square = cv2.boxPoints((centre, (side, side), np.degrees(angle)))
    corners = np.array([[0, size], [0, 0], [size, 0], [size, size]], np.float32)
    m = cv2.invert(cv2.getPerspectiveTransform(square, corners))[1]
    column = np.arange(size)
    start = column // 64 * 64
    row = column[:, None]
    x, y, w = (m[k, 0] * start + m[k, 1] * row + m[k, 2] + m[k, 0] * (column - start) for k in range(3))
    x, y = (np.rint(value * (32 / w)).astype(int) for value in (x, y))
    total = np.zeros((size, size, 3), int)
    for down in (0, 1):
        for right in (0, 1):
            at_x, at_y = (x >> 5) + right, (y >> 5) + down
            weight = np.where(right, x & 31, 32 - (x & 31)) * np.where(down, y & 31, 32 - (y & 31))
            inside = (at_x >= 0) & (at_x < image.shape[1]) & (at_y >= 0) & (at_y < image.shape[0])
            pixels = image[at_y.clip(0, image.shape[0] - 1), at_x.clip(0, image.shape[1] - 1)].astype(int)
            total += pixels * (weight * (inside | replicate))[..., None]
    return ((total + 512) >> 10).astype(np.float32)


@pytest.mark.parametrize("replicate", [False, True], ids=["black", "border"])
def test_crops_are_those_of_opencv(replicate: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width = rng.integers(1, rng.choice([4, 60, 300]), 2)
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        longer = max(height, width)
        # half of them as the detector's: the whole image, level, where many coordinates are ties
        whole = rng.integers(2) == 0
        centre = np.array([width, height]) / 2 if whole else rng.uniform(-0.5, 1.5, 2) * (width, height)
        side = longer if whole else rng.uniform(1, 2 * longer)
        angle = 0 if whole else rng.uniform(-3.2, 3.2)
        regions = Regions(*(np.array([value], np.float32) for value in (centre, side, angle)))
        size = int(rng.choice([64, 128, 150]))
        (made,) = crop([image], regions, size=size, values=LEVELS, replicate=replicate)
        assert np.array_equal(made, plain(image, regions, size, replicate=replicate)), (image.shape, regions)


def test_points_of_the_crop_return_to_their_place() -> None:
    rng = np.random.default_rng(0)
    regions = Regions(
        rng.uniform(50, 150, (5, 2)).astype(np.float32),
        rng.uniform(20, 90, 5).astype(np.float32),
        rng.uniform(-3, 3, 5).astype(np.float32),
    )
    size = 64
    points = np.concatenate([rng.uniform(0, 1, (5, 7, 2)), np.ones((5, 7, 1))], axis=2)
    back = regions.to_image(points)
    assert np.allclose(back[..., 2], regions.side[:, None])
    for inverse, inside, outside in zip(regions.maps(size), points, back, strict=True):
        expected = np.column_stack([inside[:, :2] * size, np.ones(7)]) @ inverse.T
        assert np.allclose(expected[:, :2] / expected[:, 2:], outside[:, :2], atol=1e-3)
