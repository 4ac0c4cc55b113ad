"""How sure a figure is: paired bootstrap over rows or groups, exact McNemar, sign-flip permutation over groups.

All predictors of a table are resampled by the same draws, so that their differences are paired. Everything here is
conditional on the trained networks: it says what other test rows would do, not what other trainings would.
"""

from __future__ import annotations

import numpy as np

_CHUNK_NUMBERS = 8_000_000  # float64 counts held at a time: 64 MB
LEVEL = 0.95


def resampled_sums(statistics: np.ndarray, groups: np.ndarray, *, draws: int, seed: int) -> np.ndarray:
    """(draws, s) sums of per-row statistics over bootstrap samples of the groups.

    Parameters
    ----------
    statistics : (n, s) float64
    groups : (n,) int
        Rows of one group are drawn together; all different for a bootstrap over rows.
    draws, seed : int
    """
    numbers, where = np.unique(groups, return_inverse=True)
    size = len(numbers)
    if size == len(groups):
        totals = statistics
    else:
        totals = np.zeros((size, statistics.shape[1]))
        np.add.at(totals, where.reshape(-1), statistics)
    random = np.random.default_rng(seed)
    sums = np.empty((draws, statistics.shape[1]))
    step = max(1, _CHUNK_NUMBERS // size)
    for start in range(0, draws, step):
        stop = min(start + step, draws)
        drawn = random.integers(0, size, size=(stop - start, size), dtype=np.int32)
        drawn += (np.arange(stop - start, dtype=np.int32) * size)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=(stop - start) * size).reshape(-1, size)
        sums[start:stop] = counts.astype(np.float64) @ totals
    return sums


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of (draws,) values; draws in which a figure is not defined are left out."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def mcnemar(right: np.ndarray, other: np.ndarray) -> float:
    """Exact two-sided p that two predictors, right on (n,) bool rows, are right equally often.

    McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12 (1947).
    """
    from scipy.stats import binomtest

    gained, lost = int(np.sum(right & ~other)), int(np.sum(other & ~right))
    return 1.0 if gained + lost == 0 else float(binomtest(gained, gained + lost).pvalue)


def sign_flip(differences: np.ndarray, groups: np.ndarray, *, draws: int, seed: int) -> float:
    """Two-sided p that (n,) row differences are symmetric about 0, groups flipped as a whole."""
    _, where = np.unique(groups, return_inverse=True)
    totals = np.bincount(where.reshape(-1), weights=differences)
    totals = totals[totals != 0]
    if not len(totals):
        return 1.0
    random = np.random.default_rng(seed)
    extreme, step = 0, max(1, _CHUNK_NUMBERS // len(totals))
    # A little slack, as sums in another order differ in their last digits.
    limit = abs(totals.sum()) * (1 - 1e-12)
    for start in range(0, draws, step):
        signs = random.integers(0, 2, size=(min(step, draws - start), len(totals)), dtype=np.int8)
        extreme += int(np.sum(np.abs((2.0 * signs - 1.0) @ totals) >= limit))
    return (extreme + 1) / (draws + 1)
