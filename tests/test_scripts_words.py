"""The check for words: a use is reported with its line and a replacement."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_words.py"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one page."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
    (tmp_path / "page.md").write_text("Plain words.\nWhat" + "ever a file is.\n")
    return tmp_path


def check(project: Path) -> tuple[int, str]:
    command = [sys.executable, str(project / "scripts" / SCRIPT.name)]
    ended = subprocess.run(command, capture_output=True, text=True)
    return ended.returncode, ended.stdout + ended.stderr


def test_a_use_is_reported_with_its_line_and_a_replacement(project: Path) -> None:
    code, output = check(project)
    assert code == 1 and "page.md:2: 'What" + "ever'; write any" in output
    (project / "page.md").write_text("Plain words.\n")
    assert check(project) == (0, "words: 1 files checked\n")
