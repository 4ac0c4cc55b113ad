"""Recovery of the true codes of synthetic faces through FaceMesh: the figures of docs/face_model.md.

    python scripts/measure_synthetic_faces.py --count 1000
    python scripts/measure_synthetic_faces.py --count 300 --seed 11

Correlation of true and recovered codes, with its ceiling: the same with the drawn points instead of FaceMesh's. Then
the accuracy of a linear learner on each block (three folds): the classes differ in expression only, so that what
``shape`` contributes is expression that leaks into it. Last, the accuracy of Bayes' rule on the true codes.
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


def correlations(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(k,) correlation of each column."""
    return np.array([np.corrcoef(found[:, k], true[:, k])[0, 1] for k in range(true.shape[1])])


def as_jpeg(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB pixels after JPEG compression."""
    return cv2.imdecode(cv2.imencode(".jpg", image[..., ::-1])[1], cv2.IMREAD_COLOR)[..., ::-1].copy()


def accuracy(codes: np.ndarray, label: np.ndarray) -> float:
    """Accuracy of a linear learner, in three folds."""
    learner = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return cross_val_score(learner, codes, label, cv=StratifiedKFold(3, shuffle=True, random_state=0)).mean()


def bayes(expression: np.ndarray, model: FaceModel) -> np.ndarray:
    """(n,) most probable class of true expression codes, by the densities from which they were drawn."""
    apart = (expression[:, None] - SEPARATION * model.class_mean) @ np.linalg.inv(model.class_spread).T
    return (np.log(SHARES) - (apart**2).sum(2) / 2 / SPREAD**2).argmax(1)


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
    print(f"drawn: {config.count / (time.process_time() - start):.0f} images per second of one core's time")
    images = [as_jpeg(image) for image in images]
    faces = FaceMesh()(images)
    ok = np.array([bool(found) for found in faces])
    print(f"found: {ok.sum()} of {len(ok)}")
    points = np.array([found[0].landmarks for found in faces if found], float)
    drawn = pose_points(head(), draw_codes(config, np.flatnonzero(ok)), hair=np.ones(ok.sum()))[:, :478]
    distance = np.linalg.norm(points[..., :2] - drawn[..., :2], axis=2)
    print(f"points: mean error {distance.mean():.2f} pixels of {config.size}")
    model = load()
    measured, ideal = model.align(points), model.align(drawn)
    pose = Rotation.from_matrix(measured.rotation).as_rotvec()
    print("pose (pitch, yaw, roll):", correlations(pose, codes.pose[ok]).round(3))
    print("camera scale:", np.corrcoef(measured.scale, codes.camera[ok, 0])[0, 1].round(3))
    found, ceiling = model.encode(measured.aligned), model.encode(ideal.aligned)
    for name in ("expression", "shape"):
        true = getattr(codes, name)[ok]
        here, best = correlations(found[name], true), correlations(ceiling[name], true)
        print(f"{name}, first eight axes:", here[:8].round(2), "ceiling", best[:8].round(2))
        print(f"{name}, mean of all {len(here)}: {here.mean():.2f}, ceiling {best.mean():.2f}")
    label = codes.label[ok]
    for name in ("shape", "expression"):
        here, best = accuracy(found[name], label), accuracy(ceiling[name], label)
        print(f"classes from {name}: {here:.3f}, from the drawn points' {best:.3f}")
    print(
        f"classes from the true codes, by Bayes' rule: {(bayes(codes.expression[ok], model) == label).mean():.3f}"
    )


if __name__ == "__main__":
    main()
