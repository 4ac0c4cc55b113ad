"""Build the embedded face model (ig3d/faces/face_model.npz) from the landmarks of labelled photographs.

    python scripts/build_face_model.py face_landmarks.npz --out faces/face_model.npz

The file holds ``landmarks`` (n, 478, 3), ``grey`` (n, 478), ``label`` (n,) and ``person`` (n,). What is estimated and
how well it works is in docs/face_model.md.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
from face_mesh_topology import triangles
from scipy.optimize import linear_sum_assignment

from ig3d.faces.model import FORMAT_VERSION, align

FLIP = np.array([-1.0, 1.0, 1.0])


def unit(points: np.ndarray) -> np.ndarray:
    """Centred, centroid size 1."""
    centred = points - points.mean(0)
    return centred / np.sqrt((centred**2).sum())


def mirror_pairs(mean: np.ndarray) -> np.ndarray:
    """(478,) which point lies nearest to each point's mirror image; one to one."""
    distance = ((mean[:, None] - (mean * FLIP)[None]) ** 2).sum(-1)
    pairs = linear_sum_assignment(distance)[1]
    if (pairs[pairs] != np.arange(len(mean))).any():
        raise SystemExit(
            "mirror pairs: expected an involution; the landmarks are not of a frontal, even set of faces"
        )
    return pairs


def within_variance(aligned: np.ndarray, person: np.ndarray) -> np.ndarray:
    """(478,) mean squared distance of each point from its person's mean, persons' own means paid for."""
    count = np.bincount(person)
    total = np.zeros((len(count), *aligned.shape[1:]))
    np.add.at(total, person, aligned)
    rest = aligned - (total / count[:, None, None])[person]
    return (rest**2).sum((0, 2)) / (len(person) - len(count))


def mean_face(landmarks: np.ndarray, person: np.ndarray, *, rounds: int = 10):
    """Generalised Procrustes analysis: mean, weights of the rigid part, mirror pairs.

    Each person counts once. The mean is turned to the average orientation of the photographed heads, then made
    symmetric, so that pose 0 is a head that looks into the camera as people do on average. A point weighs by the
    inverse of its variance within persons: the nose and the corners of the eyes carry the alignment, lips and brows
    hardly count.
    """
    weight = 1 / np.bincount(person)[person]
    weight /= weight.sum()
    mean = unit(np.tensordot(weight, landmarks, 1))
    rigid = np.full(len(mean), 1 / len(mean))
    for _ in range(rounds):
        fit = align(landmarks, mean, weights=rigid)
        left, _, right = np.linalg.svd(np.tensordot(weight, fit.rotation, 1))
        mean = unit(np.tensordot(weight, fit.aligned, 1) @ (left @ right).T)
        pairs = mirror_pairs(mean)
        mean = unit((mean + (mean * FLIP)[pairs]) / 2)
        variance = within_variance(fit.aligned, person)
        variance = (variance + variance[pairs]) / 2
        rigid = 1 / (variance + np.median(variance) / 4)
        rigid /= rigid.sum()
    return mean, rigid, pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("landmarks", type=Path)
    parser.add_argument("--out", type=Path, default=Path("faces/face_model.npz"))
    options = parser.parse_args()
    with np.load(options.landmarks) as file:
        landmarks = file["landmarks"].astype(float)
        person = np.unique(file["person"], return_inverse=True)[1]
    mean, rigid, pairs = mean_face(landmarks, person)
    faces, part = triangles()
    arrays = {
        "format_version": np.int16(FORMAT_VERSION),
        "mean": mean,
        "rigid": rigid.astype(np.float32),
        "mirror": pairs.astype(np.int16),
        "triangles": faces,
        "part": part,
    }
    np.savez_compressed(options.out, **arrays)
    data = options.out.read_bytes()
    print(f"{options.out}: {len(data):,} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
