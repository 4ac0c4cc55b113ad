"""Calibration, boosting, gate and choice of a rule on simulated data with known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from toy_fusion import make_table

from ig3d.learn.config import FuseConfig
from ig3d.learn.evaluate.metrics import measure
from ig3d.learn.evaluate.predictors import find
from ig3d.learn.fuse import fuse_predictions
from ig3d.learn.rules import Columns, RuleSettings, make_rule, stack
from ig3d.learn.rules.boost import Boost
from ig3d.learn.rules.calibrate import Calibration
from ig3d.learn.rules.columns import probabilities
from ig3d.learn.rules.gate import Gate
from ig3d.learn.rules.objective import row_weights
from ig3d.learn.rules.selected import Selected
from ig3d.learn.rules.solver import logistic_correction, minimised
from ig3d.learn.rules.stack import Stack, simplest
from ig3d.learn.rules.threshold import Threshold
from ig3d.learn.rules.weighted import Weighted


def draw_labels(scores, rng):
    """Labels drawn from the softmax of scores, so that the scores are calibrated."""
    p = softmax(scores, axis=1)
    return (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1)


@pytest.mark.parametrize("kind", ["temperature", "bias"])
def test_calibration_finds_the_temperature_and_offsets_that_were_applied(kind):
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, (20_000, 3))
    y = draw_labels(true, rng)
    offset = np.array([1.0, -0.5, -0.5]) * (kind == "bias")
    fitted = Calibration(kind).fit(3 * (true - offset) + rng.normal(size=(20_000, 1)), y)
    assert fitted.temperature_ == pytest.approx(3, rel=0.05)
    assert fitted.offset_ == pytest.approx(offset, abs=0.06)
    assert fitted.describe()["temperature"] == fitted.temperature_
    assert ("offset" in fitted.describe()) == (kind == "bias")


def test_calibration_of_a_perfect_and_of_a_useless_predictor_stays_finite():
    y = np.random.default_rng(0).integers(0, 3, 200)
    for scores in (np.eye(3)[y] * 9, np.zeros((200, 3)), -np.eye(3)[y]):
        for kind in ("temperature", "bias"):
            fitted = Calibration(kind).fit(scores, y)
            assert 0.02 - 1e-9 <= fitted.temperature_ <= 50 + 1e-9 and np.isfinite(fitted.apply(scores)).all()


def test_balanced_calibration_gives_classes_equal_weight():
    rng = np.random.default_rng(1)
    true = rng.normal(size=(8000, 2)) + np.log([0.9, 0.1])
    y = draw_labels(true, rng)
    plain, balanced = (Calibration("bias", objective=name).fit(true, y) for name in ("accuracy", "balanced"))
    share = np.log((y == 0).sum() / (y == 1).sum())
    moved = np.subtract.outer(balanced.offset_, balanced.offset_)[1, 0]
    assert np.abs(plain.offset_).max() < 0.1 and moved == pytest.approx(share, abs=0.25)


@pytest.mark.parametrize("name", ["mean", "weighted", "gate", "stack"])
def test_calibrated_rules_correct_wrong_class_shares_and_describe_the_correction(name):
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 2000)
    two, three = (rng.normal(size=(2000, 3)) + 1.5 * np.eye(3)[y] for _ in range(2))
    columns = Columns(4 * (two + np.array([3, 0, 0])), three)
    train, test = np.arange(1000), np.arange(1000, 2000)
    loss = {}
    for calibrate in ("none", "bias"):
        rule = make_rule(name, RuleSettings(task="classes", objective="logloss", calibrate=calibrate))
        rule.fit(columns.take(train), y[train])
        loss[calibrate] = measure(rule.apply(columns.take(test)), y[test], "classes")["log_loss"]
    assert loss["bias"] < loss["none"] - (0.1 if name != "stack" else -0.01)
    parameters = rule.describe()
    assert parameters["2d"]["temperature"] > 2 * parameters["3d"]["temperature"]
    assert parameters["2d"]["offset"][0] < -1


def boost_rows(n=1500, seed=0, noise=False):
    """Rows in which the third class depends on the product of two codes, which no linear rule can use."""
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(n, 6)).astype(np.float32)
    y = np.where(rng.random(n) < 0.5, 2 * (codes[:, 0] * codes[:, 1] > 0), 1)
    two = rng.normal(size=(n, 3))
    two[np.arange(n), np.where(y == 2, 0, y)] += 2  # the 2D scores separate class 1 from the others only
    if noise:
        codes = rng.normal(size=(n, 6)).astype(np.float32)
    return Columns(two, rng.normal(size=(n, 3)), codes), y


def test_boost_learns_what_corrects_the_2d_network():
    columns, y = boost_rows()
    fitted = Boost().fit(columns, y)
    fresh, truth = boost_rows(seed=1)
    base = measure(fitted.base_.apply(fresh), truth, "classes")["accuracy"]
    assert fitted.rounds_[0] > 10
    assert measure(fitted.apply(fresh), truth, "classes")["accuracy"] > base + 0.1


@pytest.mark.parametrize("seed", range(3))
def test_boost_with_random_codes_is_the_recalibrated_network(seed):
    columns, y = boost_rows(seed=seed, noise=True)
    boost, base = Boost().fit(columns, y), Stack(use_3d=False).fit(columns, y)
    fresh, truth = boost_rows(seed=seed + 10, noise=True)
    losses = [measure(rule.apply(fresh), truth, "classes")["log_loss"] for rule in (boost, base)]
    assert losses[0] <= losses[1] + 0.005
    if not boost.rounds_[0]:
        assert np.array_equal(boost.apply(fresh), base.apply(fresh))


def test_a_recalibration_is_cached_for_identical_inputs_only(monkeypatch):
    columns, y = boost_rows(300)
    groups = np.arange(300) // 5
    fits = []
    monkeypatch.setattr(stack, "_RECALIBRATED", {})
    monkeypatch.setattr(
        stack, "logistic_correction", lambda *of, **more: fits.append(0) or solve(*of, **more)
    )
    solve = logistic_correction
    first = Stack(use_3d=False).fit(columns, y, groups=groups)
    asked = len(fits)
    # as for a control
    again = Stack(use_3d=False).fit(replace(columns, scores_3d=columns.scores_2d), y, groups=groups)
    assert len(fits) == asked
    assert again.apply(columns).tobytes() == first.apply(columns).tobytes()
    other = columns.scores_2d.copy()
    other[7, 1] += 1e-9
    for rule, of, labels, units in (
        (Stack(use_3d=False), replace(columns, scores_2d=other), y, groups),
        (Stack(use_3d=False), columns, y[::-1], groups),
        (Stack(use_3d=False), columns, y, None),
        (Stack(use_3d=False, objective="balanced"), columns, y, groups),
        (Stack(use_3d=False, random_state=1), columns, y, groups),
        (Stack(), columns, y, groups),
    ):
        before = len(fits)
        rule.fit(of, labels, groups=units)
        assert len(fits) > before


def test_boost_starts_from_the_2d_scores():
    """With one round and a tiny learning rate, fused scores are almost the recalibrated ones."""
    columns, y = boost_rows()
    fitted = Boost(max_rounds=1, learning_rate=1e-3).fit(columns, y)
    fitted.trees_ = fitted.trees_ or [""]
    assert np.abs(fitted.apply(columns) - fitted.base_.apply(columns)).max() < 0.01


def test_early_stopping_of_boost_does_not_divide_groups(monkeypatch):
    columns, y = boost_rows(600)
    groups = np.arange(600) // 5
    parts = []
    monkeypatch.setattr(Boost, "_train", lambda self, codes, y, held, groups, **options: parts.append(held))
    Boost().fit(columns, y, groups=groups)
    (held,) = parts
    assert 0 < held.sum() < 300 and not set(groups[held]) & set(groups[~held])


def gate_rows(n=3000, seed=0):
    """Rows in which the 3D prediction is noise for turned faces, and better than the 2D for others."""
    rng = np.random.default_rng(seed)
    y, turned = rng.integers(0, 3, n), rng.random(n) < 0.5
    two = rng.normal(size=(n, 3)) + np.eye(3)[y]
    three = 2 * rng.normal(size=(n, 3)) + np.where(turned[:, None], 0, 6 * np.eye(3)[y])
    quality = np.stack([np.where(turned, 60, 10) + rng.normal(size=n), np.full(n, np.nan)], axis=1)
    return Columns(two, three, None, quality, ("quality:yaw", "quality:score")), y, turned


def test_the_gate_gives_little_weight_to_the_3d_prediction_of_turned_faces():
    columns, y, _ = gate_rows()
    fitted = Gate().fit(columns, y)
    fresh, truth, away = gate_rows(seed=1)
    weights = fitted.weights(fresh)
    assert np.median(weights[~away]) > 0.7 and np.median(weights[away]) < 0.2
    one = Weighted(objective="logloss").fit(columns, y)
    losses = [measure(rule.apply(fresh), truth, "classes")["log_loss"] for rule in (fitted, one)]
    assert losses[0] < losses[1] - 0.1
    coefficients = fitted.describe()["coefficients"]
    assert coefficients["quality:yaw"] == min(coefficients.values()) and coefficients["quality:score"] == 0


def test_a_gate_with_zero_coefficients_is_the_weighted_mean():
    columns, y, _ = gate_rows()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(y))
    blind = replace(columns, quality=None, quality_columns=())
    monotone = Gate().fit(blind, y)
    fixed = Gate()
    fixed.fit(blind, y)
    fixed.coefficients_ = np.concatenate([fixed.coefficients_[:1], np.zeros(len(fixed.names_))])
    w = expit(fixed.coefficients_[0])
    expected = (1 - w) * probabilities(blind.scores_2d) + w * probabilities(blind.scores_3d)
    assert np.allclose(np.exp(fixed.apply(blind)), expected, atol=1e-12)
    # Rows in another order give the same gate.
    other = Gate().fit(blind.take(order), y[order])
    assert np.allclose(other.weights(blind), monotone.weights(blind), atol=0.05)


@pytest.mark.parametrize(
    ("task", "objective"), [("classes", "accuracy"), ("classes", "balanced"), ("va", "rmse"), ("va", "ccc")]
)
def test_the_gradient_of_the_gates_loss_equals_finite_differences(task, objective):
    rng = np.random.default_rng(0)
    two, three = rng.dirichlet(np.ones(3), 30), rng.dirichlet(np.ones(3), 30)
    y = rng.integers(0, 3, 30)
    if task == "va":
        two, three, y = (rng.uniform(-1, 1, (30, 2)) for _ in range(3))
    gate, g = Gate(task=task, objective=objective), rng.uniform(0.1, 0.9, 30)
    slope = approx_fprime(g, lambda w: gate._loss(two, three, y)(w)[0], 1e-7)
    assert gate._loss(two, three, y)(g)[1] == pytest.approx(slope, abs=1e-5)


def test_the_gates_loss_equals_the_metric():
    rng = np.random.default_rng(0)
    two, three, y = (rng.uniform(-1, 1, (50, 2)) for _ in range(3))
    g = rng.uniform(size=50)
    metrics = measure(two + g[:, None] * (three - two), y, "va")
    gate = Gate(task="va", objective="ccc")
    concordance = (metrics["ccc_valence"] + metrics["ccc_arousal"]) / 2
    assert gate._loss(two, three, y)(g)[0] == pytest.approx(1 - concordance, abs=1e-9)
    gate = Gate(task="va", objective="rmse")
    assert gate._loss(two, three, y)(g)[0] == pytest.approx(metrics["rmse_joint"] ** 2, abs=1e-12)


def test_stack_with_codes_uses_information_that_the_head_missed():
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, 1200)
    codes = (rng.normal(size=(1200, 10)) + 1.5 * np.eye(10)[y]).astype(np.float32)
    two = rng.normal(size=(1200, 3)) + np.eye(3)[y]
    columns = Columns(two, rng.normal(size=(1200, 3)), codes)  # 3D predictions without information
    train, test = np.arange(600), np.arange(600, 1200)
    plain, with_codes = (Stack(codes=codes).fit(columns.take(train), y[train]) for codes in (False, True))
    losses = [
        measure(rule.apply(columns.take(test)), y[test], "classes")["log_loss"]
        for rule in (plain, with_codes)
    ]
    assert with_codes.describe()["weight_code_columns"] > 0 and losses[1] < losses[0] - 0.1
    noise = replace(columns, codes=rng.normal(size=(1200, 10)).astype(np.float32))
    held_back = Stack(codes=True).fit(noise.take(train), y[train])
    worse = measure(held_back.apply(noise.take(test)), y[test], "classes")["log_loss"]
    assert worse < losses[0] + 0.01


def test_best_chooses_the_rule_that_is_best_on_held_out_rows():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 900)
    two, three = rng.normal(size=(900, 3)), rng.normal(size=(900, 3)) + 3 * np.eye(3)[y]
    choices = RuleSettings(task="classes", objective="logloss", candidates=("mean", "min", "stack"))
    fitted = make_rule("selected", choices).fit(Columns(two, three), y)
    assert fitted.chosen_ == "stack" and set(fitted.costs_) == {"2d-recalibrated", "mean", "min", "stack"}
    alone = make_rule("stack", choices).fit(Columns(two, three), y)
    assert np.array_equal(fitted.apply(Columns(two, three)), alone.apply(Columns(two, three)))
    useless = Columns(three, two)  # the 3D scores have no information
    assert (
        make_rule("selected", replace(choices, candidates=("mean", "min"))).fit(useless, y).chosen_
        == "2d-recalibrated"
    )
    few = make_rule("selected", choices).fit(Columns(two[:4], three[:4]), y[:4])
    assert few.chosen_ == "2d-recalibrated" and few.costs_ == {}


class Memory(Stack):
    """A rule that memorises the labels of its fitting rows."""

    def fit(self, columns, y, groups=None):
        self.rows_, self.y_ = columns.scores_2d[:, 0].copy(), y
        return self

    def apply(self, columns):
        known = dict(zip(self.rows_, self.y_, strict=True))
        labels = np.array([known.get(value, 0) for value in columns.scores_2d[:, 0]])
        return log_softmax(9.0 * np.eye(columns.scores_2d.shape[1])[labels], axis=1)


def test_best_does_not_choose_a_rule_that_memorises_its_rows():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    two = rng.normal(size=(300, 3)) + np.eye(3)[y]
    rules = (("memory", Memory()), ("plain", Stack(use_3d=False)))
    assert Selected(rules).fit(Columns(two, two), y).chosen_ == "plain"


def test_balanced_row_weights_give_classes_equal_weight():
    y = np.array([0, 0, 0, 1])
    assert row_weights(y, "classes", "balanced") == pytest.approx([2 / 3] * 3 + [2])
    assert row_weights(y, "classes", "accuracy") == pytest.approx(np.ones(4))


def test_with_few_rows_the_recalibrated_network_is_nearly_the_network():
    """60 rows of 7 classes with other shares: almost as good as a calibration by temperature and offsets."""
    wins = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        prior = np.array([0.45, 0.24, 0.12, 0.08, 0.06, 0.03, 0.02])
        y = rng.choice(7, 1560, p=prior)
        two = 2 * (rng.normal(size=(1560, 7)) + 1.4 * np.eye(7)[y])
        columns, few, rest = Columns(two, two), np.arange(60), np.arange(60, 1560)

        def loss(values, truth=y[rest]):
            return measure(log_softmax(values, axis=1), truth, "classes")["log_loss"]

        stack = Stack(use_3d=False, random_state=seed).fit(columns.take(few), y[few])
        plain = Calibration("bias").fit(two[few], y[few])
        given, found, simple = (
            loss(two[rest]),
            loss(stack.apply(columns.take(rest))),
            loss(plain.apply(two[rest])),
        )
        assert found < given - 0.1
        wins.append(found - simple)
    assert np.mean(wins) < 0.05


def test_the_solver_finds_the_minimum_that_scikit_learn_finds():
    """With bases of 0, the problem is scikit-learn's logistic regression with unpenalised offsets."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 4)), rng.integers(0, 3, 300)
    x[np.arange(300), y] += 1
    scales, weights = logistic_correction(x, np.zeros((1, 300, 3)), y, 0.5, "accuracy", [])
    # scikit-learn does not penalise offsets; a column of them is penalised like the rest, scaled to our penalty
    design = np.hstack([x, np.full((300, 1), 2**0.5)])
    model = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-8, max_iter=2000).fit(design, y)
    assert scales == pytest.approx(1)
    np.testing.assert_allclose(weights[1:], model.coef_.T[:4], atol=2e-3)
    np.testing.assert_allclose(weights[0], model.coef_.T[4] * 2**0.5, atol=2e-3)


