"""Fixtures shared by all tests: small image folders, the program as a user starts it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

# The networks of tests are tiny: a second thread helps none, and on a machine that is busy waits twenty times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell starts what runs in the background deaf to Ctrl-C, and the programs that tests start would be so too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

FAKE = "ig3d.extract.fakes:FakeRegressor"


_NETWORKS = ("torch", "torchvision", "timm", "safetensors", "face_alignment")


def _missing(error: BaseException | None) -> str | None:
    """The package of :data:`_NETWORKS` whose absence caused an error."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            package = str(error.name).partition(".")[0]
            return package if package in _NETWORKS else None
        error = error.__cause__ or error.__context__
    return None


if find_spec("torch") is None:  # make check-oldest: files and tests that import torch themselves are skipped

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
        report = yield
        match = re.search(r"No module named '(\w+)", str(report.longrepr)) if report.failed else None
        if match and match[1] in _NETWORKS:
            report.outcome = "skipped"
            report.longrepr = (str(collector.path), 0, f"Skipped: needs {match[1]}")
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
        try:
            return (yield)
        except Exception as error:
            if package := _missing(error):
                pytest.skip(f"needs {package}")
            raise


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device here")


@pytest.fixture(scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of all tests, with the files of the networks that need no account; found once, in the user's folder."""
    from ig3d.errors import WeightsError
    from ig3d.extract.weights import find_weights

    home = tmp_path_factory.mktemp("home")
    weights = home / ".local" / "share" / "ig3d" / "weights"
    weights.mkdir(parents=True)
    for name in ("facemesh", "fer"):
        with suppress(WeightsError):  # a test that needs the file then fails with the same line
            file = find_weights(name)
            shutil.copyfile(file, weights / file.name)
    return home


@pytest.fixture(autouse=True)
def _home_untouched(_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be written outside of the tests' folders, and nothing fetched: tests of fetching allow it."""
    monkeypatch.setenv("HOME", str(_home))
    monkeypatch.setenv("IG3D_OFFLINE", "1")
    for name in ("IG3D_WEIGHTS", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@dataclass(frozen=True)
class Ended:
    """How the program ended."""

    returncode: int
    stdout: str
    stderr: str


# The commands of the program: building them takes 50 ms, so it is done once for all runs.
_command_of = cache(get_command)


@pytest.fixture
def ig3d(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run ``ig3d ...`` in this process (torch is imported once, not each time); how it ended, with its text."""
    from ig3d.cli import main

    monkeypatch.setattr("typer.main.get_command", _command_of)

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["ig3d", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "120")
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        text = capsys.readouterr()
        needed = re.search(r"needs the package '(\w+)', which is not installed", text.err)
        if needed and needed[1] in _NETWORKS and find_spec(needed[1]) is None:
            pytest.skip(f"needs {needed[1]}")
        return Ended(code, text.out, text.err)

    return run


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


def content(store: Path) -> str:
    """The hash of what a store holds, which is sound."""
    from ig3d.features.store import CodeStore

    with CodeStore(store) as opened:
        assert opened.verify() == []
        return opened.content_sha256
