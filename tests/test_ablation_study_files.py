"""Study files are plain data: keys once, bounded size, and no code runs unless the user allows it."""

from __future__ import annotations

import sys
import time
from itertools import pairwise

import pytest
from toy_fusion import CLASSES, make_table, store_of

from ig3d.errors import UsageError
from ig3d.features.predictions import Predictions
from ig3d.learn.ablation.study import read_study
from ig3d.learn.heads import make_head


def study(folder, text):
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("grid:\n  blocks: {a: expression}\n  blocks: {b: expression}\n", "blocks"),
        ("name: a\nname: b\n", "name"),
        ("options: {draws: 200, draws: 300}\n", "draws"),
        ("grid:\n  sources:\n    a: {head: gbm, blocks: full, head: linear}\n", "head"),
        ("options: {on: logits, yes: 1}\n", "yes"),  # both are the truth value in YAML
        ("grid: {seed: {'1': 1, 1: 2}}\n", "1"),
    ],
)
def test_a_key_given_twice_is_refused_with_its_lines(tmp_path, ig3d, text, key):
    ended = ig3d("ablate", study(tmp_path, text), "--out", tmp_path / "out")
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1
    assert f"the key '{key}' is repeated (lines " in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rules", ["null", "7", "{mean: 1}"])
def test_rules_of_another_type_are_one_line(tmp_path, ig3d, rules):
    path = study(tmp_path, f"options: {{rules: {rules}}}\ngrid: {{seed: {{a: 1}}}}\n")
    ended = ig3d("ablate", path, "--2d-logits", "x.npz", "--3d-store", "y.h5", "--out", tmp_path / "out")
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1
    assert "is not a list of names; separate names with commas" in ended.stderr


def test_anchors_and_merge_keys_are_read(tmp_path):
    text = """
grid:
  sources:
    a: &a {blocks: full, head: gbm}
    b: &b {<<: *a, head: linear}
    c: {<<: *b}
"""
    cells = read_study(study(tmp_path, text)).cells
    assert [cell.options["head"] for cell in cells] == ["gbm", "linear", "linear"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"{y}: &{y} [{','.join([f'*{x}'] * 10)}]\n" for x, y in pairwise("abcdefghi")),
            "more than 100,000 values, with aliases",
        ),
        ("grid: &a {head: *a}\n", "more than 100,000 values, with aliases"),
        ("options: {seed: " + "9" * 5000 + "}\n", "Exceeds the limit"),
        ("options: {seed: " + "9" * 4000 + "}\n", "is out of range; choose 0 to 4294967295"),
        ("options: {seed: 0x" + "f" * 8000 + "}\n", "a whole number of 32,000 bits"),
        ("options: {seed: 1" + ":59" * 3000 + "}\n", "a whole number of"),
        ("grid: " + "[" * 5000 + "\n", "recursion"),
        ("options: !!timestamp z\n", "cannot be read as a study in YAML"),
        ("# " + "x" * 2_000_000, "has 2,000,002 bytes, more than the 1,000,000 of a study"),
    ],
)
def test_files_that_grow_without_bound_are_refused_at_once(tmp_path, ig3d, text, message):
    start = time.monotonic()
    ended = ig3d(
        "ablate", study(tmp_path, text), "--2d-logits", "x.npz", "--3d-store", "y.h5", "--out", tmp_path / "o"
    )
    assert time.monotonic() - start < 10
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1 and len(ended.stderr) < 1000
    assert message in ended.stderr


PLANTED = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from sklearn.linear_model import LogisticRegression
class Head(LogisticRegression):
    pass
