"""Do the true codes of synthetic faces come back through FaceMesh? The figures of docs/face_model.md.

    python scripts/measure_synthetic_faces.py --count 1000

Each line: correlation of true and found codes, and its ceiling: the same with the points as they were drawn instead of
FaceMesh's, which is what the split into identity and expression alone loses.
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from ig3d.extract.detectors.facemesh import FaceMesh
from ig3d.faces.head import head
from ig3d.faces.model import load
from ig3d.faces.synth import SynthConfig, draw_codes, pose_points, render


def correlations(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(k,) correlation of each column."""
    return np.array([np.corrcoef(found[:, k], true[:, k])[0, 1] for k in range(true.shape[1])])


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
    images = [cv2.imdecode(cv2.imencode(".jpg", image)[1], cv2.IMREAD_COLOR) for image in images]
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


if __name__ == "__main__":
    main()
