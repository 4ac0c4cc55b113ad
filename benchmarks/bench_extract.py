"""Extraction against the plain way: one image at a time, one JSON file each.

Both do the same work on the same synthetic faces: decode, Face Mesh, codes. Prints ratios of one run.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mediapipe.python.solutions.face_mesh import FaceMesh
from PIL import Image

from ig3d import ExtractConfig, extract_codes, list_samples
from ig3d.extract.regressors.facemesh import FaceMeshCodes
from ig3d.faces.synth import SynthConfig, synthesize
from ig3d.features.values import FaceBatch, SampleList

COUNT = 2000


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def plain(samples: SampleList, root: Path, out: Path) -> None:
    """What a script would do: open, detect, encode, dump, next."""
    out.mkdir()
    regress = FaceMeshCodes()
    with FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        for sample in samples.samples:
            pixels = np.asarray(Image.open(root / sample.path).convert("RGB"))
            found = mesh.process(pixels).multi_face_landmarks
            if not found:
                continue
            height, width = pixels.shape[:2]
            points = np.array([[(p.x * width, p.y * height, p.z * width) for p in found[0].landmark]])
            box = np.zeros((1, 4))
            codes = regress(FaceBatch(np.array([[width, height]]), box, points, None, np.zeros((1, 2, 3))))
            record = {name: values[0].tolist() for name, values in codes.items()}
            (out / f"{Path(sample.path).name}.json").write_text(json.dumps(record))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        synthesize(work / "faces", SynthConfig(count=COUNT, jobs=2))
        samples = list_samples(work / "faces", "rafdb")
        loop = timed(lambda: plain(samples, work / "faces", work / "json"))
        print(f"plain loop                {COUNT / loop:7.0f} images/s   1.00")
        for jobs in (1, 2):
            store = work / f"{jobs}.h5"
            took = timed(
                lambda store=store, jobs=jobs: extract_codes(samples, store, ExtractConfig(), jobs=jobs)
            )
            print(f"ig3d extract --jobs {jobs}     {COUNT / took:7.0f} images/s   {loop / took:.2f}")


if __name__ == "__main__":
    main()
