"""Fusion rules: their formulas, what is fitted, classes that were not seen, and that rows stay apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.base import clone

from ig3d.learn.fusion import FixedRule, Stack, Weighted, make_rule
from ig3d.learn.metrics import measure

NAMES = ("mean", "max", "min", "product", "weighted", "stack", "2d-recalibrated")


def class_rows(n=400, k=3, seed=0, strength=(1.5, 1.5)):
    """Scores of two predictors of independent errors, side by side, and labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    X = rng.normal(size=(n, 2 * k))
    X[np.arange(n), y] += strength[0]
    X[np.arange(n), k + y] += strength[1]
    return X, y


def va_rows(n=400, seed=0):
    rng = np.random.default_rng(seed)
    y = np.clip(rng.normal(0, 0.5, (n, 2)), -1, 1)
    return np.hstack([0.6 * y + rng.normal(0, 0.2, y.shape), y + rng.normal(0, 0.3, y.shape)]), y


def rule(name, task="classes", on="probabilities", objective=None):
    return make_rule(
        name, task=task, on=on, objective=objective or ("rmse" if task == "va" else "accuracy"), seed=0
    )


def test_fixed_rules_are_their_formulas():
    X, _ = class_rows(20)
    p, q = softmax(X[:, :3], axis=1), softmax(X[:, 3:], axis=1)
    for name, raw in {
        "mean": (p + q) / 2,
        "max": np.maximum(p, q),
        "min": np.minimum(p, q),
        "product": p * q,
    }.items():
        expected = raw / raw.sum(axis=1, keepdims=True)
        assert np.allclose(np.exp(rule(name).apply(X)), expected, atol=1e-12)
    for name, raw in {"mean": (X[:, :3] + X[:, 3:]) / 2, "max": np.maximum(X[:, :3], X[:, 3:])}.items():
        assert np.allclose(rule(name, on="logits").apply(X), log_softmax(raw, axis=1), atol=1e-12)
    V, _ = va_rows(20)
    for name, raw in {"mean": (V[:, :2] + V[:, 2:]) / 2, "max": np.maximum(V[:, :2], V[:, 2:])}.items():
        assert np.allclose(rule(name, "va").apply(V), np.clip(raw, -1, 1))


