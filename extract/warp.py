"""Bilinear crops to the last digit: the numbers of scikit-image's ``warp``, in a fraction of its time.

A crop without rotation is interpolated along x, then along y, each by a sparse matrix with two weights a row. But the
estimated transforms do turn, by some 1e-16, and scikit-image's coordinates follow; and where a picture is flat, the
last digit of a weight decides what truncation leaves. So a bound of the quick way's error comes with it, and pixels
whose rounding it leaves open (2 in 100 of a photograph; all that are flat) are interpolated anew in scikit-image's own
order of operations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..features.values import CropSpec

BLOCK = 4096  # pixels interpolated anew at once: what they take stays in the processor's caches


def warp(image: np.ndarray, transform: np.ndarray, spec: CropSpec) -> np.ndarray:
    """Crop of an image, bilinear; black where it leaves the image.

    Every number is the one that scikit-image's ``warp`` gives on the whole image as float64, as the originals call it,
    where compiled code rounds each product and each sum (x86-64; elsewhere a compiler may fuse them).

    Parameters
    ----------
    image : (H, W, 3) uint8
    transform : (2, 3) float64, image pixels to crop pixels; no rotation, but for rounding
    spec : CropSpec

    Returns
    -------
    (size, size, 3) uint8, truncated, or float32 in [0, 1].
    """
    inverse = np.linalg.inv(np.vstack([transform, (0, 0, 1)]))
    divisor = 255 if spec.floats else 1
    crop, doubtful = _quick(image, inverse, spec.size, divisor)
    pixels, places = crop.reshape(-1, 3), np.flatnonzero(doubtful)
    for some in (places[start : start + BLOCK] for start in range(0, len(places), BLOCK)):
        pixels[some] = _exact(image, inverse, np.divmod(some, spec.size), divisor).T
    # scikit-image clips to the range of the image, which rounding and a border half outside leave downwards; to black
    # where the crop has a 0. In an image without black that lies outside, and then one of the crop's corners does.
    darkest = (image.min() / divisor).astype(crop.dtype)
    if crop.min() < darkest:
        last = spec.size - 1
        corners = np.array([0, 0, last, last]), np.array([0, last, 0, last])
        if _exact(image, inverse, corners, divisor).all():
            np.maximum(crop, darkest, out=crop)
    return crop


def _quick(image: np.ndarray, inverse: np.ndarray, size: int, divisor: int) -> tuple[np.ndarray, np.ndarray]:
    """The crop by one axis after the other, and a mask (size, size) of the pixels that may be rounded wrongly.

    Bytes (divisor 1) are interpolated in single precision, floats in double.
    """
    import cv2

    given, kept = (np.float32, np.uint8) if divisor == 1 else (np.float64, np.float32)
    # coordinates along both axes (axis, end, size): those of a line of the crop's pixels lie between those of the
    # line's two ends, since rounding keeps the order
    scale, turn, shift = inverse[[0, 1], [[0, 1], [1, 0], [2, 2]]][:, :, None, None]
    ends = scale * np.arange(size) + turn * np.array([[0], [size - 1]]) + shift
    apart = np.abs(ends[:, 1] - ends[:, 0])
    # six roundings, each of half a step of the greatest number: twice that, and what the coordinates are apart
    error = float(255 / divisor * (6 * np.spacing(given(1)) + apart.max(1).sum()))
    pixels, weights = _neighbours(ends[:, 0], np.array([[image.shape[1]], [image.shape[0]]]))
    columns, along_x = _along(pixels[:, 0], weights[:, 0].astype(given))
    rows, along_y = _along(pixels[:, 1], weights[:, 1].astype(given))
    strip = cv2.transpose(image[rows, columns[0] : columns[-1] + 1])[columns - columns[0]]
    crop, doubtful = [], np.zeros((size, size), bool)
    for plane in cv2.split(strip):
        across = cv2.transpose(along_x @ np.divide(plane, divisor, dtype=given))
        found = along_y @ across
        margin = np.minimum(found, error)  # black among black is certain
        crop.append((found - margin).astype(kept))
        found += margin
        doubtful |= crop[-1] != found.astype(kept)
    # ... unless a line's coordinates reach or pass the centre of a pixel, and so have different neighbours
    low, high = ends.min(1), ends.max(1)
    passes = (low < high) & (np.floor(high) >= np.ceil(low))
    doubtful |= passes[0] | passes[1][:, None]
    return cv2.merge(crop), doubtful


def _neighbours(coordinates: np.ndarray, length: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """(2, ...) the two pixels beside each coordinate along an axis, and their weights.

    What is outside is black: whichever pixel stands for it, its weight is 0.
    """
    low = np.floor(coordinates)
    share = coordinates - low
    pixels, weights = np.array([low, low + 1]), np.array([1 - share, share])
    weights *= (pixels >= 0) & (pixels < length)
    return np.clip(pixels, 0, length - 1).astype(np.int32), weights


def _along(pixels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, Any]:
    """The pixels along an axis that are needed, and the sparse matrix that interpolates between them.

    scipy sums the two products of a row in their order.
    """
    from scipy.sparse import csr_array

    needed, index = np.arange(pixels[0, 0], pixels[1, -1] + 1), pixels - pixels[0, 0]
    if len(needed) > pixels.size:  # few of many
        needed, index = pixels.T.ravel(), np.arange(pixels.size, dtype=np.int32).reshape(-1, 2).T
    starts = np.arange(0, pixels.size + 1, 2, dtype=np.int32)
    matrix = csr_array((weights.T.ravel(), index.T.ravel(), starts), shape=(pixels.shape[1], len(needed)))
    return needed, matrix


def _exact(
    image: np.ndarray, inverse: np.ndarray, at: tuple[np.ndarray, np.ndarray], divisor: int
) -> np.ndarray:
    """(3, n) float64: the crop at n pixels, given by their rows and columns, as scikit-image computes it."""
    row, column = at
    (a, b, c), (d, e, f) = inverse[:2]
    (left, right), (left_weight, right_weight) = _neighbours(a * column + b * row + c, image.shape[1])
    (upper, lower), (upper_weight, lower_weight) = _neighbours(d * column + e * row + f, image.shape[0])
    flat, values = image.reshape(-1), np.arange(256) / divisor
    width, channel = image.shape[1], np.arange(3)[:, None]

    def across(line: np.ndarray) -> np.ndarray:
        start = line.astype(np.intp) * width
        left_values = values.take(flat.take((start + left) * 3 + channel))
        right_values = values.take(flat.take((start + right) * 3 + channel))
        return left_values * left_weight + right_values * right_weight

    return np.asarray(across(upper) * upper_weight + across(lower) * lower_weight)
