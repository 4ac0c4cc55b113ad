"""Growth with the dataset: time per row and peak memory of runs of 1,000, 10,000 and 100,000 rows.

The fake detector and regressor (no networks) on small images, of which there are a hundred: many rows show the same
file. Each run is a process of its own, since a process's peak memory never falls. A worker's is flat; the run's own
grows by its list of samples, some hundred bytes each, which counts here, where no network stands beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

FILES = 100


def colours(root: Path) -> None:
    root.mkdir()
    rng = np.random.default_rng(0)
    for number in range(FILES):
        pixels = rng.integers(1, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{number:03d}.jpg", quality=90)


def one(root: Path, rows: int, jobs: int) -> None:
    """One run; prints its seconds and its peak memory, kilobytes on Linux."""
    from ig3d import ExtractConfig, extract_codes
    from ig3d.features.values import Sample, SampleList

    samples = SampleList(
        "made up",
        str(root),
        (),
        tuple(
            Sample(f"{row // FILES:06d}/{row % FILES:03d}", f"{row % FILES:03d}.jpg") for row in range(rows)
        ),
    )
    config = ExtractConfig(regressor="ig3d.extract.fakes:FakeRegressor")
    start = time.perf_counter()
    extract_codes(samples, root.parent / f"{rows}.h5", config, jobs=jobs)
    seconds = time.perf_counter() - start
    own, workers = (
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps({"seconds": seconds, "own": own, "workers": workers}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1000,10000,100000", help="by comma")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        one(Path(asked.one), int(asked.rows), asked.jobs)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        colours(root)
        before = None
        print(f"{'rows':>8} {'ms a row':>9} {'run, MB':>9} {'a worker, MB':>13} {'together, MB':>13}")
        for rows in asked.rows.split(","):
            command = [
                sys.executable,
                __file__,
                "--one",
                str(root),
                "--rows",
                rows,
                "--jobs",
                str(asked.jobs),
            ]
            ended = subprocess.run(command, capture_output=True, text=True, check=True)
            run = json.loads(ended.stdout.splitlines()[-1])
            run["together"] = run["own"] + asked.jobs * run["workers"]
            grown = ""
            if before is not None:
                a_row = (run["own"] - before["own"]) * 1024 / (int(rows) - before["rows"])
                worker, every = (run[of] / before[of] - 1 for of in ("workers", "together"))
                grown = f"   run {a_row:+.0f} bytes a row, a worker {worker:+.1%}, together {every:+.1%}"
            print(
                f"{int(rows):8,d} {run['seconds'] / int(rows) * 1e3:9.3f} {run['own'] / 1024:9.1f} "
                f"{run['workers'] / 1024:13.1f} {run['together'] / 1024:13.1f}{grown}"
            )
            before = {**run, "rows": int(rows)}


if __name__ == "__main__":
    main()
