"""Fusion rules: formulas, fitted parameters, unseen classes, independence of rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.base import clone

from ig3d.learn.evaluate.metrics import measure
from ig3d.learn.rules import RULES, Columns, RuleSettings, fits, kind_of, make_rule
from ig3d.learn.rules.objective import cost_of

FIXED = tuple(name for name in RULES if not kind_of(name).fits)
CLASSES_ONLY = tuple(name for name in RULES if kind_of(name).tasks == ("classes",))
NAMES = (*RULES, "2d-recalibrated")
FITTED = tuple(name for name in NAMES if name not in FIXED)


def class_rows(n=400, k=3, seed=0, strength=(1.5, 1.5)):
    """Scores of two predictors with independent errors, informative codes, and labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    two, three, codes = (rng.normal(size=(n, k)) for _ in range(3))
    two[np.arange(n), y] += strength[0]
    three[np.arange(n), y] += strength[1]
    codes[np.arange(n), y] += strength[1]
    return Columns(two, three, codes.astype(np.float32), rng.normal(size=(n, 1)), ("quality:yaw",)), y


def va_rows(n=400, seed=0):
    rng = np.random.default_rng(seed)
    y = np.clip(rng.normal(0, 0.5, (n, 2)), -1, 1)
    two, three = 0.6 * y + rng.normal(0, 0.2, y.shape), y + rng.normal(0, 0.3, y.shape)
    return Columns(two, three, three.astype(np.float32), rng.normal(size=(n, 1)), ("quality:yaw",)), y


def rows_of(task, n=400):
    return class_rows(n) if task == "classes" else va_rows(n)


def rule(name, task="classes", **choices):
    choices = {"objective": "rmse" if task == "va" else "accuracy", "candidates": ("mean", "stack")} | choices
    return make_rule(name, RuleSettings(task=task, **choices))


def test_fixed_rules_are_their_formulas():
    columns, _ = class_rows(20)
    two, three = columns.scores_2d, columns.scores_3d
    p, q = softmax(two, axis=1), softmax(three, axis=1)
    for name, raw in {
        "mean": (p + q) / 2,
        "max": np.maximum(p, q),
        "min": np.minimum(p, q),
        "product": p * q,
    }.items():
        expected = raw / raw.sum(axis=1, keepdims=True)
        assert np.allclose(np.exp(rule(name).apply(columns)), expected, atol=1e-12)
    for name, raw in {"mean": (two + three) / 2, "max": np.maximum(two, three)}.items():
        assert np.allclose(rule(name, on="logits").apply(columns), log_softmax(raw, axis=1), atol=1e-12)
    values, _ = va_rows(20)
    for name, raw in {
        "mean": (values.scores_2d + values.scores_3d) / 2,
        "max": np.maximum(values.scores_2d, values.scores_3d),
        "min": np.minimum(values.scores_2d, values.scores_3d),
    }.items():
        assert np.allclose(rule(name, "va").apply(values), np.clip(raw, -1, 1))


