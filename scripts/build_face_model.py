"""Build the embedded face model (ig3d/faces/face_model.npz) from the landmarks of labelled photographs.

    python scripts/build_face_model.py landmarks.npz --out faces/face_model.npz

The input, written by landmarks_of_photographs.py from a folder of photographs, contains ``landmarks`` (n, 478, 3),
``grey`` (n, 478), ``label`` (n,), ``person`` (n,), ``blendshapes`` (n, 52) and ``blendshape_names`` (52,). Triangles
are copied from the current model. Estimators and measurements: docs/face_model.md.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path

import numpy as np
from face_model_statistics import centred, class_means, components, effects, one_hot, principal, within
from scipy.optimize import linear_sum_assignment

from ig3d.faces.head import BROWS, LIPS_INNER, LIPS_OUTER, LOWER_LIDS, OVAL, UPPER_LIDS
from ig3d.faces.model import EMBEDDED, FORMAT_VERSION, Alignment, align
from ig3d.features.classes import PRESETS, canonical

SHAPE_AXES, EXPRESSION_AXES = 20, 30
FLIP = np.array([-1.0, 1.0, 1.0])
CLASSES = PRESETS["rafdb"]  # the labels of synthetic faces
MEASURED = [name for name in CLASSES if name != "fear"]
FEAR = {"surprise": 0.6, "sad": 0.4}


def unit(points: np.ndarray) -> np.ndarray:
    """Centre points and scale them to centroid size 1."""
    centred = points - points.mean(0)
    return centred / np.sqrt((centred**2).sum())


def mirror_pairs(mean: np.ndarray) -> np.ndarray:
    """(478,) index of the point nearest to the mirror image of each point; one-to-one."""
    distance = ((mean[:, None] - (mean * FLIP)[None]) ** 2).sum(-1)
    pairs = linear_sum_assignment(distance)[1]
    if (pairs[pairs] != np.arange(len(mean))).any():
        raise SystemExit(
            "mirror pairs are inconsistent: the mean of these faces is not symmetric; use more, and frontal, faces"
        )
    return pairs


def within_variance(aligned: np.ndarray, person: np.ndarray) -> np.ndarray:
    """(478,) unbiased variance of each point around the mean of its person."""
    count = np.bincount(person)
    total = np.zeros((len(count), *aligned.shape[1:]))
    np.add.at(total, person, aligned)
    residual = aligned - (total / count[:, None, None])[person]
    return (residual**2).sum((0, 2)) / (len(person) - len(count))


def mean_face(landmarks: np.ndarray, person: np.ndarray, *, rounds: int = 10):
    """Generalised Procrustes analysis: mean face, weights for rigid alignment, mirror pairs.

    Each person has the same weight. The mean is rotated to the average orientation of the photographed heads, then made
    symmetric: pose 0 is the average orientation towards the camera. The weight of a point is the inverse of its
    variance within persons, so that the nose and the corners of the eyes determine the alignment, not lips and brows.
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


def expressions(codes: np.ndarray, label: np.ndarray, person: np.ndarray) -> dict[str, np.ndarray]:
    """Mean expression codes of the seven classes, and covariance of faces around the mean of their class.

    A class mean of n persons is shrunk by the factor of James and Stein, 1 - tr(covariance) / (n |mean|^2). There are
    too few faces with fear; its mean is a mixture after FACS: raised brows, wide eyes and open mouth of surprise, and
    drawn brows and lips of sadness. The covariance is that within persons and classes.
    """
    labels = centred(one_hot(label, MEASURED))
    covariance = within(codes - labels @ effects(codes, labels, person), person)
    means = class_means(codes, label, person, names=MEASURED)
    means -= means.mean(0)
    # mirror images are not further persons
    persons = np.array([len(np.unique(person[label == name])) for name in MEASURED]) / 2
    means *= np.maximum(0, 1 - np.trace(covariance) / (persons * (means**2).sum(1)))[:, None]
    by_name = dict(zip(MEASURED, means, strict=True))
    by_name["fear"] = sum(share * by_name[name] for name, share in FEAR.items())
    return {
        "class_mean": np.array([by_name[name] for name in CLASSES]),
        "class_spread": np.linalg.cholesky(covariance),
    }


def greys(
    grey: np.ndarray, pairs: np.ndarray, label: np.ndarray, person: np.ndarray, k: int
) -> dict[str, np.ndarray]:
    """Grey values of the points: mean, basis of the variation around each face's mean, mean codes of classes."""
    level = grey - grey.mean(1, keepdims=True)
    both = np.concatenate([level, level[:, pairs]])
    mean = both.mean(0)
    basis, scores = principal(np.cov(both, rowvar=False), k)
    codes = (level - mean) @ scores
    means = class_means(codes, label, person, names=MEASURED)
    means -= means.mean(0)
    persons = np.array([len(np.unique(person[label == name])) for name in MEASURED])
    means *= np.maximum(0, 1 - k / (persons * (means**2).sum(1)))[:, None]
    by_name = dict(zip(MEASURED, means, strict=True))
    by_name["fear"] = sum(share * by_name[name] for name, share in FEAR.items())
    by_class = np.array([by_name[name] for name in CLASSES])
    return {"grey_mean": mean + grey.mean(), "grey_basis": basis, "class_grey": by_class}


