"""Groups on their way from the user to the figures: patterns, hints, names in files, comparisons."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import replace

import numpy as np
import pytest
from toy_fusion import CLASSES, make_table, store_of

from ig3d.errors import UsageError
from ig3d.features.groups import groups_of, note_on_groups
from ig3d.features.predictions import Predictions
from ig3d.learn.evaluate.figures import figure, figures_of
from ig3d.learn.evaluate.predictors import find
from ig3d.learn.report import compare, read_runs
from ig3d.learn.report.compare import predictions_of

PERSONS = tuple(f"{first}_{last}" for first in ("Ann", "Bob", "Cem", "Dot", "Eve") for last in ("Fox", "Gil"))
PATTERN = r"([^/]*)_\d+$"


def files(folder, *, group=None, name=lambda row: f"{PERSONS[row % 10]}_{row // 10:04d}", n=120):
    """A store and 2D predictions whose ids are persons with numbers."""
    table = make_table(n, missing=0)
    ids = np.array([name(row) for row in range(n)])
    groups = np.full(n, "") if group is None else np.array([group(row) for row in range(n)])
    store_of(folder / "y.h5", replace(table, id=ids, group=groups))
    Predictions(table.two_d, "logits", CLASSES, ids).save(folder / "x.npz")
    return ("--2d-logits", folder / "x.npz", "--3d-store", folder / "y.h5")


QUICK = (
    "--rules",
    "mean,stack",
    "--head",
    "linear",
    "--draws",
    200,
    "--repeats",
    1,
    "--permutations",
    2,
    "--jobs",
    1,
)


def table_in(folder):
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_ids_like_persons_without_groups_bring_a_hint_that_works_as_it_stands(tmp_path, ig3d):
    given = files(tmp_path)
    ended = ig3d("fuse", *given, *QUICK, "--out", tmp_path / "a")
    assert ended.returncode == 0, ended.stderr
    hint = next(line for line in ended.stdout.splitlines() if "no groups are given" in line)
    text = " ".join(ended.stdout.split())
    assert "10 in 120 rows, the largest Ann_Fox (12)" in text and "give --groups '" in text and hint
    pattern = text.partition("give --groups '")[2].partition("'")[0]
    ended = ig3d("fuse", *given, *QUICK, "--groups", pattern, "--out", tmp_path / "b")
    assert ended.returncode == 0, ended.stderr
    text = " ".join(ended.stdout.split())
    assert "no groups are given" not in text
    assert "in 10 groups" in text
    record = json.loads((tmp_path / "b" / "record.json").read_text())
    notes = " ".join(record["assumptions"])
    assert "Groups (persons, videos): 10 in 120 rows, the largest Ann_Fox (12), Ann_Gil (12)" in notes
    assert record["protocol"]["groups_reported"] == 10 and record["config"]["groups"] == pattern
    lines = table_in(tmp_path / "b")
    assert all(line["group"] == line["id"].rpartition("_")[0] for line in lines)
    assert "group" not in table_in(tmp_path / "a")[0]


def test_train_and_the_listing_of_a_dataset_hint_and_take_groups_too(tmp_path, ig3d):
    *_, store = files(tmp_path)
    quick = ("--head", "linear", "--draws", 100)
    ended = ig3d("train", "--3d-store", store, *quick)
    assert ended.returncode == 0 and "no groups are given" in ended.stdout, ended.stderr
    ended = ig3d("train", "--3d-store", store, *quick, "--groups", PATTERN, "--out", tmp_path / "out")
    assert ended.returncode == 0 and "no groups" not in ended.stdout, ended.stderr
    assert {line["group"] for line in table_in(tmp_path / "out")} == set(PERSONS)


def test_an_extraction_hints_before_any_work(tmp_path, ig3d):
    from conftest import FAKE, write_image

    for row in range(40):
        folder = tmp_path / "images" / ("happy" if row % 3 else "sad")
        write_image(folder / f"{PERSONS[row % 10]}_{row:04d}.png")
    common = ("extract", tmp_path / "images", "--dataset", "folder", "--regressor", FAKE, "--jobs", 1)
    ended = ig3d(*common, "--detector", "whole", "--out", tmp_path / "a.h5")
    assert "no groups are given" in ended.stderr and "--groups '" in ended.stderr
    ended = ig3d(*common, "--detector", "whole", "--groups", PATTERN, "--out", tmp_path / "b.h5")
    assert "Groups (persons, videos): 10 in 40 rows, the largest Ann_Fox (4)" in " ".join(
        ended.stderr.split()
    )


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        (lambda row, label: f"train_{row:05d}", None),
        (lambda row, label: f"test/{label}/img_{row:04d}", None),
        (lambda row, label: f"{CLASSES[label]}/{row:04d}", None),
        (lambda row, label: f"{CLASSES[label]}_{row:03d}", None),
        (lambda row, label: f"{('train', 'val', 'test')[row % 3]}/{CLASSES[label]}/{row}", None),
        (lambda row, label: f"image{row:07d}", None),
        (lambda row, label: f"{row * 7919 % 100003:08x}", None),
        (lambda row, label: f"{row:05d}", -1),
        (lambda row, label: f"person{row:04d}_1", None),  # one row each
    ],
)
def test_ids_of_classes_splits_and_numbers_bring_no_hint(name, labels):
    rows = np.arange(300)
    label = rows % 3
    ids = np.array([name(row, label[row]) for row in rows])
    assert note_on_groups(ids, np.full(300, ""), label if labels is None else np.full(300, labels)) == ()


@pytest.mark.parametrize(
    "name",
    [
        lambda row: f"Aaron_Eckhart{row % 25}_{row:04d}",
        lambda row: f"happy/clip {row % 25:02d}-{row}",
        lambda row: f"video{row % 25:02d}/frame{row:06d}",
        lambda row: f"subject{'abcdefghijklmnopqrstuvwxy'[row % 25]}{row:03d}",
    ],
)
def test_ids_of_persons_videos_and_frames_bring_one(name):
    ids = np.array([name(row) for row in range(300)])
    for label in (np.arange(300) % 7, np.full(300, -1)):
        (note,) = note_on_groups(ids, np.full(300, ""), label)
        pattern = note.partition("give --groups '")[2].partition("'")[0]
        assert len(np.unique(groups_of(ids, pattern))) == 25


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "is not a regular expression"),
        ("no group", "no parentheses"),
        (r"x(\d)", "does not match 2 of 2"),
        ("(a{99999999999999999999})", "is not a regular expression"),
        ("(" * 3000 + ")" * 3000, "is not a regular expression"),
    ],
)
def test_a_pattern_that_names_no_group_is_refused_in_one_line(pattern, message):
    with pytest.raises(UsageError, match=r"^groups: [^\n]*$") as refused:
        groups_of(np.array(["a_1", "b_2"]), pattern)
    assert message in str(refused.value) and len(str(refused.value)) < 400


def test_a_pattern_that_never_ends_is_ended(monkeypatch, tmp_path, ig3d):
    monkeypatch.setattr("ig3d.features.groups._SECONDS", 0.3)
    given = files(tmp_path, name=lambda row: f"{'a' * 40}{row:04d}!")
    start = time.monotonic()
    ended = ig3d("fuse", *given, *QUICK, "--groups", "(a|aa)+$")
    assert time.monotonic() - start < 30
    assert ended.returncode == 2 and "avoid repeats within repeats" in ended.stderr


def test_rows_without_a_group_stand_for_themselves_in_files_and_comparisons(tmp_path, ig3d):
    given = files(tmp_path, group=lambda row: f"g{row % 4}" if row % 2 else "")
    for name, seed in (("a", 0), ("b", 1)):
        ended = ig3d("fuse", *given, *QUICK, "--report", "all", "--seed", seed, "--out", tmp_path / name)
        assert ended.returncode == 0, ended.stderr
    record = json.loads((tmp_path / "a" / "record.json").read_text())
    assert record["protocol"]["groups_reported"] == 60 + 2
    read = predictions_of(read_runs([tmp_path / "a"])[0])
    assert len(np.unique(read.groups)) == 60 + 2


def runs(tmp_path, ig3d, **groups):
    """Two runs on the same rows, with the groups of a pattern each; None is none."""
    given = files(tmp_path)
    for seed, (name, pattern) in enumerate(groups.items()):
        more = () if pattern is None else ("--groups", pattern)
        ended = ig3d(
            "fuse", *given, *QUICK, "--report", "all", *more, "--seed", seed, "--out", tmp_path / name
        )
        assert ended.returncode == 0, ended.stderr
    return read_runs([tmp_path / name for name in groups])


@pytest.mark.parametrize(("a", "b"), [(PATTERN, None), (None, PATTERN)])
def test_groups_of_either_run_are_what_a_comparison_resamples(tmp_path, ig3d, a, b):
    both = runs(tmp_path, ig3d, a=a, b=b)
    (line,) = (
        compare(both).differences.query("predictor == 'stack' and metric == 'accuracy'").to_dict("records")
    )
    first, other = (predictions_of(run) for run in both)
    groups = next(of.groups for of in (first, other) if of.groups is not None)
    pair = (
        replace(find(other.predictors, "stack"), name="other"),
        replace(find(first.predictors, "stack"), name="first", role="reference"),
    )
    ends = [
        figure(
            figures_of(
                pair, first.truth, np.ones(len(first.ids), bool), of, task="classes",
                draws=both[1].record["config"]["draws"], seed=1, references=("first",),
            ),
            "other",
            "accuracy",
            versus="first",
        )
        for of in (groups, None)
    ]  # fmt: skip
    assert (line["low"], line["high"]) == ends[0][1:3] != ends[1][1:3]


def test_runs_of_other_groups_are_not_compared(tmp_path, ig3d):
    found = compare(runs(tmp_path, ig3d, a=PATTERN, b=r"([^_]*)_"))
    assert not len(found.differences) and "their groups differ" in found.remarks[0]
    found = compare(runs(tmp_path, ig3d, c=PATTERN, d=r"(.*)_"))
    assert len(found.differences) and not found.remarks
