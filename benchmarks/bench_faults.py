"""Test of faults at random moments: every disturbed run must end with the same store as an undisturbed one.

A hundred times, a worker or a whole run is killed with SIGKILL, and the command is repeated until it ends. Then a disk
is full: a small tmpfs, if it can be mounted. With ``--backend dask`` or ``ray``, workers of a local cluster are killed
instead. Prints a summary; exits with 1 at the first difference. Needs Linux.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from ig3d import CodeStore, ExtractConfig, extract_codes, list_samples
from ig3d.workers import DASK_CONFIG

FAKE = "ig3d.extract.fakes:FakeRegressor"
IMAGES = 2000
# Kills per run; with three, a shard could lose three workers, and its rows would be given up.
WORKERS_A_RUN = 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=("loky", "dask", "ray"), default="loky")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        colours(work / "data")
        start(work, work / "calm.h5", jobs=1).wait()
        with CodeStore(work / "calm.h5") as store:
            wanted = store.content_sha256
        if args.backend != "loky":
            runs = kill_cluster_workers(work, wanted, draw, args.kills, args.backend)
            print(f"{args.backend} workers killed {args.kills:10d}  in {runs} runs, every store equal")
            return
        alone = args.kills // 2
        workers = kill_workers(work, wanted, draw, alone)
        print(f"workers killed            {alone:5d}  in {workers} runs, every store equal")
        runs = kill_runs(work, wanted, draw, args.kills - alone)
        print(
            f"whole runs killed         {args.kills - alone:5d}  and repeated: {runs} finished, every store equal"
        )
        print(full_disk(work, wanted))


def colours(root: Path) -> None:
    """Write a dataset of one-colour images, a folder for each class."""
    rng = np.random.default_rng(0)
    for index, colour in enumerate(rng.integers(20, 235, (IMAGES, 3)).tolist()):
        path = root / ("happy" if index % 2 else "sad") / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 20), tuple(colour)).save(path)


def start(work: Path, out: Path, *, jobs: int) -> subprocess.Popen[bytes]:
    """Start an extraction."""
    command = [sys.executable, "-m", "ig3d", "extract", work / "data", "--out", out, "--regressor", FAKE]
    command += ["--batch-size", 8, "--jobs", jobs]
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def same(out: Path, wanted: str) -> None:
    """Exit with an error if a store differs from the undisturbed one."""
    with CodeStore(out) as store:
        problems = store.verify()
        if store.content_sha256 != wanted or problems:
            sys.exit(f"{out.name}: the store differs from that of the undisturbed run {problems}")
    out.unlink()


def workers_of(run: int) -> list[int]:
    """Process ids of the workers of a run, from /proc."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                worker = b"popen_loky" in (entry / "cmdline").read_bytes()
            except (OSError, IndexError, ValueError):
                continue
            if parent == run and worker:
                pids.append(int(entry.name))
    return pids


def kill_workers(work: Path, wanted: str, draw: random.Random, kills: int) -> int:
    """Kill single workers; the run must continue by itself. Returns the number of runs."""
    done, runs = 0, 0
    while done < kills:
        out, runs = work / "workers.h5", runs + 1
        process, killed = start(work, out, jobs=2), 0
        while process.poll() is None and killed < WORKERS_A_RUN and done < kills:
            time.sleep(draw.uniform(0, 0.5))
            if workers := workers_of(process.pid):
                try:
                    os.kill(draw.choice(workers), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                killed, done = killed + 1, done + 1
        if process.wait():
            sys.exit(f"a run ended with exit code {process.returncode} after its workers were killed")
        same(out, wanted)
    return runs


def kill_runs(work: Path, wanted: str, draw: random.Random, kills: int) -> int:
    """Kill the run with all of its workers, and repeat the command. Returns the number of finished stores."""
    done, stores = 0, 0
    out = work / "runs.h5"
    while done < kills or not out.exists():
        process = start(work, out, jobs=draw.choice((1, 2)))
        if done < kills:
            try:
                process.wait(timeout=draw.uniform(0.2, 4))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                done += 1
        process.wait()
        if out.exists() and process.returncode == 0:
            same(out, wanted)
            stores += 1
            if done >= kills:
                break
    return stores


@contextmanager
def cluster(backend: str) -> Iterator[str | None]:
    """Local cluster of two workers; yields its address."""
    if backend == "dask":
        import dask
        from distributed import LocalCluster

        with (
            dask.config.set(DASK_CONFIG),
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="localhost:0") as started,
        ):
            yield started.scheduler_address
        return
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield None
    finally:
        ray.shutdown()


def cluster_workers(backend: str) -> list[int]:
    """Process ids of the workers of the cluster that this process started."""
    # on ray during a task; the others of its processes end the cluster when they die
    name = "ray::_one_at_a_time" if backend == "ray" else "spawn_main"
    pids = []
    for process in psutil.Process().children(recursive=True):
        try:
            if name in " ".join(process.cmdline()):
                pids.append(process.pid)
        except psutil.Error:
            continue
    return pids


def kill_cluster_workers(work: Path, wanted: str, draw: random.Random, kills: int, backend: str) -> int:
    """Kill workers of a cluster during runs, which must continue by themselves. Returns the number of runs."""
    samples, config = list_samples(work / "data", "folder"), ExtractConfig(regressor=FAKE, batch_size=8)
    done, runs = 0, 0
    with cluster(backend) as address:
        while done < kills:
            out, runs, ended, killed = work / f"{backend}.h5", runs + 1, threading.Event(), list[int]()
            most = min(WORKERS_A_RUN, kills - done)

            def kill(ended: threading.Event = ended, killed: list[int] = killed, most: int = most) -> None:
                while len(killed) < most and not ended.wait(draw.uniform(0, 1)):
                    if workers := cluster_workers(backend):
                        try:
                            os.kill(draw.choice(workers), signal.SIGKILL)
                        except ProcessLookupError:
                            continue
                        killed.append(1)

            killer = threading.Thread(target=kill)
            killer.start()
            try:
                extract_codes(samples, out, config, jobs=2, backend=backend, address=address)
            finally:
                ended.set()
                killer.join()
            done += len(killed)
            same(out, wanted)
            print(f"{backend}: {done} killed in {runs} runs", file=sys.stderr, flush=True)
    return runs


def full_disk(work: Path, wanted: str) -> str:
    """Run on a tmpfs that is too small, then again after it was enlarged."""
    disk = work / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        return "full disk                  skipped: no tmpfs can be mounted (make test simulates a full disk)"
    try:
        if start(work, disk / "a.h5", jobs=1).wait() != 1 or (disk / "a.h5").exists():
            sys.exit("on a full disk the exit code was not 1, or a store was written")
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        if start(work, disk / "a.h5", jobs=1).wait():
            sys.exit("the command failed again after the disk was enlarged")
        same(disk / "a.h5", wanted)
    finally:
        subprocess.run(["umount", str(disk)], check=False)
    return "full disk (200 kB tmpfs)       1  one error, then the same command: store equal"


if __name__ == "__main__":
    main()
