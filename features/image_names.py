"""Names of image and video files: suffixes, which are not part of the id of a sample, and natural order."""

from __future__ import annotations

import re

# Suffixes of images, which are not part of an id; other suffixes are, such as in clip.500.
IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".mpo", ".png", ".apng", ".bmp", ".webp",
    ".tif", ".tiff", ".gif", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jpm",
    ".ppm", ".pgm", ".pbm", ".pnm",
))  # fmt: skip
# Suffixes of videos, whose frames are samples.
VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts", ".m2ts", ".ogv",
))  # fmt: skip


def without_image_suffix(name: str) -> str:
    """A path without the suffix of an image; other suffixes are part of the name.

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
    # The number of digits precedes each number, so that longer numbers sort after shorter ones.
    return re.sub(r"0*([0-9]*)", lambda number: f"{len(number[1]):05d}{number[1]}" if number[0] else "", name)
