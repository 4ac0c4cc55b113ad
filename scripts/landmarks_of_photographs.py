"""Write the input of build_face_model.py: landmarks, blendshapes, grey values, labels and persons of photographs.

    python scripts/landmarks_of_photographs.py ROOT --dataset folder --groups '([^/]+)_\\d+$' --out landmarks.npz

Takes any dataset that ``ig3d extract`` reads. Persons are the groups of the dataset. Several photographs of at least
some persons are needed to separate identity from expression.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from ig3d.extract.arkit import NAMES as BLENDSHAPES
from ig3d.extract.datasets import DatasetOptions, list_samples
from ig3d.extract.detectors.facemesh import FaceMesh
from ig3d.extract.read import Unreadable, read_image


def measure(path: Path, detector: FaceMesh) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(478, 3) points in units of the face's mean width and height, (478,) grey values, (52,) blendshapes.

    None if there is no face.
    """
    try:
        pixels = read_image(path).pixels
    except (FileNotFoundError, Unreadable):
        return None
    faces = detector([pixels])[0]
    if not faces:
        return None
    face = max(faces, key=lambda face: face.area)
    points = face.landmarks.astype(float)
    grey = cv2.blur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (3, 3))
    pixel = np.clip(points[:, :2].astype(int), 0, np.array(grey.shape)[::-1] - 1)
    centred = points - points.mean(0)
    return centred / np.ptp(centred[:, :2], axis=0).mean(), grey[pixel[:, 1], pixel[:, 0]], face.blendshapes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--dataset", default="folder")
    parser.add_argument("--manifest")
    parser.add_argument("--groups", help="regular expression over ids; its first group names the person")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    chosen = DatasetOptions(manifest=options.manifest, group_pattern=options.groups)
    samples = list_samples(str(options.root), options.dataset, chosen).samples
    detector = FaceMesh()
    faces = [measure(options.root / path, detector) for path in samples["path"]]
    kept = [face for face in faces if face is not None]
    detected = samples[[face is not None for face in faces]]
    persons = detected["group"].where(detected["group"] != "", detected["id"]).tolist()
    numbers = np.unique(persons, return_inverse=True)[1]
    if not kept or np.bincount(numbers).max() < 2:
        raise SystemExit(
            "every person has only one photograph; pass --groups to say which photographs show the same person"
        )
    np.savez_compressed(
        options.out,
        landmarks=np.array([points for points, _, _ in kept], np.float16),
        grey=np.array([grey for _, grey, _ in kept], np.uint8),
        blendshapes=np.array([scores for _, _, scores in kept], np.float16),
        blendshape_names=np.array(BLENDSHAPES),
        label=detected["label"].astype(object).fillna("").to_numpy(dtype="U"),
        person=numbers.astype(np.int32),
    )
    print(
        f"{options.out}: {len(kept)} faces of {numbers.max() + 1} persons, {len(faces) - len(kept)} without a face"
    )


if __name__ == "__main__":
    main()
