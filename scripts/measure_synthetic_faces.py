"""Measure how well FaceMesh recovers the true codes of synthetic faces: the figures of docs/face_model.md.

    python scripts/measure_synthetic_faces.py --count 1000
    python scripts/measure_synthetic_faces.py --count 300 --seed 11

Prints the correlation of true and recovered codes, and its upper bound: the correlation for the true points instead of
FaceMesh's. Then the accuracy of a linear classifier on each block (three folds). The classes differ in expression only,
so that an accuracy of ``shape`` above chance shows leakage. Last, the accuracy of Bayes' rule on the true codes.
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np
from scipy.spatial.transform import Rotation
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ig3d.extract.detectors.facemesh import FaceMesh
from ig3d.faces.head import head
from ig3d.faces.model import FaceModel, load
from ig3d.faces.synth import SEPARATION, SHARES, SPREAD, SynthConfig, draw_codes, pose_points, render


def correlations(recovered: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(k,) correlation of each column."""
    return np.array([np.corrcoef(recovered[:, k], true[:, k])[0, 1] for k in range(true.shape[1])])


def as_jpeg(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB pixels after JPEG compression."""
    return cv2.imdecode(cv2.imencode(".jpg", image[..., ::-1])[1], cv2.IMREAD_COLOR)[..., ::-1].copy()


def accuracy(codes: np.ndarray, label: np.ndarray) -> float:
    """Accuracy of a linear classifier, in three folds."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return cross_val_score(
        classifier, codes, label, cv=StratifiedKFold(3, shuffle=True, random_state=0)
    ).mean()


def bayes(expression: np.ndarray, model: FaceModel) -> np.ndarray:
    """(n,) most probable class of true expression codes, under their true distribution."""
    standardised = (expression[:, None] - SEPARATION * model.class_mean) @ np.linalg.inv(model.class_spread).T
    return (np.log(SHARES) - (standardised**2).sum(2) / 2 / SPREAD**2).argmax(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    config = SynthConfig(count=options.count, seed=options.seed, size=options.size)
    cv2.setNumThreads(1)
    head()
    start = time.process_time()
    images, codes = render(config, np.arange(config.count))
    print(f"drawn: {config.count / (time.process_time() - start):.0f} images per second of CPU time")
    images = [as_jpeg(image) for image in images]
    faces = FaceMesh()(images)
    ok = np.array([bool(detected) for detected in faces])
    print(f"detected: {ok.sum()} of {len(ok)}")
    points = np.array([detected[0].landmarks for detected in faces if detected], float)
    drawn = pose_points(head(), draw_codes(config, np.flatnonzero(ok)), hair=np.ones(ok.sum()))[:, :478]
    distance = np.linalg.norm(points[..., :2] - drawn[..., :2], axis=2)
    print(f"points: mean error {distance.mean():.2f} pixels of {config.size}")
    model = load()
    measured, ideal = model.align(points), model.align(drawn)
    pose = Rotation.from_matrix(measured.rotation).as_rotvec()
    print("pose (pitch, yaw, roll):", correlations(pose, codes.pose[ok]).round(3))
    print("camera scale:", np.corrcoef(measured.scale, codes.camera[ok, 0])[0, 1].round(3))
    recovered, bound = model.encode(measured.aligned), model.encode(ideal.aligned)
    for name in ("expression", "shape"):
        true = getattr(codes, name)[ok]
        actual, best = correlations(recovered[name], true), correlations(bound[name], true)
        print(f"{name}, first eight axes:", actual[:8].round(2), "upper bound", best[:8].round(2))
        print(f"{name}, mean of all {len(actual)}: {actual.mean():.2f}, upper bound {best.mean():.2f}")
    label = codes.label[ok]
    for name in ("shape", "expression"):
        actual, best = accuracy(recovered[name], label), accuracy(bound[name], label)
        print(f"class accuracy from {name}: {actual:.3f}, from the true points {best:.3f}")
    print(
        f"class accuracy of Bayes' rule on the true codes: {(bayes(codes.expression[ok], model) == label).mean():.3f}"
    )


if __name__ == "__main__":
    main()
