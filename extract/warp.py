"""Bilinear crops with exactly the values of scikit-image's ``warp``, in a fraction of its time.

The operations and their order are the same, but only for the pixels of the crop, for all channels together, compiled by
numba and without Python's global lock. Interpolation of one axis after the other would be faster but not exact: the
estimated transforms have a rotation of about 1e-16, which changes bytes of the crop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any

import numpy as np

from ..errors import require
from ..features.values import CropSpec

_COMPILING = Lock()  # if several threads crop, one of them compiles


def warp(image: np.ndarray, transform: np.ndarray, spec: CropSpec) -> np.ndarray:
    """Crop of an image by bilinear interpolation; black outside of the image.

    The values are those of scikit-image's ``warp`` of the full image as float64, which the official code of the
    regressors uses.

    Parameters
    ----------
    image : (H, W, 3) uint8
    transform : (2, 3) float64
        From pixels of the image to pixels of the crop.
    spec : CropSpec

    Returns
    -------
    (size, size, 3) array
        float32 in [0, 1] if ``spec.floats``, else uint8, rounded down.

    Raises
    ------
    MissingExtra : numba is not installed.
    """
    inverse = np.linalg.inv(np.vstack([transform, (0, 0, 1)]))
    values = np.arange(256) / (255 if spec.floats else 1)
    crop = np.empty((spec.size, spec.size, 3), np.float32 if spec.floats else np.uint8)
    black = _compiled(crop.dtype.name)(np.ascontiguousarray(image), inverse, values, crop)
    # scikit-image clips to the range of the image, or, if the crop has black pixels, from 0 on. Only values below the
    # range occur: by rounding, and at the border of the image.
    if not black:
        np.maximum(crop, values[image.min()].astype(crop.dtype), out=crop)
    return crop


@cache
def _compiled(numbers: str) -> Callable[..., bool]:
    """Compiled :func:`_interpolate` for crops of one type, ``uint8`` or ``float32``."""
    image = "Array(uint8, 3, 'C', readonly=True)"  # writable ones as well
    return compile_loop(
        _interpolate, f"boolean({image}, float64[:, ::1], float64[::1], Array({numbers}, 3, 'C'))"
    )


def compile_loop(loop: Callable[..., Any], signature: str) -> Callable[..., Any]:
    """Compile a loop for one signature; the machine code is cached beside its file or in the user's cache folder.

    It is compiled here and not at the first call, so that an error is not taken for one of a sample. If the cache
    cannot be written or read (read-only folder, full disk, damaged file), it is not used.

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
    """Fill the array ``crop`` from an image, whose bytes are replaced by ``values``; returns whether any value is 0."""
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
            # neighbours outside of the image are black: their weight is 0, so any pixel can stand for them
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
