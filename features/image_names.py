"""Suffixes of image files, which are no part of a sample's id."""

from __future__ import annotations

# Ends of file names that are no part of an id. Another end (clip.500) is.
IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".mpo", ".png", ".apng", ".bmp", ".webp",
    ".tif", ".tiff", ".gif", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jpm",
    ".ppm", ".pgm", ".pbm", ".pnm",
))  # fmt: skip


def without_image_suffix(name: str) -> str:
    """A path without the suffix of an image; any other end is part of the name.

    >>> without_image_suffix("a/clip.500.jpg"), without_image_suffix("a/clip.500")
    ('a/clip.500', 'a/clip.500')
    """
    stem, dot, suffix = name.rpartition(".")
    return stem if stem.rpartition("/")[2] and f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name
