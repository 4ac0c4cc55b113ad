"""``ig3d predict``: the file of a model, refusals, and predictions of new rows and of rows it was fitted on."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import skops.io
from toy_fusion import CLASSES, make_table, store_of

from ig3d.errors import ModelError
from ig3d.features.fusion_table import BlockUse
from ig3d.features.inputs import Inputs
from ig3d.features.predictions import Predictions
from ig3d.learn.fuse import FuseConfig, fuse_files, fuse_predictions
from ig3d.learn.model import load_model, parameters_hash, save_model
from ig3d.learn.predict import fitting_marks, predict
from ig3d.learn.predict_files import predict_files

FAST = FuseConfig(
    rules=("mean", "weighted", "stack"), head="linear", draws=100, folds=3, jobs=1, repeats=1, permutations=2
)


def logits_of(path, table, rows=slice(None), *, kind=None, values=None, classes=CLASSES):
    kind = kind or ("va" if table.task == "va" else "logits")
    columns = ("valence", "arousal") if kind == "va" else classes
    values = table.two_d if values is None else values
    Predictions(values[rows], kind, columns, table.id[rows]).save(path)
    return path


@pytest.fixture
def fitted(tmp_path):
    """A model file, and a table of which val and test have 2D predictions, in files."""
    table = make_table(180, quality=False)
    store_of(tmp_path / "toy.h5", table)
    there = table.split > 0
    logits_of(tmp_path / "two.npz", table, there)
    return tmp_path, table


def fuse(folder):
    """The model that ``ig3d fuse`` makes of the folder's files."""
    inputs = Inputs(folder / "two.npz", folder / "toy.h5")
    model = fuse_files(inputs, replace(FAST, rules=("mean", "stack", "gate"))).model
    save_model(model, folder / "model.skops")
    return folder / "model.skops"


