"""Rasterise a triangle mesh with array operations: visible triangle of each pixel, and interpolation in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Fragments:
    """Visible pixels of a mesh, in image order.

    Attributes
    ----------
    pixel : (m,) int
        Index into the flattened image, row by row.
    corners : (m, 3) int
        Vertices of the triangle that is visible at the pixel.
    weights : (m, 3) float32
        Barycentric coordinates of the pixel's centre; sum 1.
    triangle : (m,) int
        Index of the visible triangle.
    """

    pixel: np.ndarray
    corners: np.ndarray
    weights: np.ndarray
    triangle: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Fragments:
        return Fragments(self.pixel[rows], self.corners[rows], self.weights[rows], self.triangle[rows])

    def interpolate(self, values: np.ndarray) -> np.ndarray:
        """(m, ...) values at the pixels, interpolated from values (v, ...) of the vertices."""
        wide = values.reshape(len(values), -1)
        first, second, third = (
            self.weights[:, k, None] * wide.take(self.corners[:, k], axis=0) for k in range(3)
        )
        return (first + second + third).reshape(-1, *values.shape[1:])


def rasterise(points: np.ndarray, triangles: np.ndarray, size_wh: tuple[int, int]) -> Fragments:
    """Find the pixels that a closed or open mesh covers; nearer triangles hide farther ones.

    The pixels in the bounding boxes of all triangles are tested at once. Triangles are drawn from back to front by the
    depth of their centre, which is exact for meshes of small triangles that do not intersect.

    Parameters
    ----------
    points : (v, 3) float array, pixels
        x right, y down, z away from the camera; the pixel (i, j) covers [i, i + 1) x [j, j + 1).
    triangles : (t, 3) int array
        Triangles that are clockwise in the image face the camera; others and degenerate ones are left out.
    size_wh : width and height of the image
    """
    width, height = size_wh
    corner = points[triangles]
    x, y = corner[..., 0], corner[..., 1]
    double_area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    keep = np.flatnonzero(double_area > 1e-6)
    keep = keep[np.argsort(-corner[keep, :, 2].sum(1), kind="stable")]
    x, y, double_area = x[keep], y[keep], double_area[keep]
    # Pixel centres are at +0.5: from the first one at or after the left corner to the last one before the right corner.
    x0 = np.clip(np.ceil(x.min(1) - 0.5), 0, width).astype(np.int32)
    x1 = np.clip(np.ceil(x.max(1) - 0.5), 0, width).astype(np.int32)
    y0 = np.clip(np.ceil(y.min(1) - 0.5), 0, height).astype(np.int32)
    y1 = np.clip(np.ceil(y.max(1) - 0.5), 0, height).astype(np.int32)
    wide, count = x1 - x0, (x1 - x0) * (y1 - y0)
    owner = np.repeat(np.arange(len(keep), dtype=np.int32), count)
    offset = np.arange(len(owner), dtype=np.int32) - np.repeat(
        (np.cumsum(count) - count).astype(np.int32), count
    )
    row, column = np.divmod(offset, wide.take(owner))
    row = row + y0.take(owner)
    column = column + x0.take(owner)
    planes = np.concatenate(
        [_plane(x[:, [2, 0]], y[:, [2, 0]], double_area), _plane(x[:, [0, 1]], y[:, [0, 1]], double_area)],
        axis=1,
    )
    terms = planes.take(owner, axis=0)
    second = terms[:, 0] + terms[:, 1] * row - terms[:, 2] * column
    third = terms[:, 3] + terms[:, 4] * row - terms[:, 5] * column
    first = 1 - second - third
    inside = np.flatnonzero(np.minimum(np.minimum(first, second), third) >= 0)
    # If several triangles cover a pixel, the last assignment is kept: the nearest triangle.
    top = np.full(width * height, -1, np.int32)
    top[row[inside] * width + column[inside]] = inside
    pixel = np.flatnonzero(top >= 0)
    candidate = top[pixel]
    triangle = keep[owner[candidate]]
    weights = np.stack([first[candidate], second[candidate], third[candidate]], axis=1)
    return Fragments(pixel, triangles[triangle], weights, triangle)


def _plane(x: np.ndarray, y: np.ndarray, double_area: np.ndarray) -> np.ndarray:
    """(t, 3) coefficients (constant, row, column) of the barycentric coordinate that is 0 on the edge x, y (t, 2)."""
    dx, dy = (x[:, 1] - x[:, 0]) / double_area, (y[:, 1] - y[:, 0]) / double_area
    constant = -dx * (y[:, 0] - 0.5) + dy * (x[:, 0] - 0.5)
    return np.stack([constant, dx, dy], axis=1).astype(np.float32)