def feature_weights() -> np.ndarray:
    """(1434,) weights of the coordinates in the choice of expression axes.

    Lips, lids and brows have weight 1 and the ten iris points weight 2, because gaze is well measured but has few
    points. Skin has a small weight. The outline of the face has nearly none: under hair the detector cannot see it, and
    its errors would dominate the expression axes. Depth is less reliable than position and has a smaller weight.
    """
    points = np.full(478, 0.2)
    for outline in (LIPS_OUTER, LIPS_INNER, *UPPER_LIDS, *LOWER_LIDS, *BROWS):
        points[list(outline)] = 1.0
    points[list(OVAL)] = 0.02
    points[468:] = 2.0
    return np.outer(points, [1.0, 1.0, 0.3]).ravel()


def mirrored_names(names: list[str]) -> np.ndarray:
    """(b,) index of each blendshape's counterpart on the other side of the face."""
    swap = {"Left": "Right", "Right": "Left"}
    return np.array(
        [names.index(re.sub("Left|Right", lambda side: swap[side.group()], name)) for name in names]
    )


def with_mirror_images(
    fit: Alignment,
    label: np.ndarray,
    person: np.ndarray,
    blendshapes: np.ndarray,
    *,
    mean: np.ndarray,
    pairs: np.ndarray,
    sides: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Input rows of :func:`components`: faces and their mirror images, which count as further persons."""
    mirrored = (fit.aligned * FLIP)[:, pairs]
    x = (np.concatenate([fit.aligned, mirrored]) - mean).reshape(2 * len(label), -1)
    rotation = np.concatenate([fit.rotation, fit.rotation * np.outer(FLIP, FLIP)])
    persons = np.concatenate([person, person + person.max() + 1])
    return x, rotation, np.tile(label, 2), persons, np.concatenate([blendshapes, blendshapes[:, sides]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("landmarks", type=Path)
    parser.add_argument("--out", type=Path, default=Path("faces/face_model.npz"))
    parser.add_argument("--shape", type=int, default=SHAPE_AXES, help="number of identity axes")
    parser.add_argument("--expression", type=int, default=EXPRESSION_AXES, help="number of expression axes")
    parser.add_argument("--grey", type=int, default=12, help="number of grey axes")
    options = parser.parse_args()
    with np.load(options.landmarks) as file:
        landmarks, grey = file["landmarks"].astype(float), file["grey"].astype(float)
        label = np.array([canonical(name) for name in file["label"].tolist()])
        person = np.unique(file["person"], return_inverse=True)[1]
        blendshapes, sides = (
            file["blendshapes"].astype(float),
            mirrored_names(file["blendshape_names"].tolist()),
        )
    mean, rigid, pairs = mean_face(landmarks, person)
    fit = align(landmarks, mean, weights=rigid)
    rows = with_mirror_images(fit, label, person, blendshapes, mean=mean, pairs=pairs, sides=sides)
    result = components(*rows, ks=options.shape, ke=options.expression, weights=feature_weights())
    with np.load(EMBEDDED) as file:
        topology = {name: file[name] for name in ("triangles", "part")}
    arrays = {
        "format_version": np.int16(FORMAT_VERSION),
        "mean": mean.astype(np.float32),
        "rigid": rigid.astype(np.float32),
        "mirror": pairs.astype(np.int16),
        **topology,
        "shape_basis": result.shape_basis.astype(np.float16),
        "expression_basis": result.expression_basis.astype(np.float16),
        "encoder": result.encoder.astype(np.float16),
        "classes": np.array(CLASSES),
        **expressions(result.expression, rows[2], rows[3]),
        **greys(grey, pairs, label, person, options.grey),
    }
    if not all(np.isfinite(values).all() for values in arrays.values() if values.dtype.kind == "f"):
        raise SystemExit("the face model has values that are not finite; use more faces or a larger floor")
    single = {
        name: values.astype(np.float32) if values.dtype == float else values
        for name, values in arrays.items()
    }
    np.savez_compressed(options.out, **single)
    data = options.out.read_bytes()
    print(f"{options.out}: {len(data):,} bytes; write this into faces/model.py:")
    print(f'SHA256 = "{hashlib.sha256(data).hexdigest()}"')


if __name__ == "__main__":
    main()
