"""Measure class accuracy and person retrieval of the face model's codes: the figures of docs/face_model.md.

    python scripts/measure_face_model.py landmarks.npz

Five folds, with each person in one fold; mean face, bases and classifier are fitted on the training folds. Accuracy is
balanced over six classes (fear and contempt have too few faces), with logistic regression on standardised codes.
Retrieval is the share of faces whose nearest other face in the test fold (cosine) shows the same person, among faces
whose person has several.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from build_face_model import (
    EXPRESSION_AXES,
    SHAPE_AXES,
    feature_weights,
    mean_face,
    mirrored_names,
    with_mirror_images,
)
from face_model_statistics import components
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ig3d.faces.model import align

LEFT_OUT = ["fear", "contempt"]


def retrieval(codes: np.ndarray, person: np.ndarray) -> tuple[float, float]:
    """Share of faces whose nearest other face is of the same person, and that share by chance."""
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    others = np.bincount(person)[person] - 1
    right = person[similarity.argmax(1)] == person
    return right[others > 0].mean(), (others / (len(person) - 1))[others > 0].mean()


def accuracy(codes: np.ndarray, label: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Balanced accuracy on the test rows."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500, class_weight="balanced"))
    model.fit(codes[train], label[train])
    return balanced_accuracy_score(label[test], model.predict(codes[test]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("landmarks", type=Path)
    options = parser.parse_args()
    with np.load(options.landmarks) as file:
        landmarks, label = file["landmarks"].astype(float), file["label"]
        person = np.unique(file["person"], return_inverse=True)[1]
        blendshapes, sides = (
            file["blendshapes"].astype(float),
            mirrored_names(file["blendshape_names"].tolist()),
        )
    counted = ~np.isin(label, LEFT_OUT)
    rows: dict[str, list[tuple[float, ...]]] = {}
    for train, test in GroupKFold(5).split(landmarks, groups=person):
        number = np.unique(person[train], return_inverse=True)[1]
        mean, rigid, pairs = mean_face(landmarks[train], number)
        x = (align(landmarks, mean, weights=rigid).aligned - mean).reshape(len(landmarks), -1)
        fit = align(landmarks[train], mean, weights=rigid)
        training = with_mirror_images(
            fit, label[train], number, blendshapes[train], mean=mean, pairs=pairs, sides=sides
        )
        model = components(*training, ks=SHAPE_AXES, ke=EXPRESSION_AXES, weights=feature_weights())
        codes = x @ model.encoder.T
        principal = x @ np.linalg.svd(x[train] - x[train].mean(0), full_matrices=False)[2][:70].T
        blocks = {
            "shape": codes[:, :SHAPE_AXES],
            "expression": codes[:, SHAPE_AXES:],
            "both": codes,
            "blendshapes": blendshapes,
            "expression and blendshapes": np.concatenate([codes[:, SHAPE_AXES:], blendshapes], axis=1),
            "first 70 principal axes of the landmarks": principal,
        }
        for name, values in blocks.items():
            score = accuracy(values, label, train[counted[train]], test[counted[test]])
            rows.setdefault(name, []).append((score, *retrieval(values[test], person[test])))
    print(f"{'block':44}{'accuracy':>10}{'retrieval':>11}{'(chance)':>10}")
    for name, values in rows.items():
        score, retrieved, chance = np.mean(values, axis=0)
        print(f"{name:44}{score:10.3f}{retrieved:11.3f}{chance:10.3f}")


if __name__ == "__main__":
    main()
