"""Reports of intermediate fusion: terminal, CSV, LaTeX and page; comparisons of runs."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_features import make
from made_up_results import Page

from ig3d.errors import RunError
from ig3d.features.predictions import load_predictions
from ig3d.learn.evaluate.figures import figure
from ig3d.learn.intermediate.config import IntermediateConfig
from ig3d.learn.intermediate.run import fuse_features
from ig3d.learn.intermediate.table import load_feature_table
from ig3d.learn.report import check_out, compare, read_run, read_runs
from ig3d.learn.report.findings import findings_of
from ig3d.learn.report.format import interval
from ig3d.learn.report.view import View

QUICK = IntermediateConfig(
    module="linear", epochs=5, batch_size=32, width=8, lr=1e-2, draws=200, seeds=(0, 1)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs over the same rows, of two seeds and of one, and one without controls."""
    folder = tmp_path_factory.mktemp("runs")
    made = make(folder, missing=(2, 3, 8), va=True)
    for name, config in {
        "linear": replace(QUICK, task="classes"),
        "film": replace(QUICK, task="classes", module="film", seeds=(0,), epochs=3),
        "both": replace(QUICK, task="both", seeds=(0,), controls=False, epochs=2),
    }.items():
        table = load_feature_table(made.features, made.store, task=config.task)
        fuse_features(table, config, folder / name, command=f"ig3d fuse-features --module {config.module}")
    return folder


def test_report_prints_answer_and_table(ig3d, folder: Path) -> None:
    ended = ig3d("report", folder / "linear")
    assert ended.returncode == 0, ended.stderr
    gain = figure(read_run(folder / "linear").figures, "intermediate", "accuracy", versus="null-input")
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("intermediate  ")]
    assert interval(gain, "accuracy").partition(" ")[2] in line
    assert (
        "the module with codes: change in accuracy (higher is better; means over 2 trainings)" in ended.stdout
    )
    assert "means over 2 trainings" in ended.stdout
    assert ig3d("report", folder / "film").returncode == 0


def findings(
    folder: Path, *, versus: str, condition: str = "real", of: str = "real", **numbers: float
) -> dict:
    """Findings of ``linear`` with another difference in accuracy."""
    run = read_run(folder / "linear")
    table = run.figures
    chosen = (table["predictor"] == "intermediate") & (table["condition"] == of) & (table["versus"] == versus)
    chosen &= (table["versus_condition"] == condition) & (table["metric"] == "accuracy")
    assert chosen.any()
    for name, value in numbers.items():
        table.loc[chosen, name] = value
    return findings_of(View(run))


def test_findings_follow_from_the_figures(folder: Path) -> None:
    none = {"value": 0.01, "low": -0.02, "high": 0.04, "p": 0.4, "p_adjusted": 0.4}
    primary = findings(folder, versus="null-input", **none)["primary"]
    assert not primary["claim"] and primary["versus"] == "null-input"
    primary = findings(folder, versus="intermediate", condition="permuted", **none)["primary"]
    assert not primary["claim"] and primary["condition"] == "permuted"
    gains = {"value": 0.05, "low": 0.02, "high": 0.08}
    found = findings(folder, versus="null-input", of="permuted", **gains)["exploratory"]
    assert next(of for of in found if of["code"] == "permuted_codes")["gains"]
    worse = {"value": -0.05, "low": -0.08, "high": -0.02, "p": 0.001, "p_adjusted": 0.001}
    for numbers, direction in ((worse, "worse"), (none, "not shown")):
        found = findings(folder, versus="2d", **numbers)["exploratory"]
        assert next(of for of in found if of["code"] == "codes_against_2d")["direction"] == direction


def test_page_csv_and_latex(ig3d, folder: Path, tmp_path: Path) -> None:
    ended = ig3d("report", folder / "linear", "--out", tmp_path / "page")
    assert ended.returncode == 0, ended.stderr
    run = read_run(folder / "linear")
    page = Page((tmp_path / "page/report.html").read_text())
    text = " ".join("".join(page.text).split())
    assert page.open == [] and "script" not in page.tags and page.tags.count("svg") == 7
    assert "ig3d fuse-features --module linear" in text and "Gain per class" in text
    assert "trained with the same steps and seeds with every code block masked" in text
    assert "Variation between trainings" in text
    for condition in ("real", "permuted"):
        values = View(run).repeats(("intermediate", condition), "accuracy", "null-input")
        assert len(values) == 2
        assert "".join(f"{100 * value:+.1f}".replace("-", "−") for value in values) in text
    tex = (tmp_path / "page/table.tex").read_text()
    (codes,) = [line for line in tex.splitlines() if line.startswith(r"\texttt{intermediate} &")]
    assert codes.count("[") == 3 and r"module \texttt{linear}" in tex and "linear trained 2 times" in tex


