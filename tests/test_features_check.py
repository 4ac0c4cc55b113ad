"""ig3d predictions check: each file's outcome, without fusing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from listed import Sample
from toy_stores import CLASSES, good_logits, make_samples, save, write_store

from ig3d.errors import PredictionsError
from ig3d.features.check import check_predictions
from ig3d.features.classes import PRESETS
from ig3d.features.inputs import Inputs
from ig3d.features.join import load_table
from ig3d.features.samples import Split


@pytest.fixture
def toy(tmp_path):
    """A store with three splits and two rows without a face; its samples."""
    splits = (Split.train, Split.train, Split.val, Split.test)
    samples = make_samples(300, split=lambda row: splits[row % 4])
    return write_store(tmp_path / "toy.h5", samples, missing=(3, 5)), samples


def test_a_sound_file_is_counted_by_split_and_exits_0(toy, tmp_path, ig3d):
    store, samples = toy
    logits, labels = good_logits(samples), np.array([sample.label for sample in samples])
    path = save(tmp_path / "x.npz", logits, ids=[sample.id for sample in samples], classes=CLASSES)
    _, (outcome,) = check_predictions(Inputs(path, store))
    assert outcome.problems == () and [part.name for part in outcome.parts] == ["train", "val", "test", "all"]
    whole = outcome.parts[-1]
    assert (whole.rows, whole.labelled, whole.coded, whole.predicted, whole.codes_only) == (
        300,
        300,
        298,
        300,
        0,
    )
    right = np.mean(logits.argmax(axis=1) == labels)
    assert whole.figures == (right, right)
    ended = ig3d("predictions", "check", path, "--3d-store", store)
    assert ended.returncode == 0 and "ok: rows and classes match" in ended.stdout
    for line in (
        "read as logits",
        "300 rows matched to toy.h5 by id",
        f"{100 * right:.1f} %",
        "largest probability of each row",
    ):
        assert line in ended.stdout


def test_every_file_has_its_outcome_and_one_bad_one_exits_1(toy, tmp_path, ig3d):
    store, samples = toy
    ids, logits = [sample.id for sample in samples], good_logits(samples)
    files = [
        save(tmp_path / "good.npz", logits, ids=ids),
        save(tmp_path / "turned.npz", logits[:, ::-1], ids=ids),
        save(tmp_path / "half.npz", logits[:150], ids=ids[:150]),
        save(tmp_path / "strange.npz", logits, ids=[f"{name}?" for name in ids]),
    ]
    _, outcomes = check_predictions(Inputs(files, store))
    assert [bool(outcome.problems) for outcome in outcomes] == [False, True, True, True]
    assert f"under {','.join(CLASSES[::-1])}; give the order" in outcomes[1].problems[0]
    declared, best = outcomes[1].parts[-1].figures
    assert declared < 0.2 < 0.8 < best
    expected = [sum(s.split == split for s in samples[150:]) for split in (Split.val, Split.test)]
    assert f"(val {expected[0]}, test {expected[1]})" in outcomes[2].problems[0]
    assert "300 of 300 ids cannot be matched" in outcomes[3].problems[0]
    ended = ig3d("predictions", "check", *files, "--3d-store", store)
    assert ended.returncode == 1 and ended.stdout.count("PROBLEM") == 3 and ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert all(
        f"  PROBLEM {outcomes[k].problems[0].removeprefix(f'{outcomes[k].source}: ')}" in lines
        for k in (1, 2)
    )
    assert ig3d("predictions", "check", files[2], "--3d-store", store, "--allow-missing").returncode == 0


def test_valence_and_arousal_are_checked_by_correlation(toy, tmp_path, ig3d):
    store, samples = toy
    truth = np.array([[sample.valence, sample.arousal] for sample in samples])
    np.savez(tmp_path / "x.npz", ids=[sample.id for sample in samples], va=truth[:, ::-1] * 0.9)
    _, (outcome,) = check_predictions(Inputs(tmp_path / "x.npz", store))
    assert "with the columns swapped" in outcome.problems[0]
    expected = np.corrcoef(truth.T)[0, 1]
    assert outcome.parts[-1].figures == pytest.approx((expected, expected), abs=1e-6)
    assert ig3d("predictions", "check", tmp_path / "x.npz", "--3d-store", store).returncode == 1


def test_rows_without_labels_are_joined_all_the_same(tmp_path, ig3d):
    samples = [type(s)(s.id, s.path) for s in make_samples(50)]
    store = write_store(tmp_path / "toy.h5", samples, classes=())
    path = save(
        tmp_path / "x.npz", np.eye(7)[np.arange(50) % 7], ids=[s.id for s in samples], classes=CLASSES
    )
    ended = ig3d("predictions", "check", path, "--3d-store", store)
    assert ended.returncode == 0 and "no split" in ended.stdout
    assert "ok: rows and classes match the samples; no labels to compare them with" in ended.stdout


def test_a_constant_prediction_is_a_problem(toy, tmp_path):
    store, samples = toy
    path = save(tmp_path / "x.npz", np.tile([3.0, 0, 0, 0, 0, 0, 1], (300, 1)), ids=[s.id for s in samples])
    _, (outcome,) = check_predictions(Inputs(path, store))
    assert "the same in every row" in outcome.problems[0]


def test_ready_3d_predictions_are_checked_as_well(tmp_path):
    samples = make_samples(100)
    ids, logits = [sample.id for sample in samples], good_logits(samples)
    labels = tmp_path / "labels.csv"
    labels.write_text("id,label\n" + "".join(f"{s.id},{CLASSES[s.label]}\n" for s in samples))
    two = save(tmp_path / "two.npz", logits, ids=ids, classes=CLASSES)
    three = save(tmp_path / "three.npz", logits[10:], ids=ids[10:], classes=CLASSES)
    _, outcomes = check_predictions(Inputs(two, three_d=three, labels=labels))
    assert [outcome.source for outcome in outcomes] == ["two.npz", "three.npz"]
    assert [outcome.parts[-1].predicted for outcome in outcomes] == [100, 90]
    assert outcomes[0].parts[-1].coded == 90 and not any(outcome.problems for outcome in outcomes)


def test_fuse_takes_several_files_and_stores(tmp_path, ig3d):
    samples = make_samples(280, split=lambda row: (Split.train, Split.test)[row % 14 < 7])
    labels = np.array([sample.label for sample in samples])
    codes = np.eye(7)[labels] + np.random.default_rng(0).normal(0, 0.7, (280, 7))
    stores = [
        write_store(tmp_path / f"{name}.h5", samples, regressor=name, codes={"expression": values})
        for name, values in (("mine", codes), ("yours", -codes))
    ]
    ids = [sample.id for sample in samples]
    first = save(tmp_path / "first.npz", good_logits(samples), ids=ids)
    turned = good_logits(samples, accuracy=0.6)[:, [CLASSES.index(name) for name in PRESETS["fer2013"]]]
    second = save(tmp_path / "second.npz", turned, ids=ids)
    options = ["--rules", "mean", "--head", "linear", "--draws", 100, "--folds", 2, "--no-controls"]
    files = ["--2d-logits", first, "--2d-logits", second, "--3d-store", stores[0], "--3d-store", stores[1]]
    ended = ig3d(
        "fuse",
        *files,
        "--2d-classes",
        "rafdb",
        "--2d-classes",
        "deepface",
        *options,
        "--out",
        tmp_path / "out",
    )
    assert ended.returncode == 0, ended.stderr
    notes = " ".join(json.loads((tmp_path / "out" / "record.json").read_text())["assumptions"])
    assert "mine:expression (7), yours:expression (7)" in notes and "2d:second" in ended.stdout
    ended = ig3d("fuse", *files, "--2d-classes", "rafdb", *options)
    assert ended.returncode == 1 and "second.npz: the class order seems wrong" in ended.stderr


def raf_like(path):
    """RAF-DB's ids: sorted, the test rows come first; its list has the train rows first."""
    rng = np.random.default_rng(7)
    rows = [("train", k) for k in range(150)] + [("test", k) for k in range(60)]
    # classes at random with one of them common, so that wrong rows are often right
    labels = np.where(rng.random(len(rows)) < 0.4, 3, rng.integers(0, 7, len(rows)))
    listed = [
        Sample(f"aligned/{split}_{k:05d}", f"aligned/{split}_{k:05d}_aligned.jpg", int(label), Split[split])
        for (split, k), label in zip(rows, labels, strict=True)
    ]
    return write_store(path, sorted(listed, key=lambda sample: sample.id)), listed


