"""Names of image and video files: suffixes, which are no part of a sample's id, and natural order."""

from __future__ import annotations

import re

# Ends of file names that are no part of an id. Another end (clip.500) is.
IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".mpo", ".png", ".apng", ".bmp", ".webp",
    ".tif", ".tiff", ".gif", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jpm",
    ".ppm", ".pgm", ".pbm", ".pnm",
))  # fmt: skip
# Ends of names of videos, whose frames are samples.
VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts", ".m2ts", ".ogv",
))  # fmt: skip


def without_image_suffix(name: str) -> str:
    """A path without the suffix of an image; any other end is part of the name.

    >>> without_image_suffix("a/clip.500.jpg"), without_image_suffix("a/clip.500")
    ('a/clip.500', 'a/clip.500')
    """
    stem, dot, suffix = name.rpartition(".")
    return stem if stem.rpartition("/")[2] and f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name


def natural(name: str) -> str:
    """Sort key that puts ``img2`` before ``img10``.

    >>> sorted(["img10", "img2", "img02b"], key=natural)
    ['img2', 'img02b', 'img10']
    """
    # by the number of digits first: a number of any length is compared by its value
    return re.sub(r"0*([0-9]*)", lambda number: f"{len(number[1]):05d}{number[1]}" if number[0] else "", name)
