"""What the processor's side of a GPU run can feed, whatever the GPU does: the pipeline with networks that cost nothing.

A regressor with SMIRK's crop and blocks gives zeros, and says that it runs on a GPU, so that a worker has its threads.
JPEGs of 224 pixels, as whole images (``--detector none``) and with stored boxes. Two kinds of figures bound a run: the
core-seconds per image of the whole process (cores over them is what a machine allows), and those of the two threads
through which every image goes, the main one and the regressor's, to which real networks are added (one over the
longer is what one worker allows). All are processor time, which other programs hardly touch; a shard's own cost
(opening, hashing, flushing) is in them, waiting for the disk is not.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from bench_stages import repeated
from joblib import cpu_count

from ig3d import list_samples
from ig3d.extract.boxes import FaceBoxes, box_source
from ig3d.extract.config import BATCH_SIZE, ExtractConfig
from ig3d.extract.pipeline import run_shard
from ig3d.extract.read import digest_of
from ig3d.extract.regressors.smirk import Smirk
from ig3d.faces.synth import SynthConfig, synthesize
from ig3d.features.samples import Listing
from ig3d.features.store.format import StoreInfo
from ig3d.features.values import Block, FaceBatch

CORES = 16


class Free:
    """SMIRK's crop and blocks; the codes are zeros."""

    name = "free"
    device = "cuda"
    needs = Smirk.needs
    detectors = ("none",)
    blocks: ClassVar[dict[str, Block]] = Smirk.blocks
    thread_seconds: ClassVar[float] = 0.0  # of the thread that called last, since it began

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        from bench_host import Free  # not the one of __main__

        Free.thread_seconds = time.thread_time()
        return {name: np.zeros((len(faces), block.width), np.float32) for name, block in self.blocks.items()}


def with_boxes(listing: Listing, size: int = 224) -> Listing:
    """Each face in the middle of its image."""
    low, high = size * 0.2, size * 0.8
    return replace(listing, samples=listing.samples.assign(x0=low, y0=low, x1=high, y1=high))


def stored(listing: Listing) -> FaceBoxes:
    """The boxes as a store has them: with the digests of the files."""
    boxes = box_source(listing, "dataset", Free.needs).read(slice(None))
    paths = listing.samples["path"]
    digests = {path: digest_of((Path(listing.root) / path).read_bytes()) for path in paths.unique()}
    return replace(boxes, digest=np.stack([digests[path] for path in paths]))


def shard(listing: Listing, boxes: FaceBoxes, config: ExtractConfig, threads: int) -> list[float]:
    """Milliseconds per image of one shard: of all threads' cores, of the main thread, of the regressor's, by clock."""
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
    parser.add_argument("--rows", type=int, default=1024, help="of a shard, of these images")
    parser.add_argument("--threads", type=int, default=cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "faces"
        synthesize(root, SynthConfig(count=asked.images, jobs=cpu_count()))
        listing = repeated(with_boxes(list_samples(root, "rafdb")), asked.rows)
        for detector, boxes in (("none", FaceBoxes.unknown(len(listing))), ("boxes", stored(listing))):
            config = ExtractConfig("bench_host:Free", detector, batch_size=BATCH_SIZE["cuda"])
            rounds = [shard(listing, boxes, config, asked.threads) for _ in range(asked.rounds + 1)][1:]
            cores, main_thread, regressors, wall = (
                statistics.median(column) for column in zip(*rounds, strict=True)
            )
            print(
                f"detector {detector:5}, {asked.threads} threads: {cores:.3f} ms of a core an image, "
                f"{CORES / cores * 1e3:.0f} images/s on {CORES} cores; {main_thread:.3f} in the main thread and "
                f"{regressors:.3f} in the regressor's, {1e3 / max(main_thread, regressors):.0f} images/s a worker; "
                f"{wall:.3f} by the clock"
            )


if __name__ == "__main__":
    main()
