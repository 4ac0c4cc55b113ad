"""Reliability bins and the expected calibration error.

The confidence of a row is its greatest probability; a bin compares the mean confidence of its rows with the share of
them that are right. The calibration error has no interval: it is biased upwards in bootstrap samples, for any
predictor, so that intervals would be too high.
The Brier score and the log loss (:mod:`.metrics`) measure calibration and sharpness together, with intervals.

References
----------
Guo et al., On calibration of modern neural networks, ICML 2017 (equal width).
Nguyen and O'Connor, Posterior calibration and exploratory analysis for natural language processing models, EMNLP 2015
(adaptive: bins of equal size).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of rows by confidence, without empty bins.

    Attributes
    ----------
    low, high : (b,) confidences that bound a bin
    rows : (b,) int
    confidence, accuracy : (b,) means over the rows of a bin
    """

    low: np.ndarray
    high: np.ndarray
    rows: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean of |confidence - accuracy| over bins, weighted by rows."""
        return float(np.sum(self.rows * np.abs(self.confidence - self.accuracy)) / self.rows.sum())


def reliability(values: np.ndarray, truth: np.ndarray, *, adaptive: bool = False) -> Reliability:
    """Reliability of log-probabilities (n, k) against labels (n,).

    Parameters
    ----------
    values, truth : with at least one row
    adaptive : bool
        15 bins with equal numbers of rows (as far as n allows), instead of equal width in [0, 1].
    """
    confidence = np.exp(values.max(axis=1))
    right = values.argmax(axis=1) == truth
    if adaptive:
        order = np.argsort(confidence, kind="stable")
        bins = np.empty(len(order), np.intp)
        bins[order] = np.arange(len(order)) * min(BINS, len(order)) // len(order)
    else:
        # A bin contains its upper bound, as in the literature; rounding may take 1 out of the last bin.
        bins = np.clip(np.ceil(confidence * BINS).astype(np.intp) - 1, 0, BINS - 1)
    rows = np.bincount(bins, minlength=BINS)
    used = rows > 0
    means = [np.bincount(bins, weights=of, minlength=BINS)[used] / rows[used] for of in (confidence, right)]
    if adaptive:
        low, high = np.full(BINS, np.inf), np.zeros(BINS)
        np.minimum.at(low, bins, confidence)
        np.maximum.at(high, bins, confidence)
    else:
        low, high = np.arange(BINS) / BINS, (np.arange(BINS) + 1) / BINS
    return Reliability(low[used], high[used], rows[used], means[0], means[1])