@pytest.mark.parametrize(
    ("task", "name"),
    [("classes", name) for name in NAMES] + [("va", name) for name in NAMES if name not in CLASSES_ONLY],
)
def test_rows_are_fused_one_by_one(task, name):
    """Rows are fused independently: all at once, one by one and in any order give the same."""
    columns, y = rows_of(task)
    fitted = rule(name, task).fit(columns, y)
    whole = fitted.apply(columns)
    assert whole.shape == columns.scores_2d.shape and np.isfinite(whole).all()
    order = np.random.default_rng(1).permutation(len(y))[:30]
    alone = np.vstack([fitted.apply(columns.take(np.array([row]))) for row in order])
    assert np.allclose(alone, whole[order], atol=1e-12)
    changed = replace(columns, scores_3d=columns.scores_3d.copy(), codes=columns.codes.copy())
    # threshold: a row that takes the 3D prediction
    row = (
        7
        if name != "threshold"
        else np.flatnonzero(whole[:, 0] != log_softmax(columns.scores_2d, axis=1)[:, 0])[0]
    )
    for array in (changed.scores_3d, changed.codes):
        array[row, 0] += 3
        array[row, -1] -= 3
    moved = np.abs(fitted.apply(changed) - whole).max(axis=1) > 1e-12
    assert moved.tolist() == [at == row and name != "2d-recalibrated" for at in range(len(y))]
    if task == "classes":
        assert np.allclose(np.exp(whole).sum(axis=1), 1, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_classes_does_not_matter(name):
    columns, y = class_rows(300)
    order = np.array([2, 0, 1])
    plain = rule(name).fit(columns, y).apply(columns)
    turned = replace(columns, scores_2d=columns.scores_2d[:, order], scores_3d=columns.scores_3d[:, order])
    other = rule(name).fit(turned, np.argsort(order)[y]).apply(turned)
    assert np.allclose(np.exp(other), np.exp(plain[:, order]), atol=2e-3 if name != "boost" else 0.1)


def test_weighted_prefers_the_better_predictor_and_finds_the_best_weight():
    columns, y = class_rows(strength=(0.0, 3.0))
    assert rule("weighted").fit(columns, y).w_[0] > 0.5
    columns, y = class_rows(strength=(3.0, 0.0))
    assert rule("weighted", objective="logloss").fit(columns, y).w_[0] < 0.3
    values, t = va_rows()
    # halved, so that nothing is clipped
    t /= 2
    values = replace(values, scores_2d=values.scores_2d / 2, scores_3d=values.scores_3d / 2)
    # Least squares for one w in closed form, and for one per dimension.
    step, gap = values.scores_3d - values.scores_2d, t - values.scores_2d
    exact = (gap * step).sum() / (step**2).sum()
    assert rule("weighted", "va").fit(values, t).w_[0] == pytest.approx(exact, abs=0.0051)
    exact = (gap * step).sum(axis=0) / (step**2).sum(axis=0)
    assert rule("weighted", "va", options={"weighted": {"per_class": True}}).fit(
        values, t
    ).w_ == pytest.approx(exact, abs=0.0051)


@pytest.mark.parametrize("on", ["probabilities", "logits"])
def test_a_weight_per_class_is_the_minimum_of_its_loss(on):
    columns, y = class_rows(800)
    # the 3D scores of class 1 are noisy
    columns.scores_3d[:, 1] += np.random.default_rng(3).normal(0, 4, 800)
    fitted = rule("weighted", on=on, options={"weighted": {"per_class": True}}, objective="logloss").fit(
        columns, y
    )
    one = rule("weighted", on=on, objective="logloss").fit(columns, y)

    def loss(w):
        p, q = columns.scores_2d, columns.scores_3d
        if on == "probabilities":
            p, q = softmax(p, axis=1), softmax(q, axis=1)
        mixed = (1 - w) * p + w * q
        logs = (
            log_softmax(mixed, axis=1) if on == "logits" else np.log(mixed / mixed.sum(axis=1, keepdims=True))
        )
        return -logs[np.arange(800), y].sum() + 5 * ((w - one.w_[0]) ** 2).sum()

    found = minimize(loss, np.full(3, 0.5), bounds=[(0, 1)] * 3, tol=1e-10)  # slopes by differences
    assert fitted.w_ == pytest.approx(found.x, abs=2e-3)
    assert fitted.w_[1] < fitted.w_[[0, 2]].min() - 0.03
    losses = [measure(each.apply(columns), y, "classes")["log_loss"] for each in (one, fitted)]
    assert losses[1] < losses[0]
    assert np.allclose(fitted.describe()["w"], fitted.w_)


def test_stack_beats_both_and_recalibration_corrects_wrong_class_shares():
    columns, y = class_rows(2000)
    columns.scores_2d[:, 0] += 4  # the 2D network has learnt that class 0 is everywhere
    train, test = np.arange(1000), np.arange(1000, 2000)
    held = columns.take(test)
    loss = {
        name: measure(rule(name).fit(columns.take(train), y[train]).apply(held), y[test], "classes")[
            "log_loss"
        ]
        for name in ("2d-recalibrated", "stack")
    }
    raw = measure(log_softmax(held.scores_2d, axis=1), y[test], "classes")["log_loss"]
    assert loss["2d-recalibrated"] < raw - 0.5
    assert loss["stack"] < loss["2d-recalibrated"] - 0.1


@pytest.mark.parametrize("name", ["stack", "boost", "selected"])
def test_random_3d_predictions_gain_nothing_over_recalibration(name):
    columns, y = class_rows(1200)
    rng = np.random.default_rng(9)
    columns = replace(
        columns, scores_3d=rng.normal(size=(1200, 3)), codes=rng.normal(size=(1200, 20)).astype(np.float32)
    )
    train, test = np.arange(600), np.arange(600, 1200)
    loss = {
        each: measure(
            rule(each).fit(columns.take(train), y[train]).apply(columns.take(test)), y[test], "classes"
        )["log_loss"]
        for each in ("2d-recalibrated", name)
    }
    assert loss[name] == pytest.approx(loss["2d-recalibrated"], abs=0.01)


@pytest.mark.parametrize("name", ["stack", "boost", "2d-recalibrated"])
@pytest.mark.parametrize("calibrate", ["none", "bias"])
def test_a_class_without_fitting_rows_keeps_its_2d_probability(name, calibrate):
    columns, y = class_rows(300)
    given = softmax(columns.scores_2d, axis=1)
    seen = y != 2
    fused = np.exp(rule(name, calibrate=calibrate).fit(columns.take(seen), y[seen]).apply(columns))
    assert fused.shape == (300, 3)
    assert np.allclose(fused[:, 2], given[:, 2], atol=1e-9)
    assert np.abs(fused[:, 0] - given[:, 0]).max() > 0.01
    only = rule(name, calibrate=calibrate).fit(columns.take(y == 1), y[y == 1])
    assert np.allclose(np.exp(only.apply(columns)), given, atol=1e-9)


@pytest.mark.parametrize("name", ["stack", "boost"])
def test_ccc_objective_matches_the_spread_of_the_truth(name):
    values, t = va_rows(3000)
    t = np.clip(t + 0.2, -1, 1)
    train, test = np.arange(1500), np.arange(1500, 3000)
    least, matched = (
        rule(name, "va", objective=objective).fit(values.take(train), t[train]).apply(values.take(test))
        for objective in ("rmse", "ccc")
    )
    t = t[test]
    if name == "stack":  # trees that stopped early hold their values too near to the middle
        assert measure(least, t, "va")["rmse_joint"] < measure(matched, t, "va")["rmse_joint"]
    assert measure(matched, t, "va")["ccc_joint"] > measure(least, t, "va")["ccc_joint"]
    assert np.allclose(matched.std(axis=0), t.std(axis=0), rtol=0.07)  # clipping takes a little
    assert np.allclose(matched.mean(axis=0), t.mean(axis=0), atol=0.04)
    assert np.abs(matched).max() <= 1


@pytest.mark.parametrize("name", ["stack", "boost", "2d-recalibrated"])
def test_balanced_objective_helps_the_rare_class(name):
    columns, y = class_rows(2500, strength=(1.0, 1.0))
    keep = (y != 2) | (np.random.default_rng(0).random(2500) < 0.1)
    columns, y = columns.take(keep), y[keep]
    plain, balanced = (
        measure(rule(name, objective=objective).fit(columns, y).apply(columns), y, "classes")
        for objective in ("accuracy", "balanced")
    )
    assert balanced["balanced_accuracy"] > plain["balanced_accuracy"] + 0.05


def test_the_objective_decides_between_weights():
    """The weight is the best of its grid by the objective."""
    columns, y = class_rows(500, strength=(0.8, 1.2))
    y[y == 2] = np.random.default_rng(1).integers(0, 3, (y == 2).sum())
    values, t = va_rows()
    for task, rows, truth, objectives in (
        ("classes", columns, y, ("accuracy", "balanced", "logloss")),
        ("va", values, t, ("rmse", "ccc")),
    ):
        for objective in objectives:
            fitted = rule("weighted", task, objective=objective).fit(rows, truth)
            best = cost_of(fitted.apply(rows), truth, task, objective)
            metrics = measure(fitted.apply(rows), truth, task)
            expected = {
                "accuracy": -metrics.get("accuracy", 0),
                "balanced": -metrics.get("balanced_accuracy", 0),
                "logloss": metrics.get("log_loss"),
                "rmse": metrics.get("rmse_joint"),
                "ccc": -(metrics.get("ccc_valence", 0) + metrics.get("ccc_arousal", 0)) / 2,
            }[objective]
            assert best[0] == pytest.approx(expected, abs=1e-12)
            for w in np.linspace(0, 1, 101):
                other = clone(fitted)
                other.w_ = np.array([w])
                assert cost_of(other.apply(rows), truth, task, objective) >= best


@pytest.mark.parametrize(
    ("task", "name"),
    [("classes", name) for name in FITTED] + [("va", name) for name in FITTED if name not in CLASSES_ONLY],
)
def test_rules_can_be_fitted_to_constant_predictions_and_single_rows(task, name):
    columns, y = rows_of(task, 60)
    zero = replace(
        columns, scores_2d=columns.scores_2d * 0, scores_3d=columns.scores_3d * 0, codes=columns.codes * 0
    )
    first = columns.take(np.zeros(60, int))
    for rows in (zero, first):
        assert np.isfinite(rule(name, task).fit(rows, y).apply(rows)).all()
    one = columns.take(np.array([0]))
    assert rule(name, task).fit(one, y[:1]).apply(one).shape == (1, columns.scores_2d.shape[1])


@pytest.mark.parametrize("name", FITTED)
def test_rules_can_be_fitted_to_one_class_and_to_perfect_or_useless_networks(name):
    columns, y = class_rows(200)
    only = rule(name).fit(columns, np.ones(200, int)).apply(columns)
    assert np.isfinite(only).all()
    perfect = replace(columns, scores_2d=np.eye(3)[y] * 40)
    fused = rule(name).fit(perfect, y).apply(perfect)
    assert (fused.argmax(axis=1) == y).mean() > 0.99 and np.isfinite(fused).all()
    chance = replace(columns, scores_2d=np.random.default_rng(5).normal(size=(200, 3)))
    assert np.isfinite(rule(name).fit(chance, y).apply(chance)).all()


@pytest.mark.parametrize("calibrate", ["none", "bias"])
@pytest.mark.parametrize("name", NAMES)
def test_clones_are_unfitted_and_fitted_rules_describe_their_parameters(name, calibrate):
    columns, y = class_rows(60)
    choices = RuleSettings(
        task="classes", objective="accuracy", calibrate=calibrate, candidates=("mean", "stack")
    )
    fitted = make_rule(name, choices).fit(columns, y)
    copy = clone(fitted)
    assert copy.get_params().keys() == fitted.get_params().keys()
    assert not any(attribute.endswith("_") and not attribute.startswith("_") for attribute in vars(copy))
    assert bool(fitted.describe()) == fits(name, calibrate)


def test_the_same_rows_give_the_same_rule():
    columns, y = class_rows(200)
    for name in FITTED:
        one, two = (rule(name).fit(columns, y).apply(columns) for _ in range(2))
        assert np.array_equal(one, two)
