"""Build the embedded face model (ig3d/faces/face_model.npz) from the landmarks of labelled photographs.

    python scripts/build_face_model.py landmarks.npz --out faces/face_model.npz

The input, made by landmarks_of_photographs.py from a folder of photographs, holds ``landmarks`` (n, 478, 3), ``grey``
(n, 478), ``label`` (n,), ``person`` (n,), ``blendshapes`` (n, 52) and ``blendshape_names`` (52,). Triangles are copied
from the present model. Estimators and measurements: docs/face_model.md.
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
CLASSES = PRESETS["rafdb"]  # synthetic faces are labelled with them
MEASURED = [name for name in CLASSES if name != "fear"]
FEAR = {"surprise": 0.6, "sad": 0.4}


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
    """(478,) variance of each point around its person's mean; each estimated mean costs a degree of freedom."""
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


def expressions(codes: np.ndarray, label: np.ndarray, person: np.ndarray) -> dict[str, np.ndarray]:
    """Mean expression codes of the seven classes, and the spread of faces around the mean of their class.

    A class mean of n persons is shrunk by the factor of James and Stein, 1 - tr(spread) / (n |mean|^2). Fear has a
    handful of faces and is mixed by hand after FACS: the raised brows, wide eyes and open mouth of surprise with the
    drawn brows and lips of sadness. The spread is that within persons and classes.
    """
    labels = centred(one_hot(label, MEASURED))
    spread = within(codes - labels @ effects(codes, labels, person), person)
    means = class_means(codes, label, person, names=MEASURED)
    means -= means.mean(0)
    persons = (
        np.array([len(np.unique(person[label == name])) for name in MEASURED]) / 2
    )  # mirror images add none
    means *= np.maximum(0, 1 - np.trace(spread) / (persons * (means**2).sum(1)))[:, None]
    by_name = dict(zip(MEASURED, means, strict=True))
    by_name["fear"] = sum(share * by_name[name] for name, share in FEAR.items())
    return {
        "class_mean": np.array([by_name[name] for name in CLASSES]),
        "class_spread": np.linalg.cholesky(spread),
    }


def greys(
    grey: np.ndarray, pairs: np.ndarray, label: np.ndarray, person: np.ndarray, k: int
) -> dict[str, np.ndarray]:
    """Mean grey value of the points, how it varies (each face's own mean taken off), and the classes' mean codes."""
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
    """(1434,) how far each coordinate counts when expression axes are chosen.

    Lips, lids and brows count fully and the ten iris points doubly (gaze is two of the best measured axes, of few
    points). Skin counts little and the face's outline hardly: a detector guesses it through hair, and it would make
    the longest "expression" axes. Depth, which is guessed altogether, counts less than place.
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
    """Rows of :func:`components`: the faces and their mirror images, the latter as further persons."""
    mirrored = (fit.aligned * FLIP)[:, pairs]
    x = (np.concatenate([fit.aligned, mirrored]) - mean).reshape(2 * len(label), -1)
    rotation = np.concatenate([fit.rotation, fit.rotation * np.outer(FLIP, FLIP)])
    persons = np.concatenate([person, person + person.max() + 1])
    return x, rotation, np.tile(label, 2), persons, np.concatenate([blendshapes, blendshapes[:, sides]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("landmarks", type=Path)
    parser.add_argument("--out", type=Path, default=Path("faces/face_model.npz"))
    parser.add_argument("--shape", type=int, default=SHAPE_AXES, help="identity axes that are kept")
    parser.add_argument(
        "--expression", type=int, default=EXPRESSION_AXES, help="expression axes that are kept"
    )
    parser.add_argument("--grey", type=int, default=12, help="grey axes that are kept")
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
    found = components(*rows, ks=options.shape, ke=options.expression, weights=feature_weights())
    with np.load(EMBEDDED) as file:
        topology = {name: file[name] for name in ("triangles", "part")}
    arrays = {
        "format_version": np.int16(FORMAT_VERSION),
        "mean": mean.astype(np.float32),
        "rigid": rigid.astype(np.float32),
        "mirror": pairs.astype(np.int16),
        **topology,
        "shape_basis": found.shape_basis.astype(np.float16),
        "expression_basis": found.expression_basis.astype(np.float16),
        "encoder": found.encoder.astype(np.float16),
        "classes": np.array(CLASSES),
        **expressions(found.expression, rows[2], rows[3]),
        **greys(grey, pairs, label, person, options.grey),
    }
    if not all(np.isfinite(values).all() for values in arrays.values() if values.dtype.kind == "f"):
        raise SystemExit("face model: expected finite values; too few faces, or too small a floor")
    small = {
        name: values.astype(np.float32) if values.dtype == float else values
        for name, values in arrays.items()
    }
    np.savez_compressed(options.out, **small)
    data = options.out.read_bytes()
    print(f"{options.out}: {len(data):,} bytes; write this into faces/model.py:")
    print(f'SHA256 = "{hashlib.sha256(data).hexdigest()}"')


if __name__ == "__main__":
    main()