"""


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A module whose import leaves a file, a study's files beside it, and the folder of both."""
    (tmp_path / "planted_head.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "planted_head", raising=False)
    table = make_table(120, missing=0)
    store_of(tmp_path / "y.h5", table)
    Predictions(table.two_d, "logits", CLASSES, table.id).save(tmp_path / "x.npz")
    return tmp_path


OPTIONS = "options: {2d-logits: x.npz, 3d-store: y.h5, rules: mean, draws: 100, controls: false%s}\n"


@pytest.mark.parametrize(
    "text",
    [
        OPTIONS % ", head: 'planted_head:Head'",
        OPTIONS % "" + "grid: {head: [linear, 'planted_head:Head']}\n",
        OPTIONS % "" + "grid: {any: {a: {head: 'planted_head:Head'}, b: {head: linear}}}\n",
    ],
)
def test_code_that_a_study_names_runs_only_where_the_user_allows_it(planted, ig3d, text):
    path = study(planted, text)
    ended = ig3d("ablate", path, "--out", planted / "out", "--jobs", 1)
    assert ended.returncode == 2 and "--allow-code" in ended.stderr and "'planted_head:Head'" in ended.stderr
    # to name another head on the command line does not allow this one
    if "any" in text:
        other = ("--set", "head=sklearn.linear_model:LogisticRegression")
        assert ig3d("ablate", path, *other, "--out", planted / "out", "--jobs", 1).returncode == 2
    with pytest.raises(UsageError, match="--allow-code"):
        read_study(path)
    assert not (planted / "ran").exists() and not (planted / "out").exists()
    if "grid" in text:  # with the flag, every study runs like the first
        assert len(read_study(path, allow_code=True).cells) == 2
        return
    ended = ig3d("ablate", path, "--allow-code", "--out", planted / "out", "--jobs", 1)
    assert ended.returncode == 0, ended.stderr
    assert (planted / "ran").exists()


def test_a_head_named_on_the_command_line_needs_no_flag(planted, ig3d):
    path = study(planted, OPTIONS % ", head: 'planted_head:Other'")
    ended = ig3d("ablate", path, "--set", "head=planted_head:Head", "--out", planted / "out", "--jobs", 1)
    assert ended.returncode == 0, ended.stderr


class Unfit:
    """A class that is not an estimator and counts its instances."""

    made = 0

    def __init__(self):
        type(self).made += 1


@pytest.mark.parametrize("task", ["classes", "va"])
@pytest.mark.parametrize(
    "target",
    ["os:abort", "sys:exit", "ctypes:cdll", "subprocess:Popen", "sklearn.base:clone", f"{__name__}:Unfit"],
)
def test_class_without_the_methods_of_an_estimator_is_not_constructed(target, task):
    with pytest.raises(UsageError, match=r"^head: .* is not a scikit-learn-compatible estimator with"):
        make_head(target, task, seed=0, jobs=1)
    assert Unfit.made == 0


def test_regressor_without_predict_proba_is_refused_for_classes():
    with pytest.raises(UsageError, match="the class has no predict_proba"):
        make_head("sklearn.linear_model:Ridge", "classes", seed=0, jobs=1)
    make_head("sklearn.linear_model:Ridge", "va", seed=0, jobs=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["head=gbm", "head=linear"], "set: head is given twice"),
        (["rules=" + "[" * 5000], "set: cannot be read as rules=VALUE"),
        (["draws={a: 1, a: 2}"], "the key 'a' is repeated"),
    ],
)
def test_settings_are_read_as_studies_are(planted, ig3d, settings, message):
    path = study(planted, OPTIONS % "")
    given = [word for text in settings for word in ("--set", text)]
    ended = ig3d("ablate", path, *given, "--out", planted / "out")
    assert ended.returncode == 2 and message in ended.stderr and len(ended.stderr.splitlines()) == 1


def test_a_home_folder_in_a_study_is_the_users(planted, ig3d, monkeypatch):
    monkeypatch.setenv("HOME", str(planted))
    path = study(planted, (OPTIONS % "").replace("y.h5", "~/y.h5"))
    settings = ("--set", "2d-logits=~/x.npz")
    ended = ig3d("ablate", path, *settings, "--out=~/result", "--jobs", 1)
    assert ended.returncode == 0, ended.stderr
    assert (planted / "result" / "study.json").is_file()


def test_an_option_that_two_factors_set_is_refused(tmp_path):
    text = "grid:\n  blocks: [expression, full]\n  sources: {a: {3d-store: a.h5, blocks: short}, b: {3d-store: b.h5}}\n"
    with pytest.raises(UsageError, match="the factors 'blocks' and 'sources' both set blocks"):
        read_study(study(tmp_path, text))
