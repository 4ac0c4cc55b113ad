"""3D alone: who is fitted on which rows, what stands where there are no codes, and what is written."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from listed import Sample, table_of
from sklearn.ensemble import ExtraTreesClassifier

from ig3d.errors import PredictionsError, ProtocolError, UsageError
from ig3d.features.predictions import load_predictions
from ig3d.features.samples import Split
from ig3d.features.store.format import StoreInfo
from ig3d.features.store.writer import StoreWriter
from ig3d.features.values import Block, Rows, Status
from ig3d.learn.config import FuseConfig
from ig3d.learn.evaluate.figures import COLUMNS, figure
from ig3d.learn.evaluate.tables import read_table
from ig3d.learn.plan import plan_heads
from ig3d.learn.train import HeadsConfig, codes_table, train_heads

CLASSES = ("neutral", "happy", "sad")
QUICK = HeadsConfig(heads=("linear",), draws=200)
PLAN = FuseConfig()


def write_store(path, splits, *, missing=(), unlabelled=(), groups=False, seed=0):
    """Rows whose first codes tell class and valence; ``missing`` ones have no face."""
    rng = np.random.default_rng(seed)
    n = len(splits)
    labels = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    codes = {
        "expression": rng.normal(0, 1, (n, 4)).astype(np.float32),
        "jaw": rng.normal(0, 1, (n, 3)).astype(np.float32),
    }
    codes["expression"][np.arange(n), labels] += 2
    valence = np.clip(codes["jaw"][:, 0] * 0.3 + rng.normal(0, 0.05, n), -1, 1)
    labels[list(unlabelled)] = -1
    samples = [
        Sample(
            id=f"img_{row:04d}",
            path=f"img_{row:04d}.jpg",
            label=int(labels[row]),
            split=splits[row],
            valence=float(valence[row]),
            arousal=float(-valence[row] / 2),
            group=f"p{row // 4}" if groups else "",
        )
        for row in range(n)
    ]
    status = np.full(n, Status.ok, np.int8)
    status[list(missing)] = Status.no_face
    for block in codes.values():
        block[list(missing)] = np.nan
    blocks = {"expression": Block(4, "1", "toy-1", "four"), "jaw": Block(3, "rad", "toy-1", "three")}
    fields = {name: getattr(Rows.pending(n, {}), name) for name in Rows.__slots__}
    with StoreWriter(
        path, StoreInfo("toy", "/data/toy", CLASSES), table_of(samples, CLASSES), blocks
    ) as writer:
        writer.write(0, Rows(**fields | {"status": status, "codes": codes}))
    return path


def thirds(n=300):
    return [(Split.train, Split.val, Split.test)[row % 3] for row in range(n)]


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "y.h5", thirds(), missing=(0, 2, 5), unlabelled=(8, 11))


def test_heads_learn_from_the_train_split_and_are_asked_for_everything_else(store):
    table = codes_table(store)
    protocol = plan_heads(table, PLAN)
    assert (protocol.head_fitting, protocol.report_name, protocol.fit_name) == (
        "once",
        "the test split",
        "the train split",
    )
    (head,) = protocol.heads
    assert set(table.split[head.train]) == {Split.train} and table.covered[head.train].all()
    assert not np.isin(head.predict, head.train).any()
    assert set(table.split[protocol.reported]) == {Split.test}
    assert len(protocol.reported) == 98 and table.labelled[protocol.reported].all()


@pytest.mark.parametrize(
    ("splits", "options", "case", "reported", "fitted"),
    [
        ([Split.none] * 60, {}, "in folds", "all rows", "5 folds of all rows"),
        ([Split.train] * 60, {}, "in folds", "all rows", "5 folds of all rows"),
        ([Split.val] * 30 + [Split.test] * 30, {}, "once", "the test split", "the val split"),
        ([Split.train] * 30 + [Split.val] * 30, {}, "once", "the val split", "the train split"),
        ([Split.train] * 30 + [Split.none] * 30, {}, "once", "the rows without a split", "the train split"),
        (thirds(60), {"report": "val"}, "once", "the val split", "the train split"),
        (thirds(60), {"report": "train"}, "once", "the train split", "the val split"),
        (thirds(60), {"report": "all", "folds": 3}, "in folds", "all rows", "3 folds of all rows"),
    ],
)
def test_rows_by_what_splits_there_are(tmp_path, splits, options, case, reported, fitted):
    table = codes_table(write_store(tmp_path / "y.h5", splits))
    protocol = plan_heads(table, FuseConfig(**options))
    assert (protocol.head_fitting, protocol.report_name, protocol.fit_name) == (case, reported, fitted)
    for head in protocol.heads:
        assert not np.isin(head.predict, head.train).any()
    asked = np.concatenate([head.predict for head in protocol.heads])
    assert np.isin(protocol.reported, asked).all()


def test_groups_stay_whole_in_the_folds(tmp_path):
    table = codes_table(write_store(tmp_path / "y.h5", [Split.none] * 120, groups=True))
    protocol = plan_heads(table, PLAN)
    for head in protocol.heads:
        assert not set(table.group[head.train]) & set(table.group[head.predict])
    assert "on no row of its group" in " ".join(protocol.sentences)


def test_rows_without_codes_teach_neither_a_head_nor_the_prior_of_a_fold_and_are_not_counted(tmp_path):
    table = codes_table(write_store(tmp_path / "y.h5", [Split.none] * 120))
    codes = table.codes.copy()
    codes[::5] = np.nan
    table = replace(table, codes=codes)
    protocol = plan_heads(table, PLAN)
    assert len(protocol.reported) == 120 and len(protocol.calibration) == table.covered.sum() == 96
    for head, fuser in zip(protocol.heads, protocol.fold_models, strict=True):
        assert np.array_equal(head.train, fuser.fit) and table.covered[fuser.fit].all()
    prior = train_heads(table, QUICK).predictors[0].values
    for fuser in protocol.fold_models:
        share = np.bincount(table.labels[fuser.fit], minlength=3) / len(fuser.fit)
        assert np.allclose(np.exp(prior[fuser.apply]), share)
    with pytest.raises(ProtocolError, match="no row has 3D codes to train a head on"):
        plan_heads(replace(table, codes=codes * np.nan), PLAN)


def test_rows_without_codes_get_the_training_prior_and_it_is_said(store):
    table = codes_table(store)
    result = train_heads(table, QUICK)
    prior, head = (
        next(rule for rule in result.predictors if rule.name == name) for name in ("prior", "linear")
    )
    share = np.bincount(table.labels[plan_heads(table, PLAN).heads[0].train], minlength=3)
    assert np.allclose(np.exp(prior.values), share / share.sum())
    assert (~result.covered).sum() == 2
    assert np.array_equal(head.values[~result.covered], prior.values[~result.covered])
    assert not np.allclose(head.values[result.covered], prior.values[result.covered])
    assert any("2 of 98 reported rows without 3D codes" in line for line in result.plan.sentences)
    assert set(result.figures["rows"]) == {"all", "covered"} and len(result.ids) == 98


def test_figures_are_those_of_the_predictions_and_differences_are_to_the_prior_and_the_first_head(store):
    result = train_heads(codes_table(store), HeadsConfig(heads=("linear", "gbm"), draws=200))
    assert [(rule.name, rule.role) for rule in result.predictors] == [
        ("prior", "reference"),
        ("linear", "head"),
        ("gbm", "head"),
    ]
    accuracy = {
        rule.name: float(np.mean(rule.values.argmax(axis=1) == result.truth)) for rule in result.predictors
    }
    for name, value in accuracy.items():
        assert figure(result.figures, name, "accuracy").value == pytest.approx(value, abs=1e-9)
    to_linear, to_prior = (figure(result.figures, "gbm", "accuracy", versus=of) for of in ("linear", "prior"))
    assert to_linear.value == pytest.approx(accuracy["gbm"] - accuracy["linear"], abs=1e-9)
    assert to_prior.low > 0 and to_prior.p < 0.05 and to_prior.p_adjusted < 0.05
    assert accuracy["linear"] > 0.7 > accuracy["prior"]


def test_valence_and_arousal_and_the_mean_as_their_prior(store):
    result = train_heads(codes_table(store, task="va"), QUICK)
    assert figure(result.figures, "linear", "ccc_valence", rows="covered").value > 0.8
    prior = result.predictors[0].values
    assert np.ptp(prior, axis=0).max() == 0
    table = codes_table(store, task="va")
    assert np.allclose(prior[0], table.targets[plan_heads(table, PLAN).heads[0].train].mean(axis=0))


def test_balanced_heads_expect_every_class_as_often(store):
    table = codes_table(store, blocks="jaw")  # independent of the classes
    for head in ("linear", "gbm"):
        plain, even = (
            train_heads(table, HeadsConfig(heads=(head,), draws=100, balanced=balanced))
            for balanced in (False, True)
        )
        shares = [
            np.exp(result.predictors[1].values[result.covered]).mean(axis=0) for result in (plain, even)
        ]
        assert (
            np.allclose(shares[0], np.exp(plain.predictors[0].values[0]), atol=0.05) and shares[0][0] > 0.42
        )
        assert np.allclose(shares[1], 1 / 3, atol=0.05)
    with pytest.raises(UsageError, match=r"balanced: needs classes"):
        train_heads(codes_table(store, task="va"), HeadsConfig(balanced=True))


def test_any_estimator_of_scikit_learn_s_manner_is_a_head_and_said_to_be_the_user_s(store):
    table = codes_table(store)
    config = HeadsConfig(heads=("sklearn.ensemble:ExtraTreesClassifier",), draws=100, seed=3, jobs=1)
    result = train_heads(table, config)
    (head,) = plan_heads(table, PLAN).heads
    twin = ExtraTreesClassifier(random_state=3).fit(table.codes[head.train], table.labels[head.train])
    rows = plan_heads(table, PLAN).reported
    rows = rows[table.covered[rows]]
    p = np.maximum(twin.predict_proba(table.codes[rows]), 1e-6)
    mean_of_folds = np.exp(result.predictors[1].values[result.covered])
    assert np.allclose(mean_of_folds, p / p.sum(axis=1, keepdims=True))
    assert any("is a custom class" in note for note in result.lines)


def test_a_class_that_the_training_rows_lack_keeps_a_small_chance(tmp_path):
    table = codes_table(write_store(tmp_path / "y.h5", thirds()))
    labels = table.labels.copy()
    labels[(table.split == Split.train) & (labels == 1)] = 2
    object.__setattr__(table, "labels", labels)
    for head in ("linear", "sklearn.naive_bayes:GaussianNB"):
        p = np.exp(train_heads(table, HeadsConfig(heads=(head,), draws=100)).predictors[1].values)
        assert p.shape[1] == 3 and np.allclose(p.sum(axis=1), 1)
        assert p[:, 1].max() < 1e-5 and (p[:, 1] > 0).all()


def test_nothing_depends_on_the_order_or_on_whether_labels_of_reported_rows_are_known(store):
    table = codes_table(store)
    first = train_heads(table, QUICK)
    labels = table.labels.copy()
    labels[table.split == Split.test] = np.roll(labels[table.split == Split.test], 1)
    object.__setattr__(
        table, "labels", np.where((table.labels < 0), -1, np.where(labels < 0, 0, labels)).astype(np.int16)
    )
    again = train_heads(table, QUICK)
    assert np.array_equal(first.predictors[1].values, again.predictors[1].values)


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        (
            {"heads": ("forest",)},
            UsageError,
            r"head: 'forest' is unknown; choose all, some of gbm, linear, mlp, residual, or module:Class",
        ),
        (
            {"heads": ("no.such:Thing",)},
            UsageError,
            r"head: the estimator 'no.such:Thing' cannot be imported .* \(No module",
        ),
        (
            {"heads": ("json:JSONDecoder",)},
            UsageError,
            r"the class has no fit, get_params, set_params, predict_proba",
        ),
        ({"heads": ()}, UsageError, r"head: no head is named"),
        ({"report": "dev"}, UsageError, r"report: 'dev' does not exist; choose "),
        ({"report": "all", "folds": 1}, UsageError, r"folds: 1 is out of range; choose 2 to 1000"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(store, config, error, words):
    with pytest.raises(error, match=words):
        train_heads(codes_table(store), HeadsConfig(**config))


def test_rows_that_do_not_allow_it_are_refused(tmp_path):
    none = write_store(tmp_path / "none.h5", [Split.test] * 5, unlabelled=range(5))
    with pytest.raises(
        PredictionsError,
        match=r"has no labels \(classes\), so nothing can be measured; use --task va",
    ):
        codes_table(none, task="classes")
    one = write_store(tmp_path / "one.h5", [Split.none])
    with pytest.raises(ProtocolError, match="folds: at least 2 are needed"):
        train_heads(codes_table(one), QUICK)
    bare = write_store(tmp_path / "bare.h5", [Split.train] * 30 + [Split.test] * 30, missing=range(60))
    with pytest.raises(ProtocolError, match="codes"):
        train_heads(codes_table(bare), QUICK)


def test_the_command_prints_a_table_and_writes_what_fuse_and_report_take(store, tmp_path, ig3d):
    ended = ig3d(
        "train", "--3d-store", store, "--head", "linear,gbm", "--draws", 100, "--out", tmp_path / "run"
    )
    assert ended.returncode == 0, ended.stderr
    assert "heads fitted on the train split" in ended.stdout and "prior" in ended.stdout
    assert not ended.stderr
    assert "effect size" not in ended.stdout  # a run of heads has none
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    figures = read_table(tmp_path / "run" / "figures.csv", COLUMNS)
    assert figure(figures, "gbm", "accuracy").value > 0.6
    assert record["protocol"]["head_fitting"] == "once"
    read = load_predictions(tmp_path / "run" / "predictions-gbm.npz")
    table = codes_table(store)
    assert set(read.ids) == set(table.id[(table.split != Split.train) & table.covered])
    assert read.kind == "probabilities" and read.columns == CLASSES and not read.out_of_fold
    lines = (tmp_path / "run" / "predictions.csv").read_text().splitlines()
    assert lines[0] == "id,predictor,condition,label,p_neutral,p_happy,p_sad,truth"
    bytes_of = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    again = ig3d(
        "train", "--3d-store", store, "--head", "linear,gbm", "--draws", 100, "--out", tmp_path / "run"
    )
    assert again.returncode == 0 and again.stdout == ended.stdout
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == bytes_of


def test_predictions_of_folds_say_that_they_are_out_of_fold_and_fuse(tmp_path, ig3d):
    store = write_store(tmp_path / "y.h5", [Split.none] * 150)
    assert (
        ig3d(
            "train", "--3d-store", store, "--head", "linear", "--draws", 100, "--out", tmp_path / "run"
        ).returncode
        == 0
    )
    ready = load_predictions(tmp_path / "run" / "predictions-linear.npz")
    assert ready.out_of_fold and len(ready) == 150
    table = codes_table(store)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(150, 3))
    logits[np.arange(150), table.labels] += 1.5
    np.savez(tmp_path / "x.npz", ids=table.id, logits=logits, classes=np.array(CLASSES))
    labels = tmp_path / "labels.csv"
    names = [CLASSES[label] for label in table.labels]
    labels.write_text("id,label\n" + "".join(f"{i},{c}\n" for i, c in zip(table.id, names, strict=True)))
    ended = ig3d(
        *(
            "fuse",
            "--2d-logits",
            tmp_path / "x.npz",
            "--3d-logits",
            tmp_path / "run" / "predictions-linear.npz",
        ),
        *("--labels", labels, "--rules", "mean", "--draws", 100),
    )
    assert ended.returncode == 0, ended.stderr
    assert "mean" in ended.stdout


def test_all_heads_without_torch_leave_the_networks_out_and_say_so(store, monkeypatch):
    import ig3d.learn.train as module

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    result = train_heads(codes_table(store), HeadsConfig(heads=("all",), draws=100))
    assert [rule.name for rule in result.predictors] == ["prior", "gbm", "linear"]
    assert any("Heads mlp, residual are left out: torch is not installed" in note for note in result.lines)


def test_networks_are_given_valence_and_arousal_beside_the_classes_and_the_blocks(store, monkeypatch):
    from ig3d.learn.heads.paper import MlpClassifier

    seen = {}

    def fit(self, X, y, groups=None, targets=None):
        seen.update(X=X, targets=targets, blocks=self.blocks)
        self.classes_ = np.arange(3)
        return self

    monkeypatch.setattr(MlpClassifier, "fit", fit)
    monkeypatch.setattr(MlpClassifier, "predict_proba", lambda self, X: np.full((len(X), 3), 1 / 3))
    table = codes_table(store)
    result = train_heads(table, HeadsConfig(heads=("mlp",), draws=100))
    (head,) = plan_heads(table, PLAN).heads
    assert np.array_equal(seen["targets"], table.targets[head.train])
    assert np.array_equal(seen["X"], table.codes[head.train]) and seen["blocks"] == (4, 3)
    assert any("also learn valence and arousal" in note for note in result.lines)


def test_a_user_s_head_that_no_model_file_may_hold_is_said_and_not_saved(store, tmp_path, ig3d):
    table = codes_table(store)
    logits = np.random.default_rng(0).normal(size=(len(table), 3))
    logits[np.arange(len(table)), table.labels] += 1.5
    np.savez(tmp_path / "x.npz", ids=table.id, logits=logits, classes=np.array(CLASSES))
    fuse = ("fuse", "--2d-logits", tmp_path / "x.npz", "--3d-store", store, "--rules", "mean", "--draws", 100)
    for head, saved in (
        ("sklearn.tree:DecisionTreeClassifier", False),
        ("sklearn.naive_bayes:GaussianNB", True),
    ):
        out = tmp_path / head.partition(":")[2]
        ended = ig3d(*fuse, "--head", head, "--out", out)
        assert ended.returncode == 0, ended.stderr
        assert (out / "model.skops").exists() == saved
        assert (
            "no model is saved: the head sklearn.tree:Decision" in " ".join(ended.stdout.split())
        ) != saved
    again = ("--2d-logits", tmp_path / "x.npz", "--3d-store", store, "--out", tmp_path / "p.csv")
    assert ig3d("predict", tmp_path / "GaussianNB" / "model.skops", *again).returncode == 0
