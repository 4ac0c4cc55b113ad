"""The check for words: new uses fail, and the list of exempt files can only become shorter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_words.py"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one page and an empty list."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
    (tmp_path / "scripts" / "words_exempt.txt").write_text("# list\n")
    (tmp_path / "page.md").write_text("Plain words.\nWhat" + "ever a file is.\n")
    return tmp_path


def check(project: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, str(project / "scripts" / SCRIPT.name), *options]
    ended = subprocess.run(command, capture_output=True, text=True)
    return ended.returncode, ended.stdout + ended.stderr


def test_a_new_use_is_reported_with_its_line_and_a_replacement(project: Path) -> None:
    code, output = check(project)
    assert code == 1 and "page.md:2: 'What" + "ever'; write any" in output


def test_an_exempt_file_may_not_gain_uses_and_leaves_the_list_when_clean(project: Path) -> None:
    entries, page = project / "scripts" / "words_exempt.txt", project / "page.md"
    entries.write_text("# list\npage.md 1\n")
    assert check(project)[0] == 0
    page.write_text(page.read_text() + "It te" + "lls more.\n")
    assert check(project)[0] == 1
    assert check(project, "--shorten")[0] == 1 and entries.read_text() == "# list\npage.md 1\n"
    page.write_text("Plain words.\n")
    code, output = check(project)
    assert code == 1 and "remove it from scripts/words_exempt.txt" in output
    assert check(project, "--shorten")[0] == 0 and entries.read_text() == "# list\n"