def test_the_simplest_candidate_within_one_standard_error_is_chosen():
    rng = np.random.default_rng(0)
    best = rng.normal(size=400)
    noisy = best + rng.normal(0.01, 1, 400)
    worse = best + rng.normal(0.5, 1, 400)
    assert simplest(np.stack([worse, noisy, best])) == 1
    assert simplest(np.stack([best, noisy])) == 0
    assert simplest(np.stack([worse, best])) == 1
    # Ten groups whose rows differ together are ten observations, not 400.
    groups = np.arange(400) % 10
    shared = best + 0.01 + np.linspace(-0.1, 0.1, 10)[groups]
    assert simplest(np.stack([shared, best])) == 1 and simplest(np.stack([shared, best]), groups) == 0


def test_a_rule_without_fitted_parameters_has_a_control():
    """A head fitted to noise predicts the class shares, which may improve a rule; its control shows this."""
    table = make_table(300, signal=0.0)
    result = fuse_predictions(
        table, FuseConfig(head="linear", rules=("mean", "product"), draws=100, model=False)
    )
    for name, condition in (("mean", "conditional"), ("product", "permuted")):
        rule, control = (find(result.predictors, name, of) for of in ("real", condition))
        assert control.role == "control" and not np.array_equal(rule.values, control.values)
        assert np.array_equal(rule.values[~result.covered], control.values[~result.covered])


