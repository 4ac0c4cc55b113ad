"""Studies in ablations/: the study files, and the studies of the script."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up_features import make
from toy_fusion import CLASSES, make_table, store_of
from toy_stores import CLASSES as SEVEN
from toy_stores import good_logits, make_samples, write_store

import ig3d
from ig3d.ablations import late_fusion
from ig3d.errors import UsageError
from ig3d.extract.regressors import find_regressor
from ig3d.features.predictions import Predictions
from ig3d.features.samples import Split
from ig3d.learn.ablation import run_study
from ig3d.learn.ablation.optional_blocks import resolve_optional_blocks
from ig3d.learn.ablation.run import _check_rule, _runner_of
from ig3d.learn.ablation.study import read_study
from ig3d.learn.heads import HEADS

ROOT = Path(ig3d.__file__).parent
FLAME = ("expression", "pose", "jaw", "eyelid", "shape", "camera")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two 2D files, a toy store, and one with the blocks of SMIRK."""
    folder = tmp_path_factory.mktemp("files")
    table = make_table(240, other=True)
    store_of(folder / "y.h5", table)
    for name, scores in (("x", table.two_d), ("z", table.others["second"])):
        Predictions(scores, "logits", CLASSES, table.id).save(folder / f"{name}.npz")
    codes = {name: np.zeros((7, 2)) for name in FLAME}
    sets = {name: list(blocks) for name, blocks in find_regressor("smirk").sets.items()}
    write_store(folder / "smirk.h5", make_samples(7), regressor="smirk", codes=codes, sets=sets)
    return folder


def check(study):
    """As before a study is run."""
    runners = [_runner_of(cell) for cell in study.cells]
    _check_rule(study, runners)
    assert len({repr(runner) for runner in runners}) == len(runners), "a cell twice"


@pytest.mark.parametrize("path", sorted((ROOT / "ablations").glob("*.yaml")), ids=lambda path: path.name)
def test_every_file_is_a_study(files, path):
    study = read_study(path)
    if path.name == "code_groups.yaml":  # files come by options
        study = study.with_options({"2d-logits": "x.npz", "3d-store": str(files / "smirk.h5")})
        study, _ = resolve_optional_blocks(study)
    check(study)


def test_the_code_groups_are_those_of_the_script(files):
    mine = late_fusion.by_group([str(files / "x.npz")], [str(files / "smirk.h5")])
    assert list(mine.grid["blocks"].items()) == [
        ("expression", "expression"),
        ("+ jaw", "expression,jaw"),
        ("+ eyelid", "expression,jaw,eyelid"),
        ("+ pose", "expression,jaw,eyelid,pose"),
        ("+ shape", "expression,jaw,eyelid,pose,shape"),
        ("short", "short"),
        ("expression+pose", "expression+pose"),
        ("full", "full"),
    ]
    path = ROOT / "ablations" / "code_groups.yaml"
    study, notes = resolve_optional_blocks(read_study(path, {"3d-store": str(files / "smirk.h5")}))
    assert study.grid == mine.grid and notes == ["left out: + blendshapes; the store has no blendshapes"]


def test_code_groups_has_no_cell_that_the_store_cannot_run(files):
    path = ROOT / "ablations" / "code_groups.yaml"
    blocks = ("expression", "pose", "eyelid", "shape", "camera", "blendshapes")
    write_store(
        files / "facemesh.h5", make_samples(7), codes={name: np.zeros((7, 2)) for name in blocks}, sets={}
    )
    study, notes = resolve_optional_blocks(read_study(path, {"3d-store": str(files / "facemesh.h5")}))
    assert study.grid["blocks"] == {
        "expression": "expression",
        "+ eyelid": "expression,eyelid",
        "+ pose": "expression,eyelid,pose",
        "+ shape": "expression,eyelid,pose,shape",
        "+ blendshapes": "expression,eyelid,pose,shape,blendshapes",
        "expression+pose": "expression+pose",
        "full": "full",
    }
    assert notes == ["left out: + jaw, short; the store has no jaw, short"]
    with pytest.raises(UsageError, match="pass --3d-store"):
        resolve_optional_blocks(read_study(path))


@pytest.mark.parametrize("name", late_fusion.STUDIES)
def test_the_studies_of_the_script(files, name):
    two_d, stores = (
        [str(files / "x.npz"), str(files / "z.npz")],
        [str(files / "y.h5"), str(files / "smirk.h5")],
    )
    study = late_fusion.STUDIES[name](two_d, stores)
    check(study)
    assert f"| `{name}` |" in (ROOT / "docs" / "ablation.md").read_text(encoding="utf-8")
    assert name.split("-")[0] in late_fusion.__doc__.replace("code group", "group")
    if name == "head":
        assert list(study.grid["head"]) == list(HEADS)
    if name in ("representation", "network"):
        with pytest.raises(UsageError, match="is given once"):
            late_fusion.STUDIES[name](two_d[:1], stores[:1])


