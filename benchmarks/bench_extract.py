"""Extraction against the plain way: one image at a time, one JSON file each.

Both do the same work on the same synthetic faces. ``facemesh``: decode, Face Mesh, codes. ``smirk``: decode, Face Mesh,
crop, encoders with random numbers in the official layout; the plain loop crops with scikit-image as the original does
and runs torch one image at a time on all cores, as torch does where nobody says otherwise. Prints ratios of one run.
ig3d's time includes the start of its workers, not the conversion of the encoders, which is done once per weights file.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from bench_regressors import SMIRK
from bench_regressors import write as write_weights
from mediapipe.python.solutions.face_mesh import FaceMesh
from PIL import Image
from skimage.transform import warp

from ig3d import ExtractConfig, extract_codes, list_samples
from ig3d.extract.crop import square_crop
from ig3d.extract.regressors.facemesh import FaceMeshCodes
from ig3d.extract.regressors.smirk import Smirk, split_outputs
from ig3d.faces.synth import SynthConfig, synthesize
from ig3d.features.samples import Sample, SampleList
from ig3d.features.values import Face, FaceBatch

# What a plain script makes of the pixels and the (478, 3) points of one image: block -> values.
Encode = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def facemesh_codes() -> Encode:
    regress = FaceMeshCodes()

    def encode(pixels: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
        size_wh = np.array([pixels.shape[1::-1]])
        batch = FaceBatch(size_wh, np.zeros((1, 4)), points[None], None, np.zeros((1, 2, 3)))
        return {name: values[0] for name, values in regress(batch).items()}

    return encode


def smirk_codes(networks: dict[str, torch.nn.Module]) -> Encode:
    spec = Smirk.needs

    def encode(pixels: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
        transform = square_crop(Face(np.zeros(4), landmarks=points), spec)
        inverse = np.linalg.inv(np.vstack([transform, (0, 0, 1)]))
        crop = warp(pixels, inverse, output_shape=(spec.size, spec.size), preserve_range=True).astype(
            np.uint8
        )
        image = torch.from_numpy(crop.transpose(2, 0, 1)[None] / np.float32(255))
        with torch.no_grad():
            outputs = {
                name: network.head(network.features(image).mean((2, 3))).numpy()
                for name, network in networks.items()
            }
        return {name: values[0] for name, values in split_outputs(outputs).items()}

    return encode


def plain(samples: Sequence[Sample], root: Path, out: Path, encode: Encode) -> None:
    """What a script would do: open, detect, encode, dump, next."""
    out.mkdir()
    with FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        for sample in samples:
            pixels = np.asarray(Image.open(root / sample.path).convert("RGB"))
            found = mesh.process(pixels).multi_face_landmarks
            if not found:
                continue
            height, width = pixels.shape[:2]
            points = np.array([(p.x * width, p.y * height, p.z * width) for p in found[0].landmark])
            record = {name: values.tolist() for name, values in encode(pixels, points).items()}
            (out / f"{Path(sample.path).name}.json").write_text(json.dumps(record))


def compare(
    name: str, encode: Encode, samples: SampleList, few: int, jobs: Sequence[int], work: Path
) -> None:
    """The plain loop on a few images before and after, ig3d on all; prints rates and ratios to the faster loop."""
    root = Path(samples.root)
    config = ExtractConfig(regressor=name, detector="facemesh")
    some = SampleList(samples.dataset, samples.root, samples.classes, samples.samples[:8])
    extract_codes(some, work / f"{name}.h5", config, jobs=1)  # converts the encoders

    def loop(when: str) -> float:
        return timed(lambda: plain(samples.samples[:few], root, work / f"{name}-{when}", encode)) / few

    before, took = loop("before"), {}
    for workers in jobs:
        store = work / f"{name}-{workers}.h5"
        took[workers] = timed(
            lambda store=store, workers=workers: extract_codes(samples, store, config, jobs=workers)
        ) / len(samples)
    after = loop("after")
    print(f"{name}: plain loop       {1 / before:7.1f} images/s before, {1 / after:.1f} after")
    for workers, seconds in took.items():
        print(
            f"{name}: ig3d --jobs {workers:<4} {1 / seconds:7.1f} images/s   {min(before, after) / seconds:.2f} times "
            f"the loop, {took[jobs[0]] / seconds:.2f} times --jobs {jobs[0]}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument(
        "--plain", type=int, default=300, help="of them, for the plain loop, before and after"
    )
    parser.add_argument("--jobs", default="1,2", help="numbers of workers, by comma")
    asked = parser.parse_args()
    jobs = [int(number) for number in asked.jobs.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["IG3D_WEIGHTS"] = str(work / "weights")
        os.environ["XDG_CACHE_HOME"] = str(work / "cache")
        (work / "weights").mkdir()
        networks = {key: part().eval() for key, part in SMIRK.items()}
        write_weights("smirk", networks, work / "weights")
        synthesize(work / "faces", SynthConfig(count=asked.images, jobs=2))
        samples = list_samples(work / "faces", "rafdb")
        few = min(asked.plain, asked.images)
        compare("facemesh", facemesh_codes(), samples, few, jobs, work)
        compare("smirk", smirk_codes(networks), samples, few, jobs, work)


if __name__ == "__main__":
    main()