@pytest.mark.parametrize("confidence", ["top", "margin"])
def test_threshold_takes_the_3d_prediction_where_the_2d_network_is_unsure(confidence):
    rng = np.random.default_rng(7)
    y = rng.integers(0, 3, 1000)
    sure = rng.random(1000) < 0.6
    two = np.where(sure[:, None], 6 * np.eye(3)[y], 0.3 * rng.normal(size=(1000, 3)))
    right = np.where(rng.random(1000) < 0.8, y, (y + 1) % 3)
    columns = Columns(two, 2 * np.eye(3)[right])
    fitted = Threshold(confidence=confidence).fit(columns, y)
    fused = fitted.apply(columns)
    taken = np.all(fused == log_softmax(columns.scores_3d, axis=1), axis=1)
    assert np.array_equal(taken, ~sure)
    assert np.array_equal(fused[sure], log_softmax(two, axis=1)[sure])
    assert fitted.describe() == {"threshold": fitted.threshold_, "share_3d": pytest.approx((~sure).mean())}
    # a second predictor that is always wrong is not used
    useless = replace(columns, scores_3d=-6 * np.eye(3)[y])
    assert np.array_equal(
        Threshold(confidence=confidence).fit(useless, y).apply(useless), log_softmax(two, axis=1)
    )


def test_the_cause_of_a_failed_optimisation_is_stored():
    def valley(x):
        value = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
        return value, np.array([-400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0]), 200 * (x[1] - x[0] ** 2)])

    failures = []
    assert minimised(valley, np.array([-1.0, 2.0]), failures) == pytest.approx([1, 1], abs=1e-3)
    assert failures == []
    minimised(valley, np.array([-1.0, 2.0]), failures, maxiter=2)
    assert len(failures) == 1 and "LIMIT" in failures[0] and "2 steps" in failures[0]
    minimised(lambda x: (np.inf, x), np.ones(1), failures)
    assert failures[1:] == ["the loss is not finite"]
    # a gradient that points out of the bounds is no failure
    minimised(lambda x: (x[0], np.ones(1)), np.ones(1), failures, bounds=[(0, 1)], maxiter=1)
    assert len(failures) == 2
