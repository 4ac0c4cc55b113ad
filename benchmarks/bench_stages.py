"""Benchmark of extraction by stage, and the rate of the pipeline relative to the highest rate that the stages allow.

The highest rate is the number of cores divided by the CPU time per image of all stages. The pipeline's rate uses wall
time and needs an idle machine; the first 64 rows of each worker, which include its start, are subtracted. Also printed
are the CPU time of the stages relative to that of the run, which depends little on other programs, and the rate with
the start. ``bench_gpu.py`` measures runs on a GPU.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from bench_regressors import DECA, EMOCA, SMIRK
from bench_regressors import write as write_weights
from joblib import cpu_count
from threadpoolctl import threadpool_limits

from ig3d import ExtractConfig, extract_codes, list_samples
from ig3d.extract.config import build, resolve_config
from ig3d.extract.crop import prepare
from ig3d.extract.detectors import choose_face
from ig3d.extract.read import decode, digest_of
from ig3d.faces.synth import SynthConfig, synthesize
from ig3d.features.samples import Listing, boxes_of
from ig3d.features.store.format import StoreInfo
from ig3d.features.store.writer import StoreWriter
from ig3d.features.values import Face, Rows, Status

NETWORKS = {"smirk": SMIRK, "deca": DECA, "emoca": EMOCA}
BATCH = 32


def cost(call: Callable[[], object], images: int, clock: Callable[[], float], rounds: int = 3) -> float:
    """Seconds per image, the minimum over rounds after a warm-up call."""
    call()
    times = []
    for _ in range(rounds):
        start = clock()
        call()
        times.append(clock() - start)
    return min(times) / images


def stages(samples: pd.DataFrame, root: Path, config: ExtractConfig, work: Path) -> dict[str, float]:
    """Stage -> seconds per image: CPU time, or wall time if the stage runs on the GPU."""
    regress, detect = build(config)
    size = BATCH
    paths = [root / path for path in samples["path"]]
    contents = [path.read_bytes() for path in paths]
    pixels = [decode(content) for content in contents]
    # known boxes replace detection
    detections = [
        faces if np.isnan(box).any() else [Face(box.astype(np.float32))]
        for box, faces in zip(boxes_of(samples), detect(pixels), strict=True)
    ]
    with_face = [row for row, faces in enumerate(detections) if faces]
    images = [pixels[row] for row in with_face]
    faces = [choose_face(detections[row]) for row in with_face]
    whole = detect.crop == "full image"
    batches = [
        prepare(images[start : start + size], faces[start : start + size], regress.needs, whole=whole)
        for start in range(0, len(images), size)
    ]
    rows = Rows.pending(len(samples), dict(regress.blocks))
    rows.status[:] = Status.no_face

    def detected() -> None:
        for start in range(0, len(pixels), size):
            detect(pixels[start : start + size])

    def written() -> None:
        with StoreWriter(work / "stage.h5", StoreInfo("a", "b", ()), samples, regress.blocks) as writer:
            writer.write(0, rows)

    n = len(samples)
    return {
        "read": cost(lambda: [path.read_bytes() for path in paths], n, time.process_time),
        "hash": cost(lambda: [digest_of(content) for content in contents], n, time.process_time),
        "decode": cost(lambda: [decode(content) for content in contents], n, time.process_time),
        "detect": cost(detected, n, time.process_time),
        "crop": cost(
            lambda: [
                prepare([i], [f], regress.needs, whole=whole) for i, f in zip(images, faces, strict=True)
            ],
            len(with_face),
            time.process_time,
        ),
        "regress": cost(lambda: [regress(batch) for batch in batches], len(with_face), time.process_time),
        "write": cost(written, n, time.process_time),
    }


def measure(
    listing: Listing, root: Path, config: ExtractConfig, jobs: Sequence[int], rows: int, work: Path
) -> None:
    """Print the costs of the stages and the rates of the pipeline."""
    config, _ = resolve_config(config)
    with threadpool_limits(1):  # as in a worker; more BLAS threads would use CPU time while they wait
        costs = stages(listing.samples[:256], root, config, work)
    print(f"\n{config.regressor}, detector {config.detector}")
    for stage, seconds in costs.items():
        print(f"  {stage:8} {seconds * 1e3:8.3f} ms per image {1 / seconds:10.0f} images/s on one core")
    by_cores = sum(costs.values())
    for workers in jobs:
        (few, little), (many, much) = (
            seconds_of(repeated(listing, count), config, workers, work) for count in (64 * workers, rows)
        )
        top, further = min(workers, cpu_count()) / by_cores, rows - 64 * workers
        rate = further / (many - few)
        print(
            f"  pipeline, {workers} workers: {rate:7.1f} of {top:7.1f} images/s, {rate / top:.2f} of the highest "
            f"({by_cores * further / (much - little):.2f} by CPU time); with the start {rows / many:.1f} images/s, "
            f"{rows / many / top:.2f}"
        )


def seconds_of(listing: Listing, config: ExtractConfig, workers: int, work: Path) -> tuple[float, float]:
    """Wall time of a run, and CPU time of all its processes, in seconds."""
    out = work / "pipeline.h5"
    start, used = time.perf_counter(), core_seconds()
    extract_codes(listing, out, config, jobs=workers)
    seconds = time.perf_counter() - start
    out.unlink()
    return seconds, core_seconds() - used


def core_seconds() -> float:
    """CPU time of this process and of its finished children."""
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def repeated(listing: Listing, rows: int) -> Listing:
    """Repeat the samples up to a number of rows, with new ids."""
    table = listing.samples.iloc[np.arange(rows) % len(listing)].reset_index(drop=True)
    return replace(listing, samples=table.assign(id=[f"{row:07d}" for row in range(rows)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument(
        "--rows", type=int, default=1500, help="rows of the pipeline's runs; images are repeated"
    )
    parser.add_argument("--jobs", default="1,2", help="numbers of workers, separated by commas")
    parser.add_argument("--regressors", default="facemesh,smirk")
    parser.add_argument("--detector", default=None, help="default: facemesh; none uses full images")
    args = parser.parse_args()
    jobs = [int(number) for number in args.jobs.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["IG3D_WEIGHTS"] = str(work / "weights")
        os.environ["XDG_CACHE_HOME"] = str(work / "cache")
        (work / "weights").mkdir()
        synthesize(work / "faces", SynthConfig(count=args.images, jobs=cpu_count()))
        listing = list_samples(work / "faces", "rafdb")
        for name in args.regressors.split(","):
            if name in NETWORKS:
                write_weights(name, {key: part() for key, part in NETWORKS[name].items()}, work / "weights")
            config = ExtractConfig(
                regressor=name,
                detector=args.detector or "facemesh",
                device="cpu",
            )
            measure(listing, work / "faces", config, jobs, args.rows, work)


if __name__ == "__main__":
    main()
