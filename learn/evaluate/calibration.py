"""Whether confidences are what they say: reliability bins and the expected calibration error.

The confidence of a row is the greatest of its probabilities; a bin compares the mean confidence of its rows with the
share of them that are right. Calibration error is given as a figure without an interval: a bootstrap sample of bins is
further from the diagonal than the rows themselves, for any predictor, so that its intervals would lie too high.
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
    """Bins of rows by confidence, those without a row left out.

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
        """Expected calibration error: mean over rows of the distance of their bin from the diagonal."""
        return float(np.sum(self.rows * np.abs(self.confidence - self.accuracy)) / self.rows.sum())


def reliability(values: np.ndarray, truth: np.ndarray, *, adaptive: bool = False) -> Reliability:
    """Reliability of log-probabilities (n, k) against labels (n,).

    Parameters
    ----------
    values, truth : of at least one row
    adaptive : bool
        Bins that hold equally many rows (as far as n allows), instead of 15 bins of equal width in [0, 1].
    """
    confidence = np.exp(values.max(axis=1))
    right = values.argmax(axis=1) == truth
    if adaptive:
        order = np.argsort(confidence, kind="stable")
        bins = np.empty(len(order), np.intp)
        bins[order] = np.arange(len(order)) * min(BINS, len(order)) // len(order)
    else:
        # A bin holds its upper bound, as in the literature; rounding may leave 1 by a digit.
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
