"""Help in sections, --verbose, completion, studies by name, and the whole job in one command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from conftest import FAKE, Ended, colour_folder

from ig3d.cli import app
from ig3d.commands.help import COMMANDS, SECTIONS

Program = Callable[..., Ended]


def commands() -> dict[str, object]:
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_sections_name_options_and_commands_that_exist() -> None:
    every = [*commands().values()]
    every += [sub for command in every for sub in getattr(command, "commands", {}).values()]
    options = {name for command in every for parameter in command.params for name in parameter.opts}  # type: ignore[attr-defined]
    listed = [option for names in SECTIONS.values() for option in names]
    assert len(set(listed)) == len(listed)
    assert set(listed) <= options
    assert {name for names in COMMANDS.values() for name in names} == set(commands())


def test_help_lists_inputs_first_and_the_machine_last(ig3d: Program) -> None:
    shown = ig3d("fuse", "--help").stdout
    titles = re.findall(r"^(\w[\w ]+):$", shown, re.M)
    assert titles == ["Inputs", "Fitting", "Statistics", "Output", "Machine", "Options"]
    assert (
        shown.index("--2d-logits") < shown.index("--blocks") < shown.index("--head") < shown.index("--jobs")
    )
    assert shown.count("--verbose") == 1
    assert "Codes of a dataset:" in ig3d("--help").stdout
    assert "--network" in ig3d("logits", "--help").stdout.split("Network:")[1]


def test_verbose_prints_versions_and_the_traceback_of_an_error(ig3d: Program, tmp_path: Path) -> None:
    quiet = ig3d("inspect", tmp_path / "absent.h5")
    assert (quiet.returncode, len(quiet.stderr.splitlines())) == (1, 1)
    ended = ig3d("inspect", tmp_path / "absent.h5", "--verbose")
    assert ended.returncode == 1
    assert f"Python {sys.version.split()[0]}" in ended.stderr
    assert "Traceback" in ended.stderr and "StoreError" in ended.stderr
    assert ended.stderr.splitlines()[-1] == quiet.stderr.strip()
    assert ig3d("inspect", tmp_path / "absent.h5").stderr == quiet.stderr  # of one run only


def test_shells_can_complete_commands_and_options() -> None:
    def complete(words: str) -> str:
        variables = {
            "_IG3D_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        code = "import sys; sys.argv[0] = 'ig3d'; from ig3d.cli import main; main()"
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, env=os.environ | variables, capture_output=True, text=True, check=False
        ).stdout

    assert "extract" in complete("ig3d ext").split()
    assert "--2d-logits" in complete("ig3d fuse --2d-l").split()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folder of 60 images in two classes, and logits by id."""
    root = colour_folder(tmp_path_factory.mktemp("data") / "images", 30)
    ids = [f"{name}/{index:04d}" for name in ("happy", "sad") for index in range(30)]
    truth = np.repeat([0, 1], 30)
    values = np.random.default_rng(0).normal(size=(60, 2)) + np.eye(2)[truth]
    logits = root.parent / "x.npz"
    np.savez(logits, ids=ids, logits=values, classes=["happy", "sad"])
    return root, logits


def test_one_command_does_the_job_and_continues(
    ig3d: Program, data: tuple[Path, Path], tmp_path: Path
) -> None:
    root, logits = data
    command = [
        "run",
        root,
        "--2d-logits",
        logits,
        "--out",
        tmp_path / "study",
        "--regressor",
        FAKE,
        "--jobs",
        1,
    ]
    command += ["--set", "fuse.head=linear", "--set", "fuse.draws=100", "--set", "fuse.no-controls"]
    command += ["--set", "fuse.rules=mean"]
    ended = ig3d(*command)
    assert ended.returncode == 0, ended.stderr
    report = tmp_path / "study/fused/report.html"
    assert report.is_file() and f"{report}: the report" in ended.stdout
    assert [line for line in ended.stderr.splitlines() if re.match(r"\d of 3: ", line)] == [
        "1 of 3: extract",
        "2 of 3: check the predictions",
        "3 of 3: fuse and report",
    ]
    record = json.loads((tmp_path / "study/fused/record.json").read_text())
    assert "linear" in json.dumps(record.get("config", record))
    before = report.stat().st_mtime_ns
    again = ig3d(*command)
    assert again.returncode == 0, again.stderr
    assert f"{report}: the report" in again.stdout
    assert "already complete" in again.stderr and "has finished before" in again.stderr
    assert report.stat().st_mtime_ns == before
    other = ig3d(*command, "--set", "fuse.seed=1")
    assert other.returncode == 0 and "has finished before" not in other.stderr
    assert report.stat().st_mtime_ns > before
    moved = shutil.copytree(root, tmp_path / "other")
    (moved / "happy/0000.png").unlink()
    refused = ig3d(command[0], moved, *command[2:])
    assert refused.returncode == 1 and "the store is of another run" in refused.stderr
    assert "with ig3d run: --set extract.restart" in refused.stderr


