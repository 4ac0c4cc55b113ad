"""Metrics agree with scikit-learn and SciPy; intervals and tests with formulas and exact enumeration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from ig3d.learn.intervals import mcnemar, percentile_interval, resampled_sums, sign_flip
from ig3d.learn.metrics import measure, metrics_of, own_statistics, shared_statistics


def class_rows(seed, n, k):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(k) * 0.5, n) + 1e-9
    p /= p.sum(axis=1, keepdims=True)
    return rng.integers(0, k, n), p


@pytest.mark.parametrize(("seed", "n", "k"), [(0, 1, 3), (1, 7, 8), (2, 400, 2), (3, 3000, 8)])
def test_class_metrics_agree_with_scikit_learn(seed, n, k):
    labels, p = class_rows(seed, n, k)
    got = measure(np.log(p), labels, "classes")
    said = p.argmax(axis=1)
    assert got["accuracy"] == pytest.approx(reference.accuracy_score(labels, said), abs=1e-9)
    recall = [np.mean(said[labels == c] == c) for c in np.unique(labels)]
    assert got["balanced_accuracy"] == pytest.approx(np.mean(recall), abs=1e-9)
    f1 = reference.f1_score(labels, said, average="macro", zero_division=0)
    assert got["macro_f1"] == pytest.approx(f1, abs=1e-9)
    assert got["log_loss"] == pytest.approx(reference.log_loss(labels, p, labels=range(k)), abs=1e-9)


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


def test_the_bootstrap_of_a_mean_has_its_standard_error():
    values = np.random.default_rng(0).normal(size=(400, 1))
    sums = resampled_sums(values, np.arange(400), draws=4000, seed=1)[:, 0] / 400
    low, high = percentile_interval(sums)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_groups_are_resampled_as_wholes():
    # Rows of a group are copies of each other: only the 40 groups carry information.
    groups = np.repeat(np.arange(40), 10)
    values = np.random.default_rng(0).normal(size=40)[groups][:, None]
    whole = resampled_sums(values, groups, draws=4000, seed=0)[:, 0] / 400
    rows = resampled_sums(values, np.arange(400), draws=4000, seed=0)[:, 0] / 400
    assert whole.std() == pytest.approx(values.std() / np.sqrt(40), rel=0.05)
    assert rows.std() == pytest.approx(values.std() / np.sqrt(400), rel=0.05)


def test_chunks_of_draws_change_nothing(monkeypatch):
    values = np.random.default_rng(0).normal(size=(50, 3))
    whole = resampled_sums(values, np.arange(50), draws=100, seed=3)
    monkeypatch.setattr("ig3d.learn.intervals._CHUNK_NUMBERS", 50 * 7)
    assert np.allclose(resampled_sums(values, np.arange(50), draws=100, seed=3), whole, atol=1e-12)


def test_mcnemar_is_the_exact_binomial():
    right = np.array([1] * 9 + [0] * 3 + [1] * 20, bool)
    other = np.array([0] * 9 + [1] * 3 + [1] * 20, bool)
    assert mcnemar(right, other) == pytest.approx(stats.binomtest(9, 12).pvalue, abs=1e-12)
    assert mcnemar(right, right) == 1.0


def test_sign_flips_agree_with_all_flips():
    differences = np.random.default_rng(4).normal(0.4, 1, 12)
    groups = np.repeat(np.arange(6), 2)
    totals = differences.reshape(6, 2).sum(axis=1)
    flips = np.array(list(product((-1, 1), repeat=6)))
    exact = np.mean(np.abs(flips @ totals) >= abs(totals.sum()) - 1e-12)
    assert sign_flip(differences, groups, draws=20_000, seed=0) == pytest.approx(exact, abs=0.01)
    assert sign_flip(np.zeros(12), groups, draws=100, seed=0) == 1.0
