"""Accuracy on real faces with other class shares; docs/predict.md, "Correct for other class shares".

    python scripts/measure_class_shares.py face_landmarks_v2.npz

A linear learner on grey values stands for the 2D network, one on landmarks for the 3D head. Both are trained on a third
of the persons with the natural class shares; the stack is fitted on another third with at most 40 faces per class, and
predicts the last third with the natural shares.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ig3d import FuseConfig
from ig3d.console import stdout
from ig3d.features.fusion_table import FusionTable
from ig3d.features.samples import Split
from ig3d.learn.fuse import fuse_predictions
from ig3d.learn.predict import predict
from ig3d.learn.priors import difference_warning, estimated_shares, reweighted

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust")
PER_CLASS = 40


def learner():
    return make_pipeline(StandardScaler(), PCA(60, random_state=0), LogisticRegression(C=0.1, max_iter=5000))


def table_of(
    two: np.ndarray, three: np.ndarray, label: np.ndarray, person: np.ndarray, rows: np.ndarray
) -> FusionTable:
    """Ready predictions of some rows, without a split: rules are fitted in folds over persons."""
    return FusionTable(
        task="classes",
        classes=CLASSES,
        id=np.array([f"face-{row:05d}" for row in rows]),
        group=np.array([f"person-{number}" for number in person[rows]]),
        split=np.full(len(rows), Split.none, np.int8),
        labels=label[rows].astype(np.int16),
        targets=np.full((len(rows), 2), np.nan),
        two_d=two[rows],
        three_d=three[rows],
    )


def measure(
    grey: np.ndarray, landmarks: np.ndarray, label: np.ndarray, person: np.ndarray, seed: int
) -> tuple[dict[str, float], bool]:
    """Accuracy of each predictor on the last third of the persons, and whether the class shares were reported."""
    random = np.random.default_rng(seed)
    persons = random.permutation(np.unique(person))
    third = np.zeros(person.max() + 1, int)
    third[persons] = np.arange(len(persons)) * 3 // len(persons)
    third = third[person]
    two, three = (
        learner().fit(x[third == 0], label[third == 0]).predict_log_proba(x) for x in (grey, landmarks)
    )
    chosen = [
        random.permutation(np.flatnonzero((third == 1) & (label == k)))[:PER_CLASS]
        for k in range(len(CLASSES))
    ]
    fit = table_of(two, three, label, person, np.sort(np.concatenate(chosen)))
    model = fuse_predictions(fit, FuseConfig(rules=("stack",), controls=False, draws=100)).model
    new = table_of(two, three, label, person, np.flatnonzero(third == 2))
    log_p = predict(model, new)
    implied = model.shares["stack"].implied
    true = np.bincount(new.labels, minlength=len(CLASSES)) / len(new)
    results = {
        **{name: log_p[name] for name in ("2d", "2d-recalibrated", "stack")},
        "estimate": reweighted(log_p["stack"], implied, estimated_shares(log_p["stack"], implied)),
        "true shares": reweighted(log_p["stack"], implied, true),
    }
    accuracy = {name: float((values.argmax(axis=1) == new.labels).mean()) for name, values in results.items()}
    return accuracy, bool(difference_warning(model, new, "stack", log_p["stack"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("landmarks", type=Path)
    parser.add_argument("--seeds", type=int, default=10, help="Draws of the thirds.")
    options = parser.parse_args()
    with np.load(options.landmarks) as file:
        kept = np.isin(file["label"], CLASSES)
        landmarks = file["landmarks"][kept].astype(float).reshape(kept.sum(), -1)
        label = np.array([CLASSES.index(name) for name in file["label"][kept]])
        grey, person = file["grey"][kept].astype(float), file["person"][kept]
    runs = [measure(grey, landmarks, label, person, seed) for seed in range(options.seeds)]
    console = stdout()
    for name in runs[0][0]:
        accuracy = np.array([run[name] for run, _ in runs]) * 100
        console.print(f"{name:16} {accuracy.mean():5.1f} %  ({accuracy.min():.1f} to {accuracy.max():.1f})")
    console.print(
        f"class shares reported as different in {sum(warned for _, warned in runs)} of {len(runs)} runs"
    )


if __name__ == "__main__":
    main()
