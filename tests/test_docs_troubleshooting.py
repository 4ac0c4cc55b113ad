"""docs/troubleshooting.md: the messages that it quotes are those of the program, and its advice exists."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from conftest import FAKE, Ended, colour_folder
from filelock import FileLock
from toy_stores import CLASSES, good_logits, make_samples, save, write_store

from ig3d.cli import app
from ig3d.features.samples import Split

PAGE = (Path(__file__).parent.parent / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
SAMPLES = make_samples(280, split=lambda row: (Split.train, Split.test)[row % 2])
IDS = [sample.id for sample in SAMPLES]
LOGITS = good_logits(SAMPLES)
SHIFTED = (*CLASSES[1:], CLASSES[0])


def options() -> set[str]:
    """All options and commands of the program."""
    group = typer.main.get_command(app)
    names: set[str] = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        for below, part in {"": command, **getattr(command, "commands", {})}.items():
            names.add(f"ig3d {name} {below}".strip())
            names |= {option for parameter in part.params for option in parameter.opts}
    return names


def bad_files(folder: Path) -> Path:
    """A dataset, a store and prediction files, each file with another fault."""
    colour_folder(folder / "images", 2)
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").write_text("nothing")
    write_store(folder / "toy.h5", SAMPLES)
    (folder / "cut.h5").write_bytes((folder / "toy.h5").read_bytes()[:3000])
    save(folder / "other_ids.npz", LOGITS, ids=[f"elsewhere/{row}" for row in range(len(IDS))])
    save(folder / "order.npz", LOGITS, ids=IDS, classes=SHIFTED)
    save(folder / "columns.npz", np.hstack([LOGITS, LOGITS[:, :1]]), ids=IDS)
    np.save(folder / "short.npy", LOGITS[:99])
    np.savez(folder / "objects.npz", ids=IDS, logits=np.array([{"a": 1}], object))
    np.savez(folder / "twice.npz", ids=[*IDS[:-1], IDS[0]], logits=LOGITS)
    return folder


CHECK = ("predictions", "check")
CASES = [
    ("no known layout", "--dataset", ("datasets", "check", "empty")),
    ("has no class for", "=none", ("datasets", "check", "images", "--label-map", "happy=joy")),
    ("does not exist", "check the path", ("datasets", "check", "nowhere")),
    ("found no", "ig3d weights add FILE", ("extract", "images", "--regressor", "smirk", "--out", "s.h5")),
    ("no such store", "ig3d extract", ("inspect", "none.h5")),
    ("is cut short or damaged", "extract it again", ("inspect", "cut.h5")),
    ("has no ids, and its", "--2d-ids", (*CHECK, "short.npy", "--3d-store", "toy.h5")),
    ("ids cannot be matched to", "the samples are", (*CHECK, "other_ids.npz", "--3d-store", "toy.h5")),
    ("the class order seems wrong", "--2d-classes", (*CHECK, "order.npz", "--3d-store", "toy.h5")),
    ("name all columns with", "--2d-classes", (*CHECK, "columns.npz", "--3d-store", "toy.h5")),
    ("holds Python objects", "ids.astype(str)", (*CHECK, "objects.npz", "--3d-store", "toy.h5")),
    ("duplicate id", "keep one row per id", (*CHECK, "twice.npz", "--3d-store", "toy.h5")),
]  # fmt: skip


def check_row(phrase: str, advice: str, ended: Ended) -> None:
    """The program failed with a message that the page quotes; the row's advice is in the message or an option."""
    assert ended.returncode in (1, 2), ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    if "PROBLEM" in ended.stdout:  # ig3d predictions check prints a report, in which lines are wrapped
        message = " ".join(ended.stdout.split())
    else:
        message = ended.stderr.strip().splitlines()[-1]
        assert message.startswith("ig3d: ")
    assert phrase in message
    (cure,) = [cure for quoted, cure in ROWS if f"`{phrase}`" in quoted]
    assert advice in cure
    assert advice in message or advice in options()


@pytest.mark.parametrize(("phrase", "advice", "command"), CASES, ids=[case[0] for case in CASES])
def test_the_page_quotes_the_message_and_its_remedy(
    phrase: str,
    advice: str,
    command: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ig3d: Callable[..., Ended],
) -> None:
    monkeypatch.chdir(bad_files(tmp_path))
    check_row(phrase, advice, ig3d(*command))


def test_messages_of_runs_on_the_same_store(tmp_path: Path, ig3d: Callable[..., Ended]) -> None:
    images, out = colour_folder(tmp_path / "images", 2), tmp_path / "a.h5"
    command = ("extract", images, "--regressor", FAKE, "--out", out, "--jobs", 1)
    assert ig3d(*command).returncode == 0
    check_row("the store is of another run", "--restart", ig3d(*command, "--split", "0.5,0.2,0.3"))
    parts = tmp_path / "b.h5.parts"
    parts.mkdir()
    with FileLock(parts / "lock"):
        ended = ig3d("extract", images, "--regressor", FAKE, "--out", tmp_path / "b.h5", "--jobs", 1)
    check_row("another extraction is writing this store", "wait for it", ended)
