"""Names are data: never markup, a formula, a command or a control sequence, wherever they are shown."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_stores import good_logits, make_samples, save, write_store

from ig3d.console import one_line, plain, stdout
from ig3d.learn.report.latex import escape

NAMES = (
    "[/b]",
    "[red]b",
    "$\\bad$",
    "<script>alert(1)</script>",
    "\\input{x}",
    "two\nlines :smile:",
    "esc\x1b[31m\u202eevil\x07",
)
SHOWN = ("[/b]", "[red]b", "$\\bad$", "<script>", "\\input{x}", ":smile:", "esc\\x1b[31m\\u202eevil\\x07")
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store and logits whose classes and ids are hostile, in a folder that is so too."""
    folder = tmp_path_factory.mktemp("hostile") / "[i]$\\x$"
    folder.mkdir()
    samples = make_samples(84, name=lambda row, label: f"[b]{label}\x1b[2J/img_{row:03d}")
    store = write_store(folder / "[red]$x$.h5", samples, classes=NAMES, regressor="[/]\x1b[1m")
    logits = good_logits(samples, accuracy=0.6)
    return {
        "folder": folder,
        "store": store,
        "logits": save(folder / "a[b].npz", logits, ids=[one.id for one in samples], classes=NAMES),
    }


def clean(ended: Any) -> str:
    assert ended.returncode == 0, ended
    assert "Traceback" not in ended.stderr
    assert not CONTROL.search(ended.stdout + ended.stderr)
    return ended.stdout + ended.stderr


@pytest.fixture
def fused(files: dict[str, Path], ig3d: Callable) -> tuple[Path, str]:
    """The folder and the words of a fusion, which is run once."""
    out = files["folder"] / "fused[b]"
    if out.exists():
        return out, ""
    quick = ["--rules", "mean,stack", "--head", "linear", "--draws", 100, "--folds", 3, "--no-controls"]
    ended = ig3d(
        *("fuse", "--2d-logits", files["logits"], "--3d-store", files["store"], "--out", out),
        *("--plot", files["folder"] / "plot.svg", *quick),
    )
    return out, clean(ended)


def test_what_a_fusion_writes_shows_names_as_they_are(
    files: dict[str, Path], fused: tuple[Path, str], ig3d: Callable
) -> None:
    out, _ = fused
    page = (out / "report.html").read_text()
    assert "<script>alert" not in page and not CONTROL.search(page)
    assert "&lt;script&gt;alert(1)" in page and "$\\bad$" in page and "[red]b" in page
    tex = (out / "table.tex").read_text()
    assert "\\input" not in tex and "\\bad" not in tex and not CONTROL.search(tex)
    ElementTree.parse(files["folder"] / "plot.svg")
    rows = list(csv.DictReader(io.StringIO((out / "predictions.csv").read_text())))
    assert {row["label"] for row in rows} == set(NAMES)
    record = json.loads((out / "record.json").read_text())
    assert tuple(record["classes"]) == NAMES
    words = clean(ig3d("report", out, "--out", files["folder"] / "report"))
    assert "Primary comparison" in words
    clean(ig3d("predict", out / "model.skops", "--2d-logits", files["logits"],
               "--3d-store", files["store"], "--out", files["folder"] / "p.csv"))  # fmt: skip


def test_runs_side_by_side_have_the_names_of_their_folders(
    files: dict[str, Path], fused: tuple[Path, str], ig3d: Callable
) -> None:
    out, _ = fused
    other = out.with_name("$\\frac{")
    if not other.exists():
        other.mkdir()
        for path in out.iterdir():
            (other / path.name).write_bytes(path.read_bytes())
    words = clean(ig3d("report", out, other, "--out", files["folder"] / "both"))
    assert "fused[b]" in words and "$\\frac{" in words
    tex = (files["folder"] / "both" / "table.tex").read_text()
    assert r"\$\textbackslash{}frac\{" in tex


@pytest.mark.parametrize("command", ["inspect", "split", "check"])
def test_tables_show_names_as_they_are(files: dict[str, Path], ig3d: Callable, command: str) -> None:
    commands: dict[str, list[object]] = {
        "inspect": ["inspect", files["store"], "--verify"],
        "split": ["split", files["store"], "--out", files["folder"] / "split.csv"],
        "check": ["predictions", "check", files["logits"], "--3d-store", files["store"]],
    }
    ended = ig3d(*commands[command])
    if command == "split":  # there is no train split: the error too is one line
        assert ended.returncode == 1 and ended.stderr.count("\n") == 1
        return
    words = clean(ended)
    if command == "inspect":
        assert all(name in words for name in SHOWN), words


