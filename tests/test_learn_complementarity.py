"""Complementarity against counts made one by one and against least squares; calibration against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ig3d.learn.evaluate.calibration import reliability
from ig3d.learn.evaluate.complementarity import (
    complementarity_of,
    cross_statistics,
)
from ig3d.learn.evaluate.metrics import own_statistics, shared_statistics


def found(first, second, truth, task):
    k = first.shape[1]
    sums = [
        shared_statistics(truth, task, k),
        own_statistics(first, truth, task),
        own_statistics(second, truth, task),
        cross_statistics(first, second, truth, task),
    ]
    measures = complementarity_of(*(of.sum(axis=0) for of in sums), task)
    return {f"{name}_{of}" if of else name: float(value) for (name, of), value in measures.items()}


def predictions(truth, k, right, seed):
    """Log-probabilities whose greatest is the truth where ``right``."""
    answer = np.where(right, truth, (truth + 1) % k)
    return np.log(np.full((len(truth), k), 0.05) + 0.6 * np.eye(k)[answer])


def test_classes_agree_with_counts():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 500)
    a = rng.random(500) < 0.7
    b = np.where(rng.random(500) < 0.3, a, rng.random(500) < 0.5)
    got = found(predictions(truth, 4, a, 1), predictions(truth, 4, b, 2), truth, "classes")
    assert got["both_right"] == pytest.approx(np.mean(a & b), abs=1e-12)
    assert got["only_first"] == pytest.approx(np.mean(a & ~b), abs=1e-12)
    assert got["only_second"] == pytest.approx(np.mean(~a & b), abs=1e-12)
    assert got["double_fault"] == pytest.approx(np.mean(~a & ~b), abs=1e-12)
    assert got["disagreement"] == pytest.approx(np.mean(a != b), abs=1e-12)
    assert got["oracle"] == pytest.approx(np.mean(a | b), abs=1e-12)
    assert got["rescued"] == pytest.approx(np.mean(b[~a]), abs=1e-12)
    assert got["phi"] == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-12)
    n11, n00, n10, n01 = (np.sum(of) for of in (a & b, ~a & ~b, a & ~b, ~a & b))
    assert got["yule_q"] == pytest.approx((n11 * n00 - n10 * n01) / (n11 * n00 + n10 * n01), abs=1e-12)


def test_a_twin_adds_nothing_and_a_mirror_all():
    truth = np.arange(60) % 3
    right = np.arange(60) % 4 > 0
    twin = found(predictions(truth, 3, right, 0), predictions(truth, 3, right, 0), truth, "classes")
    assert twin["oracle"] == pytest.approx(0.75) and twin["rescued"] == 0 and twin["phi"] == pytest.approx(1)
    mirror = found(predictions(truth, 3, right, 0), predictions(truth, 3, ~right, 0), truth, "classes")
    assert (
        mirror["oracle"] == pytest.approx(1) and mirror["rescued"] == 1 and mirror["phi"] == pytest.approx(-1)
    )


def test_valence_arousal_agrees_with_least_squares():
    rng = np.random.default_rng(1)
    truth = rng.uniform(-1, 1, (400, 2))
    first, second = (scale * truth + rng.normal(0.1, 0.3, truth.shape) for scale in (0.6, 0.4))
    got = found(first, second, truth, "va")
    for column, part in enumerate(("valence", "arousal")):
        t, a, b = truth[:, column], first[:, column], second[:, column]
        assert got[f"error_correlation_{part}"] == pytest.approx(
            stats.pearsonr(a - t, b - t).statistic, abs=1e-9
        )

        def best(*predictors, t=t):
            design = np.column_stack([np.ones(len(t)), *predictors])
            return np.sqrt(np.mean((t - design @ np.linalg.lstsq(design, t, rcond=None)[0]) ** 2))

        assert got[f"first_alone_{part}"] == pytest.approx(best(a), abs=1e-9)
        assert got[f"both_linear_{part}"] == pytest.approx(best(a, b), abs=1e-9)
        assert got[f"gain_linear_{part}"] == pytest.approx(best(a) - best(a, b), abs=1e-9)
    assert found(first, first, truth, "va")["gain_linear_valence"] == pytest.approx(0, abs=1e-6)


def test_a_network_that_is_always_right_leaves_nothing_to_add():
    truth = np.arange(30) % 3
    got = found(predictions(truth, 3, truth > -1, 0), predictions(truth, 3, truth > 0, 0), truth, "classes")
    assert np.isnan(got["rescued"]) and np.isnan(got["phi"])


@pytest.mark.parametrize("adaptive", [False, True])
def test_calibration_error_is_its_definition(adaptive):
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(5) * 0.4, 700)
    truth = rng.integers(0, 5, 700)
    got = reliability(np.log(p), truth, adaptive=adaptive)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
    if adaptive:
        parts = np.array_split(np.argsort(confidence, kind="stable"), 15)
        assert max(got.rows) - min(got.rows) <= 1
    else:
        parts = [np.flatnonzero((confidence > b / 15) & (confidence <= (b + 1) / 15)) for b in range(15)]
    error = sum(
        len(rows) / 700 * abs(confidence[rows].mean() - right[rows].mean()) for rows in parts if len(rows)
    )
    # array_split puts its larger parts first; bins of nearly equal size may take a row from their neighbour.
    assert got.error == pytest.approx(error, abs=0.004 if adaptive else 1e-12)
    assert (
        got.rows.sum() == 700
        and (got.low <= got.confidence).all()
        and (got.confidence <= got.high + 1e-12).all()
    )


def test_reliability_of_one_row_and_of_certainty():
    one = reliability(np.log([[0.25, 0.75]]), np.array([1]), adaptive=True)
    assert one.error == pytest.approx(0.25) and one.rows.tolist() == [1]
    with np.errstate(divide="ignore"):
        sure = reliability(np.log(np.eye(3)[[0, 1, 2]]), np.array([0, 1, 1]))
    assert sure.error == pytest.approx(1 / 3) and sure.high.tolist() == [1.0]