@pytest.fixture
def script(files, tmp_path, monkeypatch, capsys):
    """Run the script as a user does, its cells small; exit code and text."""

    def run(*arguments, **options):
        def quick(study, *where, **how):
            return run_study(study.with_options({"rules": "mean", "draws": 100, **options}), *where, **how)

        monkeypatch.setattr("ig3d.learn.ablation.run_study", quick)
        given = ["--2d-logits", files / "x.npz", "--3d-store", files / "y.h5", "--out", tmp_path, "--jobs", 1]
        monkeypatch.setattr(sys, "argv", [str(part) for part in ("late_fusion.py", *given, *arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "ablations" / "late_fusion.py"), run_name="__main__")
        return ended.value.code or 0, capsys.readouterr()

    return run


def test_the_script_runs_studies_over_one_folder_of_cells(script, tmp_path):
    code, output = script("--study", "rule", "--study", "calibration", head="linear")
    assert code == 0, output.err
    assert "Late fusion by rule" in output.out and "Late fusion by calibration" in output.out
    for name in ("rule", "calibration"):
        assert {"study.json", "figures.csv", "table.tex"} <= {
            path.name for path in (tmp_path / name).iterdir()
        }
    # the only cell of the one is the first of the other: calibrate is none by default
    assert len(list((tmp_path / "cells").iterdir())) == 3


def test_the_script_exits_with_1_if_a_cell_failed(script):
    code, output = script("--study", "rule", "--study", "group", head="linear", blocks="jaw")
    assert code == 1
    assert "late_fusion: 2 of 2 cells failed" in output.err
    assert "has no block jaw" in output.out


def test_the_script_refuses_an_unknown_study(script):
    code, output = script("--study", "dream")
    assert code == 2
    assert "choose one of rule, group" in output.err


EXAMPLES = re.findall(
    r"^```yaml\n(.*?)^```", (ROOT / "docs" / "ablation.md").read_text(encoding="utf-8"), re.M | re.S
)


def files_of_examples(folder):
    """Files of the names in docs/ablation.md for late fusion: stores with the blocks of the example, 2D predictions."""
    samples = make_samples(210, split=lambda row: (Split.train, Split.val, Split.test)[row % 3])
    codes = {name: np.random.default_rng(0).normal(size=(210, 3)) for name in ("expression", "pose")}
    for name in ("y", "smirk", "emoca"):
        write_store(folder / f"{name}.h5", samples, codes=codes, sets={}, regressor=name)
    ids = np.array([sample.id for sample in samples])
    Predictions(good_logits(samples), "logits", SEVEN, ids).save(folder / "x.npz")


@pytest.mark.parametrize("text", EXAMPLES, ids=["several factors", "late against intermediate"])
def test_the_examples_of_the_documentation_run(tmp_path, ig3d, text):
    fast = {"draws": 100, "repeats": 1, "permutations": 1, "epochs": 1, "width": 8}
    if "intermediate" in text:
        made = make(tmp_path)
        made.store.rename(tmp_path / "y.h5")
        made.features.rename(tmp_path / "features.npz")
        values = np.random.default_rng(0).normal(size=(len(made.ids), 3))
        Predictions(values, "logits", ("neutral", "happy", "sad"), made.ids).save(tmp_path / "x.npz")
        fast |= {"blocks": "expression"}
    else:
        files_of_examples(tmp_path)
        fast = {"draws": 100, "controls": "false"}
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    study = read_study(tmp_path / "study.yaml")
    words = [word for name, value in fast.items() for word in ("--set", f"{name}={value}")]
    ended = ig3d("ablate", tmp_path / "study.yaml", *words, "--jobs", 1, "--out", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert all(label in ended.stdout for cell in study.cells for label in cell.labels.values())


def test_the_builtin_study_of_intermediate_fusion_takes_its_files_from_the_command_line(tmp_path, ig3d):
    made = make(tmp_path)
    fast = ("--set", "epochs=1", "--set", "width=8", "--set", "draws=100", "--set", "blocks=expression")
    fast += ("--set", "module=linear", "--jobs", 1, "--out", tmp_path / "out")
    ended = ig3d("ablate", "intermediate", "--features", made.features, "--3d-store", made.store, *fast)
    assert ended.returncode == 0, ended.stderr
    assert "null-input" in ended.stdout and "maps" not in ended.stdout
    ended = ig3d("ablate", "intermediate", "--2d-logits", made.features, "--3d-store", made.store, *fast)
    assert ended.returncode == 2
    assert (
        "'2d-logits' is not an option; the files of this kind of run are 3d-store, features" in ended.stderr
    )
