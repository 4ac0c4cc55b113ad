"""Benchmark of extraction: ig3d against MediaPipe's Face Landmarker, and against another version of ig3d.

Faces: detection, 478 points and 52 blendshapes of the same synthetic faces, on one core. The programs take turns; a
figure is the median over rounds of the ratio within a round. Runs: ``ig3d extract`` from start to end with ``facemesh``
and ``smirk`` (random weights).

    python benchmarks/bench_extract.py --mediapipe /path/to/python        # an environment with mediapipe 1.x
    python benchmarks/bench_extract.py --against /path/to/python          # an environment with another version of ig3d
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from bench_regressors import SMIRK
from bench_regressors import write as write_weights
from PIL import Image

from ig3d.extract.weights import find_weights
from ig3d.faces.synth import SynthConfig, synthesize

LOOP = Path(__file__).with_name("face_loop.py")
BATCH = 32


class Loop:
    """One program of the comparison, in a process of the given Python."""

    def __init__(self, python: str, kind: str, images: Path, task: Path) -> None:
        command = [python, str(LOOP), kind, str(images), str(task)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._line("ready")

    def round(self) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        took: dict[str, float] = json.loads(self._line("{"))
        return took

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _line(self, start: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(start):
                return line
        raise SystemExit(f"{' '.join(map(str, self._process.args))}: the process ended unexpectedly")  # type: ignore[arg-type]


def compare_faces(pythons: Mapping[str, tuple[str, str]], images: Path, task: Path, rounds: int) -> None:
    """Print milliseconds per image and ratios to ig3d; ``pythons`` maps a program to its Python and kind of loop."""
    count = len(np.load(images, mmap_mode="r"))
    with ExitStack() as stack:
        loops = {}
        for side, (python, kind) in pythons.items():
            loops[side] = Loop(python, kind, images, task)
            stack.callback(loops[side].close)
        took = [{side: loop.round() for side, loop in loops.items()} for _ in range(rounds)]
    for side in pythons:
        for time_of in ("processor", "clock"):
            ms = [1e3 * times[side][time_of] / count for times in took]
            ratios = [times[side][time_of] / times["ig3d"][time_of] for times in took]
            print(
                f"faces: {side:10} {time_of:9} min {min(ms):6.2f}, median {statistics.median(ms):6.2f} ms per image; "
                f"{statistics.median(ratios):.2f} times ig3d ({min(ratios):.2f} to {max(ratios):.2f})"
            )
        print(f"faces: {side:10} {took[0][side]['faces']:.0f} faces in {count} images")


def compare_runs(
    pythons: Mapping[str, str], faces: Path, work: Path, counts: Sequence[int], rounds: int, jobs: int
) -> None:
    """Print the time of ``ig3d extract`` of each version, for different numbers of images."""
    folders = {count: _part(faces, work / f"part-{count}", count) for count in counts}
    for regressor in ("facemesh", "smirk"):
        took: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for turn in range(rounds + 1):
            for side, python in pythons.items():
                for count, folder in folders.items():
                    out = work / f"{side}-{regressor}-{count}-{turn}.h5"
                    seconds = _extract(python, folder, out, regressor, jobs)
                    if turn:  # the first run converts and compiles
                        took.setdefault((side, count), []).append(seconds)
        for (side, count), times in took.items():
            ratios = [
                [other[k] / ig3d[k] for other, ig3d in zip(times, took["ig3d", count], strict=True)]
                for k in (0, 1)
            ]
            processor, clock = (min(seconds[k] for seconds in times) for k in (0, 1))
            print(
                f"runs: {regressor:8} {side:10} {count:5} images: {processor:6.2f} s of CPU time "
                f"({statistics.median(ratios[0]):.2f} times ig3d), {clock:6.2f} s of wall time "
                f"({statistics.median(ratios[1]):.2f} times)"
            )


def _part(faces: Path, folder: Path, count: int) -> Path:
    (folder / "faces").mkdir(parents=True)
    for file in sorted(faces.rglob("*.jpg"))[:count]:
        (folder / "faces" / file.name).symlink_to(file)
    return folder


def _extract(python: str, folder: Path, out: Path, regressor: str, jobs: int) -> tuple[float, float]:
    """CPU time and wall time in seconds."""
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [
        python,
        "-m",
        "ig3d",
        "extract",
        str(folder),
        "--out",
        str(out),
        "--regressor",
        regressor,
        "--jobs",
        str(jobs),
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return used, time.perf_counter() - clock


@contextmanager
def cores(number: int) -> Iterator[None]:
    """Restrict this process and its children to some cores, if the system supports it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[-number:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--mediapipe",
        metavar="PYTHON",
        help="Python with mediapipe 1.x; default: this one, if mediapipe is installed",
    )
    parser.add_argument("--against", metavar="PYTHON", help="Python with another version of ig3d")
    parser.add_argument(
        "--images", type=int, default=256, help="number of synthetic faces for the face networks"
    )
    parser.add_argument(
        "--runs", type=int, default=1000, help="number of images for ig3d extract; 0 skips these runs"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=1, help="workers and cores of ig3d extract")
    args = parser.parse_args()
    task = find_weights("facemesh").resolve()
    with tempfile.TemporaryDirectory() as folder, cores(args.jobs):
        work = Path(folder)
        synthesize(work / "faces", SynthConfig(count=max(args.images, args.runs), jobs=1))
        files = sorted((work / "faces").rglob("*.jpg"))[: args.images]
        images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
        np.save(work / "images.npy", images)
        pythons = {"ig3d": (sys.executable, "ig3d")}
        if python := args.mediapipe or _own_mediapipe():
            pythons["mediapipe"] = (python, "mediapipe")
        if args.against:
            pythons["against"] = (args.against, "ig3d")
        compare_faces(pythons, work / "images.npy", task, args.rounds)
        if args.runs:
            os.environ["IG3D_WEIGHTS"] = str(work / "weights")
            os.environ["XDG_CACHE_HOME"] = str(work / "cache")
            (work / "weights").mkdir()
            (work / "weights" / "face_landmarker.task").symlink_to(task)
            torch.manual_seed(0)
            write_weights("smirk", {key: part().eval() for key, part in SMIRK.items()}, work / "weights")
            versions = {side: python for side, (python, kind) in pythons.items() if kind == "ig3d"}
            compare_runs(versions, work / "faces", work, (8, args.runs), max(2, args.rounds // 2), args.jobs)


def _own_mediapipe() -> str | None:
    from importlib.util import find_spec

    return sys.executable if find_spec("mediapipe") else None


if __name__ == "__main__":
    main()
