"""A cell of a study: the record that every run has, with the arms as its rules."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas
import pytest
from made_up_features import CLASSES, make

from ig3d.errors import UsageError
from ig3d.features.predictions import Predictions
from ig3d.learn.ablation.report import write_study
from ig3d.learn.ablation.run import CellResult, run_study
from ig3d.learn.ablation.study import Cell, Study, read_study
from ig3d.learn.ablation.table import table_of
from ig3d.learn.evaluate.figures import figure
from ig3d.learn.intermediate.cell import IntermediateCell
from ig3d.learn.intermediate.run import fuse_features
from ig3d.learn.intermediate.table import load_feature_table
from ig3d.learn.report.record import read_run


def test_a_cell_says_what_the_run_says(tmp_path: Path) -> None:
    made = make(tmp_path)
    options = {
        "features": str(made.features), "3d-store": [str(made.store)], "blocks": ["expression"], "module": "linear",
        "epochs": 4, "batch-size": 32, "width": 8, "lr": 1e-2, "seed": 3, "draws": 100,
    }  # fmt: skip
    cell = IntermediateCell.of(options)
    assert cell.config.seeds == (3,) and cell.blocks == "expression"
    cell.write(tmp_path / "cell", tmp_path / "heads", 1)
    run = read_run(tmp_path / "cell")
    result = fuse_features(load_feature_table(made.features, made.store, blocks="expression"), cell.config)
    pandas.testing.assert_frame_equal(run.figures, result.figures["classes"])
    read = CellResult(Cell({}, {}), tmp_path / "cell", run).predictions()
    assert read is not None
    contents = dict.fromkeys(cell.files, "x")
    assert cell.key(contents) != IntermediateCell.of(options | {"module": "gate"}).key(contents)


def test_a_cell_without_its_files_is_refused() -> None:
    with pytest.raises(UsageError, match="3d-store: no file; name it in the options"):
        IntermediateCell.of({"features": "x.npz"})


def study_of(folder: Path, rule: str) -> Study:
    made = make(folder)
    return Study(
        "modules",
        options={
            "features": str(made.features), "3d-store": str(made.store), "epochs": 3, "batch-size": 32, "width": 8,
            "lr": 1e-2, "draws": 100,
        },
        grid={"module": {"linear": "linear", "gate": "gate"}},
        run="intermediate",
        rule=rule,
    )  # fmt: skip


def test_a_study_over_modules_gives_the_table(tmp_path: Path) -> None:
    result = run_study(study_of(tmp_path, "intermediate"), tmp_path / "study", jobs=1)
    assert [cell.error for cell in result.cells] == ["", ""]
    table = table_of(result)
    assert (
        table.rule == "intermediate"
        and table.control == ("intermediate", "permuted")
        and table.references == ("null-input", "2d")
    )
    gains = []
    for place, cell in enumerate(result.cells):
        codes, masked = (
            figure(cell.run.figures, name, "accuracy").value for name in ("intermediate", "null-input")
        )
        gains.append(codes - masked)
        assert table.find(place, "intermediate", versus="null-input").value == pytest.approx(gains[-1])
    between = table.find(1, "intermediate", versus_cell=0).value
    first, second = (table.find(place, "intermediate").value for place in (0, 1))
    assert between == pytest.approx(second - first)
    write_study(result, tmp_path / "study")
    with (tmp_path / "study" / "figures.csv").open() as file:
        lines = list(csv.DictReader(file))
    keys = [("2d", "real"), ("null-input", "real"), ("intermediate", "real"), ("intermediate", "permuted")]
    assert {(line["module"], line["predictor"], line["condition"]) for line in lines} == {
        (module, *key) for module in ("linear", "gate") for key in keys
    }
    codes = [line for line in lines if line["predictor"] == "intermediate" and line["versus"] == "null-input"]
    codes = [line for line in codes if line["condition"] == "real" and not line["versus_cell"]]
    assert [float(line["value"]) for line in codes] == pytest.approx(gains)
    tex = (tmp_path / "study" / "table.tex").read_text()
    assert r"\texttt{intermediate}" in tex and r"\texttt{null-input}" in tex and "gate" in tex


def test_a_rule_that_no_cell_can_have_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no cell has the rule 'stack'; choose among 2d, null-input, intermediate"
    ):
        run_study(study_of(tmp_path, "stack"), tmp_path / "study", jobs=1)
    assert not (tmp_path / "study").exists()
    made = make(tmp_path)
    late = {"2d-logits": str(made.features), "3d-store": str(made.store), "rules": "mean"}
    with pytest.raises(UsageError, match="'intermediate'; choose among 2d, 2d-recalibrated, 3d, mean"):
        run_study(Study("late", late, rule="intermediate"), tmp_path / "study", jobs=1)


def test_late_and_intermediate_fusion_of_one_study_are_tested_against_each_other(tmp_path: Path) -> None:
    made = make(tmp_path)
    predictions = tmp_path / "2d.npz"
    values = np.random.default_rng(0).normal(size=(len(made.ids), len(CLASSES)))
    Predictions(values, "logits", CLASSES, made.ids).save(predictions)
    path = tmp_path / "both.yaml"
    path.write_text(
        f"""
options:
  {{2d-logits: {predictions}, 3d-store: {made.store}, features: {made.features}, draws: 100, epochs: 3, width: 8,
   batch-size: 32, rules: stack, head: linear, controls: false, repeats: 1}}
grid:
  fusion: {{late: {{run: fuse}}, intermediate: {{run: intermediate, module: linear}}}}
rule: {{fuse: stack, intermediate: intermediate}}
"""
    )
    result = run_study(read_study(path), tmp_path / "study", jobs=1)
    assert [cell.error for cell in result.cells] == ["", ""]
    table = table_of(result)
    assert dict(table.rule_of) == {0: "stack", 1: "intermediate"} and not table.remarks
    late, intermediate = table.find(0, "stack"), table.find(1, "intermediate")
    between = table.find(1, "intermediate", versus_cell=0)
    assert between.value == pytest.approx(intermediate.value - late.value)
    assert between.low <= between.value <= between.high and 0 < between.p <= 1
    write_study(result, tmp_path / "study")
    assert "intermediate" in (tmp_path / "study" / "table.tex").read_text()
    with pytest.raises(UsageError, match=r"both: 'epoch' is not an option; did you mean epochs"):
        read_study(path, {"epoch": 3})
