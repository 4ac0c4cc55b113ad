"""Fuzz test of every reader: no traceback, hang or native crash, and no wrong store that passes verification.

Each input is a valid file with random damage (bytes, text, members of a zip, objects of an HDF5 file), read by a
command in a separate process. The command must end by itself with exit code 0, 1 or 2 and without a traceback; a store
that passes verification must have the codes and labels of the undamaged one. Every input is determined by ``--seed``
and its number. Findings are printed, and ``--keep`` saves their files; the exit code is 1 if there are findings.

    python benchmarks/fuzz_inputs.py --count 2000 --seed 0
    python benchmarks/fuzz_inputs.py --group stores --count 200 --keep /tmp/findings
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
from fuzz_damage import DAMAGE
from fuzz_readers import GROUPS, Reader, readers, run

CPU_SECONDS = 30  # limit for one input; the slowest valid input takes 3 s
SECONDS = 120  # limit of wall time
MEMORY = 12 << 30  # limit of address space, bytes
ALLOWED = (0, 1, 2)
# Known faults of libraries: name of the reader -> text of the finding, which is not counted.
LIBRARY_FAULTS: dict[str, str] = {}


@dataclass(frozen=True)
class Outcome:
    """Result of a command: exit code (negative: a signal), output, seconds."""

    code: int
    text: str
    seconds: float

    @property
    def fault(self) -> str:
        """Description of the fault; empty if there is none."""
        if self.code == -signal.SIGKILL and self.seconds >= SECONDS:
            return f"hang ({SECONDS} s)"
        if self.code == -signal.SIGXCPU:
            return f"hang ({CPU_SECONDS} s of CPU time)"
        if self.code < 0:
            return f"native crash ({signal.Signals(-self.code).name})"
        if "Traceback" in self.text:
            return "traceback"
        if self.code not in ALLOWED:
            return f"exit code {self.code}"
        errors = [line for line in self.text.splitlines() if line.startswith("ig3d: ")]
        if self.code and (len(errors) > 1 or not self.text.strip()):
            return f"{len(errors)} error lines"
        return ""


@dataclass(frozen=True)
class Trial:
    """Result of one input."""

    number: int
    reader: str
    kind: str
    code: int
    fault: str
    last_line: str
    seconds: float


def forked(command: list[str], home: Path) -> Outcome:
    """Run a command in a forked process with limits on time and memory."""
    began = time.monotonic()
    log = home / "log"
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            os.environ.update(HOME=str(home), IG3D_OFFLINE="1", XDG_CACHE_HOME=str(home / "cache"))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 10))
            os.chdir(home)
            code = run(*command)
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 99
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if 0 <= code < 256 else 99)
    status = 0
    while time.monotonic() - began < SECONDS:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.005)
    else:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    text = log.read_text(errors="replace") if log.exists() else ""
    return Outcome(os.waitstatus_to_exitcode(status), text, time.monotonic() - began)


def content_of(path: Path) -> tuple[object, ...]:
    """Samples and codes of a store, to compare with those of another."""
    with h5py.File(path, "r") as file:
        values: list[object] = []

        def visit(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset):
                values.append((name, item.dtype.str, item.shape, item[()].tobytes()))

        file.visititems(visit)
        return tuple(values)


def try_input(number: int, *, every: list[Reader], seed: int, work: Path, keep: Path | None) -> Trial:
    """Damage a file, run its reader and check the result. Negative numbers are the valid files."""
    reader = every[number % len(every)]
    draw = random.Random(f"{seed} {number}")
    home = work / "runs" / str(number)
    shutil.copytree(reader.home, home / "in")
    file = draw.choice(reader.files)
    kind = "none"
    if number >= 0:
        kind = draw.choice(reader.kinds_of(file))
        path = home / "in" / file
        path.write_bytes(DAMAGE[kind](path.read_bytes(), draw))
    outcome = forked(reader.words(home / "in", file), home)
    fault = outcome.fault
    if number < 0 and outcome.code and not reader.refused:
        fault = fault or "a valid file was refused"
    if not fault and reader.same and outcome.code == 0:
        equal = content_of(home / "in" / reader.store) == content_of(reader.same)
        fault = "" if equal else "verified, but the content differs"
    last = (outcome.text.strip().splitlines() or [""])[-1][:200]
    if fault and LIBRARY_FAULTS.get(reader.name, "\0") in f"{fault}: {last}":
        fault = ""
    if fault and keep:
        shutil.copytree(home, keep / f"{reader.name.replace(' ', '-')}-{seed}-{number}", dirs_exist_ok=True)
    shutil.rmtree(home)
    return Trial(number, reader.name, kind, outcome.code, fault, last, outcome.seconds)


def names_of(every: list[Reader]) -> str:
    return ", ".join(reader.name for reader in every)


@contextmanager
def silent() -> Iterator[None]:
    """Discard the output of the commands that write valid files."""
    kept = os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--count", type=int, default=2000, help="number of inputs, distributed evenly over the readers"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--group", nargs="+", choices=GROUPS, default=GROUPS, help="groups of readers")
    parser.add_argument("--reader", default="", help="use only readers whose name contains this text")
    parser.add_argument("--jobs", type=int, default=2, help="inputs to run in parallel")
    parser.add_argument("--keep", type=Path, help="folder in which inputs with findings are saved")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.environ["HOME"] = str(work)
        with silent():
            available = readers(work, args.group)
        every = [reader for reader in available if args.reader in reader.name]
        if not every:
            names = names_of(available)
            parser.error(f"--reader {args.reader}: no reader has this name; choose one of {names}")
        attempt = partial(try_input, every=every, seed=args.seed, work=work, keep=args.keep)
        findings = 0
        counts: Counter[tuple[str, str]] = Counter()
        seconds: Counter[str] = Counter()
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(max(1, args.jobs), mp_context=context) as pool:
            for trial in pool.map(attempt, range(-len(every), args.count)):
                counts[trial.reader, "read" if trial.code == 0 else "refused"] += 1
                seconds[trial.reader] += trial.seconds
                if trial.fault:
                    findings += 1
                    counts[trial.reader, "FAULT"] += 1
                    print(
                        f"{trial.reader} {trial.kind} {trial.number}: {trial.fault}: {trial.last_line}",
                        flush=True,
                    )
        for reader in every:
            shown = ", ".join(f"{counts[reader.name, how]} {how}" for how in ("read", "refused", "FAULT"))
            print(f"{reader.name:<20} {shown}, {seconds[reader.name]:.0f} s")
        print(
            f"{args.count} damaged inputs, {len(every)} readers, seed {args.seed}: {findings} findings in "
            f"{time.monotonic() - began:.0f} s"
        )
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
