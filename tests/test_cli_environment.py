"""The environment: standard streams that are closed or full, a full disk, missing system libraries."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toy_stores import make_samples, write_store

from ig3d import cli
from ig3d.errors import MissingExtra, missing_part, require

ROOT = Path(cli.__file__).parent


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    codes = {"expression": np.random.default_rng(0).normal(size=(500, 40))}
    return write_store(tmp_path_factory.mktemp("environment") / "a.h5", make_samples(500), codes=codes)


def shell(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in bash, in which ``$IG3D`` is the program and ``$1`` ... the arguments."""
    environment = os.environ | {"IG3D": f"{sys.executable} -m ig3d"}
    return subprocess.run(
        ["bash", "-c", command, "bash", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )


def test_a_reader_that_goes_away_ends_no_work(store: Path, tmp_path: Path) -> None:
    ended = shell(
        '$IG3D inspect "$1" --json | head -c 1 > /dev/null; echo ${PIPESTATUS[0]}; '
        '{ $IG3D export "$1" --csv "$2"; echo $? > "$3"; } | true',
        *(store, tmp_path / "a.csv", tmp_path / "code"),
    )
    assert ended.stdout == "0\n" and ended.stderr == "", ended
    assert (tmp_path / "code").read_text() == "0\n"
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 501


def test_closed_streams_are_no_files_of_ours(store: Path, tmp_path: Path) -> None:
    ended = shell(
        '$IG3D export "$1" --csv "$2" <&- >&- 2>&-; echo $?; $IG3D inspect "$1" >&-; echo $?; '
        '$IG3D inspect "$1.none" 2>&-; echo $?',
        *(store, tmp_path / "a.csv"),
    )
    assert ended.stdout == "0\n0\n1\n" and ended.stderr == "", ended
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 501


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_stdout_is_an_error_in_one_line(store: Path) -> None:
    ended = shell('$IG3D inspect "$1" > /dev/full', store)
    assert ended.returncode == 1
    assert (
        ended.stderr.startswith("ig3d: standard output cannot be written") and ended.stderr.count("\n") == 1
    )


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from ig3d.cli import main
main()
"""


@pytest.mark.parametrize("kind", ["csv", "npz", "parquet"])
def test_a_full_disk_while_exporting_is_one_line(store: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"a.{kind}"
    out.write_text("before")
    ended = subprocess.run(
        [sys.executable, "-c", FULL, "export", store, f"--{kind}", out],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended
    assert "File too large" in ended.stderr and str(out) in ended.stderr
    assert out.read_text() == "before" and [*tmp_path.iterdir()] == [out]


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (
            OSError("libgomp.so.1: cannot open shared object file: No such file or directory"),
            "system library libgomp.so.1, which is not installed; apt-get install libgomp1",
        ),
        (
            ImportError("libGL.so.1: cannot open shared object file: No such file or directory"),
            "apt-get install libgl1",
        ),
        (ImportError("libodd-2.so.7: cannot open shared object file: No such"), "libodd-2.so.7"),
    ],
)
def test_a_missing_system_library_is_named(
    ig3d: Callable, monkeypatch: pytest.MonkeyPatch, store: Path, error: Exception, wanted: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ig3d.features.store.summary.summarise", broken)
    ended = ig3d("inspect", store)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert wanted in ended.stderr
    monkeypatch.setattr("ig3d.errors.import_module", broken)
    with pytest.raises(MissingExtra, match="system library"):
        require("cv2", wanted_by="x")


def test_other_errors_are_no_missing_part() -> None:
    assert missing_part(OSError(2, "No such file or directory", "libgomp.txt"), wanted_by="x") is None
    assert missing_part(ImportError("cannot import name 'x'"), wanted_by="x") is None


def test_workers_end_without_pgrep() -> None:
    """Joblib ends workers by psutil, where it is installed; else it calls pgrep."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert any(name.startswith("psutil") for name in project["dependencies"])
    pytest.importorskip("psutil")
    script = (
        "from concurrent.futures import wait\n"
        "import time\n"
        "from ig3d.workers import run_tasks\n"
        "if __name__ == '__main__':\n"
        "    ended = run_tasks(time.sleep, [(0,), (60,)], jobs=2); next(ended); ended.close(); print('ended')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": "/none"},
        timeout=60,
    )
    assert ended.stdout == "ended\n" and "Traceback" not in ended.stderr, ended
