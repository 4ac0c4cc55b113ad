"""Runs that take their time: one is still going when a test interrupts it, on a busy machine too."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ig3d.extract.config import ExtractConfig
from ig3d.extract.fakes import FakeRegressor
from ig3d.features.values import FaceBatch

SLOW = ExtractConfig(regressor="slow_fakes:SlowRegressor", batch_size=8)


class SlowRegressor(FakeRegressor):
    """The codes of :class:`FakeRegressor`, a twentieth of a second later for each batch."""

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        time.sleep(0.05)
        return super().__call__(faces)


def with_modules_of(folder: Path) -> dict[str, str]:
    """Environment in which the modules of a folder can be imported, for plug-ins."""
    path = (str(folder), os.environ.get("PYTHONPATH"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def start(root: Path, out: Path, *options: object) -> subprocess.Popen[str]:
    """Start ``ig3d extract`` with :data:`SLOW` in a separate process group; its output is piped."""
    command = [sys.executable, "-m", "ig3d", "extract", root, "--out", out, "--regressor", SLOW.regressor]
    return subprocess.Popen(
        [str(part) for part in (*command, "--batch-size", SLOW.batch_size, *options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=with_modules_of(Path(__file__).parent),
    )


def wait_for_shards(process: subprocess.Popen[str], out: Path, shards: int) -> None:
    """Until the run has finished that many shards, or has ended."""
    parts = out.with_name(out.name + ".parts")
    while process.poll() is None and len(list(parts.glob("0*.h5"))) < shards:
        time.sleep(0.002)
