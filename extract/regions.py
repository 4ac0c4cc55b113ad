"""Rotated square crops as MediaPipe makes them: OpenCV's bilinear interpolation in fixed point, compiled by numba.

Coordinates are rounded to 1/32 of a pixel and values to whole grey levels, as ``cv2.warpPerspective`` of OpenCV 4 does.
OpenCV 5 interpolates differently: with its crops the points move by up to 1.5 pixels away from MediaPipe's.
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
def _positions(inverse: np.ndarray, row: int, x: np.ndarray, y: np.ndarray) -> None:
    """Image coordinates, in 1/32 of a pixel, of the pixels in a row of the crop."""
    for start in range(0, len(x), _BLOCK):
        start_x = inverse[0, 0] * start + inverse[0, 1] * row + inverse[0, 2]
        start_y = inverse[1, 0] * start + inverse[1, 1] * row + inverse[1, 2]
        divisor = inverse[2, 0] * start + inverse[2, 1] * row + inverse[2, 2]
        for step in range(min(_BLOCK, len(x) - start)):
            scale = 32 / (divisor + inverse[2, 0] * step)
            x[start + step] = np.int32(np.rint((start_x + inverse[0, 0] * step) * scale))
            y[start + step] = np.int32(np.rint((start_y + inverse[1, 0] * step) * scale))


@numba.njit(error_model="numpy")
def _neighbours(
    first: np.ndarray,
    second: np.ndarray,
    length: int,
    replicate: bool,
    weights: tuple[np.ndarray, np.ndarray],
) -> None:
    """Replace coordinates by both neighbours along an axis of the image; their weights are in 1/32."""
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
    x0, x1, left, right = _rows(size), _rows(size), _rows(size), _rows(size)
    y0, y1, above, below = _rows(size), _rows(size), _rows(size), _rows(size)
    # first byte and weight of the four pixels: computed for a whole row, which the compiler does in vectors
    p00, p01, p10, p11 = _rows(size), _rows(size), _rows(size), _rows(size)
    w00, w01, w10, w11 = _rows(size), _rows(size), _rows(size), _rows(size)
    for row in range(size):
        _positions(inverse, row, x0, y0)
        _neighbours(x0, x1, width, replicate, (left, right))
        _neighbours(y0, y1, height, replicate, (above, below))
        for column in range(size):
            upper, lower = y0[column] * width, y1[column] * width
            p00[column], p01[column] = 3 * (upper + x0[column]), 3 * (upper + x1[column])
            p10[column], p11[column] = 3 * (lower + x0[column]), 3 * (lower + x1[column])
            w00[column], w01[column] = above[column] * left[column], above[column] * right[column]
            w10[column], w11[column] = below[column] * left[column], below[column] * right[column]
        for column in range(size):
            # unsigned: numba adds no code for indices that count from the end
            at00, at01 = np.uintp(p00[column]), np.uintp(p01[column])
            at10, at11 = np.uintp(p10[column]), np.uintp(p11[column])
            for channel in range(3):
                c = np.uintp(channel)
                total = w00[column] * pixels[at00 + c] + w01[column] * pixels[at01 + c]
                total += w10[column] * pixels[at10 + c] + w11[column] * pixels[at11 + c]
                crop[row, column, channel] = values[np.uintp((total + 512) >> 10)]


@numba.njit
def _rows(size: int) -> np.ndarray:
    return np.empty(size, np.int32)
