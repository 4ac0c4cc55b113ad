"""Small run of ``benchmarks/fuzz_inputs.py``; ``make check-full`` runs 2,000 inputs."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPT = BENCHMARKS / "fuzz_inputs.py"


def fuzz(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_damaged_inputs_give_one_line_errors() -> None:
    ended = fuzz("--count", 30, "--jobs", 2, "--group", "archives", "tables", "predictions", "stores")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(
        r"30 damaged inputs, 2[56] readers, seed 0: 0 findings", ended.stdout
    )  # 25 without torch


def test_a_filter_that_matches_no_reader_is_refused() -> None:
    ended = fuzz("--count", 1, "--group", "predictions", "--reader", "nothing")
    assert ended.returncode == 2
    assert (
        "--reader nothing: no reader has this name; choose one of npz, npy, predictions csv" in ended.stderr
    )


def test_faults_are_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import fuzz_inputs

    def ends(code: int, text: str) -> str:
        return fuzz_inputs.Outcome(code, text, 1.0).fault

    assert ends(-11, "") == "native crash (SIGSEGV)"
    assert ends(1, "Traceback (most recent call last):") == "traceback"
    assert ends(3, "x") == "exit code 3"
    assert ends(1, "ig3d: a\nig3d: b")
    assert ends(1, "")
    assert not ends(1, "ig3d: a")
    assert fuzz_inputs.Outcome(-9, "", 999.0).fault.startswith("hang")


def test_archives_can_be_damaged_with_every_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from fuzz_damage import damage_zip

    handle = BytesIO()
    with zipfile.ZipFile(handle, "w") as archive:
        archive.writestr("a", b"content" * 9)
    for seed in range(200):
        damage_zip(handle.getvalue(), random.Random(seed))