def test_rows_in_the_order_of_rafdbs_list_are_refused(tmp_path):
    store, listed = raf_like(tmp_path / "raf.h5")
    assert [sample.split for sample in listed[:1]] == [Split.train]
    np.save(tmp_path / "x.npy", good_logits(listed, accuracy=0.7))
    with pytest.raises(PredictionsError, match="in another order: train, val, test, each sorted by path;"):
        load_table(Inputs(tmp_path / "x.npy", store))
    # in the store's order they are sound
    by_id = sorted(listed, key=lambda sample: sample.id)
    np.save(tmp_path / "x.npy", good_logits(by_id, accuracy=0.7))
    assert load_table(Inputs(tmp_path / "x.npy", store)).has_2d.all()


def test_a_split_at_chance_is_refused_where_no_usual_order_fits(tmp_path):
    store, listed = raf_like(tmp_path / "raf.h5")
    by_id = sorted(listed, key=lambda sample: sample.id)
    logits = good_logits(by_id, accuracy=0.95)
    logits[:60] = logits[np.random.default_rng(1).permutation(60)]  # the test rows, in another order
    np.save(tmp_path / "x.npy", logits)
    with pytest.raises(PredictionsError, match=r"right, but those of the test split only by chance \(\d"):
        load_table(Inputs(tmp_path / "x.npy", store))


