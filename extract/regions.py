"""Rotated square crops as MediaPipe makes them: OpenCV's bilinear interpolation in fixed point, compiled by numba.

Coordinates are rounded to 1/32 of a pixel and values to whole grey levels, as ``cv2.warpPerspective`` of OpenCV 4 does.
OpenCV 5 interpolates differently, so a library call would make the crops depend on the version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numba
import numpy as np

from .warp import compile_loop

_BLOCK = 64  # columns that OpenCV computes from a common start


@dataclass(frozen=True, slots=True)
class Regions:
    """Rotated squares in images.

    Attributes
    ----------
    centre : (n, 2) float32, pixels
    side : (n,) float32, pixels
    angle : (n,) float32, rad
        Turns the image's x axis to the crop's, from x towards y.
    """

    centre: np.ndarray
    side: np.ndarray
    angle: np.ndarray

    def __len__(self) -> int:
        return len(self.side)

    def __getitem__(self, rows: np.ndarray | slice) -> Regions:
        return Regions(self.centre[rows], self.side[rows], self.angle[rows])

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Points of the crops in the images.

        Parameters
        ----------
        points : (n, p, 3)
            In units of the side, from the top left corner of the crop.

        Returns
        -------
        (n, p, 3) float32, pixels
        """
        cos, sin = np.cos(self.angle)[:, None], np.sin(self.angle)[:, None]
        x, y = points[..., 0] - np.float32(0.5), points[..., 1] - np.float32(0.5)
        moved = np.stack([x * cos - y * sin, x * sin + y * cos, points[..., 2]], axis=-1)
        moved *= self.side[:, None, None]
        moved[..., :2] += self.centre[:, None]
        return moved.astype(np.float32, copy=False)

    def maps(self, size: int) -> list[np.ndarray]:
        """n (3, 3) float64 maps of pixels of a (size, size) crop to pixels of the image, with OpenCV's rounding.

        Many coordinates lie halfway between two steps of 1/32 pixel, where the last digit decides.
        """
        corners = np.array([[0, size], [0, 0], [size, 0], [size, size]], np.float32)
        squares = zip(
            self.centre.tolist(),
            self.side.tolist(),
            np.degrees(self.angle.astype(float)).tolist(),
            strict=True,
        )
        return [
            cv2.invert(cv2.getPerspectiveTransform(cv2.boxPoints((centre, (side, side), angle)), corners))[1]
            for centre, side, angle in squares
        ]


def crop(
    images: Sequence[np.ndarray], regions: Regions, *, size: int, values: np.ndarray, replicate: bool
) -> np.ndarray:
    """Crops of n regions, one for each image.

    Parameters
    ----------
    images : n arrays (H, W, 3) uint8
    regions : n Regions
    size : int
        Side of the crops, pixels.
    values : (256,) float32
        What a grey level becomes.
    replicate : bool
        Outside of the image, repeat its border; else black.

    Returns
    -------
    (n, size, size, 3) float32
    """
    crops = np.empty((len(images), size, size, 3), np.float32)
    loop = _compiled()
    for image, inverse, out in zip(images, regions.maps(size), crops, strict=True):
        loop(np.ascontiguousarray(image), inverse, values, replicate, out)
    return crops


@cache
def _compiled() -> Callable[..., None]:
    return compile_loop(
        _interpolate,
        "void(Array(uint8, 3, 'C', readonly=True), float64[:, ::1], float32[::1], boolean, float32[:, :, ::1])",
    )


@numba.njit(error_model="numpy")
def _neighbours(
    inverse: np.ndarray,
    axis: int,
    row: int,
    length: int,
    replicate: bool,
    neighbours: tuple[np.ndarray, np.ndarray],
    weights: tuple[np.ndarray, np.ndarray],
) -> None:
    """Both neighbours along an axis of the image, and their weights in 1/32, for each pixel of a row of the crop."""
    first, second = neighbours
    for start in range(0, len(first), _BLOCK):
        position = inverse[axis, 0] * start + inverse[axis, 1] * row + inverse[axis, 2]
        divisor = inverse[2, 0] * start + inverse[2, 1] * row + inverse[2, 2]
        for step in range(min(_BLOCK, len(first) - start)):
            scale = 32 / (divisor + inverse[2, 0] * step)
            first[start + step] = np.int32(np.rint((position + inverse[axis, 0] * step) * scale))
    zero, last = np.int32(0), np.int32(length - 1)
    for column in range(len(first)):
        left = np.int32(first[column] >> 5)
        right = np.int32(left + 1)
        part = np.int32(first[column] & 31)
        rest = np.int32(32 - part)
        if not replicate:
            part = part if zero <= right <= last else zero
            rest = rest if zero <= left <= last else zero
        first[column], second[column] = min(max(left, zero), last), min(max(right, zero), last)
        weights[0][column], weights[1][column] = rest, part


def _interpolate(
    image: np.ndarray, inverse: np.ndarray, values: np.ndarray, replicate: bool, crop: np.ndarray
) -> None:
    height, width, _ = image.shape
    size = len(crop)
    pixels = image.reshape(-1)
    # one array each: rows of a single one would not be contiguous for the compiler
    x0, x1, left, right = (
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
    )
    y0, y1, above, below = (
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
    )
    for row in range(size):
        _neighbours(inverse, 0, row, width, replicate, (x0, x1), (left, right))
        _neighbours(inverse, 1, row, height, replicate, (y0, y1), (above, below))
        for column in range(size):
            upper, lower = y0[column] * width, y1[column] * width
            # unsigned: numba adds no code for indices that count from the end
            p00, p01 = np.uintp(3 * (upper + x0[column])), np.uintp(3 * (upper + x1[column]))
            p10, p11 = np.uintp(3 * (lower + x0[column])), np.uintp(3 * (lower + x1[column]))
            w_left, w_right, w_above, w_below = left[column], right[column], above[column], below[column]
            for channel in range(3):
                c = np.uintp(channel)
                total = w_above * (w_left * pixels[p00 + c] + w_right * pixels[p01 + c])
                total += w_below * (w_left * pixels[p10 + c] + w_right * pixels[p11 + c])
                crop[row, column, channel] = values[np.uintp((total + 512) >> 10)]
