"""Metrics agree with scikit-learn and SciPy."""

from __future__ import annotations

from inspect import signature

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from ig3d.learn.evaluate.metrics import measure, metrics_of, own_statistics, recalls_of, shared_statistics


def class_rows(seed, n, k):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(k) * 0.5, n) + 1e-9
    p /= p.sum(axis=1, keepdims=True)
    return rng.integers(0, k, n), p


@pytest.mark.parametrize(("seed", "n", "k"), [(0, 1, 3), (1, 7, 8), (2, 400, 2), (3, 3000, 8)])
def test_class_metrics_agree_with_scikit_learn(seed, n, k):
    labels, p = class_rows(seed, n, k)
    got = measure(np.log(p), labels, "classes")
    predicted = p.argmax(axis=1)
    assert got["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted), abs=1e-9)
    recall = [np.mean(predicted[labels == c] == c) for c in np.unique(labels)]
    assert got["balanced_accuracy"] == pytest.approx(np.mean(recall), abs=1e-9)
    f1 = reference.f1_score(labels, predicted, average="macro", zero_division=0)
    assert got["macro_f1"] == pytest.approx(f1, abs=1e-9)
    assert got["log_loss"] == pytest.approx(reference.log_loss(labels, p, labels=range(k)), abs=1e-9)
    squares = ((p - np.eye(k)[labels]) ** 2).sum(axis=1).mean()
    if k > 2 and "labels" in signature(reference.brier_score_loss).parameters:  # from scikit-learn 1.7
        squares = reference.brier_score_loss(labels, p, labels=range(k), scale_by_half=False)
    assert got["brier"] == pytest.approx(squares, abs=1e-9)


def test_recalls_agree_with_scikit_learn():
    labels, p = class_rows(8, 300, 5)
    labels[labels == 3] = 2  # a class that does not occur
    shared = shared_statistics(labels, "classes", 5).sum(axis=0)
    got = recalls_of(shared, own_statistics(np.log(p), labels, "classes").sum(axis=0))
    expected = reference.recall_score(
        labels, p.argmax(axis=1), labels=range(5), average=None, zero_division=0
    )
    assert np.isnan(got[3])
    assert np.delete(got, 3) == pytest.approx(np.delete(expected, 3), abs=1e-9)


def test_the_ccc_of_ig3d_is_larger_by_its_mixed_moments():
    """Their covariance is divided by n - 1, their variances by n: a factor n / (n - 1), as noted in the module."""
    rng = np.random.default_rng(3)
    truth = rng.uniform(-1, 1, (3991, 2))
    values = 0.5 * truth + rng.normal(0, 0.2, truth.shape)
    x, y = values[:, 0], truth[:, 0]
    theirs = 2 * np.cov(x, y)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert theirs / measure(values, truth, "va")["ccc_valence"] == pytest.approx(3991 / 3990, abs=1e-9)


def ccc(x, y):
    """Lin's concordance by NumPy's own covariance, population moments."""
    covariance = np.cov(x, y, ddof=0)
    return 2 * covariance[0, 1] / (np.trace(covariance) + (x.mean() - y.mean()) ** 2)


@pytest.mark.parametrize("seed", range(3))
def test_va_metrics_agree_with_independent_formulas(seed):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-1, 1, (500, 2))
    values = np.clip(0.6 * truth + rng.normal(0.1, 0.3, truth.shape), -1, 1)
    got = measure(values, truth, "va")
    for name, x, y in (
        ("valence", values[:, 0], truth[:, 0]),
        ("arousal", values[:, 1], truth[:, 1]),
        ("joint", values.T.reshape(-1), truth.T.reshape(-1)),
    ):
        assert got[f"rmse_{name}"] == pytest.approx(reference.root_mean_squared_error(y, x), abs=1e-9)
        assert got[f"ccc_{name}"] == pytest.approx(ccc(x, y), abs=1e-9)
        r, scale = stats.pearsonr(x, y).statistic, x.std() / y.std()
        shift = (x.mean() - y.mean()) ** 2 / (x.std() * y.std())
        assert got[f"ccc_{name}"] == pytest.approx(2 * r / (scale + 1 / scale + shift), abs=1e-9)


def test_perfect_and_constant_predictions():
    truth = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    perfect = measure(truth, truth, "va")
    assert perfect["rmse_joint"] == 0 and perfect["ccc_valence"] == pytest.approx(1, abs=1e-12)
    constant = measure(np.full((50, 2), 0.3), truth, "va")
    assert constant["ccc_arousal"] == pytest.approx(0, abs=1e-12)
    assert np.isnan(measure(np.zeros((3, 2)), np.zeros((3, 2)), "va")["ccc_joint"])


def test_a_weighted_sum_of_statistics_is_the_metric_of_repeated_rows():
    labels, p = class_rows(5, 60, 4)
    weights = np.random.default_rng(1).integers(0, 4, 60)
    shared, own = shared_statistics(labels, "classes", 4), own_statistics(np.log(p), labels, "classes")
    got = metrics_of(weights @ shared, weights @ own, "classes")
    again = measure(np.log(np.repeat(p, weights, axis=0)), np.repeat(labels, weights), "classes")
    assert {name: float(value) for name, value in got.items()} == pytest.approx(again, abs=1e-12)
