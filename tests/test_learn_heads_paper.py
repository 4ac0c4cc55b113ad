"""The paper's networks as heads: formulas, masks, batches, early stopping, scikit-learn's conventions."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from ig3d.errors import MissingExtra, UsageError
from ig3d.learn.config import FuseConfig
from ig3d.learn.folds import held_out
from ig3d.learn.heads import make_head
from ig3d.learn.heads.paper import MlpClassifier, MlpRegressor, ResidualClassifier, ResidualRegressor
from ig3d.learn.train import HeadsConfig
from ig3d.learn.training.losses import concordance

torch = pytest.importorskip("torch")

QUICK = {"width": 16, "epochs": 25, "max_lr": 1e-2, "batch_size": 32, "dropout": 0.1, "device": "cpu"}
CLASSIFIERS = (MlpClassifier, ResidualClassifier)


@parametrize_with_checks([MlpClassifier(**QUICK), ResidualRegressor(**QUICK)])
def test_networks_pass_the_estimator_checks_of_scikit_learn(estimator, check):
    check(estimator)


def class_rows(n=300, k=3, d=6, seed=0, share=None):
    rng = np.random.default_rng(seed)
    y = rng.choice(k, n, p=share)
    X = rng.normal(size=(n, d))
    X[np.arange(n), y] += 2
    return X, y


def softmax(z):
    odds = np.exp(z - z.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def test_mlp_computes_the_documented_formula():
    X, y = class_rows()
    head = MlpClassifier(**QUICK).fit(X, y)
    w = head.weights_
    x = (X - X.mean(axis=0)) / X.std(axis=0)
    for layer in range(4):
        at = 0 if layer == 0 else 3 * layer + 1  # the first block also has a dropout layer
        x = x @ w[f"{at}.weight"].T + w[f"{at}.bias"]
        norm = {name: w[f"{at + 1}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")}
        x = (x - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
        x = np.where(x > 0, x, 0.2 * x)
    logits = x @ w["13.weight"].T + w["13.bias"] + np.log(np.bincount(y) / len(y))
    assert np.allclose(head.predict_proba(X), softmax(logits), atol=1e-6)


def test_residual_computes_the_documented_formula():
    X, y = class_rows()
    head = ResidualClassifier(**QUICK).fit(X, y)
    w = head.weights_
    x = (X - X.mean(axis=0)) / X.std(axis=0) @ w["enter.weight"].T + w["enter.bias"]
    for block in range(2):
        first, second = (f"blocks.{block}.{layer}" for layer in (0, 3))
        inside = np.maximum(x @ w[f"{first}.weight"].T + w[f"{first}.bias"], 0)
        x = np.maximum(x + inside @ w[f"{second}.weight"].T + w[f"{second}.bias"], 0)
    logits = x @ w["leave.weight"].T + w["leave.bias"] + np.log(np.bincount(y) / len(y))
    assert np.allclose(head.predict_proba(X), softmax(logits), atol=1e-6)


def test_default_widths_are_those_of_the_paper():
    from ig3d.learn.heads.modules import Mlp, Residual

    shapes = [tuple(p.shape) for p in Mlp(358, 10).parameters() if p.ndim == 2]
    assert shapes == [(2048, 358), (2048, 2048), (2048, 2048), (2048, 2048), (10, 2048)]
    shapes = [tuple(p.shape) for p in Residual(353, 10).parameters() if p.ndim == 2]
    assert shapes == [(512, 353), (1024, 512), (512, 1024), (512, 512), (512, 512), (10, 512)]
    drops = [m.p for m in Mlp(5, 2).modules() if isinstance(m, torch.nn.Dropout)]
    assert drops == [0.5]


def test_masking_has_the_documented_probabilities_in_each_block():
    from ig3d.learn.heads.training import masked

    blocks, chance, n = (1, 4, 10), 0.3, 20_000
    ones = torch.ones(n, 15)
    lost = masked(ones, blocks, chance, np.random.default_rng(0)).numpy() == 0
    assert ones.min() == 1  # the input is not modified
    start = 0
    for width in blocks:
        part = lost[:, start : start + width]
        assert part.mean() == pytest.approx(chance * (width + 1) / (2 * width), abs=0.01)
        assert part.any(axis=1).mean() == pytest.approx(chance, abs=0.01)
        counts = np.bincount(part.sum(axis=1), minlength=width + 1)[1:] / n
        assert np.allclose(
            counts, chance / width, atol=0.01
        )  # all numbers of masked columns are equally frequent
        assert np.allclose(part.mean(axis=0), part.mean(), atol=0.01)  # and all columns
        start += width
    hit = [lost[:, :1].any(axis=1), lost[:, 1:5].any(axis=1)]
    assert np.corrcoef(hit[0], hit[1])[0, 1] == pytest.approx(0, abs=0.03)  # blocks are masked independently
    assert not (masked(ones, blocks, 0.0, np.random.default_rng(0)) == 0).any()


def test_batches_have_equal_size_and_draw_classes_equally_often():
    from ig3d.learn.heads.training import draw_batches

    labels = np.repeat([0, 1, 2], [900, 90, 10])
    batches = list(draw_batches(labels, 1000, 100, np.random.default_rng(0)))
    assert [len(batch) for batch in batches] == [100] * 10
    drawn = np.bincount(labels[np.concatenate(batches)]) / 1000
    assert np.allclose(drawn, 1 / 3, atol=0.06)
    plain = np.concatenate(list(draw_batches(None, 1000, 100, np.random.default_rng(0))))
    assert sorted(plain) == list(range(1000))
    assert [len(batch) for batch in draw_batches(None, 1, 100, np.random.default_rng(0))] == [2]


def test_only_training_rows_are_masked(monkeypatch):
    from ig3d.learn.heads import training

    X, y = class_rows(100)
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    asked, fed = [], []
    build = training.build

    def zeros(codes, blocks, chance, rng):
        asked.append((blocks, chance))
        return codes * 0

    def watched(*arguments):
        module = build(*arguments)
        module.register_forward_pre_hook(lambda module, inputs: fed.append((module.training, inputs[0])))
        return module

    monkeypatch.setattr(training, "masked", zeros)
    monkeypatch.setattr(training, "build", watched)
    MlpClassifier(**{**QUICK, "epochs": 2}, blocks=(2, 4), masking=0.7).fit(X, y)
    assert set(asked) == {((2, 4), 0.7)}
    assert all(not codes.any() for learning, codes in fed if learning)
    (held, _) = [codes for learning, codes in fed if not learning]
    assert np.allclose(held.numpy(), scaled[held_out(y, None, 6, 0)], atol=1e-6)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_all_random_numbers_depend_on_the_seed_and_torch_s_state_is_restored(kind):
    X, y = class_rows(120)
    torch.manual_seed(5)
    before = torch.random.get_rng_state().clone()
    first, again, other = (kind(**QUICK, random_state=seed).fit(X, y).predict_proba(X) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-3)
    # Too few rows to hold any out: only initial weights, batches and masks differ.
    few = [kind(**QUICK, random_state=seed).fit(X[:10], y[:10]).predict_proba(X) for seed in (0, 1)]
    assert not np.allclose(*few, atol=1e-3)


def test_prediction_of_a_row_does_not_depend_on_the_other_rows():
    X, y = class_rows(150)
    head = MlpClassifier(**QUICK).fit(X, y)
    whole = head.predict_proba(X)
    assert np.allclose(head.predict_proba(X[::-1])[::-1], whole, atol=1e-12)
    assert np.allclose(np.vstack([head.predict_proba(row[None]) for row in X[:5]]), whole[:5], atol=1e-12)


def test_the_number_of_threads_changes_only_the_last_digits():
    X, y = class_rows(150, d=40)
    options = {**QUICK, "width": 128, "epochs": 5}
    before = torch.get_num_threads()
    try:
        predictions = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            predictions.append(MlpClassifier(**options).fit(X, y).predict_proba(X))
    finally:
        torch.set_num_threads(before)
    assert np.allclose(*predictions, atol=1e-6)


def test_held_out_groups_alone_stop_the_training_and_are_not_trained_on(monkeypatch):
    from ig3d.learn.heads import training

    X, y = class_rows(200)
    groups = np.arange(200) // 5
    held = held_out(y, groups, 6, 3)
    drawn, stopped = [], []
    draw, loss = training.draw_batches, training.held_loss
    inside = np.flatnonzero(~held)

    def batches(labels, n, size, rng):
        assert n == len(inside)
        assert np.array_equal(labels, y[inside])
        for batch in draw(labels, n, size, rng):
            drawn.extend(inside[batch])
            yield batch

    monkeypatch.setattr(training, "draw_batches", batches)
    monkeypatch.setattr(
        training,
        "held_loss",
        lambda outputs, truth, rows: stopped.append(rows) or loss(outputs, truth, rows),
    )
    head = MlpClassifier(**{**QUICK, "patience": 2, "epochs": 60}, random_state=3).fit(X, y, groups=groups)
    assert all(np.array_equal(rows, np.flatnonzero(held)) for rows in stopped)
    assert not set(groups[drawn]) & set(groups[held])
    assert len(head.losses_) == len(stopped) == head.epoch_ + 2 < 60
    assert int(np.argmin(head.losses_)) == head.epoch_ - 1


def test_probabilities_follow_the_training_shares_unless_balanced():
    X, y = class_rows(1200, k=2, d=2, share=[0.9, 0.1])
    X = X + np.random.default_rng(1).normal(0, 4, X.shape)  # weak signal, so that the class shares matter
    default, balanced = (
        MlpClassifier(**{**QUICK, "epochs": 10}, class_weight=weight).fit(X, y).predict_proba(X)
        for weight in (None, "balanced")
    )
    assert default.mean(axis=0)[1] == pytest.approx(0.1, abs=0.05)
    assert balanced.mean(axis=0)[1] > 0.25


def test_classifier_also_learns_valence_and_arousal_if_targets_are_passed(monkeypatch):
    from ig3d.learn.heads import training

    X, y = class_rows(300)
    targets = np.where(np.arange(300)[:, None] % 2 == 0, np.tanh(X[:, :2] - 1), np.nan)
    seen = []
    whole = training.va_loss
    monkeypatch.setattr(training, "va_loss", lambda p, t: seen.append(t) or whole(p, t))
    head = MlpClassifier(**QUICK).fit(X, y, targets=targets)
    assert head.outputs_ == 5 and head.predict_proba(X).shape == (300, 3)
    assert np.allclose(head.predict_proba(X).sum(axis=1), 1)
    assert seen and all(torch.isfinite(batch).all() for batch in seen)
    values = head._outputs(X)[:, 3:]
    known = np.isfinite(targets).all(axis=1)
    assert float(concordance(torch.tensor(values[known]), torch.tensor(targets[known])).min()) > 0.5


@pytest.mark.parametrize("kind", [MlpRegressor, ResidualRegressor])
def test_regressors_predict_valence_and_arousal(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 5))
    y = np.stack([X[:, 0] * 0.4, X[:, 1] * 0.3], axis=1) + rng.normal(0, 0.05, (500, 2))
    predicted = kind(**{**QUICK, "width": 32}).fit(X[:400], y[:400]).predict(X[400:])
    assert predicted.shape == (100, 2)
    assert min(np.corrcoef(predicted[:, i], y[400:, i])[0, 1] for i in (0, 1)) > 0.85


@pytest.mark.parametrize("n", [1, 2, 12])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_networks_can_be_fitted_to_few_rows_and_to_one_class(kind, n):
    X, y = class_rows(n)
    assert np.allclose(kind(**QUICK).fit(X, y).predict_proba(X[:1]).sum(), 1)
    assert kind(**QUICK).fit(X, y * 0 + 2).predict(X).tolist() == [2] * n


def test_saved_head_contains_no_foreign_type_and_predicts_the_same(tmp_path):
    from skops.io import dump, get_untrusted_types, load

    from ig3d.learn.heads import SAVED_TYPES

    X, y = class_rows(100)
    for kind, truth in ((MlpClassifier, y), (ResidualRegressor, X[:, :2])):
        head = kind(**QUICK, blocks=(2, 4)).fit(X, truth)
        dump(head, tmp_path / "head.skops")
        foreign = get_untrusted_types(file=tmp_path / "head.skops")
        assert set(foreign) <= set(SAVED_TYPES)
        again = load(tmp_path / "head.skops", trusted=foreign)
        assert np.array_equal(again.predict(X), head.predict(X))
        assert clone(again).get_params() == head.get_params()


def test_wrong_block_widths_and_unknown_devices_are_refused():
    X, y = class_rows(40)
    with pytest.raises(
        UsageError, match=r"blocks: the widths \(2, 3\) sum to 5, but the codes have 6 columns"
    ):
        MlpClassifier(**QUICK, blocks=(2, 3)).fit(X, y)
    with pytest.raises(UsageError, match=r"unknown device 'abacus'; choose auto, cpu, cuda or cuda:0"):
        MlpClassifier(**{**QUICK, "device": "abacus"}).fit(X, y)


def test_missing_torch_is_reported_with_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        MissingExtra, match=r"head mlp: needs the package 'torch', which is not installed; pip install"
    ):
        make_head("mlp", "classes", seed=0, jobs=1, blocks=(2, 4)).fit(*class_rows(40))


@pytest.mark.parametrize("command", ["train", "fuse"])
def test_unavailable_device_is_refused_before_any_work(ig3d, tmp_path, command):
    (tmp_path / "y.h5").write_bytes(b"")
    two = ["--2d-logits", tmp_path / "none.npz"] if command == "fuse" else []
    ended = ig3d(command, *two, "--3d-store", tmp_path / "y.h5", "--head", "mlp", "--device", "cuda:99")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "device: cuda:99 is not available" in ended.stderr


@pytest.mark.parametrize("config", [FuseConfig, HeadsConfig])
def test_only_the_networks_have_a_device(config):

    chosen = config(device="cpu")
    chosen = chosen if config is FuseConfig else chosen.of_head("mlp")
    assert chosen.device == "cpu" and make_head("mlp", "va", seed=0, jobs=1, device="cpu").device == "cpu"
    assert "device" not in make_head("gbm", "va", seed=0, jobs=1, device="cpu").get_params()


@pytest.mark.gpu
def test_training_on_cuda_gives_similar_predictions():
    X, y = class_rows(200)
    p = [
        MlpClassifier(**{**QUICK, "device": device}).fit(X, y).predict_proba(X) for device in ("cpu", "cuda")
    ]
    assert np.mean(p[0].argmax(1) == p[1].argmax(1)) > 0.95
