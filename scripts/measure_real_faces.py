"""Measure the gain of fusion on real faces, with separate persons: the figures of docs/protocol.md.

    python scripts/measure_real_faces.py face_landmarks.npz

The 3D codes are the aligned landmarks of 6,803 labelled photographs. A linear classifier of grey values at the
landmarks serves as the 2D network. There are six classes (fear and contempt have too few faces). The persons of the
reported rows are never in the training data. ``split``: three fifths of the persons are for training, one fifth for
calibration, one fifth is reported. ``nested``: no split; everything is fitted in folds over persons.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ig3d import FuseConfig, Inputs, fuse_files
from ig3d.console import stdout
from ig3d.faces.model import align
from ig3d.features.predictions import Predictions
from ig3d.features.samples import Split, sample_table
from ig3d.features.store.format import StoreInfo
from ig3d.features.store.writer import StoreWriter
from ig3d.features.values import Block, Rows, Status
from ig3d.learn.report import print_result, write_result

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust")
FOLDS = 5


def grey_learner():
    """Classifier that serves as the 2D network."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=500))


def write(
    folder: Path, codes: np.ndarray, grey: np.ndarray, label: np.ndarray, person: np.ndarray, mode: str
) -> Inputs:
    """Write a store and the 2D predictions."""
    fold = np.empty(len(label), int)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(codes, label, person)
    for number, (_, rows) in enumerate(folds):
        fold[rows] = number
    logits = np.full((len(label), len(CLASSES)), np.nan)
    if mode == "split":
        split = np.select([fold < 3, fold == 3], [Split.train, Split.val], Split.test)
        logits[:] = (
            grey_learner()
            .fit(grey[split == Split.train], label[split == Split.train])
            .decision_function(grey)
        )
        rows = split != Split.train
    else:
        split = np.full(len(label), Split.none)
        for number in range(FOLDS):
            learner = grey_learner().fit(grey[fold != number], label[fold != number])
            logits[fold == number] = learner.decision_function(grey[fold == number])
        rows = np.ones(len(label), bool)
    ids = np.array([f"face-{row:05d}" for row in range(len(label))])
    columns = {
        "id": ids,
        "path": [f"{name}.jpg" for name in ids],
        "label": label,
        "split": split,
        "group": [f"person-{number}" for number in person],
    }
    samples = sample_table(columns, classes=CLASSES)
    pending = Rows.pending(len(label), {})
    fields = {name: getattr(pending, name) for name in Rows.__slots__}
    fields |= {"status": np.full(len(label), Status.ok, np.int8), "codes": {"landmarks": codes}}
    info = StoreInfo("real-faces", "", CLASSES, regressor={"name": "aligned landmarks"})
    block = Block(codes.shape[1], "1", "facemesh-478", "Landmarks aligned to their mean")
    with StoreWriter(folder / "codes.h5", info, samples, {"landmarks": block}) as writer:
        writer.write(0, Rows(**fields))
    Predictions(logits[rows], "logits", CLASSES, ids[rows]).save(folder / "grey.npz")
    return Inputs(folder / "grey.npz", folder / "codes.h5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("landmarks", type=Path)
    parser.add_argument("--mode", choices=("split", "nested"), default="split")
    parser.add_argument("--head", default="linear")
    parser.add_argument("--out", type=Path, help="Folder for report.html and the other files.")
    options = parser.parse_args()
    with np.load(options.landmarks) as file:
        kept = np.isin(file["label"], CLASSES)
        landmarks, label = file["landmarks"][kept].astype(float), file["label"][kept]
        grey, person = file["grey"][kept].astype(float), file["person"][kept]
    # Alignment to the mean of all faces uses no labels.
    mean = landmarks.mean(0)
    for _ in range(3):
        aligned = align(landmarks, mean).aligned
        mean = aligned.mean(0)
    codes = aligned.reshape(len(aligned), -1).astype(np.float32)
    grey = (grey - grey.mean(1, keepdims=True)) / (grey.std(1, keepdims=True) + 1e-6)
    numbers = np.array([CLASSES.index(name) for name in label])
    with tempfile.TemporaryDirectory() as folder:
        inputs = write(Path(folder), codes, grey, numbers, person, options.mode)
        result = fuse_files(inputs, FuseConfig(head=options.head, model=False))
    print_result(result, stdout())
    if options.out:
        write_result(result, options.out)


if __name__ == "__main__":
    main()