def test_run_refuses_what_it_cannot_do(ig3d: Program, data: tuple[Path, Path], tmp_path: Path) -> None:
    root, logits = data
    command = [
        "run",
        root,
        "--2d-logits",
        logits,
        "--out",
        tmp_path / "study",
        "--regressor",
        FAKE,
        "--jobs",
        1,
    ]
    for setting, words in (
        ("head=linear", "STEP.OPTION=VALUE"),
        ("fuse.out=x", "sets out itself"),
        ("fuse.haed=linear", "--haed"),
        ("fuse.head=haed", "'haed' is unknown"),
        ("fuse.rules=maen", "unknown rule maen"),
        ("extract.regresor=x", "--regresor"),
    ):
        ended = ig3d(*command, "--set", setting)
        assert ended.returncode == 2, ended.stderr
        assert "1 of 3" not in ended.stderr
        assert words in ended.stderr and "Traceback" not in ended.stderr
    for words, advice in (
        (["--draws", 300], "pass --set fuse.draws=300"),
        (["--draws=300"], "pass --set fuse.draws=300"),
        (["--no-controls"], "pass --set fuse.no-controls"),
        (["--force"], "pass --set check.force or --set fuse.force"),
    ):
        ended = ig3d(*command, *words)
        assert ended.returncode == 2 and ended.stderr.endswith(f"{advice}\n"), ended.stderr
    ended = ig3d(*command, "--drws", 300)
    assert ended.returncode == 2 and "No such option" in ended.stderr and "--drws" in ended.stderr
    ended = ig3d(*command[:3], tmp_path / "none.npz", *command[4:])
    assert ended.returncode == 1 and "no such file of predictions" in ended.stderr
    assert not (tmp_path / "study").exists(), "nothing is extracted before the predictions are read"
    np.savez(tmp_path / "short.npz", ids=["unknown"], logits=np.zeros((1, 2)))
    command[3] = tmp_path / "short.npz"
    ended = ig3d(*command)
    assert ended.returncode == 1 and "3 of 3" not in ended.stderr


def test_studies_of_ig3d_run_by_name(ig3d: Program, tmp_path: Path) -> None:
    ended = ig3d("ablate", "code_group", "--out", tmp_path / "a")
    assert ended.returncode == 2
    assert "code_groups" in ended.stderr and len(ended.stderr.splitlines()) == 1
    ended = ig3d(
        "ablate",
        "code_groups",
        "--out",
        tmp_path / "a",
        "--2d-logits",
        "absent.npz",
        "--3d-store",
        "absent.h5",
    )
    assert ended.returncode == 1 and "absent.h5: no such store" in ended.stderr
    (tmp_path / "study.yaml").write_text(
        "options: {2d-logits: x.npz, 3d-store: x.h5, head: forest}\ngrid: {seed: [0, 1]}\n"
    )
    ended = ig3d("ablate", tmp_path / "study.yaml", "--out", tmp_path / "b")
    assert ended.returncode == 2 and "head: 'forest' is unknown" in ended.stderr
    assert not (tmp_path / "b").exists(), "refused before any cell is run"


def test_usage_and_completion_name_the_command(ig3d: Program) -> None:
    assert "Usage: ig3d fuse" in ig3d("fuse", "--help").stdout
    assert "Usage: ig3d [OPTIONS]" in ig3d("--help").stdout


def test_options_of_drawings_are_no_options_of_a_fit(ig3d: Program) -> None:
    for command, option in (
        ("synth", "--test-share"),
        ("synth", "--size"),
        ("preview", "--seed"),
        ("preview", "--fps"),
    ):
        text = ig3d(command, "--help").stdout
        assert "Fitting:" not in text and option in text.partition("Output:")[2].partition("\n\n")[0], text


def test_a_step_without_progress_is_shown_after_the_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import time

    from rich.console import Console

    from ig3d import console

    screen = io.StringIO()
    monkeypatch.setattr(console, "stderr", lambda: Console(file=screen, force_terminal=True, width=80))
    with console.progress_when_slow(0.05) as progress:
        progress("heads", 0, 1)
        time.sleep(0.5)
    assert "heads" in screen.getvalue() and "0/1" in screen.getvalue()
    screen.truncate(0)
    with console.progress_when_slow(5) as progress:
        progress("heads", 1, 1)
    assert "heads" not in screen.getvalue()


def test_a_log_file_has_lines_of_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import time

    from ig3d import console

    monkeypatch.setattr(console, "LINE_SECONDS", 0.02)
    with console.progress_when_slow(5) as progress:
        progress("heads", 0.5, 4)
        time.sleep(0.2)
        progress("heads", 2, 4)
        time.sleep(0.2)
        progress("heads", 4, 4)
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2, lines
    assert re.fullmatch(r"heads 2/4, 0:00:0\d elapsed, 0:00:0\d left", lines[1])


def test_fuse_shows_the_steps_before_and_after_fitting(
    tmp_path: Path, ig3d: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    from toy_fusion import CLASSES, make_table, store_of

    from ig3d.commands import fuse
    from ig3d.features.predictions import Predictions

    seen: list[tuple[str, bool]] = []

    @contextmanager
    def spied():
        yield lambda step, done, total: seen.append((step, (tmp_path / "out" / "record.json").exists()))

    monkeypatch.setattr(fuse, "progress_when_slow", spied)
    table = make_table(120, missing=0)
    store_of(tmp_path / "y.h5", table)
    Predictions(table.two_d, "logits", CLASSES, table.id).save(tmp_path / "x.npz")
    fast = ("--rules", "mean", "--head", "linear", "--draws", 100, "--no-controls", "--out", tmp_path / "out")
    ended = ig3d("fuse", "--2d-logits", tmp_path / "x.npz", "--3d-store", tmp_path / "y.h5", *fast)
    assert ended.returncode == 0, ended.stderr
    steps = list(dict.fromkeys(step for step, _ in seen))
    assert steps[0] == "read" and steps[-2:] == ["intervals", "report"]
    written = [exists for step, exists in seen if step == "report"]
    assert written == [False, True]
