"""Fixtures shared by all tests: small image folders, the program as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FAKE = "ig3d.extract.fakes:FakeRegressor"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device here")


@pytest.fixture(autouse=True)
def _home_untouched(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be written outside of the test's folders."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp()))


@pytest.fixture
def ig3d() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run ``ig3d ...`` as a program; returns the finished process with its text."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ig3d", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "COLUMNS": "120"},
            **options,  # type: ignore[call-overload]
        )

    yield run


def write_image(
    path: Path, colour: tuple[int, int, int] = (120, 90, 60), size: tuple[int, int] = (24, 20)
) -> Path:
    """A PNG or JPEG of one colour; ``size`` is width, height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def colour_folder(root: Path, per_class: int, *, classes: tuple[str, ...] = ("happy", "sad")) -> Path:
    """A class-folder dataset of one-colour images, each image another colour."""
    rng = np.random.default_rng(0)
    for name in classes:
        for index in range(per_class):
            colour = tuple(int(value) for value in rng.integers(20, 235, 3))
            write_image(root / name / f"{index:04d}.png", colour)
    return root