def test_runs_of_other_modules_and_of_more_seeds_are_compared_row_by_row(folder: Path) -> None:
    found = compare(read_runs([folder / "linear", folder / "film"]))
    right = {}
    with (folder / "linear/predictions.csv").open() as file:
        lines = list(csv.DictReader(file))
    truth = {line["id"]: line["truth"] for line in lines}
    keys = {(line["predictor"], line["condition"], line["repeat"]) for line in lines}
    assert keys == {("2d", "real", "0")} | {
        (*key, seed)
        for key in (("intermediate", "real"), ("null-input", "real"), ("intermediate", "permuted"))
        for seed in ("0", "1")
    }
    for run, seeds in (("linear", (0, 1)), ("film", (0,))):
        each = []
        for seed in seeds:
            written = load_predictions(folder / run / f"codes-{seed}.npz")
            predicted = dict(
                zip(written.ids, np.array(written.columns)[written.values.argmax(1)], strict=True)
            )
            each.append(np.mean([predicted[name] == of for name, of in truth.items()]))
        right[run] = np.mean(each)
    accuracy = found.differences[found.differences["metric"] == "accuracy"].set_index("predictor")
    assert set(accuracy.index) == {"null-input", "intermediate"}, "2d is the same, controls are not tested"
    assert accuracy.loc["intermediate", "value"] == pytest.approx(right["film"] - right["linear"])
    assert 0 < accuracy.loc["intermediate", "p"] <= accuracy.loc["intermediate", "p_adjusted"] <= 1
    assert found.remarks == ()


def test_late_and_intermediate_fusion_are_compared_on_the_same_rows(
    ig3d, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "film", tmp_path / "late")
    text = (tmp_path / "late/record.json").read_text()
    record = json.loads(
        text.replace('"intermediate"', '"stack"').replace('"null-input"', '"2d-recalibrated"')
    )
    record["format"], record["protocol"]["head_fitting"] = "ig3d-run", "once"
    record["primary"] = {"rule": "stack", "metric": "log_loss"}
    (tmp_path / "late/record.json").write_text(json.dumps(record))
    for name in ("figures.csv", "confusion.csv", "reliability.csv"):
        path = tmp_path / "late" / name
        renamed = (
            path.read_text().replace("intermediate,", "stack,").replace("null-input,", "2d-recalibrated,")
        )
        path.write_text(renamed)
    with np.load(tmp_path / "late/predictions.npz") as file:
        arrays = dict(file)
    names = {"intermediate": "stack", "null-input": "2d-recalibrated", "2d": "2d"}
    arrays["predictor"] = np.array([names[name] for name in arrays["predictor"].tolist()])
    np.savez(tmp_path / "late/predictions.npz", **arrays)
    ended = ig3d("report", tmp_path / "late", folder / "linear", "--out", tmp_path / "both")
    assert ended.returncode == 0, ended.stderr
    page, tex = ((tmp_path / "both" / name).read_text() for name in ("report.html", "table.tex"))
    for text in (ended.stdout, page, tex):
        assert "intermediate vs. stack" in text
    (line,) = (
        compare(read_runs([tmp_path / "late", folder / "linear"]))
        .differences.query("metric == 'accuracy'")
        .to_dict("records")
    )
    assert (line["predictor"], line["versus"]) == ("intermediate", "stack")
    late, inside = (read_run(path).figures for path in (folder / "film", folder / "linear"))
    values = [figure(of, "intermediate", "accuracy").value for of in (inside, late)]
    assert line["value"] == pytest.approx(values[0] - values[1])
    assert line["low"] < line["value"] < line["high"] and 0 < line["p"] == line["p_adjusted"] <= 1


def test_a_training_that_lacks_is_no_run_of_one_less(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "linear", tmp_path / "less")
    with np.load(folder / "linear/predictions.npz") as file:
        arrays = dict(file)
    kept = ~(
        (arrays["predictor"] == "intermediate") & (arrays["condition"] == "real") & (arrays["repeat"] == 1)
    )
    lines = ("predictor", "role", "condition", "trained", "fits", "repeat", "values")
    np.savez(tmp_path / "less/predictions.npz", **arrays | {name: arrays[name][kept] for name in lines})
    with pytest.raises(
        RunError, match=r"less: .*1 of 2 repeats of intermediate \(real\); run the command again"
    ):
        compare(read_runs([folder / "linear", tmp_path / "less"]))


def test_both_tasks_have_a_record_each(ig3d, folder: Path, tmp_path: Path) -> None:
    ended = ig3d("report", folder / "both")
    assert ended.returncode == 0, ended.stderr
    ended = ig3d("report", folder / "both/record-va.json", "--out", tmp_path / "va")
    assert ended.returncode == 0, ended.stderr
    assert "CCC VA" in ended.stdout and "no null-input baseline was trained" in ended.stdout
    pair = read_runs([folder / "both/record-va.json", folder / "both/record-va.json"])
    assert not len(compare(pair).differences)


def test_folders_are_not_taken_for_others(ig3d, folder: Path, tmp_path: Path) -> None:
    before = (folder / "linear/record.json").read_bytes()
    with pytest.raises(RunError, match=r"has record\.json, figures\.csv, .* that ig3d did not write"):
        check_out(folder / "linear")
    assert (folder / "linear/record.json").read_bytes() == before
    shutil.copytree(folder / "linear", tmp_path / "old")
    record = json.loads(before)
    (tmp_path / "old/record.json").write_text(json.dumps(record | {"format_version": 1}))
    ended = ig3d("report", tmp_path / "old")
    assert ended.returncode == 1 and "finished trainings are kept" in ended.stderr
    assert "has the format ig3d-intermediate-run version 1, which this ig3d cannot read" in ended.stderr
    assert ended.stderr.count("\n") == 1
