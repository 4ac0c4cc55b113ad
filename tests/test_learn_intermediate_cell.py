"""A cell of a study: the record that every run has, with the arms as its rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_features import make

from ig3d.errors import UsageError
from ig3d.learn.ablation.run import CellResult, run_study
from ig3d.learn.ablation.study import Cell, Study
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
    figures = result.figures["classes"]["all"]["predictors"]
    for name, arm in (("2d", "2d"), ("masked", "masked"), ("codes", "codes"), ("permuted", "permuted")):
        said = run.record["results"][name]["all"]["accuracy"]["value"]
        assert said == pytest.approx(figures[arm]["accuracy"]["value"])
    read = CellResult(Cell({}, {}), tmp_path / "cell", run.record).predictions()
    assert read is not None
    contents = dict.fromkeys(cell.files, "x")
    assert cell.key(contents) != IntermediateCell.of(options | {"module": "gate"}).key(contents)


def test_a_cell_without_its_files_is_refused() -> None:
    with pytest.raises(UsageError, match="3d-store: expected a file"):
        IntermediateCell.of({"features": "x.npz"})


def test_a_study_over_modules_runs_and_compares(tmp_path: Path) -> None:
    made = make(tmp_path)
    study = Study(
        "modules",
        options={
            "features": str(made.features), "3d-store": str(made.store), "epochs": 3, "batch-size": 32, "width": 8,
            "lr": 1e-2, "draws": 100,
        },
        grid={"module": {"linear": "linear", "gate": "gate"}},
        run="intermediate",
        rule="codes",
    )  # fmt: skip
    result = run_study(study, tmp_path / "study", jobs=1)
    assert [cell.error for cell in result.cells] == ["", ""]
    assert all(cell.record and "codes" in cell.record["results"] for cell in result.cells)