def lines_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_the_command_predicts_unlabelled_rows_and_marks_those_it_has_seen(ig3d, fitted):
    folder, table = fitted
    model = fuse(folder)
    fresh = make_table(60, seed=5, quality=False)
    new_ids = np.array([f"new/{row}" for row in range(60)])
    ids = np.where(np.arange(60) < 20, table.id[:60], new_ids)
    store_of(folder / "new.h5", fresh, labelled=False, ids=np.sort(ids))
    fresh = replace(fresh, id=np.sort(ids))
    logits_of(folder / "new.npz", fresh)
    ended = ig3d(
        "predict", model, "--2d-logits", folder / "new.npz", "--3d-store", folder / "new.h5", "--out",
        folder / "p.csv", "--rule", "stack",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    lines = lines_of(folder / "p.csv")
    assert list(lines[0]) == ["id", "label", "p_happy", "p_sad", "p_anger", "has_3d", "seen"]
    assert [line["id"] for line in lines] == sorted(ids)
    values = predict(load_model(model), fresh_like(folder, fresh), rules=("stack",))["stack"]
    p = np.array([[float(line[f"p_{name}"]) for name in CLASSES] for line in lines])
    assert np.allclose(p, np.exp(values), atol=1e-6) and np.allclose(p.sum(axis=1), 1, atol=1e-5)
    assert [line["label"] for line in lines] == [CLASSES[column] for column in p.argmax(axis=1)]
    assert [line["has_3d"] == "yes" for line in lines] == fresh.covered.tolist()
    split = {name: row % 3 for row, name in enumerate(table.id)}
    covered = dict(zip(table.id, table.covered, strict=True))
    for line in lines:
        known = split.get(line["id"], 2)
        trained = known == 0 and covered[line["id"]]
        calibrated = known == 1 and covered[line["id"]]
        assert line["seen"] == ("calibration" if calibrated else "training" if trained else ""), line["id"]
    marked = sum(line["seen"] == "calibration" for line in lines)
    assert marked and f"WARNING stack was fitted on {marked} rows of these" in ended.stderr
    fitted_on = f"fitted on the val split ({int((table.covered & (table.split == 1)).sum())} rows)"
    assert f"60 rows fused by stack, {fitted_on}." in ended.stderr
    assert "rows without 3D: predicted from the 2D network alone" in ended.stderr


def test_rows_are_recognised_by_the_content_of_their_images(ig3d, fitted):
    """Copies under other ids are marked, and other images under the same ids are not."""
    folder, table = fitted
    digest = np.random.default_rng(0).integers(0, 256, (180, 16)).astype(np.uint8)
    store_of(folder / "toy.h5", table, digest=digest)
    model = fuse(folder)
    copies = np.array([f"copy/{row:04d}" for row in range(180)])
    unread = np.zeros_like(digest)
    expected = np.where(table.split == 0, "training", np.where(table.split == 1, "calibration", ""))
    expected[~table.covered] = ""
    for ids, images, marks in (
        (copies, digest, expected),
        (table.id, digest[:, ::-1].copy(), np.full(180, "")),
        (table.id, unread, expected),
        (copies, unread, np.full(180, "")),
    ):
        store_of(folder / "new.h5", table, labelled=False, ids=ids, digest=images)
        logits_of(folder / "new.npz", replace(table, id=ids))
        ended = ig3d(
            "predict", model, "--2d-logits", folder / "new.npz", "--3d-store", folder / "new.h5",
            "--rule", "stack", "--out", folder / "p.csv",
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        assert [line["seen"] for line in lines_of(folder / "p.csv")] == marks.tolist()
        assert load_model(folder).rules.keys() == load_model(model).rules.keys()
        assert ("WARNING stack was fitted on" in ended.stderr) == bool((marks != "").any())


def test_a_rule_that_fits_nothing_has_seen_no_calibration_rows(ig3d, fitted):
    """The head's own training rows count all the same."""
    folder, table = fitted
    logits_of(folder / "all.npz", table)
    files = ["--2d-logits", folder / "all.npz", "--3d-store", folder / "toy.h5", "--out", folder / "p.csv"]
    ended = ig3d("predict", fuse(folder), *files, "--rule", "mean")
    assert ended.returncode == 0, ended.stderr
    marks = np.array([line["seen"] for line in lines_of(folder / "p.csv")])
    assert np.array_equal(marks, np.where((table.split == 0) & table.covered, "training", ""))
    assert "180 rows fused by mean, which has no fitted parameters." in ended.stderr
    assert "mean was fitted" not in ended.stderr
    assert f"WARNING the head was fitted on {(marks == 'training').sum()} rows of these" in ended.stderr


def test_further_networks_are_no_part_of_a_model(ig3d, fitted):
    """Neither silently left out nor taken for the first: as an option given twice the last would be read."""
    folder, table = fitted
    there = table.split > 0
    logits_of(
        folder / "other.npz",
        table,
        there,
        values=0.5 * table.two_d + np.random.default_rng(3).normal(size=table.two_d.shape),
    )
    inputs = Inputs((folder / "two.npz", folder / "other.npz"), folder / "toy.h5")
    save_model(fuse_files(inputs, replace(FAST, rules=("stack",))).model, folder / "model.skops")
    files = [
        "--2d-logits",
        folder / "two.npz",
        "--2d-logits",
        folder / "other.npz",
        "--3d-store",
        folder / "toy.h5",
    ]
    ended = ig3d("predict", folder / "model.skops", *files, "--out", folder / "p.csv", "--allow-missing")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and not (folder / "p.csv").exists()
    assert "because further networks were its controls" in ended.stderr
    ended = ig3d("predict", folder / "model.skops", *files[:2], *files[4:], "--out", folder / "p.csv")
    assert ended.returncode == 0, ended.stderr
    alone = fuse_files(Inputs(folder / "two.npz", folder / "toy.h5"), replace(FAST, rules=("stack",))).model
    assert parameters_hash(alone) == parameters_hash(load_model(folder / "model.skops"))


def test_outputs_of_another_network_are_said(ig3d, fitted):
    folder, table = fitted

    def made_by(name, rows, network, **record):
        path = logits_of(folder / name, table, rows)
        with np.load(path) as arrays:
            content = json.dumps({"network": "timm:resnet18", "sha256": network * 64, **record})
            np.savez(path, **arrays, made_by=np.array(content))
        return path

    made_by("two.npz", table.split > 0, "a", input={"size": 64, "mean": [0.5, 0.5, 0.5]}, crop="whole")
    model = fuse(folder)
    assert load_model(model).network == "timm:resnet18 aaaaaaaaaaaa; size 64; mean 0.5 0.5 0.5; crop whole"

    def predicted_of(path):
        files = ["--2d-logits", path, "--3d-store", folder / "toy.h5", "--out", folder / "p.csv"]
        ended = ig3d("predict", model, *files)
        assert ended.returncode == 0, ended.stderr
        return ended.stderr

    warning = "fitted with other 2D outputs than these"
    same = made_by(
        "same.npz", slice(None), "a", input={"size": 64, "colour": "rgb"}, crop="whole", crop_scale=1
    )
    assert warning not in predicted_of(same)
    assert warning not in predicted_of(logits_of(folder / "silent.npz", table))
    for record, difference in (
        ({"network": "b"}, "timm:resnet18 aaaaaaaaaaaa, now timm:resnet18 bbbbbbbbbbbb"),
        ({"network": "a", "crop": "dataset"}, "crop whole, now crop dataset"),
        ({"network": "a", "input": {"size": 96}}, "size 64, now size 96"),
        ({"network": "a", "input": {"mean": [0.4, 0.5, 0.5]}}, "mean 0.5 0.5 0.5, now mean 0.4 0.5 0.5"),
    ):
        text = " ".join(predicted_of(made_by("other.npz", slice(None), **record)).split())
        assert f"{warning}: {difference}. Its rules" in text

    def stop(text):  # called before the store is read
        raise KeyboardInterrupt(text)

    with pytest.raises(KeyboardInterrupt, match=f"{warning}: mean 0.5 0.5 0.5"):
        predict_files(load_model(model), folder / "other.npz", stores=[folder / "none.h5"], notify=stop)


def fresh_like(folder, table):
    """The table as the store has it."""
    return replace(
        table,
        quality=np.full((len(table), 6), np.nan),
        quality_columns=tuple(
            f"quality:{name}" for name in ("score", "yaw", "pitch", "roll", "size", "faces")
        ),
    )


def test_the_command_refuses_in_one_line_what_does_not_fit(ig3d, fitted):
    folder, table = fitted
    model = fuse(folder)
    store_of(folder / "other.h5", table, basis="toy-2")
    four = np.hstack([table.two_d, table.two_d[:, :1]])
    logits_of(folder / "four.npz", table, values=four, classes=(*CLASSES, "fear"))
    logits_of(folder / "va.npz", table, kind="va", values=np.tanh(table.two_d[:, :2]))
    good = ["--2d-logits", folder / "two.npz", "--3d-store", folder / "toy.h5"]
    for options, reason in (
        (
            [*good[:2], "--3d-store", folder / "other.h5"],
            "needs the code blocks toy (8, toy-1), but the store has toy (8, toy-2)",
        ),
        (["--2d-logits", folder / "four.npz", *good[2:]], "3 classes"),
        (["--2d-logits", folder / "va.npz", *good[2:]], "va.npz: no array named logits"),
        (
            [*good[:2], "--3d-logits", folder / "two.npz"],
            "model: was fitted with codes; give them with --3d-store",
        ),
        (good[:2], "predict: neither of --3d-store and --3d-logits; give one of them"),
        (
            [*good, "--rule", "median"],
            "rule: the model has no rule median; choose among 2d-recalibrated, mean",
        ),
    ):
        ended = ig3d("predict", model, *options, "--out", folder / "p.csv")
        assert ended.returncode in (1, 2) and reason in ended.stderr, (reason, ended.stderr)
        assert len(ended.stderr.strip().splitlines()) == 1 and not (folder / "p.csv").exists()
    ended = ig3d("predict", model, *good, "--out", folder / "p.txt")
    assert ended.returncode == 2 and "p.txt does not end in .csv; rename it" in ended.stderr
    assert not (folder / "p.txt").exists()


def test_classes_in_another_order_are_put_in_the_models(ig3d, fitted):
    folder, table = fitted
    model = fuse(folder)
    order = [2, 0, 1]
    turned = tuple(CLASSES[column] for column in order)
    logits_of(folder / "turned.npz", table, values=table.two_d[:, order], classes=turned)
    back = replace(table, labels=np.array([order.index(label) for label in table.labels], np.int16))
    store_of(folder / "turned.h5", back, classes=turned)
    texts = []
    for two, store in (("two", "toy"), ("turned", "turned")):
        logits_of(folder / "two.npz", table)
        ended = ig3d(
            "predict", model, "--2d-logits", folder / f"{two}.npz", "--3d-store", folder / f"{store}.h5",
            "--out", folder / "p.csv",
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        texts.append((folder / "p.csv").read_text())
    assert texts[0] == texts[1]


def test_ready_predictions_need_no_labels_and_join_by_id(ig3d, tmp_path):
    table = make_table(120, ready=True, quality=False, missing=0)
    model = fuse_predictions(table, replace(FAST, rules=("stack",))).model
    save_model(model, tmp_path / "m.skops")
    logits_of(tmp_path / "two.npz", table)
    rows = np.random.default_rng(0).permutation(120)[:100]
    logits_of(tmp_path / "three.npz", table, rows, values=table.three_d)
    ended = ig3d(
        "predict", tmp_path / "m.skops", "--2d-logits", tmp_path / "two.npz", "--3d-logits",
        tmp_path / "three.npz", "--out", tmp_path / "p.csv",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    lines = lines_of(tmp_path / "p.csv")
    gone = np.isin(np.arange(120), rows, invert=True)
    expected = predict(model, replace(table, three_d=np.where(gone[:, None], np.nan, table.three_d)))["stack"]
    p = np.array([[float(line[f"p_{name}"]) for name in CLASSES] for line in lines])
    assert np.allclose(p, np.exp(expected), atol=1e-6)
    assert [line["has_3d"] for line in lines].count("no") == 20


@pytest.mark.parametrize("task", ["classes", "va"])
@pytest.mark.parametrize("head", ["linear", "gbm"])
def test_a_saved_model_gives_the_same_predictions_for_every_rule(tmp_path, task, head):
    table = make_table(90, task=task)
    rules = ("mean", "stack", "boost", "gate", "selected")
    calibrate = "bias" if task == "classes" else "none"
    config = replace(FAST, head=head, rules=rules, controls=False, calibrate=calibrate)
    result = fuse_predictions(table, config)
    save_model(result.model, tmp_path / "model.skops")
    model = load_model(tmp_path / "model.skops")
    before, after = predict(result.model, table), predict(model, table)
    for name, values in before.items():
        assert np.array_equal(values, after[name], equal_nan=True), name
    # One copy was fitted on val and applied to test: the model is that copy.
    for rule in result.predictors:
        values = after[rule.name][result.plan.reported]
        assert np.allclose(values, rule.values, atol=1e-12, equal_nan=True), rule.name
    marks = fitting_marks(model, table, "stack")
    used = {1: "calibration", 0: "training"}
    for split in (0, 1, 2):  # rows without codes fitted neither
        assert (marks[(table.split == split) & table.covered] == used.get(split, "")).all()
        assert (marks[(table.split == split) & ~table.covered] == "").all()
    unfitted = fitting_marks(model, table, "mean")
    assert (unfitted == np.where(marks == "calibration", "" if calibrate == "none" else marks, marks)).all()
    assert model.calibrate == config.calibrate and model.quality_columns == table.quality_columns
    assert model.preferred == "selected"


@pytest.mark.parametrize("task", ["classes", "va"])
def test_the_number_of_threads_changes_no_parameter_of_a_model(monkeypatch, task):
    monkeypatch.setattr("ig3d.learn.trees._CELLS_PER_THREAD", 100)  # else rows this few get one thread anyhow
    table = make_table(90, task=task)
    config = replace(FAST, head="gbm", rules=("boost",), controls=False)
    one, three = (
        parameters_hash(fuse_predictions(table, replace(config, jobs=jobs)).model) for jobs in (1, 3)
    )
    assert one == three


def test_a_model_refuses_tables_that_do_not_fit():
    table = make_table(120)
    model = fuse_predictions(table, FAST).model
    other = tuple(BlockUse(block.name, block.width, "toy-2") for block in table.blocks)
    with pytest.raises(
        ModelError, match=r"needs the code blocks toy \(8, toy-1\), but the store has toy \(8, toy-2\)"
    ):
        predict(model, replace(table, blocks=other))
    with pytest.raises(ModelError, match="predicts classes"):
        predict(model, replace(table, classes=("sad", "happy", "fear")))
    with pytest.raises(
        ModelError, match=r"needs the quality columns quality:score, quality:yaw, but .* none"
    ):
        predict(model, replace(table, quality=None, quality_columns=()))
    with pytest.raises(ModelError, match="rule: the model has no rule"):
        predict(model, table, rules=("gate",))
    order = np.array([1, 2, 0])
    turned = replace(
        table,
        classes=tuple(CLASSES[column] for column in order),
        two_d=table.two_d[:, order],
        labels=np.argsort(order)[table.labels].astype(np.int16),
    )
    assert np.array_equal(predict(model, turned)["stack"], predict(model, table)["stack"], equal_nan=True)


class Foreign:
    def __setstate__(self, state):
        pytest.fail("a foreign object was made")


def test_foreign_damaged_and_older_models_are_refused(tmp_path):
    skops.io.dump({"format": "ig3d-fusion-model", "head": Foreign(), "rules": print}, tmp_path / "x.skops")
    skops.io.dump({"format": "other"}, tmp_path / "y.skops")
    old = {"format": "ig3d-fusion-model", "format_version": 1, "ig3d_version": "0.0.1", "head": Foreign()}
    skops.io.dump(old, tmp_path / "old.skops")
    (tmp_path / "z.skops").write_bytes(b"nothing")
    model = fuse_predictions(make_table(90), FAST).model
    save_model(model, tmp_path / "m.skops")
    assert b"s/0001" not in (tmp_path / "m.skops").read_bytes()  # nor names of samples
    raw = (tmp_path / "m.skops").read_bytes()
    (tmp_path / "half.skops").write_bytes(raw[: len(raw) // 2])
    for name, reason in {
        "x": "types that are not part of a model",
        "y": "is not a model; use",
        "old": r"has format version 1, but this ig3d reads version 4; use the ig3d that wrote the file \(0.0.1\)",
        "z": "not a model, or is damaged",
        "half": "not a model, or is damaged",
        "none": "no such file",
    }.items():
        with pytest.raises(ModelError, match=reason):
            load_model(tmp_path / f"{name}.skops")
