"""Benchmark of feeding a GPU: what processes of torch's DataLoader read, detect and crop, with networks left out.

The regressor has SMIRK's crop and blocks and returns zeros. Images are JPEGs of 224 pixels, with stored boxes, as full
images, and with detection. Two figures limit the rate: the CPU time per image of all processes (a machine allows at
most its number of cores divided by it), and that of the process that owns the GPU (one GPU allows at most one image in
that time). Processes and networks are started before the time is taken.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
from bench_stages import repeated
from joblib import cpu_count

from ig3d import list_samples
from ig3d.extract.batches import Shard
from ig3d.extract.boxes import FaceBoxes, box_source
from ig3d.extract.config import ExtractConfig
from ig3d.extract.read import digest_of
from ig3d.extract.regressors import Regressor
from ig3d.extract.regressors.smirk import Smirk
from ig3d.extract.stages import extract_shards
from ig3d.faces.synth import SynthConfig, synthesize
from ig3d.features.samples import Listing
from ig3d.features.store.format import StoreInfo
from ig3d.features.values import FaceBatch

CORES = 16
BATCH = 256
SHARD = 1024  # rows, as in a large dataset


class Free(Regressor):
    """Regressor with SMIRK's crop and blocks that returns zeros."""

    name = "free"
    needs = Smirk.needs
    detectors = ("facemesh-smirk",)
    blocks = Smirk.blocks

    @property
    def takes_tensors(self) -> bool:
        return True

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        return {name: np.zeros((len(faces), block.width), np.float32) for name, block in self.blocks.items()}


def with_boxes(listing: Listing, size: int = 224) -> Listing:
    """Samples with a box in the middle of each image."""
    low, high = size * 0.2, size * 0.8
    return replace(listing, samples=listing.samples.assign(x0=low, y0=low, x1=high, y1=high))


def stored(listing: Listing) -> FaceBoxes:
    """Boxes as in a store, with the hashes of the files."""
    boxes = box_source(with_boxes(listing), "dataset", Free.needs).read(slice(None))
    paths = listing.samples["path"]
    digests = {path: digest_of((Path(listing.root) / path).read_bytes()) for path in paths.unique()}
    return replace(boxes, digest=np.stack([digests[path] for path in paths]))


def feed(listing: Listing, boxes: FaceBoxes, config: ExtractConfig, readers: int) -> tuple[float, ...]:
    """Milliseconds per image: CPU time of all processes, of this process, and wall time."""
    with tempfile.TemporaryDirectory() as folder:
        spans = [slice(start, start + SHARD) for start in range(0, len(listing), SHARD)]
        shards = [
            Shard(Path(folder) / f"{number}.h5", listing.samples[span], boxes[span])
            for number, span in enumerate(spans)
        ]
        before, start = cpu_seconds(), time.perf_counter()
        extract_shards(shards, str(listing.root), config, StoreInfo("folder", "", ()), readers)
        wall, after = time.perf_counter() - start, cpu_seconds()
    used = {pid: after[pid] - seconds for pid, seconds in before.items() if pid in after}
    total, own = sum(used.values()), used[os.getpid()]
    return tuple(1e3 * seconds / len(listing) for seconds in (total, own, wall))


def cpu_seconds() -> dict[int, float]:
    """CPU time of this process and its children, by process id."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {process.pid: sum(process.cpu_times()[:2]) for process in processes}


def rates(listing: Listing, readers: int, rounds: int, kinds: tuple[str, ...]) -> list[str]:
    """Lines of a table: CPU time per image and the rates that it allows."""
    lines = []
    for detector in kinds:
        boxes = stored(listing) if detector == "boxes" else FaceBoxes.unknown(len(listing))
        config = ExtractConfig("bench_host:Free", detector, batch_size=BATCH, device="cpu")
        taken = [feed(listing, boxes, config, readers) for _ in range(rounds + 1)][1:]
        total, own, wall = (statistics.median(column) for column in zip(*taken, strict=True))
        allowed = f"{1e3 * CORES / total:,.0f} | {1e3 / own:,.0f} | {1e3 / wall:,.0f}"
        lines.append(f"| {detector} | {total:.2f} | {own:.3f} | {allowed} |")
    return lines


HEADER = [
    f"| detector | CPU ms per image | in the GPU's process | images/s of {CORES} cores | of that process | measured |",
    "|---|---|---|---|---|---|",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rows", type=int, default=4096, help="rows of a task; images are repeated")
    parser.add_argument("--readers", type=int, default=cpu_count(), help="processes that read")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--detectors", default="boxes,none,facemesh-smirk", help="separated by commas")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "faces"
        synthesize(root, SynthConfig(count=args.images, jobs=cpu_count()))
        listing = repeated(list_samples(root, "rafdb"), args.rows)
        print(f"{args.readers} reading processes on {cpu_count()} cores, {args.rows} rows")
        print(
            "\n".join([*HEADER, *rates(listing, args.readers, args.rounds, tuple(args.detectors.split(",")))])
        )


if __name__ == "__main__":
    main()
