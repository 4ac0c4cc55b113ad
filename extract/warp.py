"""Bilinear crops to the last digit: the numbers of scikit-image's ``warp``, in a fraction of its time.

The same order of operations for the pixels of the crop alone, all channels at once, compiled by numba and without the
interpreter's lock, so that threads crop beside each other. It cannot be shortened to one axis after the other: the
estimated transforms turn, by some 1e-16, and where a picture is flat the last digit of a weight decides a byte.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any

import numpy as np

from ..errors import require
from ..features.values import CropSpec

_COMPILING = Lock()  # threads that crop beside each other compile once


def warp(image: np.ndarray, transform: np.ndarray, spec: CropSpec) -> np.ndarray:
    """Crop of an image, bilinear; black where it leaves the image.

    Every number is the one that scikit-image's ``warp`` gives on the whole image as float64, as the originals call it.

    Parameters
    ----------
    image : (H, W, 3) uint8
    transform : (2, 3) float64, image pixels to crop pixels
    spec : CropSpec

    Returns
    -------
    (size, size, 3) uint8, truncated, or float32 in [0, 1].

    Raises
    ------
    MissingExtra : numba is not installed.
    """
    inverse = np.linalg.inv(np.vstack([transform, (0, 0, 1)]))
    values = np.arange(256) / (255 if spec.floats else 1)
    crop = np.empty((spec.size, spec.size, 3), np.float32 if spec.floats else np.uint8)
    black = _compiled(crop.dtype.name)(np.ascontiguousarray(image), inverse, values, crop)
    # scikit-image clips to the range of the image and, where that is in the crop, of what is outside. A border half
    # outside is darker, and rounding may take the last digit from the darkest value; too bright it leaves none.
    if not black:
        np.maximum(crop, values[image.min()].astype(crop.dtype), out=crop)
    return crop


@cache
def _compiled(numbers: str) -> Callable[..., bool]:
    """The loop as machine code for crops of one type."""
    image = "Array(uint8, 3, 'C', readonly=True)"  # writable ones as well
    return compile_loop(
        _interpolate, f"boolean({image}, float64[:, ::1], float64[::1], Array({numbers}, 3, 'C'))"
    )


def compile_loop(loop: Callable[..., Any], signature: str) -> Callable[..., Any]:
    """Machine code of a loop for one signature, cached beside its file or in the user's cache folder.

    It is compiled before the first call, so that a failure is no failure of a sample, and without a cache where the
    cache cannot be written or read: a read-only folder, a full disk, a damaged file.

    Raises
    ------
    MissingExtra : numba is not installed.
    """
    numba = require("numba", wanted_by="crop")
    options = {"nogil": True, "error_model": "numpy"}
    with _COMPILING:
        try:
            compiled: Callable[..., Any] = numba.njit([signature], cache=True, **options)(loop)
        except Exception:  # reading a damaged cache may raise anything
            compiled = numba.njit([signature], **options)(loop)
    return compiled


def _interpolate(image: np.ndarray, inverse: np.ndarray, values: np.ndarray, crop: np.ndarray) -> bool:
    """Fill a crop with the image's values, looked up by byte; whether any number in it is 0."""
    height, width = image.shape[:2]
    black = False
    for row in range(len(crop)):
        for column in range(len(crop)):
            x = inverse[0, 0] * column + inverse[0, 1] * row + inverse[0, 2]
            y = inverse[1, 0] * column + inverse[1, 1] * row + inverse[1, 2]
            left, top = np.floor(x), np.floor(y)
            if not (-1 <= left < width and -1 <= top < height):
                crop[row, column] = 0
                black = True
                continue
            x0, y0 = int(left), int(top)
            # a neighbour outside is black: whichever pixel stands for it, its weight is 0
            weight_x0 = 1 - (x - left) if x0 >= 0 else 0.0
            weight_y0 = 1 - (y - top) if y0 >= 0 else 0.0
            weight_x1 = x - left if x0 + 1 < width else 0.0
            weight_y1 = y - top if y0 + 1 < height else 0.0
            x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
            x0, y0 = max(x0, 0), max(y0, 0)
            for channel in range(3):
                upper = (
                    weight_x0 * values[image[y0, x0, channel]] + weight_x1 * values[image[y0, x1, channel]]
                )
                lower = (
                    weight_x0 * values[image[y1, x0, channel]] + weight_x1 * values[image[y1, x1, channel]]
                )
                value = weight_y0 * upper + weight_y1 * lower
                black |= value <= 0
                crop[row, column, channel] = value
    return black
