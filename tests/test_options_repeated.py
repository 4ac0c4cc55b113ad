"""Options of several values: by comma, repeated, or both; paths in the home folder."""

from __future__ import annotations

import json
import sys

import pytest
from toy_fusion import CLASSES, make_table, store_of

from ig3d.features.predictions import Predictions
from ig3d.features.store import CodeStore


@pytest.fixture
def files(tmp_path):
    table = make_table(90, missing=0)
    store_of(tmp_path / "y.h5", table)
    Predictions(table.two_d, "logits", CLASSES, table.id).save(tmp_path / "x.npz")
    return ("--2d-logits", tmp_path / "x.npz", "--3d-store", tmp_path / "y.h5")


QUICK = ("--draws", 100, "--jobs", 1)


@pytest.mark.parametrize(
    "rules",
    [("--rules", "mean,stack"), ("--rules", "mean", "--rules", "stack"), ("--rule", "mean", "--rules=stack")],
)
def test_rules_given_again_are_added(files, ig3d, tmp_path, rules):
    ended = ig3d("fuse", *files, *QUICK, *rules, "--head=linear", "--no-controls", "--out", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "out" / "record.json").read_text())["config"]["rules"] == ["mean", "stack"]


def test_heads_and_blocks_given_again_are_added(files, ig3d, tmp_path):
    store = files[2:]
    heads = ("--head", "linear", "--head", "sklearn.naive_bayes:GaussianNB")
    ended = ig3d("train", *store, *QUICK, *heads, "--out", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    predictors = json.loads((tmp_path / "out" / "record.json").read_text())["predictors"]
    assert [of["name"] for of in predictors] == ["prior", "linear", "sklearn.naive_bayes:GaussianNB"]
    ended = ig3d("train", *store, *QUICK, "--blocks", "toy", "--blocks", "nothing")
    assert ended.returncode == 2 and "has no block nothing" in ended.stderr
    csv = tmp_path / "t.csv"
    ended = ig3d("export", tmp_path / "y.h5", "--csv", csv, "--blocks", "toy", "--blocks", "nothing")
    assert ended.returncode == 1 and "no block 'nothing'" in ended.stderr


def test_without_them_the_defaults_are_taken(files, ig3d, tmp_path):
    ended = ig3d("fuse", *files, *QUICK, "--head", "linear", "--no-controls", "--out", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    config = json.loads((tmp_path / "out" / "record.json").read_text())["config"]
    assert config["rules"] == [
        "mean",
        "max",
        "min",
        "product",
        "weighted",
        "stack",
        "boost",
        "gate",
        "selected",
    ]
    assert config["blocks"] == "full" and config["head"] == "linear"


def test_a_tilde_after_an_equals_sign_is_the_home_folder(files, ig3d, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    (home / "y.h5").write_bytes((tmp_path / "y.h5").read_bytes())
    ended = ig3d(
        "fuse", *files[:2], "--3d-store=~/y.h5", *QUICK, "--rules=mean", "--head=linear", "--out=~/out"
    )
    assert ended.returncode == 0, ended.stderr
    assert (home / "out" / "record.json").is_file() and not (tmp_path / "~").exists()
    ended = ig3d("inspect", "~/y.h5", "--json")
    assert ended.returncode == 0, ended.stderr
    with CodeStore(home / "y.h5") as store:
        assert len(store.samples.id) == 90
    # a tilde inside of a value stays as it is
    ended = ig3d("fuse", *files, "--groups=a~/(x)")
    assert "a~/(x)" in ended.stderr and sys.argv[-1] == "--groups=a~/(x)"
