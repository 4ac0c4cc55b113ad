"""Benchmark of growth with the dataset: time per row and peak memory for 1,000, 10,000 and 100,000 images.

A folder per class is listed and extracted with the fake detector and regressor, so that networks do not dominate. There
are only a hundred small images, with links under many names. Each run is a separate process, because the peak memory of
a process never decreases. Times are CPU times of the run and its workers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

FILES = 100
CLASSES = ("anger", "happy", "neutral", "sad")


def dataset(root: Path, rows: int) -> None:
    """Write the images and links."""
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
    for row in range(rows):
        path = root / CLASSES[row % len(CLASSES)] / f"{row:06d}.jpg"
        if row < FILES:
            Image.fromarray(rng.integers(1, 256, (64, 64, 3), np.uint8)).save(path, quality=90)
        else:
            os.link(root / CLASSES[row % len(CLASSES)] / f"{row % FILES:06d}.jpg", path)


def run_once(root: Path, jobs: int) -> None:
    """Run one extraction; print its CPU time in seconds and its peak memory in kilobytes (Linux)."""
    from ig3d import ExtractConfig, extract_codes
    from ig3d.extract.datasets import list_samples

    samples = list_samples(root, "folder")
    config = ExtractConfig(regressor="ig3d.extract.fakes:FakeRegressor")
    extract_codes(samples, root.parent / "codes.h5", config, jobs=jobs)
    own, workers = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    seconds = sum(used.ru_utime + used.ru_stime for used in (own, workers))
    print(json.dumps({"seconds": seconds, "own": own.ru_maxrss, "workers": workers.ru_maxrss}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1000,10000,100000", help="numbers of rows, separated by commas")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        run_once(Path(args.one), args.jobs)
        return
    before = None
    print(f"{'rows':>8} {'ms/row':>9} {'run, MB':>9} {'worker, MB':>13} {'together, MB':>13}")
    for rows in args.rows.split(","):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "images"
            dataset(root, int(rows))
            command = [sys.executable, __file__, "--one", str(root), "--jobs", str(args.jobs)]
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        run = json.loads(ended.stdout.splitlines()[-1])
        run["together"] = run["own"] + args.jobs * run["workers"]
        grown = ""
        if before is not None:
            a_row = (run["own"] - before["own"]) * 1024 / (int(rows) - before["rows"])
            worker, every = (run[of] / before[of] - 1 for of in ("workers", "together"))
            grown = f"   run {a_row:+.0f} bytes per row, worker {worker:+.1%}, together {every:+.1%}"
        print(
            f"{int(rows):8,d} {run['seconds'] / int(rows) * 1e3:9.3f} {run['own'] / 1024:9.1f} "
            f"{run['workers'] / 1024:13.1f} {run['together'] / 1024:13.1f}{grown}"
        )
        before = {**run, "rows": int(rows)}


if __name__ == "__main__":
    main()
