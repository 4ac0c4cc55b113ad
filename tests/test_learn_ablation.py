"""Studies: grids as files and objects, cells kept and shared, differences between cells paired."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from rich.console import Console
from toy_fusion import CLASSES, make_table, store_of

from ig3d.errors import RunError, UsageError
from ig3d.features.predictions import Predictions
from ig3d.learn.ablation import Study, print_study, run_study, write_study
from ig3d.learn.ablation.report import figures_csv, table_tex
from ig3d.learn.ablation.study import read_study
from ig3d.learn.ablation.table import table_of
from ig3d.learn.evaluate.figures import figure
from ig3d.learn.evaluate.intervals import holm
from ig3d.learn.evaluate.predictors import find
from ig3d.learn.report.record import read_run

QUICK = {"head": "linear", "rules": "mean,stack", "draws": 200, "permutations": 2}


@pytest.fixture
def files(tmp_path):
    """A store and two 2D files beside each other."""
    table = make_table(240, other=True)
    store_of(tmp_path / "y.h5", table)
    for name, scores in (("x", table.two_d), ("z", table.others["second"])):
        Predictions(scores, "logits", CLASSES, table.id).save(tmp_path / f"{name}.npz")
    return tmp_path


def study_of(files, grid=None, **options):
    given = {"2d-logits": str(files / "x.npz"), "3d-store": str(files / "y.h5"), **QUICK, **options}
    return Study("toy", given, grid or {})


def test_a_file_is_read_with_its_paths_and_labels(files):
    (files / "study.yaml").write_text(
        yaml.safe_dump(
            {
                "options": {"2d-logits": "x.npz", "draws": 200},
                "grid": {
                    "head": ["linear", "gbm"],
                    "codes": {"none at all": {"3d-store": "y.h5", "blocks": "toy"}},
                    "2d-logits": [["x.npz", "z.npz"]],
                },
                "reference": {"head": "gbm"},
            },
            sort_keys=False,
        )
    )
    study = read_study(files / "study.yaml")
    assert study.name == "study"
    assert [cell.name for cell in study.cells] == [
        "linear, none at all, x.npz + z.npz",
        "gbm, none at all, x.npz + z.npz",
    ]
    assert study.cells[0].options == {
        "draws": 200,
        "head": "linear",
        "3d-store": str(files / "y.h5"),
        "blocks": "toy",
        "2d-logits": [str(files / "x.npz"), str(files / "z.npz")],
    }
    assert study.reference_cell == 1
    other = study.with_options({"head": "linear"})
    assert [cell.labels.get("head") for cell in other.cells] == [None]
    assert other.reference == {}


def test_the_option_on_is_no_truth_value(tmp_path):
    (tmp_path / "study.yaml").write_text("options: {on: logits}\ngrid: {on: [logits, probabilities]}")
    study = read_study(tmp_path / "study.yaml")
    assert study.options == {"on": "logits"}
    assert [cell.options["on"] for cell in study.cells] == ["logits", "probabilities"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "cannot be read as a study in YAML"),
        ("- a", "is not a mapping"),
        ("grids: {}", "the keys grids do not exist; a study has name, run, options"),
        ("options: [1]", "options is a list, not a mapping"),
        ("grid: {head: []}", "the factor 'head' has no values"),
        ("grid: {head: [gbm, gbm]}", "has equal values"),
        ("options: {hed: gbm}", "'hed' is not an option; did you mean head?"),
        ("grid: {anything: {a: {hed: gbm}}}", "did you mean head?"),
        ("run: dream", "run: 'dream' does not exist; choose fuse"),
        (
            "grid: {head: [gbm]}\nreference: {head: linear}",
            "'head' has no value 'linear'",
        ),
        ("name: [1]", "name: [1] is not a text"),
        ("!!python/object/apply:os.system ['true']", "cannot be read as a study in YAML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "study.yaml").write_text(content)
    with pytest.raises(UsageError, match=r"^[^\n]*$") as refused:
        read_study(tmp_path / "study.yaml")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": "many"}, "draws: 'many' is not a whole number"),
        ({"controls": "no"}, "controls: 'no' is not true or false"),
        ({"head": 3}, "head: 3 is not a text"),
        ({"rules": "guess"}, "rules: unknown rule guess"),
        ({"2d-logits": "nowhere.npz"}, "nowhere.npz: no such file"),
    ],
)
def test_wrong_values_end_before_any_work(files, options, message):
    with pytest.raises(UsageError, match=message):
        run_study(study_of(files, **options), files / "out", jobs=1)
    assert not (files / "out" / "cells").exists()


def test_a_cell_is_the_run_of_that_name_and_differences_are_paired(files):
    grid = {"head": {"linear": "linear", "gbm": "gbm"}, "blocks": {"all": "toy"}}
    result = run_study(study_of(files, grid), files / "out", jobs=1)
    table = table_of(result)
    assert table.metric == "accuracy"
    assert table.rule == "stack"
    for place, of in enumerate(result.cells):
        run = read_run(of.folder)
        assert run.record["config"]["head"] == of.cell.labels["head"]
        for rule, rows in (("2d", "all"), ("3d", "covered"), ("mean", "all"), ("stack", "all")):
            assert table.find(place, rule).value == figure(run.figures, rule, "accuracy", rows=rows).value
    first, other = (find(of.predictions().predictors, "stack").values.argmax(1) for of in result.cells)
    truth = result.cells[0].predictions().truth
    gain = (other == truth).mean() - (first == truth).mean()
    assert table.find(1, "stack", versus_cell=0).value == pytest.approx(gain, abs=1e-12)
    assert table.find(0, "stack", versus_cell=0) is None
    # the 2D network is the same in both cells, to the last row
    same = table.find(1, "2d", versus_cell=0)
    assert same.value == 0 and same.low == pytest.approx(-same.high, abs=1e-12)


def test_holms_correction_runs_over_the_rules_of_all_cells(files):
    result = run_study(study_of(files, {"seed": {"0": 0, "1": 1}}), files / "out", jobs=1)
    table = table_of(result)
    lines = table.figures[
        (table.figures["versus"] == "2d-recalibrated") & table.figures["versus_cell"].isna()
    ]
    tested = lines[lines["role"] == "rule"]
    assert len(tested) == 4
    assert tested["p_adjusted"].tolist() == holm(tested["p"].tolist())
    assert lines["p_adjusted"][lines["role"] != "rule"].isna().all()


def test_what_was_run_is_not_run_again_and_a_new_value_runs_alone(files):
    out, seen = files / "out", []
    run_study(study_of(files, {"seed": {"0": 0}}), out, jobs=1)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("record.json")}
    grown = run_study(study_of(files, {"seed": {"0": 0, "1": 1}}), out, jobs=1, progress=seen.append)
    assert grown.kept == 1
    assert seen == [1, 1]
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    # other content under the same name is another cell
    table = make_table(240, seed=5)
    Predictions(table.two_d, "logits", CLASSES, table.id).save(files / "x.npz")
    assert run_study(study_of(files, {"seed": {"0": 0}}, force=True), out, jobs=1).kept == 0


def test_parallel_and_interrupted_runs_give_the_same_bytes(files):
    cells = {"first": {"seed": 0}, "bias": {"seed": 0, "calibrate": "bias"}, "other": {"seed": 1}}
    study = study_of(files, {"run": cells})
    write_study(run_study(study, files / "one", jobs=1), files / "one")
    result = run_study(study, files / "two", jobs=2)
    # as an interruption leaves it: a folder without its record, another missing
    (result.cells[0].folder / "record.json").unlink()
    shutil.rmtree(result.cells[2].folder)
    write_study(run_study(study, files / "two", jobs=1), files / "two")
    texts = {
        name: {path.relative_to(files / name): path.read_bytes() for path in (files / name).rglob("*.*")}
        for name in ("one", "two")
    }
    assert texts["one"] == texts["two"]
    assert (
        len(list((files / "one" / "heads").glob("*.npy"))) == 2
    )  # one for each seed, shared by calibrations


def test_an_interrupted_study_says_what_is_kept(files, ig3d, monkeypatch):
    options = {"2d-logits": str(files / "x.npz"), "3d-store": str(files / "y.h5"), **QUICK}
    (files / "study.yaml").write_text(yaml.safe_dump({"options": options}))

    def stopped(*given, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("ig3d.learn.ablation.run_study", stopped)
    ended = ig3d("ablate", files / "study.yaml", "--out", files / "out")
    assert ended.returncode == 130
    assert "interrupted; finished cells are kept" in ended.stderr


def test_a_cell_that_fails_says_why_and_stops_no_other(files):
    grid = {"blocks": {"all": "toy", "none": "jaw"}}
    result = run_study(study_of(files, grid), files / "out", jobs=1)
    assert [bool(of.error) for of in result.cells] == [False, True]
    assert "has no block jaw" in result.cells[1].error
    lines = list(csv.DictReader(io.StringIO(figures_csv(result, table_of(result)))))
    assert [line["error"] for line in lines if line["blocks"] == "none"] == [result.cells[1].error]
    tex = table_tex(result, table_of(result)).splitlines()
    assert next(line for line in tex if line.startswith("none &")) == "none" + " & --" * 5 + r" \\"


def test_cells_of_other_rows_are_not_compared(files):
    result = run_study(
        study_of(files, {"report": {"test": "test", "val": "val"}}, repeats=1), files / "out", jobs=1
    )
    table = table_of(result)
    assert "has no difference relative to test" in table.remarks[0]
    assert table.find(1, "stack", versus_cell=0) is None


def test_a_foreign_folder_is_left_alone(files):
    (files / "out").mkdir()
    (files / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match="has files that are not those of a study"):
        run_study(study_of(files), files / "out", jobs=1)
    assert [path.name for path in (files / "out").iterdir()] == ["thesis.tex"]


def test_the_command_writes_tables_and_ends_with_1_where_a_cell_failed(files, ig3d):
    pytest.importorskip("matplotlib")
    (files / "study.yaml").write_text(
        yaml.safe_dump(
            {"name": "A & B", "options": {**QUICK, "draws": 100}, "grid": {"blocks": ["toy", "jaw"]}}
        )
    )
    ended = ig3d(
        "ablate",
        files / "study.yaml",
        "--2d-logits",
        files / "x.npz",
        "--3d-store",
        files / "y.h5",
        "--set",
        "rules=mean",
        "--out",
        files / "out",
        "--jobs",
        "1",
    )
    assert ended.returncode == 1
    assert "1 of 2 cells failed" in ended.stderr
    assert "jaw: not run: " in ended.stdout
    assert {path.name for path in (files / "out").iterdir()} == {
        "cells",
        "figures.csv",
        "heads",
        "heatmap.png",
        "study.json",
        "table.tex",
    }
    assert r"A \& B" in (files / "out" / "table.tex").read_text()
    record = json.loads((files / "out" / "study.json").read_text())
    assert record["command"].startswith("ig3d ablate")
    assert [bool(cell["error"]) for cell in record["cells"]] == [False, True]
    finished = files / "out" / record["cells"][0]["folder"]
    label = ", ".join(record["cells"][0]["labels"].values())
    assert f"{finished} ({label})" in ig3d("report", files / "out").stderr
    assert read_run(finished).name == label  # not the hash that names the folder
    assert ig3d("ablate", files / "none.yaml", "--out", files / "new").returncode == 2


def test_valence_and_arousal_have_their_own_metric(tmp_path):
    table = make_table(240, task="va")
    store_of(tmp_path / "y.h5", table)
    Predictions(table.two_d, "va", ("valence", "arousal"), table.id).save(tmp_path / "x.npz")
    study = study_of(tmp_path, {"objective": {"rmse": "rmse", "ccc": "ccc"}})
    result = table_of(run_study(study, tmp_path / "out", jobs=1))
    assert result.metric == "ccc_joint"
    assert np.isfinite(result.find(1, "stack", versus_cell=0).value)
    with pytest.raises(UsageError, match="is not a metric of the task va; choose rmse_valence"):
        table_of(
            run_study(Study("toy", study.options, study.grid, metric="accuracy"), tmp_path / "out", jobs=1)
        )


def shown(result, width=200):
    console = Console(width=width, file=io.StringIO(), no_color=True)
    print_study(result, console)
    return console.file.getvalue()


def test_cells_that_predict_the_same_are_counted_once(files):
    grid = {"calibration-rows": {"all": 5000, "more": 6000, "few": 40}}
    result = run_study(study_of(files, grid), files / "out", jobs=1)
    table = table_of(result)
    assert any("more: the same predictions as all" in line for line in table.remarks)
    lines = table.figures[(table.figures["versus"] == "2d") & table.figures["versus_cell"].isna()]
    tested = lines[(lines["role"] == "rule") & (lines["cell"] != 1)]
    assert len(tested) == 4
    assert tested["p_adjusted"].tolist() == holm(tested["p"].tolist())
    for rule in ("mean", "stack"):
        first, same = (table.find(cell, rule, versus="2d").p_adjusted for cell in (0, 1))
        assert first == same
        assert np.isfinite(table.find(2, rule, versus_cell=0).p_adjusted)
        assert np.isnan(table.find(1, rule, versus_cell=0).p_adjusted)


def test_stars_of_a_study_need_both_references_and_the_control(files):
    result = run_study(study_of(files), files / "out", jobs=1)
    table = table_of(result)
    lines = table.figures[(table.figures["predictor"] == "stack") & (table.figures["condition"] == "real")]
    lines = lines[lines["p_adjusted"].notna()]
    assert set(lines["versus"]) == {"2d-recalibrated", "2d", "stack"}
    assert table.claim(0, "stack").p_adjusted == lines["p_adjusted"].max()
    for index in lines.index:
        changed = replace(table, figures=table.figures.copy())
        changed.figures.loc[index, "p_adjusted"] = 0.4
        assert changed.claim(0, "stack").p_adjusted == 0.4
        changed.figures.loc[index, "value"] *= -1
        assert changed.claim(0, "stack") is None


@pytest.mark.parametrize("damage", ["record", "rows", "cut", "gone"])
def test_a_damaged_cell_is_run_again(files, damage):
    study = study_of(files, {"seed": {"0": 0, "1": 1}})
    first = run_study(study, files / "out", jobs=1)
    folder = first.cells[1].folder
    whole = {name: (folder / name).read_bytes() for name in ("record.json", "predictions.npz")}
    if damage == "record":
        (folder / "record.json").write_bytes(whole["record.json"][:200])
    elif damage == "gone":
        (folder / "predictions.npz").unlink()
    elif damage == "cut":
        (folder / "predictions.npz").write_bytes(whole["predictions.npz"][:-3])
    else:
        with np.load(folder / "predictions.npz") as file:
            arrays = dict(file)
        for name in ("ids", "truth", "covered"):
            arrays[name] = arrays[name][:-30]
        np.savez(folder / "predictions.npz", **arrays | {"values": arrays["values"][:, :-30]})
    again = run_study(study, files / "out", jobs=1)
    assert again.kept == 1 and not again.cells[1].error
    assert {name: (folder / name).read_bytes() for name in whole} == whole