def test_an_error_is_one_line_whatever_the_name(tmp_path: Path, ig3d: Callable) -> None:
    ended = ig3d("inspect", tmp_path / "no[/b]\nsuch\x1b[31m\u202e.h5")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1 and not CONTROL.search(ended.stderr)
    assert "no[/b]\\nsuch\\x1b[31m\\u202e.h5" in ended.stderr


def test_names_of_a_study_are_shown_as_they_are(
    files: dict[str, Path], tmp_path: Path, ig3d: Callable
) -> None:
    (tmp_path / "study.yaml").write_text(
        'name: "[/b] $\\\\bad$ \\\\input{x}"\nrun: fuse\n'
        "options: {rules: mean, head: linear, draws: 100, controls: false}\n"
        'grid:\n  "[red]f":\n    "$\\\\x$": {blocks: full}\n    "[/i]*": {blocks: expression}\n'
    )
    two = ["--2d-logits", files["logits"], "--3d-store", files["store"]]
    words = clean(ig3d("ablate", tmp_path / "study.yaml", *two, "--out", tmp_path / "out", "--jobs", 1))
    assert "[red]f" in words and "[/i]*" in words and "$\\x$" in words
    tex = (tmp_path / "out" / "table.tex").read_text()
    assert "\\input" not in tex and "{[}/i{]}{*}" in tex
    assert (tmp_path / "out" / "heatmap.png").stat().st_size > 1000


def copied(run: Path, folder: Path, record: object) -> None:
    """The files of a run in another folder, with another record."""
    for path in run.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "record.json").write_text(json.dumps(record))


def test_a_record_of_someone_else_puts_no_command_into_latex(
    files: dict[str, Path], fused: tuple[Path, str], ig3d: Callable, tmp_path: Path
) -> None:
    out, _ = fused
    record = json.loads((out / "record.json").read_text())
    record["config"]["draws"] = "\\input{/etc/passwd}"
    copied(out, tmp_path, record)
    ended = ig3d("report", tmp_path, "--out", tmp_path / "report")
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 1 or "\\input" not in (tmp_path / "report" / "table.tex").read_text()


@pytest.mark.parametrize(
    "text", ["[b]", "*", "\\", "{", "$x$", "%", "#1", "~", "^", "&", "\x1b", "\u202e", "\n\n"]
)
def test_no_text_is_a_command_of_latex(text: str) -> None:
    escaped = escape(text)
    left = re.sub(r"\\[a-z]+\{\}|\\[{}$&#%_]|\{[\[\]*]\}", "", escaped)
    assert not set(left) & set("\\{}$&#%_^~[]*\n") and not CONTROL.search(left)


def test_plain_text_stays_as_it_is() -> None:
    for text in ("", "glücklich", "嬉しい", "سعيد", "tab\tand\nline", "~!@#$%^&*()_+{}|:<>?[]"):
        assert plain(text) == text
    assert one_line("a\r\nb") == "a\\r\\nb"


def test_the_console_reads_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    table = Table("[/b]", title="[red]t")
    table.add_column(":smile:\x1b[31m")
    table.add_row("[/i]", "[link=file:///etc]x")
    stdout().print(table)
    words = capsys.readouterr().out
    for shown in ("[/b]", "[red]t", ":smile:\\x1b[31m", "[/i]", "[link=file:///etc]x"):
        assert shown in words


@pytest.mark.parametrize(
    "name", ["classes", "sources", "predictors", "primary", "protocol", "config", "task", "references"]
)
@pytest.mark.parametrize("value", [None, -1, "x", [], {}, {"a": 1}, [[1]]])
def test_a_changed_record_is_reported_or_refused_in_one_line(
    files: dict[str, Path], fused: tuple[Path, str], ig3d: Callable, tmp_path: Path, name: str, value: object
) -> None:
    out, _ = fused
    record = json.loads((out / "record.json").read_text())
    copied(out, tmp_path, record | {name: value})
    ended = ig3d("report", tmp_path)
    assert ended.returncode in (0, 1)
    assert ended.returncode == 0 or "record.json" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("file", ["figures.csv", "confusion.csv", "reliability.csv", "predictions.npz"])
@pytest.mark.parametrize("change", ["cut", "text", "gone"])
def test_a_changed_table_is_reported_or_refused_in_one_line(
    files: dict[str, Path], fused: tuple[Path, str], ig3d: Callable, tmp_path: Path, file: str, change: str
) -> None:
    out, _ = fused
    copied(out, tmp_path, json.loads((out / "record.json").read_text()))
    whole = (tmp_path / file).read_bytes()
    if change == "gone":
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(
            whole[: len(whole) // 2] if change == "cut" else b"predictor,role\n\xff"
        )
    ended = ig3d("report", tmp_path, out)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert file in ended.stderr.splitlines()[-1]
