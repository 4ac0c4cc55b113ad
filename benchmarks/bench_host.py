"""Benchmark of the CPU side of a GPU run: the pipeline with a regressor that computes nothing.

The regressor has SMIRK's crop and blocks and returns zeros. Its device is "cuda", so that a worker uses threads. Images
are JPEGs of 224 pixels, as full images (``--detector none``) and with stored boxes. Two figures limit the rate of a
run: the CPU time per image of the process (the machine allows at most the number of cores divided by it), and the CPU
time of the two threads that handle every image, the main thread and that of the regressor, without the networks
(one worker allows at most one image in the longer of the two). The costs of a shard (opening, hashing, flushing) are
included, waiting for the disk is not.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from bench_stages import repeated
from joblib import cpu_count

from ig3d import list_samples
from ig3d.extract.boxes import FaceBoxes, box_source
from ig3d.extract.config import BATCH_SIZE, ExtractConfig
from ig3d.extract.pipeline import run_shard
from ig3d.extract.read import digest_of
from ig3d.extract.regressors import Regressor
from ig3d.extract.regressors.smirk import Smirk
from ig3d.faces.synth import SynthConfig, synthesize
from ig3d.features.samples import Listing
from ig3d.features.store.format import StoreInfo
from ig3d.features.values import Block, FaceBatch

CORES = 16


class Free(Regressor):
    """Regressor with SMIRK's crop and blocks that returns zeros."""

    name = "free"
    gpu = True
    needs = Smirk.needs
    detectors = ("none",)
    blocks: ClassVar[dict[str, Block]] = Smirk.blocks
    thread_seconds: ClassVar[float] = 0.0  # CPU time of the last calling thread

    def __init__(self, device: str = "cpu", precision: str = "fp32") -> None:
        super().__init__("cuda:0", precision)  # no network, so no GPU is needed

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        from bench_host import Free  # not the class in __main__

        Free.thread_seconds = time.thread_time()
        return {name: np.zeros((len(faces), block.width), np.float32) for name, block in self.blocks.items()}


def with_boxes(listing: Listing, size: int = 224) -> Listing:
    """Samples with a box in the middle of each image."""
    low, high = size * 0.2, size * 0.8
    return replace(listing, samples=listing.samples.assign(x0=low, y0=low, x1=high, y1=high))


def stored(listing: Listing) -> FaceBoxes:
    """Boxes as in a store, with the hashes of the files."""
    boxes = box_source(listing, "dataset", Free.needs).read(slice(None))
    paths = listing.samples["path"]
    digests = {path: digest_of((Path(listing.root) / path).read_bytes()) for path in paths.unique()}
    return replace(boxes, digest=np.stack([digests[path] for path in paths]))


def shard(listing: Listing, boxes: FaceBoxes, config: ExtractConfig, threads: int) -> list[float]:
    """Milliseconds per image of one shard: CPU time of the process, main thread and regressor's thread; wall time."""
    from bench_host import Free

    clocks = (time.process_time, time.thread_time, time.perf_counter)
    with tempfile.TemporaryDirectory() as folder:
        begun = [clock() for clock in clocks]
        info = StoreInfo("folder", "", ())
        run_shard(
            Path(folder) / "shard.h5",
            listing.samples,
            boxes,
            listing.root,
            config,
            info,
            threads=threads,
        )
        cores, main_thread, wall = (clock() - start for clock, start in zip(clocks, begun, strict=True))
    return [1e3 * seconds / len(listing) for seconds in (cores, main_thread, Free.thread_seconds, wall)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rows", type=int, default=1024, help="rows of a shard; images are repeated")
    parser.add_argument("--threads", type=int, default=cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "faces"
        synthesize(root, SynthConfig(count=args.images, jobs=cpu_count()))
        listing = repeated(with_boxes(list_samples(root, "rafdb")), args.rows)
        for detector, boxes in (("none", FaceBoxes.unknown(len(listing))), ("boxes", stored(listing))):
            config = ExtractConfig("bench_host:Free", detector, batch_size=BATCH_SIZE["cuda"])
            rounds = [shard(listing, boxes, config, args.threads) for _ in range(args.rounds + 1)][1:]
            cores, main_thread, regressors, wall = (
                statistics.median(column) for column in zip(*rounds, strict=True)
            )
            print(
                f"detector {detector:5}, {args.threads} threads: {cores:.3f} ms of CPU time per image, "
                f"{CORES / cores * 1e3:.0f} images/s on {CORES} cores; {main_thread:.3f} in the main thread and "
                f"{regressors:.3f} in the regressor's, {1e3 / max(main_thread, regressors):.0f} images/s per worker; "
                f"{wall:.3f} of wall time"
            )


if __name__ == "__main__":
    main()