def test_a_forced_order_is_a_warning(tmp_path, ig3d):
    store, listed = raf_like(tmp_path / "raf.h5")
    np.save(tmp_path / "x.npy", good_logits(listed, accuracy=0.7))
    arguments = ("predictions", "check", tmp_path / "x.npy", "--3d-store", store)
    assert ig3d(*arguments).returncode == 1
    ended = ig3d(*arguments, "--force")
    assert ended.returncode == 0 and "continued because of --force" in ended.stdout


@pytest.mark.parametrize("only_test", [False, True])
def test_predictions_at_chance_have_a_warning_and_do_not_agree_with_the_labels(
    toy, tmp_path, ig3d, only_test
):
    store, samples = toy
    test = np.array([sample.split == Split.test for sample in samples])
    logits = good_logits(samples)
    random = np.random.default_rng(3).normal(size=logits.shape)
    logits = np.where(test[:, None] | (not only_test), random, logits)
    path = save(tmp_path / "x.npz", logits, ids=[sample.id for sample in samples], classes=CLASSES)
    ended = ig3d("predictions", "check", path, "--3d-store", store)
    assert ended.returncode == 0 and "agree with the labels" not in ended.stdout
    rows = "the test rows" if only_test else "all rows"
    assert f"WARNING: the accuracy of {rows} is not clearly above chance (" in ended.stdout
    assert "ok: rows and classes match the samples\n" in ended.stdout


def test_values_at_chance_have_a_warning(toy, tmp_path, ig3d):
    store, samples = toy
    truth = np.array([[sample.valence, sample.arousal] for sample in samples])
    values = np.stack([np.random.default_rng(0).uniform(-1, 1, len(truth)), truth[:, 1]], axis=1)
    np.savez(tmp_path / "x.npz", ids=[sample.id for sample in samples], va=values)
    ended = ig3d("predictions", "check", tmp_path / "x.npz", "--3d-store", store)
    assert ended.returncode == 0, ended.stdout
    assert "WARNING: valence of all rows is not clearly above chance (r = " in ended.stdout
    assert "agree with the labels" not in ended.stdout
