"""The whole fusion: files in, figures, files and a model out; what it finds in data of known making."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pandas
import pytest
from listed import Sample, table_of
from rich.console import Console
from toy_fusion import make_table

from ig3d.errors import PredictionsError, RunError, UsageError
from ig3d.features.inputs import Inputs
from ig3d.features.join import load_table
from ig3d.features.predictions import Predictions
from ig3d.features.samples import Split
from ig3d.features.store.format import StoreInfo
from ig3d.features.store.writer import StoreWriter
from ig3d.features.values import Block, Rows, Status
from ig3d.learn.diagnostics import check_figures, check_groups
from ig3d.learn.evaluate.figures import COLUMNS, figure
from ig3d.learn.evaluate.intervals import share_as_extreme, swapped_sums
from ig3d.learn.evaluate.metrics import measure
from ig3d.learn.evaluate.predictions import read_predictions
from ig3d.learn.evaluate.predictors import label_of
from ig3d.learn.evaluate.tables import read_table
from ig3d.learn.fuse import FuseConfig, fuse_files, fuse_predictions
from ig3d.learn.model import load_model, parameters_hash
from ig3d.learn.predict import predict
from ig3d.learn.report import print_result, read_run, write_result
from ig3d.learn.report.render import lines_of

CLASSES = ("happy", "sad", "anger")
RULES = ("mean", "max", "min", "product", "weighted", "stack")
FAST = FuseConfig(rules=RULES, head="linear", draws=300, folds=3, jobs=1, repeats=1, permutations=2)


def make_store(
    path, *, n=360, split=lambda row: row % 3, group=False, missing=0.1, signal=1.0, seed=0, basis="toy-1"
):
    """A store whose codes tell the class and the valence-arousal of a sample; returns ids, labels, targets."""
    rng = np.random.default_rng(seed)
    labels, targets = rng.integers(0, 3, n), np.clip(rng.normal(0, 0.45, (n, 2)), -1, 1)
    codes = rng.normal(size=(n, 8)).astype(np.float32)
    codes[np.arange(n), labels] += 2 * signal
    codes[:, 3:5] += 3 * signal * targets
    status = np.where(rng.random(n) < missing, Status.no_face, Status.ok).astype(np.int8)
    codes[status != Status.ok] = np.nan
    ids = [f"s/{row:04d}" for row in range(n)]
    samples = tuple(
        Sample(
            id=ids[row],
            path=ids[row] + ".jpg",
            label=int(labels[row]),
            split=Split(int(split(row))),
            valence=float(targets[row, 0]),
            arousal=float(targets[row, 1]),
            group=f"p{row // 4}" if group else "",
        )
        for row in range(n)
    )
    pending = Rows.pending(n, {})
    fields = {name: getattr(pending, name) for name in Rows.__slots__}
    blocks = {"expression": Block(5, "1", basis, "e"), "pose": Block(3, "rad", basis, "p")}
    outcome = Rows(
        **(fields | {"status": status, "codes": {"expression": codes[:, :5], "pose": codes[:, 5:]}})
    )
    with StoreWriter(
        path, StoreInfo("toy", "/data", CLASSES, {"name": "toy"}), table_of(samples, CLASSES), blocks
    ) as writer:
        writer.write(0, outcome)
    return np.array(ids), labels, targets


def class_logits(labels, *, strength=1.2, seed=1):
    logits = np.random.default_rng(seed).normal(size=(len(labels), 3))
    logits[np.arange(len(labels)), labels] += strength
    return logits


@pytest.fixture
def toy(tmp_path):
    """Train, val and test; 2D logits of val and test."""
    ids, labels, _ = make_store(tmp_path / "toy.h5")
    logits, there = class_logits(labels), np.arange(len(ids)) % 3 > 0
    Predictions(logits[there], "logits", CLASSES, ids[there]).save(tmp_path / "two.npz")
    return tmp_path


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_figures_are_those_of_the_predictions_and_3d_helps(toy):
    result = fuse_files(Inputs(toy / "two.npz", toy / "toy.h5"), FAST)
    keys = [rule.key for rule in result.predictors]
    assert [name for name, _ in keys[:4]] == ["2d", "2d-recalibrated", "3d", "mean"]
    assert keys[-4:] == [
        ("weighted", "real"), ("weighted", "permuted"), ("stack", "real"), ("stack", "conditional"),
    ]  # fmt: skip
    assert len(result.ids) == 120 and result.plan.head_fitting == "once"
    for rule in result.predictors:
        if rule.name != "3d" and not rule.repeats:
            for name, value in measure(rule.values, result.truth, "classes").items():
                got = figure(result.figures, rule.name, name, condition=rule.condition)
                assert got.value == pytest.approx(value, abs=1e-9)
                assert got.low <= value <= got.high
    gain = figure(result.figures, "stack", "accuracy", versus="2d-recalibrated")
    difference = (
        figure(result.figures, "stack", "accuracy").value
        - figure(result.figures, "2d-recalibrated", "accuracy").value
    )
    assert gain.value == pytest.approx(difference, abs=1e-9)
    assert gain.low > 0.05 and gain.p < 0.01
    control = figure(result.figures, "stack", "accuracy", condition="conditional", versus="2d-recalibrated")
    assert control.low <= 0 <= control.high


def test_rows_without_codes_fall_back(toy):
    result = fuse_files(Inputs(toy / "two.npz", toy / "toy.h5"), FAST)
    rules = {label_of(*rule.key): rule.values for rule in result.predictors}
    bare = ~result.covered
    assert 0 < bare.sum() < 40
    for name in ("mean", "max", "min", "product"):
        assert np.array_equal(rules[name][bare], rules["2d"][bare])
    for name in ("weighted", "stack", "stack (conditional)", "weighted (permuted)"):
        assert np.array_equal(rules[name][bare], rules["2d-recalibrated"][bare])
        assert not np.array_equal(rules[name][~bare], rules["2d-recalibrated"][~bare])
    assert np.isnan(rules["3d"][bare]).all()
    assert figure(result.figures, "3d", "accuracy") is None
    assert figure(result.figures, "3d", "accuracy", rows="covered").value > 0


def test_the_2d_network_is_reported_as_given(toy):
    result = fuse_files(Inputs(toy / "two.npz", toy / "toy.h5"), FAST)
    table = load_table(Inputs(toy / "two.npz", toy / "toy.h5"))
    two = table.two_d[np.isin(table.id, result.ids)]
    expected = two - np.log(np.exp(two).sum(axis=1, keepdims=True))
    assert np.allclose(result.predictors[0].values, expected, atol=1e-12)


def test_groups_change_the_intervals_and_the_test(tmp_path):
    ids, labels, _ = make_store(tmp_path / "toy.h5", n=240, split=lambda row: -1, group=True, missing=0)
    Predictions(class_logits(labels), "logits", CLASSES, ids).save(tmp_path / "two.npz")
    result = fuse_files(Inputs(tmp_path / "two.npz", tmp_path / "toy.h5"), FAST)
    assert result.plan.head_fitting == "nested"
    assert figure(result.figures, "stack", "accuracy", versus="2d-recalibrated").low > 0


@pytest.mark.parametrize("objective", ["rmse", "ccc"])
def test_valence_and_arousal(tmp_path, objective):
    ids, _, targets = make_store(tmp_path / "toy.h5")
    noise = np.random.default_rng(4).normal(0, 0.25, targets.shape)
    there = np.arange(len(ids)) % 3 > 0
    Predictions(0.6 * targets + noise, "va", ("valence", "arousal"), ids).save(tmp_path / "all.npz")
    two = 0.6 * targets[there] + noise[there]
    Predictions(two, "va", ("valence", "arousal"), ids[there]).save(tmp_path / "two.npz")
    result = fuse_files(Inputs(tmp_path / "two.npz", tmp_path / "toy.h5"), replace(FAST, objective=objective))
    assert result.task == "va" and "product" not in set(result.figures["predictor"])
    assert any("product is left out" in note for note in result.lines)
    metric, sign = ("rmse_joint", -1) if objective == "rmse" else ("ccc_joint", 1)
    gain = figure(result.figures, "stack", metric, versus="2d-recalibrated")
    assert sign * gain.value > 0 and min(sign * gain.low, sign * gain.high) > 0
    assert all(
        np.abs(rule.values[rule.present]).max() <= 1 for rule in result.predictors if rule.name != "2d"
    )
    written = {path.name: path for path in write_result(result, tmp_path / "out")}
    lines = list(csv.DictReader(io.StringIO(written["predictions.csv"].read_text())))
    assert list(lines[0]) == [
        "id",
        "predictor",
        "condition",
        "valence",
        "arousal",
        "valence_truth",
        "arousal_truth",
    ]
    truth = [[float(line[f"{name}_truth"]) for name in ("valence", "arousal")] for line in lines]
    where = np.searchsorted(ids, [line["id"] for line in lines])
    assert np.allclose(truth, targets[where], atol=1e-6)
    model = load_model(written["model.skops"])
    whole = load_table(Inputs(tmp_path / "all.npz", tmp_path / "toy.h5", task="va"))
    assert np.isfinite(predict(model, whole)["stack"]).all()


def test_ready_3d_predictions_against_labels(tmp_path):
    ids, labels, _ = make_store(tmp_path / "unused.h5")
    Predictions(class_logits(labels), "logits", CLASSES, ids).save(tmp_path / "two.npz")
    Predictions(class_logits(labels, seed=7), "logits", CLASSES, ids).save(tmp_path / "three.npz")
    text = "id,label\n" + "\n".join(
        f"{name},{CLASSES[label]}" for name, label in zip(ids, labels, strict=True)
    )
    (tmp_path / "labels.csv").write_text(text + "\n")
    result = fuse_files(
        Inputs(tmp_path / "two.npz", three_d=tmp_path / "three.npz", labels=tmp_path / "labels.csv"), FAST
    )
    assert result.plan.head_fitting == "none" and len(result.ids) == 360
    assert figure(result.figures, "mean", "accuracy", versus="2d").low > 0
    write_result(result, tmp_path / "out")
    model = load_model(tmp_path / "out" / "model.skops")
    assert model.head is None and model.blocks == ()
    assert read_run(tmp_path / "out").record["parameters_sha1"] == parameters_hash(model)


def test_the_written_files_say_what_was_found(toy):
    result = fuse_files(Inputs(toy / "two.npz", toy / "toy.h5"), FAST)
    write_result(result, toy / "out")
    pandas.testing.assert_frame_equal(
        read_table(toy / "out" / "figures.csv", COLUMNS), result.figures, check_exact=True
    )
    record = json.loads((toy / "out" / "record.json").read_text())
    assert record["protocol"]["head_fitting"] == "once" and record["protocol"]["sentences"]
    assert record["config"]["seed"] == 0 and record["versions"]["lightgbm"]
    (weighted,) = [of for of in record["predictors"] if (of["name"], of["condition"]) == ("weighted", "real")]
    assert weighted["fitted"][0]["w"] > 0
    again = read_predictions(toy / "out" / "predictions.npz")
    assert [of.key for of in again.predictors] == [of.key for of in result.predictors]
    for mine, theirs in zip(again.predictors, result.predictors, strict=True):
        assert len(mine.every) == len(theirs.every)
        for values, expected in zip(mine.every, theirs.every, strict=True):
            assert np.array_equal(values, expected, equal_nan=True)
    lines = list(csv.DictReader(io.StringIO((toy / "out" / "predictions.csv").read_text())))
    assert list(lines[0]) == ["id", "predictor", "condition", "label", "p_happy", "p_sad", "p_anger", "truth"]
    stack = [line for line in lines if (line["predictor"], line["condition"]) == ("stack", "real")]
    assert len(stack) == 120
    truth = dict(zip(result.ids, result.truth, strict=True))
    assert all(line["truth"] == CLASSES[truth[line["id"]]] for line in lines)
    right = np.mean([line["label"] == line["truth"] for line in stack])
    assert right == pytest.approx(figure(result.figures, "stack", "accuracy").value, abs=1e-9)


def printed(result, width=100):
    console = Console(width=width, file=io.StringIO(), no_color=True)
    print_result(result, console)
    return console.file.getvalue()


def test_recalibration_that_does_harm_is_pointed_out(toy):
    result = fuse_files(Inputs(toy / "two.npz", toy / "toy.h5"), FAST)
    assert not any("recalibrated is" in note or "approximate" in note for note in result.lines)

    def notes(metric, given, recalibrated, task, objective, n=100):
        figures = {"2d": given, "2d-recalibrated": recalibrated}
        other = {"va": {"ccc_joint": 0.5, "rmse_joint": 0.3}, "classes": {}}[task]
        lines = [
            dict.fromkeys(COLUMNS, "")
            | {"predictor": rule, "condition": "real", "rows": "all", "metric": key, "value": v}
            | dict.fromkeys(("low", "high", "p", "p_adjusted", "repeat"), np.nan)
            for rule, value in figures.items()
            for key, v in (other | {metric: value}).items()
        ]
        return lines_of((), check_figures(pandas.DataFrame(lines), n, task, objective))

    (note,) = notes("accuracy", 0.6, 0.57, "classes", "accuracy")
    assert note == (
        "WARNING 2d-recalibrated is below 2d (accuracy 57.0 % against 60.0 %): there may be too few rows to "
        "recalibrate on, or rows with other class shares; interpret the smaller of the differences relative to them."
    )
    assert notes("log_loss", 1.1, 1.2, "classes", "accuracy") == [
        "WARNING 2d-recalibrated is worse than 2d (log loss 1.200 against 1.100): there may be too few rows to "
        "recalibrate on, or rows with other class shares; interpret the smaller of the differences relative to them."
    ]
    assert not notes("log_loss", 1.2, 1.1, "classes", "accuracy")
    assert not notes("accuracy", 0.6, 0.59, "classes", "accuracy")
    assert not notes("accuracy", 0.6, 0.9, "classes", "accuracy")
    assert "it is fitted for balanced accuracy" in notes("accuracy", 0.6, 0.57, "classes", "balanced")[0]
    assert (
        "worse than 2d (joint RMSE 0.320 against 0.300): there may be too few"
        in notes("rmse_joint", 0.3, 0.32, "va", "rmse")[0]
    )
    assert "below 2d (joint CCC" in notes("ccc_joint", 0.5, 0.4, "va", "ccc")[0]
    assert not notes("rmse_joint", 0.32, 0.3, "va", "rmse")
    assert "only 99 rows" in notes("accuracy", 0.6, 0.6, "classes", "accuracy", n=99)[0]


def test_what_leaves_nothing_to_measure_is_a_warning_and_comes_first():
    table = make_table(240, missing=0)
    quick = FuseConfig(rules=("mean", "stack"), head="linear", draws=100, permutations=2, model=False)

    def notes_of(codes):
        return fuse_predictions(replace(table, codes=codes.astype(np.float32)), quick).lines

    test = table.split_mask("test")
    bare = np.where(test[:, None], np.nan, table.codes)
    assert (
        notes_of(bare)[0]
        == "WARNING no reported row has 3D codes or 3D predictions: the 3D cannot be evaluated."
    )
    constant = notes_of(np.ones_like(table.codes))
    assert any("the 3D codes are the same for every row" in line for line in constant)
    warned = [line.startswith("WARNING") for line in constant]
    assert warned == sorted(warned, reverse=True), "warnings come first"
    assert not [line for line in notes_of(table.codes) if "3D" in line and line.startswith("WARNING")]


def test_fewer_draws_than_100_are_refused():
    with pytest.raises(UsageError, match="out of range; choose 100 to"):
        FuseConfig(draws=99)


def test_few_reported_rows_are_noted_in_a_whole_run(tmp_path):
    ids, labels, _ = make_store(tmp_path / "toy.h5", n=90)
    Predictions(class_logits(labels), "logits", CLASSES, ids).save(tmp_path / "two.npz")
    result = fuse_files(Inputs(tmp_path / "two.npz", tmp_path / "toy.h5"), FAST)
    assert "only 30 rows are reported" in printed(result)


def test_choices_of_the_other_task_and_unknown_names_are_usage_errors(toy):
    table = load_table(Inputs(toy / "two.npz", toy / "toy.h5"))
    for options, message in (
        ({"objective": "ccc"}, "objective: 'ccc' is not for classes; choose accuracy, balanced or logloss"),
        ({"head": "forest"}, "head: 'forest' is unknown; choose gbm, linear"),
    ):
        with pytest.raises(UsageError, match=message):
            fuse_predictions(table, replace(FAST, **options))
    with pytest.raises(UsageError, match=r"blocks: .*choose full"):
        fuse_files(Inputs(toy / "two.npz", toy / "toy.h5"), replace(FAST, blocks="jaw"))
    with pytest.raises(PredictionsError, match="no such file of predictions"):
        fuse_files(Inputs(toy / "none.npz", toy / "toy.h5"))


def test_results_are_not_written_over_a_file(toy):
    result = fuse_files(Inputs(toy / "two.npz", toy / "toy.h5"), FAST)
    (toy / "out").write_text("mine")
    with pytest.raises(RunError, match="is a file, not a folder"):
        write_result(result, toy / "out")
    assert (toy / "out").read_text() == "mine"


def test_stores_and_ready_predictions_exclude_each_other_by_name(toy):
    with pytest.raises(UsageError, match="--3d-store and --3d-logits exclude each other"):
        Inputs(toy / "two.npz", toy / "toy.h5", three_d=toy / "two.npz", labels=toy / "two.npz")


def test_too_few_groups_for_a_claim_are_warned_of():
    """The bound is what the test itself gives of groups that all gain alike."""
    for groups in (4, 5, 6, 8, 9):
        (swapped,) = swapped_sums([np.ones((groups, 1))], draws=40_000, seed=0)
        gained = share_as_extreme(groups, swapped[:, 0])
        assert gained == pytest.approx(2.0 ** (1 - groups), rel=0.15)
        (note,) = lines_of((), check_groups(np.repeat(np.arange(groups), 3)))
        assert ("no claim is possible" in note) == (gained >= 0.05) and f"of {groups} groups" in note
    (note,) = lines_of((), check_groups(np.repeat(np.arange(19), 3)))
    assert "fewer than 20" in note and "approximate" in note
    assert check_groups(np.arange(20)) == check_groups(None) == []


@pytest.mark.parametrize(("people", "warned"), [(5, True), (40, False)])
def test_a_run_over_few_persons_warns_of_it(people, warned):
    table = make_table(240, missing=0)
    table = replace(table, group=np.array([f"p{row % (3 * people)}" for row in range(240)]))
    quick = FuseConfig(rules=("mean", "max"), head="linear", draws=400, model=False, controls=False)
    notes = [line for line in fuse_predictions(table, quick).lines if f"of {people} groups" in line]
    assert bool(notes) == warned and all(line.startswith("WARNING") for line in notes)
