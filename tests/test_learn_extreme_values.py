"""Values at the edges: huge logits, logits that tie after softmax, seeds, folds, rows of large codes."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from toy_fusion import CLASSES, make_table, store_of

from ig3d.features.predictions import log_probabilities, log_softmax
from ig3d.learn.config import FuseConfig
from ig3d.learn.evaluate.figures import COLUMNS, figure
from ig3d.learn.evaluate.tables import read_table
from ig3d.learn.fuse import fuse_predictions
from ig3d.learn.intermediate.config import IntermediateConfig
from ig3d.learn.plan import plan_fusion

QUICK = (
    "--rules",
    "mean,stack",
    "--head",
    "linear",
    "--draws",
    100,
    "--repeats",
    1,
    "--permutations",
    2,
    "--jobs",
    1,
)


@pytest.fixture
def files(tmp_path):
    """Arguments of a run, its table, and a function that writes other logits."""
    table = make_table(120, missing=0)
    store_of(tmp_path / "y.h5", table)

    def write(logits):
        np.savez(tmp_path / "x.npz", ids=table.id, logits=logits, classes=np.array(CLASSES))

    write(table.two_d)
    given = ("--2d-logits", tmp_path / "x.npz", "--3d-store", tmp_path / "y.h5")
    return given, table, write


def accuracy_of(folder, rule="2d"):
    return figure(read_table(folder / "figures.csv", COLUMNS), rule, "accuracy").value


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("value", [1.7e308, -1.7e308, 1e300])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(None)])
@pytest.mark.parametrize("columns", [1, slice(None)])
def test_logits_that_no_network_gives_are_refused_in_one_line(files, ig3d, value, rows, columns):
    given, table, write = files
    logits = table.two_d.copy()
    logits[rows, columns] = value
    write(logits)
    ended = ig3d("fuse", *given, *QUICK)
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1
    assert f"{abs(value):.4g}" in ended.stderr and "1e+09" in ended.stderr


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("calibrate", ["none", "bias"])
def test_large_logits_keep_the_accuracy_of_their_argmax(files, ig3d, tmp_path, calibrate):
    given, table, write = files
    logits = table.two_d * 1e6
    logits[:, 2] = np.where(np.arange(len(logits)) % 2, -1e9, logits[:, 2])  # a class masked as some do
    write(logits)
    more = ("--force", "--rules", "mean,weighted,stack", "--calibrate", calibrate)
    ended = ig3d("fuse", *given, *QUICK[2:], *more, "--no-controls", "--out", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    reported = table.split == 2
    right = (logits.argmax(axis=1) == table.labels)[reported].mean()
    assert accuracy_of(tmp_path / "out") == pytest.approx(right, abs=1e-12)
    assert 0.2 < accuracy_of(tmp_path / "out", "stack") <= 1


def test_logits_that_tie_after_softmax_keep_their_argmax(files, ig3d, tmp_path):
    given, table, write = files
    logits = np.zeros((120, 3))
    logits[np.arange(120), table.labels] = 1e-17  # rounding takes it away beside 1.1, not beside 0
    assert (log_softmax(logits).argmax(axis=1) != table.labels).any()
    assert np.array_equal(log_probabilities(logits).argmax(axis=1), table.labels)
    assert np.allclose(log_probabilities(logits), log_softmax(logits), atol=1e-12)
    write(logits)
    ended = ig3d("fuse", *given, *QUICK, "--out", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    assert accuracy_of(tmp_path / "out") == 1.0
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["predictor"] == "2d"]
    assert all(line["label"] == line["truth"] for line in lines)
    assert ig3d("report", tmp_path / "out", tmp_path / "out").returncode == 0
    # new rows by the saved model
    ended = ig3d(
        "predict", tmp_path / "out" / "model.skops", *given, "--rule", "mean", "--out", tmp_path / "p.csv"
    )
    assert ended.returncode == 0, ended.stderr


def test_log_probabilities_keep_an_argmax_only_where_it_was_lost():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(500, 7)) * 10
    assert np.array_equal(log_probabilities(scores), log_softmax(scores))
    tied = np.array([[0.0, 0.0, -1.0]])  # a true tie is the first, as NumPy has it
    assert log_probabilities(tied).argmax() == 0 and np.array_equal(
        log_probabilities(tied), log_softmax(tied)
    )


SEED = " is out of range; choose 0 to 4294967295"


@pytest.mark.parametrize("seed", [2**32, 2**64, -1, 10**30])
@pytest.mark.parametrize(
    "command",
    [
        ("fuse", "--2d-logits", "x.npz", "--3d-store", "y.h5"),
        ("train", "--3d-store", "y.h5"),
        ("fuse-features", "--features", "f.npz", "--3d-store", "y.h5", "--out", "o"),
        ("split", "d", "--dataset", "folder", "--out", "o.csv"),
        ("train-2d", "d", "--dataset", "folder", "--out", "o.safetensors"),
        ("synth", "faces"),
    ],
)
def test_seeds_beyond_32_bits_are_refused_before_any_work(ig3d, command, seed):
    ended = ig3d(*command, f"--seed={seed}")
    assert ended.returncode == 2 and f"seed: {seed}{SEED}" in ended.stderr


def test_the_largest_seed_runs(files, ig3d):
    given, _, _ = files
    ended = ig3d("fuse", *given, *QUICK, "--seed", 2**32 - 1, "--report", "all")
    assert ended.returncode == 0, ended.stderr
    IntermediateConfig(seeds=(2**32 - 1,))


@pytest.mark.parametrize("head", ["gbm", "linear"])
def test_a_row_of_huge_codes_ends_in_finite_predictions(head):
    table = make_table(120, missing=0)
    codes = table.codes.copy()
    codes[[5, 50]] = np.finfo(np.float32).max
    config = FuseConfig(
        head=head,
        rules=("mean", "stack"),
        rule_options={"stack": {"codes": True}},
        draws=100,
        permutations=2,
        jobs=1,
        model=False,
    )
    result = fuse_predictions(replace(table, codes=codes), config)
    assert all(np.isfinite(rule.values[rule.present]).all() for rule in result.predictors)


@pytest.mark.parametrize(("rows", "folds"), [(60, 60), (60, 11), (300, 300)])
@pytest.mark.parametrize("grouped", [False, True])
def test_nested_folds_fit_heads_in_proportion_to_the_folds_and_never_on_what_they_predict(
    rows, folds, grouped
):
    table = make_table(rows, split=lambda row: -1, missing=0, grouped=grouped)
    protocol = plan_fusion(table, FuseConfig(folds=folds))
    count = len(protocol.fold_models)
    assert count == min(folds, len(np.unique(table.group_codes))) and len(protocol.heads) == 6 * count + 1
    codes = table.group_codes
    for fuser in protocol.fold_models:
        scored = np.zeros(rows, int)
        for number in fuser.heads_fit:
            head = protocol.heads[number]
            asked = np.intersect1d(head.predict, fuser.fit)
            scored[asked] += 1
            assert not np.isin(codes[head.train], codes[np.append(asked, fuser.apply)]).any()
        assert np.array_equal(scored, np.isin(np.arange(rows), fuser.fit))


def test_a_head_for_each_pair_of_few_folds():
    protocol = plan_fusion(make_table(60, split=lambda row: -1, missing=0), FuseConfig(folds=10))
    assert len(protocol.heads) == 45 + 10 + 1


def test_many_folds_run_from_the_command_line(files, ig3d, tmp_path):
    table = make_table(36, split=lambda row: -1, missing=0)
    store_of(tmp_path / "n.h5", table)
    np.savez(tmp_path / "n.npz", ids=table.id, logits=table.two_d, classes=np.array(CLASSES))
    given = ("--2d-logits", tmp_path / "n.npz", "--3d-store", tmp_path / "n.h5", "--no-controls")
    ended = ig3d("fuse", *given, *QUICK, "--rules", "mean", "--folds", 12)
    assert ended.returncode == 0, ended.stderr
    ended = ig3d("fuse", *given, *QUICK, "--folds", 10**6)
    assert ended.returncode == 2 and "folds: 1000000 is out of range; choose 2 to 1000" in ended.stderr
