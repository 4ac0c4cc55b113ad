"""Hashes that recognise an image under another id."""

from __future__ import annotations

import hashlib

import numpy as np


def hash_contents(digests: np.ndarray) -> np.ndarray:
    """Shorten (n, 16) uint8 digests of images to (n,) int64; 0 for an image that was not read."""
    return np.ascontiguousarray(digests[:, :8]).view("<i8").ravel().astype(np.int64)


def hash_ids(ids: np.ndarray) -> np.ndarray:
    """(n,) int64 hashes of ids (n,)."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids.tolist())
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)