@pytest.mark.parametrize("task", ["classes", "va"])
@pytest.mark.parametrize("name", NAMES)
def test_rows_are_fused_one_by_one(task, name):
    """No row's 3D prediction may reach another: fusing all is fusing each alone, in any order."""
    if task == "va" and name == "product":
        pytest.skip("valence and arousal have no product")
    X, y = class_rows() if task == "classes" else va_rows()
    fitted = rule(name, task).fit(X, y)
    whole = fitted.apply(X)
    assert whole.shape == (len(X), X.shape[1] // 2)
    alone = np.vstack([fitted.apply(X[row : row + 1]) for row in range(50)])
    assert np.allclose(alone, whole[:50], atol=1e-12)
    changed = X.copy()
    changed[7, X.shape[1] // 2] += 3
    changed[7, -1] -= 3
    moved = np.abs(fitted.apply(changed) - whole).max(axis=1) > 1e-12
    assert moved.tolist() == [row == 7 and name != "2d-recalibrated" for row in range(len(X))]
    assert np.isfinite(whole).all()
    if task == "classes":
        assert np.allclose(np.exp(whole).sum(axis=1), 1, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_classes_does_not_matter(name):
    X, y = class_rows(300)
    order = np.array([2, 0, 1])
    plain = rule(name).fit(X, y).apply(X)
    turned = X[:, np.concatenate([order, 3 + order])]
    other = rule(name).fit(turned, np.argsort(order)[y]).apply(turned)
    assert np.allclose(np.exp(other), np.exp(plain[:, order]), atol=2e-3)


def test_weighted_finds_the_better_predictor_and_the_scan_is_the_best():
    X, y = class_rows(strength=(0.0, 3.0))
    assert Weighted().fit(X, y).w_ > 0.5
    X, y = class_rows(strength=(3.0, 0.0))
    assert Weighted(objective="logloss").fit(X, y).w_ < 0.3
    V, t = va_rows()
    # Least squares for one w in closed form.
    a, b = V[:, :2].ravel(), V[:, 2:].ravel()
    exact = ((t.ravel() - a) @ (b - a)) / ((b - a) @ (b - a))
    assert Weighted(task="va", objective="rmse").fit(V, t).w_ == pytest.approx(exact, abs=0.02)


def test_stack_beats_both_and_recalibration_mends_a_wrong_prior():
    X, y = class_rows(2000)
    X[:, 0] += 4  # the 2D network has learnt that class 0 is everywhere
    train, test = slice(0, 1000), slice(1000, None)
    loss = {
        name: measure(rule(name).fit(X[train], y[train]).apply(X[test]), y[test], "classes")["log_loss"]
        for name in ("2d-recalibrated", "stack")
    }
    raw = measure(log_softmax(X[test, :3], axis=1), y[test], "classes")["log_loss"]
    assert loss["2d-recalibrated"] < raw - 0.5
    assert loss["stack"] < loss["2d-recalibrated"] - 0.1


def test_noise_given_as_3d_gains_nothing_over_recalibration():
    X, y = class_rows(1200)
    X[:, 3:] = np.random.default_rng(9).normal(size=(1200, 3))
    train, test = slice(0, 600), slice(600, None)
    loss = {
        name: measure(rule(name).fit(X[train], y[train]).apply(X[test]), y[test], "classes")["log_loss"]
        for name in ("2d-recalibrated", "stack")
    }
    assert loss["stack"] == pytest.approx(loss["2d-recalibrated"], abs=0.01)


def test_a_class_without_fitting_rows_keeps_its_2d_probability():
    X, y = class_rows(300)
    seen = y != 2
    fitted = Stack().fit(X[seen], y[seen])
    fused = np.exp(fitted.apply(X))
    assert fused.shape == (300, 3)
    assert np.allclose(fused[:, 2], softmax(X[:, :3], axis=1)[:, 2], atol=1e-9)
    only = Stack().fit(X[y == 1], y[y == 1])
    assert np.allclose(np.exp(only.apply(X)), softmax(X[:, :3], axis=1), atol=1e-9)


def test_ccc_objective_matches_the_spread_of_the_truth():
    V, t = va_rows(1000)
    t = np.clip(t + 0.2, -1, 1)
    least, matched = (
        Stack(task="va", objective=objective).fit(V, t).apply(V) for objective in ("rmse", "ccc")
    )
    assert measure(least, t, "va")["rmse_joint"] < measure(matched, t, "va")["rmse_joint"]
    assert measure(matched, t, "va")["ccc_joint"] > measure(least, t, "va")["ccc_joint"]
    assert np.allclose(matched.std(axis=0), t.std(axis=0), rtol=0.03)  # clipping takes a little
    assert np.allclose(matched.mean(axis=0), t.mean(axis=0), atol=0.01)
    assert np.abs(matched).max() <= 1


def test_balanced_objective_helps_the_rare_class():
    X, y = class_rows(1500, strength=(1.0, 1.0))
    keep = (y != 2) | (np.random.default_rng(0).random(1500) < 0.1)
    X, y = X[keep], y[keep]
    plain = measure(Stack().fit(X, y).apply(X), y, "classes")
    balanced = measure(Stack(objective="balanced").fit(X, y).apply(X), y, "classes")
    assert balanced["balanced_accuracy"] > plain["balanced_accuracy"] + 0.05


@pytest.mark.parametrize("task", ["classes", "va"])
def test_constant_predictions_and_single_rows_are_fitted_all_the_same(task):
    X, y = class_rows(60) if task == "classes" else va_rows(60)
    for rows in (X * 0, X[:1].repeat(60, axis=0)):
        for name in ("weighted", "stack", "2d-recalibrated"):
            assert np.isfinite(rule(name, task).fit(rows, y).apply(rows)).all()
    for name in ("weighted", "stack", "2d-recalibrated"):
        assert rule(name, task).fit(X[:1], y[:1]).apply(X[:1]).shape == (1, X.shape[1] // 2)


def test_rules_are_cloned_unfitted():
    X, y = class_rows(60)
    for estimator in (
        FixedRule("max", on="logits"),
        Weighted(on="logits"),
        Stack(use_3d=False, random_state=3),
    ):
        copy = clone(estimator.fit(X, y))
        assert copy.get_params() == estimator.get_params()
        assert not any(name.endswith("_") and not name.startswith("_") for name in vars(copy))
