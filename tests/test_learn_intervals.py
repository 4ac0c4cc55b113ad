"""Intervals and tests agree with SciPy, with formulas and with exact enumeration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from ig3d.features.order import mcnemar
from ig3d.learn.evaluate.intervals import (
    bca_interval,
    bootstrap_sums,
    group_totals,
    holm,
    percentile_interval,
    share_as_extreme,
    swapped_sums,
)


def test_the_bootstrap_of_a_mean_has_its_standard_error():
    values = np.random.default_rng(0).normal(size=(400, 1))
    sums = bootstrap_sums([values], draws=4000, seed=1)[0][:, 0] / 400
    low, high = percentile_interval(sums)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_groups_are_resampled_as_wholes():
    # Rows of a group are copies of each other: only the 40 groups carry information.
    groups = np.repeat(np.arange(40), 10)
    values = np.random.default_rng(0).normal(size=40)[groups][:, None]
    whole = bootstrap_sums([group_totals(values, groups)], draws=4000, seed=0)[0][:, 0] / 400
    rows = bootstrap_sums([values], draws=4000, seed=0)[0][:, 0] / 400
    assert whole.std() == pytest.approx(values.std() / np.sqrt(40), rel=0.05)
    assert rows.std() == pytest.approx(values.std() / np.sqrt(400), rel=0.05)


def test_chunks_of_draws_change_nothing(monkeypatch):
    values = np.random.default_rng(0).normal(size=(50, 3))
    (whole,) = bootstrap_sums([values], draws=100, seed=3)
    monkeypatch.setattr("ig3d.learn.evaluate.intervals._CHUNK_NUMBERS", 50 * 7)
    assert np.allclose(bootstrap_sums([values], draws=100, seed=3)[0], whole, atol=1e-12)


def test_mcnemar_is_the_exact_binomial():
    right = np.array([1] * 9 + [0] * 3 + [1] * 20, bool)
    other = np.array([0] * 9 + [1] * 3 + [1] * 20, bool)
    assert mcnemar(right, other) == pytest.approx(stats.binomtest(9, 12).pvalue, abs=1e-12)
    assert mcnemar(right, right) == 1.0


def test_swaps_of_groups_agree_with_all_swaps():
    differences = np.random.default_rng(4).normal(0.4, 1, 12)
    groups = np.repeat(np.arange(6), 2)
    totals = differences.reshape(6, 2).sum(axis=1)
    flips = np.array(list(product((-1, 1), repeat=6)))
    exact = np.mean(np.abs(flips @ totals) >= abs(totals.sum()) - 1e-12)
    sums = group_totals(differences[:, None], groups)
    (swapped,) = swapped_sums([sums], draws=20_000, seed=0)
    assert share_as_extreme(sums.sum(), swapped[:, 0]) == pytest.approx(exact, abs=0.01)
    assert share_as_extreme(0.0, np.zeros(100)) == 1.0


@pytest.mark.parametrize("statistic", [np.mean, np.std, stats.skew])
def test_bca_is_that_of_scipy(statistic):
    values = np.random.default_rng(5).exponential(size=60)
    theirs = stats.bootstrap(
        (values,),
        statistic,
        n_resamples=2000,
        method="BCa",
        random_state=np.random.default_rng(1),
        vectorized=True,
    )
    jackknife = np.array([statistic(np.delete(values, row)) for row in range(60)])
    low, high = bca_interval(float(statistic(values)), theirs.bootstrap_distribution, jackknife)
    assert low == pytest.approx(theirs.confidence_interval.low, abs=1e-9)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=1e-9)


def test_bca_of_a_figure_that_never_moves_or_is_nowhere_defined():
    assert bca_interval(1.0, np.ones(50), np.ones(20)) == (1.0, 1.0)
    assert np.isnan(bca_interval(np.nan, np.full(50, np.nan), np.ones(20))).all()
    drawn = np.r_[np.full(10, np.nan), np.linspace(0, 1, 90)]
    assert bca_interval(2.0, drawn, np.arange(60.0)) == percentile_interval(drawn)  # all below the value


def test_blocks_share_their_draws_and_whole_numbers_stay_exact():
    rng = np.random.default_rng(0)
    whole, rest = rng.integers(-3, 9, (70, 4)).astype(float), rng.normal(size=(70, 2))
    rest[20:] = 0  # a block that most groups have no part in
    one, other = bootstrap_sums([np.hstack([whole, rest]), rest], draws=200, seed=3)
    assert (one[:, :4] == np.rint(one[:, :4])).all()
    assert np.allclose(one[:, 4:], other, atol=1e-12)
    # In double precision throughout, by adding 1/2 and taking it away again.
    half = bootstrap_sums([whole + 0.5], draws=200, seed=3)[0] - 35
    assert np.allclose(one[:, :4], half, atol=1e-9)


def test_group_totals_keep_the_order_of_the_numbers():
    rows = np.arange(6.0)[:, None]
    assert group_totals(rows, np.array([5, 1, 1, 5, 0, 1]))[:, 0].tolist() == [4, 8, 3]
    assert group_totals(rows, np.array([5, 4, 3, 2, 1, 0]))[:, 0].tolist() == [5, 4, 3, 2, 1, 0]


def test_swaps_agree_with_all_swaps():
    differences = np.random.default_rng(2).normal(0.5, 1, 10)
    all_of_them = np.array(list(product((-1, 1), repeat=10))) @ differences
    (swapped,) = swapped_sums([differences[:, None]], draws=20_000, seed=0)
    exact = np.mean(np.abs(all_of_them) >= abs(differences.sum()) - 1e-12)
    assert share_as_extreme(differences.sum(), swapped[:, 0]) == pytest.approx(exact, abs=0.01)
    assert stats.ks_2samp(swapped[:, 0], all_of_them).pvalue > 0.01


def test_the_swap_test_keeps_its_level():
    rng = np.random.default_rng(7)
    p = [
        share_as_extreme(d.sum(), swapped_sums([d], draws=199, seed=trial)[0][:, 0])
        for trial, d in enumerate(rng.normal(size=(400, 30, 1)))
    ]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04: times 4, 3, 2, 1, never falling.
    assert holm([0.02, 0.01, 0.04, 0.03]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    rng = np.random.default_rng(0)
    for p in rng.random((20, 6)):
        order = np.argsort(p)
        expected = [
            min(1, max((6 - rank) * p[order[rank]] for rank in range(place + 1))) for place in range(6)
        ]
        assert np.array(holm(p))[order] == pytest.approx(expected)
