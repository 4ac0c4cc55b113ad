"""Reports: terminal, files and LaTeX of one run; several runs side by side."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
from made_up_results import Page, made, with_predictors
from rich.console import Console

import ig3d
from ig3d.errors import RunError
from ig3d.learn.evaluate.figures import Figure, figure
from ig3d.learn.report import (
    check_out,
    compare,
    print_comparison,
    print_result,
    read_run,
    read_runs,
    run_of,
    write_report,
    write_result,
)
from ig3d.learn.report.compare import predictions_of, unlike
from ig3d.learn.report.format import interval, p_value
from ig3d.learn.report.latex import escape, table_tex


@pytest.fixture(scope="module")
def result():
    return made()


@pytest.fixture(scope="module")
def va():
    return made("va")


def printed(result, width=80):
    console = Console(width=width, file=io.StringIO(), no_color=True)
    print_result(result, console)
    return console.file.getvalue()


@pytest.mark.parametrize("task", ["classes", "va"])
def test_the_terminal_has_answer_effect_and_table_in_at_most_25_lines(task, result, va):
    shown = result if task == "classes" else va
    text = printed(shown)
    lines = text.splitlines()
    assert len(lines) <= 25
    starts = [next(n for n, line in enumerate(lines) if line.startswith(of)) for of in (
        "Reported: 240 rows of the test split, 210 with 3D codes; rules fitted on val.",
        "WARNING: made up", "Primary comparison: ",
        "Effect size: ", "2d  ", "weighted  ",
    )]  # fmt: skip
    assert starts == sorted(starts)
    table = lines[starts[4] - 1 : -1]
    assert max(map(len, table)) <= 80 and "…" not in text
    metric = "accuracy" if task == "classes" else "rmse_joint"
    gain = figure(shown.figures, "weighted", metric, versus="2d-recalibrated")
    value, ends = interval(gain, metric).split(" ", 1)
    assert f"{value}*" in table[-1] and ends in table[-1]
    assert "permuted" not in "".join(table) and "3d‡" in text


def test_a_terminal_that_is_too_narrow_loses_no_figure(result):
    narrow, wide = printed(result, 30), printed(result, 120)
    pattern = r"[+-][\d.]+ \[[^]]*\]|\d\d\.\d\d"
    assert re.findall(pattern, narrow) == re.findall(pattern, wide)


def test_a_p_is_on_the_side_of_its_level():
    texts = {0.0502: ".0502", 0.04996: ".04996", 0.05: ".05", 0.0099999: ".0099999", 0.0010004: ".0010004"}
    texts |= {
        0.034: ".034",
        0.5: ".5",
        0.123: ".12",
        0.9999: "1",
        1.0: "1",
        5e-5: "< .0001",
        1 / 10_001: "≤ .0001",
    }
    assert {p: p_value(p) for p in texts} == texts


def test_an_end_of_an_interval_is_0_only_if_it_is_0():
    def shown(low, value=0.026, high=0.052, metric="accuracy"):
        return interval(Figure(value, low, high, 0.04, 0.5), metric)

    assert shown(0.0005) == "+2.6 [+0.05, +5.2]" and shown(-0.0005) == "+2.6 [-0.05, +5.2]"
    assert shown(0.00096) == "+2.6 [+0.09, +5.2]" and shown(0.0) == "+2.6 [0.0, +5.2]"
    assert shown(-0.01, -0.0003, 0.01) == "0.0 [-1.0, +1.0]"
    assert shown(-0.00004, 0.01, 0.02, "log_loss") == "+0.0100 [-0.00004, +0.0200]"


def test_the_record_is_read_back_and_the_same_command_gives_the_same_bytes(result, tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_result(result, tmp_path / name / "run", command="ig3d fuse --2d-logits 'a b.npz'")
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "run").iterdir()}
        for name in ("one", "other")
    )
    assert first == second
    assert sorted(first) == [
        "confusion.csv",
        "figures.csv",
        "findings.json",
        "predictions.csv",
        "predictions.npz",
        "record.json",
        "reliability.csv",
        "report.html",
        "table.tex",
    ]
    run = read_run(tmp_path / "one" / "run")
    assert (
        run.name == "run" and run.record == run_of(result, command="ig3d fuse --2d-logits 'a b.npz'").record
    )
    assert run.record["references"] == ["2d-recalibrated", "2d"]
    pandas.testing.assert_frame_equal(run.figures, result.figures, check_exact=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not the folder of a run: it has no record.json"),
        ("{", "is damaged, or not the record of a run"),
        ("[1]", "is not the record of a run"),
        (
            '{"format": "ig3d-run", "format_version": 9}',
            "format ig3d-run version 9, which this ig3d cannot read",
        ),
        ('{"format": "ig3d-run", "format_version": 4}', "the record has no assumptions"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "record.json").write_text(text)
    with pytest.raises(RunError, match=message):
        read_run(tmp_path)


def test_a_record_that_a_hand_changed_is_one_line(result, tmp_path, ig3d):
    write_result(result, tmp_path / "run")
    whole = json.loads((tmp_path / "run" / "record.json").read_text())

    figures = (tmp_path / "run" / "figures.csv").read_text()

    def error_of(change, table=figures):
        record = json.loads(json.dumps(whole))
        change(record)
        (tmp_path / "run" / "record.json").write_text(json.dumps(record))
        (tmp_path / "run" / "figures.csv").write_text(table)
        ended = ig3d("report", tmp_path / "run")
        assert ended.returncode == 1 and ended.stderr.count("\n") == 1
        return ended.stderr

    lines = figures.splitlines(keepends=True)
    own = next(line for line in lines if line.startswith("mean,rule,real,all,accuracy,,,,"))
    text = error_of(lambda of: None, figures.replace(own, own.replace("accuracy,,,,", "accuracy,,,,high", 1)))
    assert "could not convert string to float" in text and "run the command again" in text
    assert "record.json states" in error_of(lambda of: None, figures.replace(own, ""))
    other = next(line for line in lines if line.startswith("mean,rule,real,all,brier,,,,"))
    assert "no accuracy of mean (real), all rows" in error_of(
        lambda of: None, figures.replace(own, other, 1).replace(other, other.replace("brier", "macro_f2"), 1)
    )
    assert "two lines for one figure" in error_of(lambda of: None, figures.replace(other, own))
    gone = "figures of predictors that record.json does not have"
    assert gone in error_of(lambda of: of["predictors"].pop(3))
    assert "'protocol' is not complete" in error_of(lambda of: of["protocol"].pop("rows_covered"))
    assert "'protocol' is not complete" in error_of(lambda of: of.update(protocol="none"))
    assert "the references are not predictors" in error_of(lambda of: of["references"].append("none"))


def test_a_run_of_before_a_metric_was_added_is_read(result, tmp_path, ig3d):
    folder = tmp_path / "run"
    write_result(result, folder)
    lines = (folder / "figures.csv").read_text().splitlines(keepends=True)
    metric = lines[0].split(",").index("metric")
    kept = [line for line in lines if line.split(",")[metric] != "brier"]
    (folder / "figures.csv").write_text("".join(kept))
    text = (folder / "record.json").read_text()
    (folder / "record.json").write_text(
        text.replace(f'"figures.csv": {len(lines) - 1}', f'"figures.csv": {len(kept) - 1}')
    )
    ended = ig3d("report", folder)
    assert ended.returncode == 0, ended.stderr
    assert len(kept) < len(lines)


def test_a_run_that_fails_leaves_no_folder(tmp_path, ig3d):
    np.savez(tmp_path / "x.npz", ids=["a"], logits=np.zeros((1, 2)))
    out = tmp_path / "a" / "b"
    ended = ig3d("fuse", "--2d-logits", tmp_path / "x.npz", "--3d-store", tmp_path / "no.h5", "--out", out)
    assert ended.returncode == 1 and not (tmp_path / "a").exists()
    ended = ig3d("fuse", "--2d-logits", "x.npz", "--3d-store", "no.h5", "--out", tmp_path / "x.npz")
    assert ended.returncode == 1 and "x.npz: is a file, not a folder" in ended.stderr


def test_only_results_of_ours_are_replaced(result, tmp_path):
    (tmp_path / "report.html").write_text("mine")
    for write in (check_out, lambda out: write_report([run_of(result, name="a", folder=tmp_path)], out)):
        with pytest.raises(RunError, match=r"has report\.html that ig3d did not write"):
            write(tmp_path)
    assert (tmp_path / "report.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 5 %", r"a\_b \& 5 \%"),
        ("{\\x}", r"\{\textbackslash{}x\}"),
        ("a\n\tb", "a b"),
        ("--out", "-{}-out"),
        ("a---b", "a-{}-{}-b"),
        ("日", "?"),
        ("é", "é"),
    ],
)
def test_escapes_for_latex(text, expected):
    assert escape(text) == expected


@pytest.mark.parametrize("task", ["classes", "va"])
def test_latex_shows_differences_and_permuted_codes(task, result, va):
    shown = result if task == "classes" else va
    tex = table_tex(run_of(shown, name="My run"))
    (line,) = [of for of in tex.splitlines() if of.startswith(r"\texttt{weighted} &")]
    (free,) = [of for of in tex.splitlines() if of.startswith(r"\texttt{mean} ")]
    metric = "accuracy" if task == "classes" else "rmse_joint"
    gain = figure(shown.figures, "weighted", metric, versus="weighted", versus_condition="permuted")
    text = re.sub(r"([+-])(?:0(?=\.\d{4}))?", r"$\1$", interval(gain, metric))
    assert line.split(" & ")[3] == rf"{text}\textsuperscript{{***}}" or text in line
    assert free.split(" & ")[3] == "--", "no control was run of it"
    assert r"\label{tab:ig3d-my-run}" in tex and r"\emph{vs. permuted codes}" in tex
    bare = with_predictors(shown, [of for of in shown.predictors if of.role != "control"])
    assert "ermuted" not in table_tex(run_of(bare))


def test_the_latex_table_is_balanced_and_marks_the_best(result):
    tex = table_tex(run_of(result))
    body = tex[tex.index(r"\toprule") : tex.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.startswith((r"\texttt", "Predictor"))]
    columns = re.search(r"begin\{tabular\}\{(\w+)\}", tex).group(1)
    assert {line.count("&") for line in lines} == {len(columns) - 1}
    assert tex.count("{") == tex.count("}") and not re.search(r"(?<!\\)[_%](?!\s*needs|\n)", body)
    for column, metric in enumerate(("accuracy", "balanced_accuracy", "macro_f1"), 4):
        usable = ("2d", "2d-recalibrated", "mean", "weighted")
        best = max(f"{100 * figure(result.figures, name, metric).value:.2f}" for name in usable)
        bold = {line.split("&")[column].strip() for line in lines if "textbf" in line.split("&")[column]}
        assert bold == {rf"\textbf{{{best}}}"}
    assert r"\textsuperscript{***}" in body or r"\textsuperscript{**}" in body
    above = body[: body.index(r"\cmidrule")]
    spanned = [int(of) for of in re.findall(r"multicolumn\{(\d)\}", above)]
    assert above.count("&") == len(columns) - 1 - sum(of - 1 for of in spanned)
    assert "240 rows (the test split)" in tex and r"\textsuperscript{\ddag}" in tex


def test_runs_on_the_same_rows_are_paired(tmp_path):
    groups = np.arange(240) // 2
    for name, gain, seed in (("weak", 0.0, 1), ("strong", 2.0, 2)):
        write_result(made(gain=gain, seed=seed, groups=groups), tmp_path / name)
    runs = read_runs([tmp_path / "weak", tmp_path / "strong"])
    comparison = compare(runs)
    assert comparison.first == "weak" and not comparison.remarks
    lines = comparison.differences[comparison.differences["metric"] == "accuracy"].set_index("predictor")
    assert set(lines.index) == {"2d", "2d-recalibrated", "mean", "weighted"}
    expected = (
        figure(runs[1].figures, "mean", "accuracy").value - figure(runs[0].figures, "mean", "accuracy").value
    )
    assert lines.loc["mean", "value"] == pytest.approx(expected, abs=1e-12)
    assert lines.loc["mean", "low"] > 0 and lines.loc["mean", "p_adjusted"] < 0.05
    assert lines.loc["2d", "p"] > 0.05
    assert set(comparison.differences["metric"]) == {"accuracy", "macro_f1", "log_loss"}
    loss = comparison.differences.query("metric == 'log_loss' and predictor == 'mean'").iloc[0]
    expected = (
        figure(runs[1].figures, "mean", "log_loss").value - figure(runs[0].figures, "mean", "log_loss").value
    )
    assert loss["value"] == pytest.approx(expected, abs=1e-12) and loss["high"] < 0
    console = Console(width=80, file=io.StringIO(), no_color=True)
    print_comparison(comparison, console)
    text = console.file.getvalue()
    assert (
        "Paired differences relative to the run weak, in percentage points (log loss: nats)" in text
        and "log loss" in text.split("Paired")[1]
        and max(map(len, text.splitlines()[:-1])) <= 84
    )
    written = {path.name: path for path in write_report(runs, tmp_path / "both")}
    assert sorted(written) == ["differences.csv", "figures.csv", "report.html", "table.tex"]
    lines_of_mean = lines.loc["mean", "value"]
    lines = list(csv.DictReader(written["figures.csv"].read_text().splitlines()))
    assert {line["run"] for line in lines} == {"weak", "strong"}
    (line,) = [
        line
        for line in csv.DictReader(written["differences.csv"].read_text().splitlines())
        if (line["predictor"], line["metric"]) == ("mean", "accuracy")
    ]
    assert float(line["value"]) == lines_of_mean
    page = written["report.html"].read_text()
    assert Page(page).open == [] and "log loss" in page.split("Paired differences")[1].split("</thead>")[0]
    tex = written["table.tex"].read_text()
    assert "log loss" in tex.split("Differences relative to the run")[1].split("midrule")[0]
    labels = re.findall(r"\\label\{(.*?)\}", tex)
    assert tex.count(r"\begin{table*}") == 4 == len(set(labels))
    write_report(runs, tmp_path / "both")  # its own files may be replaced


def test_equal_runs_are_said_to_be_equal(result, tmp_path):
    write_result(result, tmp_path / "run")
    runs = read_runs([tmp_path / "run", tmp_path / "run"])
    assert runs[1].name == f"{runs[0].name} (2)"
    comparison = compare(runs)
    assert not len(comparison.differences) and len(comparison.rows()[0][1]) == 2 * len(comparison.metrics)
    assert "have the same predictions by every rule that both have" in comparison.remarks[0]


@pytest.mark.parametrize("task", ["classes", "va"])
def test_predictions_of_another_run_are_refused(task, result, va, tmp_path, ig3d):
    write_result(result if task == "classes" else va, tmp_path / "run")
    write_result(made(task, seed=5), tmp_path / "other")
    file = tmp_path / "run" / "predictions.npz"
    with np.load(file) as read:
        arrays = dict(read)
    kept = arrays["predictor"] != "mean"
    rows = {name: arrays[name][:-3] for name in ("ids", "truth", "covered")}
    lines = ("predictor", "role", "condition", "trained", "fits", "repeat", "values")
    metric = "accuracy" if task == "classes" else "rmse_joint"
    for change, message in (
        (rows | {"values": arrays["values"][:, :-3]}, "it has 237 rows instead of 240"),
        ({name: arrays[name][kept] for name in lines}, "0 of 1 repeats of mean"),
        (None, f"{metric} "),
    ):
        if change is None:
            file.write_bytes((tmp_path / "other" / "predictions.npz").read_bytes())
        else:
            np.savez(file, **arrays | change)
        with pytest.raises(RunError, match=rf"run: predictions.npz is not that of record.json: .*{message}"):
            compare(read_runs([tmp_path / "other", tmp_path / "run"]))
    file.unlink()
    ended = ig3d("report", tmp_path / "run")
    assert ended.returncode == 0 and "predictions.npz: does not exist" in ended.stderr


def test_runs_on_other_rows_or_of_another_task_are_not_paired(tmp_path):
    write_result(made(), tmp_path / "a" / "run")
    write_result(made(n=200), tmp_path / "b" / "run")
    write_result(made("va"), tmp_path / "va")
    runs = read_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"])
    assert runs[0].name != runs[1].name
    comparison = compare(runs)
    assert not len(comparison.differences)
    assert "they report 240 and 200 rows, 200 of them the same" in comparison.remarks[0]
    written = write_report(runs, tmp_path / "report")
    assert "differences.csv" not in [path.name for path in written]
    first = predictions_of(runs[0])
    turned = replace(first, classes=first.classes[::-1])
    assert unlike(first, turned).startswith("their classes are in another order (")
    assert unlike(first, replace(first, classes=("a", "b", "c"))).startswith("their classes differ (")
    turned = replace(first, ids=first.ids[::-1])
    assert unlike(first, turned) == "their rows are in another order"
    with pytest.raises(RunError, match=r"different tasks \(classes and va\)"):
        compare(read_runs([tmp_path / "a" / "run", tmp_path / "va"]))
    (tmp_path / "b" / "run" / "predictions.npz").unlink()
    with pytest.raises(RunError, match="the predictions of the run cannot be read"):
        compare(runs)


def test_the_report_command(ig3d, result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_result(result, tmp_path / "run", command="ig3d fuse")
    ended = ig3d("report", "run", "--out", "page")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.rstrip().endswith("page: also figures.csv, table.tex")
    assert "2d-recalibrated" in ended.stdout and (tmp_path / "page" / "report.html").exists()
    assert ig3d("report", "run", "run").returncode == 0
    failed = ig3d("report", "nowhere")
    assert failed.returncode == 1 and "is not the folder of a run" in failed.stderr
    write_result(result, tmp_path / "study" / "cells" / "a", command="ig3d fuse")
    failed = ig3d("report", "study")
    assert failed.returncode == 1
    assert "contains 1 run: pass study/cells/a" in failed.stderr.replace(os.sep, "/")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    for runs in (["run"], ["run", "run"]):
        failed = ig3d("report", *runs, "--out", "run")
        assert failed.returncode == 1 and "run: is the folder of a run" in failed.stderr
        assert not failed.stdout
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_without_matplotlib_everything_else_is_written(result, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    names = [path.name for path in write_result(result, tmp_path / "run")]
    assert "report.html" not in names and "table.tex" in names
    assert "no report.html: report: needs the package 'matplotlib'" in capsys.readouterr().err


def test_the_documented_columns_of_predictions_csv_are_those_of_the_file(result, va, tmp_path):
    page = (Path(ig3d.__file__).parent / "docs" / "report.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("| `predictions.csv` |")]
    documented = re.findall(r"`([a-z_]+)`", line.replace("**", "").partition("repeat`: ")[2])
    for of, name in ((result, "classes"), (va, "va")):
        write_result(of, tmp_path / name, command="ig3d fuse")
        columns = pandas.read_csv(tmp_path / name / "predictions.csv").columns
        assert set(columns[:3]) <= set(documented[:3])
        assert {column for column in columns if not column.startswith("p_")} <= set(documented)
