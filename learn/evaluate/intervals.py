"""Paired bootstrap intervals, randomisation tests, and corrections for multiple tests.

All predictors of a table are resampled by the same draws, so that their differences are paired. The unit is the row,
or the group (person, video) where the data have groups. As every metric is a function of summed statistics, a draw is
a row of a matrix product and the jackknife a subtraction. All of this is conditional on the fitted models: it describes
other test rows, not other trainings (except intervals of intermediate fusion over several trainings).

With 50 rows or groups and more, metric values have BCa intervals and differences have percentile intervals. A
difference in accuracy depends on the few rows that only one of two predictors gets right, and there BCa is
anti-conservative: if two predictors are equally good and on average 6 of 200 rows distinguish them, its interval
excludes 0 in 9.3 % of trials, the percentile interval in 4.8 % (1,500 trials, without the half rows below).

Percentile intervals of such differences are too narrow if almost no row is classified correctly by only one of the
two. With 2 such rows of the first predictor and none of the second, no sample is below 0. Half a row of each kind is
therefore added, on average, to every bootstrap sample of a difference (:func:`half_rows`). In the 200 data sets "noise,
n = 1,000" of scripts/simulate_claims.py, 0 to 46 of 1,000 rows (median 10) are classified correctly by only one of
the two; in 38 data sets these are 0 to 2 rows. The intervals of accuracy cover the true difference in 96 % of the
data sets, and without the half rows in 86 %, because those of the 38 data sets cover it in 55 % only.

Below 50 rows or groups all intervals are expanded percentile intervals: plain ones of 5 to 10 groups cover 80 to 88 %.

References
----------
Efron, Better bootstrap confidence intervals, JASA 82 (1987).
Agresti and Min, Simple improved confidence intervals for comparing matched proportions, Statistics in Medicine 24
(2005): half an observation is added to each cell of the table of right and wrong answers, of which the half rows are
a variant for the bootstrap.
Noreen, Computer-intensive methods for testing hypotheses (1989): outputs of two systems are exchanged at random.
Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979).
Hesterberg, What teachers should know about the bootstrap, The American Statistician 69 (2015): expanded percentiles.
Westfall and Young, Resampling-based multiple testing (1993): the maximum of all test statistics (single-step max-T).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from ..products import product

_CHUNK_NUMBERS = 2_000_000  # counts held at a time: 16 MB
_EXACT = 2**24  # whole numbers below it are exact in float32
LEVEL = 0.95
# Rows or groups up to which no claim, gain or other statement is based on intervals or tests: their intervals are not
# reliable, and exchanges of 5 give no p below 2 / 2^5 = .06.
FEW_UNITS = 5
EXPANDED_BELOW = 50  # rows or groups; from there on intervals would be at most 3.6 % wider


def group_totals(statistics: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(g, s) sums of per-row statistics (n, s) over the groups (n,), in the order of their numbers."""
    numbers, where = np.unique(groups, return_inverse=True)
    if len(numbers) == len(groups):
        return statistics[np.argsort(where.reshape(-1))]
    totals = np.zeros((len(numbers), statistics.shape[1]))
    np.add.at(totals, where.reshape(-1), statistics)
    return totals


def bootstrap_sums(blocks: Sequence[np.ndarray], *, draws: int, seed: int) -> list[np.ndarray]:
    """(draws, s) sums of each block of group totals (g, s) over the same bootstrap samples of the g groups."""
    random = np.random.default_rng(seed)
    size = len(blocks[0])

    def counts(step: int) -> np.ndarray:
        drawn = random.integers(0, size, size=(step, size), dtype=np.int32)
        drawn += (np.arange(step, dtype=np.int32) * size)[:, None]
        return np.bincount(drawn.reshape(-1), minlength=step * size).reshape(step, size)

    return _products(blocks, counts, draws)


def half_rows(counts: np.ndarray, *, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts that are added to the bootstrap samples of a difference of two predictors.

    Each sample gets a Poisson number (mean 1/2) of rows that only the first predictor gets right, and another one of
    rows that only the second gets right. In each sample, all rows of a kind
    have one true class and one wrong prediction, drawn independently by the shares of the classes; the two may
    coincide. They are added to the counts of predictions and of right predictions; the number of rows, and the
    number of rows of each class, stay as they are.

    Parameters
    ----------
    counts : (k,) rows of each class
    draws, seed : of the bootstrap

    Returns
    -------
    first, second : (draws, 2k)
        Predictions and right predictions of each class by the first and by the second predictor.
    """
    random = np.random.default_rng([seed, 5])
    numbers = random.poisson(0.5, (2, draws, 1))
    shares = counts / counts.sum()
    right, wrong = np.eye(len(counts))[random.choice(len(counts), (2, 2, draws), p=shares)]
    hits, misses = numbers * right, numbers[::-1] * wrong
    first, second = np.concatenate([hits + misses, hits], axis=2)
    return first, second


def swapped_sums(blocks: Sequence[np.ndarray], *, draws: int, seed: int) -> list[np.ndarray]:
    """(draws, s) sums of each block of group differences (g, s), each group with a random sign."""
    random = np.random.default_rng(seed)
    size = len(blocks[0])

    def kept(step: int) -> np.ndarray:
        bits = np.unpackbits(np.frombuffer(random.bytes((step * size + 7) // 8), np.uint8), count=step * size)
        return bits.reshape(step, size)

    sums = _products(blocks, kept, draws)
    return [2 * of - block.sum(axis=0) for of, block in zip(sums, blocks, strict=True)]


def _products(
    blocks: Sequence[np.ndarray], weights: Callable[[int], np.ndarray], draws: int
) -> list[np.ndarray]:
    """Products of (draws, g) integer weights, which are created in parts, and each block (g, s)."""
    sums = [np.zeros((draws, block.shape[1])) for block in blocks]
    parts = []
    for block, out in zip(blocks, sums, strict=True):
        rows, whole = np.flatnonzero(block.any(axis=1)), _whole_columns(block)
        if len(rows):
            parts.append((out, rows, whole, block[rows][:, whole].astype(np.float32), block[rows][:, ~whole]))
    # rounded sums are computed on one thread, so that their last digits do not depend on the number of cores
    blas = ThreadpoolController()
    for start, stop in _chunks(draws, len(blocks[0])):
        weight = weights(stop - start)
        for out, rows, whole, exact, rest in parts:
            used = weight if len(rows) == weight.shape[1] else weight[:, rows]
            if whole.any():
                out[start:stop, whole] = product(used.astype(np.float32), exact)
            if not whole.all():
                with blas.limit(limits=1, user_api="blas"):
                    out[start:stop, ~whole] = product(used.astype(np.float64), rest)
    return sums


def _chunks(draws: int, size: int) -> Iterator[tuple[int, int]]:
    step = max(1, _CHUNK_NUMBERS // max(size, 1))
    return ((start, min(start + step, draws)) for start in range(0, draws, step))


def _whole_columns(block: np.ndarray) -> np.ndarray:
    """(s,) bool: columns of integers whose weighted sums are exact in float32."""
    whole = (block == np.rint(block)).all(axis=0)
    return np.asarray(whole & (np.abs(block).max(axis=0, initial=0) * max(len(block), 1) < _EXACT))


def expansion(units: int) -> float:
    """Factor by which the spread of bootstrap samples of few rows or groups has to be expanded; 1 from 50 on.

    The bootstrap divides by n and not by n - 1, and its percentiles correspond to normal, not to Student, quantiles.
    """
    from scipy.special import ndtri, stdtrit

    if units >= EXPANDED_BELOW or units < 2:
        return 1.0
    ends = stdtrit(units - 1, (1 + LEVEL) / 2) / ndtri((1 + LEVEL) / 2)
    return float(np.sqrt(units / (units - 1)) * ends)


def percentile_interval(values: np.ndarray, units: int = EXPANDED_BELOW) -> tuple[float, float]:
    """95 % percentile interval of (draws,) values, expanded where they are of few rows or groups.

    Draws in which a figure is not defined are left out.
    """
    from scipy.special import ndtr, ndtri

    low = (1 - LEVEL) / 2
    if units < EXPANDED_BELOW:
        low = float(ndtr(expansion(units) * ndtri(low)))
    return _at(values[np.isfinite(values)], low, 1 - low)


def bca_interval(value: float, drawn: np.ndarray, jackknife: np.ndarray) -> tuple[float, float]:
    """95 % bias-corrected and accelerated interval of one figure; the expanded percentile one below 50 groups.

    Parameters
    ----------
    value : the figure itself
    drawn : (draws,) the figure in every bootstrap sample; samples in which it is not defined are left out
    jackknife : (g,) the figure with one group left out at a time

    Returns
    -------
    low, high
        Of the percentile method where the correction is not defined (all samples on one side of the value).
    """
    from scipy.special import ndtr, ndtri

    finite = drawn[np.isfinite(drawn)]
    if not len(finite) or not np.isfinite(value):
        return float("nan"), float("nan")
    if len(jackknife) < EXPANDED_BELOW:
        return percentile_interval(finite, len(jackknife))
    slack = 1e-12 * max(1.0, abs(value))  # sums in another order differ in their last digits
    below, equal = np.sum(finite < value - slack), np.sum(np.abs(finite - value) <= slack)
    bias = ndtri((below + equal / 2) / len(finite))
    left = jackknife[np.isfinite(jackknife)]
    influence = left.mean() - left if len(left) else np.zeros(1)
    spread = np.sum(influence**2)
    if not np.isfinite(bias) or spread <= slack**2:
        return percentile_interval(finite)
    pull = np.sum(influence**3) / (6 * spread**1.5)
    ends = bias + ndtri([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = ndtr(bias + ends / (1 - pull * ends))
    return _at(finite, low, high)


def _at(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    if not len(values):
        return float("nan"), float("nan")
    first, last = np.percentile(values, [100 * low, 100 * high])
    return float(first), float(last)


def chance_of(confusion: np.ndarray) -> tuple[float, float]:
    """Chance accuracy, and the one-sided binomial p of the hypothesis that predictions are at chance.

    Chance accuracy is that of the same predictions in random order, as in Cohen's kappa. The test is approximate,
    because it treats this share as fixed although it is estimated from the same table.

    Parameters
    ----------
    confusion : (k, k) counts, truth by prediction

    References
    ----------
    Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20 (1960).
    """
    from scipy.stats import binomtest

    n = round(confusion.sum())
    share = float(confusion.sum(axis=1) @ confusion.sum(axis=0)) / max(n, 1) ** 2
    right = round(np.trace(confusion))
    return share, float(binomtest(right, n, min(share, 1.0), alternative="greater").pvalue) if n else 1.0


def share_as_extreme(value: float, swapped: np.ndarray) -> float:
    """Two-sided p of a difference against (draws,) differences under swaps; the value itself counts as a draw.

    Draws in which the difference is not defined are left out.
    """
    limit = abs(value) * (1 - 1e-12) - 1e-15
    defined = swapped[np.isfinite(swapped)]
    extreme = int(np.sum(np.abs(defined) >= limit))
    return (extreme + 1) / (len(defined) + 1)


def holm(p: Sequence[float]) -> list[float]:
    """p-values of one family, adjusted so that the chance of any false rejection stays below the level.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    steps = np.minimum(np.maximum.accumulate((len(values) - np.arange(len(values))) * values[order]), 1)
    adjusted = np.empty(len(values))
    adjusted[order] = steps
    return [float(value) for value in adjusted]


class Difference(NamedTuple):
    """A difference, its (draws,) bootstrap samples, and the number of rows or groups that were resampled."""

    value: float
    drawn: np.ndarray
    units: int


def max_t(family: Sequence[Difference]) -> list[float | None]:
    """Two-sided p-values of one family of differences, adjusted by the bootstrap maximum of their t statistics.

    The samples of all differences must be of the same draws. Below 50 rows or groups they are expanded as intervals
    are.

    Returns
    -------
    list
        For each difference the share of samples in which some difference of the family is as far from its value, in
        standard errors, as this one is from 0. None where a difference has no spread or is not defined.
    """
    most: np.ndarray | None = None
    statistics: list[float | None] = []
    for value, samples, units in family:
        spread = float(np.std(samples)) if np.isfinite(samples).all() else float("nan")
        if not (np.isfinite(value) and spread > 1e-12):
            statistics.append(None)
            continue
        statistics.append(abs(value) / spread)
        apart = np.abs(samples - value) * (expansion(units) / spread)
        most = apart if most is None else np.maximum(most, apart, out=most)
    if most is None:
        return [None] * len(statistics)
    ordered = np.sort(most)
    return [
        None if t is None else float((1 + len(ordered) - np.searchsorted(ordered, t)) / (1 + len(ordered)))
        for t in statistics
    ]
