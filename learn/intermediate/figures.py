"""What the codes add inside the network: every arm's figures and their paired differences, averaged over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..measures.intervals import percentile_interval, resampled_sums
from ..measures.metrics import metric_names, metrics_of, own_statistics, shared_statistics
from ..measures.results import plain

# what is compared with what; the first is the answer
DIFFERENCES = (
    ("codes", "masked"),
    ("permuted", "masked"),
    ("codes", "permuted"),
    ("codes", "2d"),
    ("masked", "2d"),
    ("permuted", "2d"),
)


def compare(
    values: Mapping[str, Sequence[np.ndarray]],
    truth: np.ndarray,
    groups: np.ndarray | None,
    *,
    task: str,
    draws: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Figures of each predictor and of their differences.

    Parameters
    ----------
    values : predictor -> one array per seed
        (n, k) log-probabilities, or (n, 2) valence and arousal; a predictor without seeds (``2d``) has one.
    truth : (n,) labels, or (n, 2) targets
    groups : (n,) int, resampled as wholes; None where rows stand for themselves
    task : ``classes`` or ``va``
    draws, seed : of the bootstrap

    Returns
    -------
    ``predictors`` and ``differences`` (named ``codes - masked``) -> metric -> value, low, high, seeds

    Notes
    -----
    A figure is the mean over seeds of the metric of each, never the metric of their mean: an ensemble is another
    predictor. All are resampled by the same draws, and a difference is taken within each draw. Intervals are over rows
    and conditional on the trained networks; ``seeds`` has the figure of each training.
    """
    unit = np.arange(len(truth)) if groups is None else groups
    width = next(iter(values.values()))[0].shape[1]
    parts = [shared_statistics(truth, task, width)]
    parts += [own_statistics(array, truth, task) for arrays in values.values() for array in arrays]
    matrix = np.hstack(parts)
    spans = np.split(np.arange(matrix.shape[1]), np.cumsum([part.shape[1] for part in parts])[:-1])
    sums = np.vstack([matrix.sum(axis=0), resampled_sums(matrix, unit, draws=draws, seed=seed)])
    shared, rest = sums[:, spans[0]], iter(spans[1:])
    # predictor -> metric -> (seeds, 1 + draws); the first column is the sample itself
    measured = {
        name: _by_metric([metrics_of(shared, sums[:, next(rest)], task) for _ in arrays], task)
        for name, arrays in values.items()
    }
    # a predictor without seeds is the same for all of the other's
    differences = {
        f"{one} - {other}": {
            metric: _figure(measured[one][metric] - measured[other][metric]) for metric in metric_names(task)
        }
        for one, other in DIFFERENCES
        if one in measured and other in measured
    }
    predictors = {
        name: {metric: _figure(array) for metric, array in metrics.items()}
        for name, metrics in measured.items()
    }
    return {"predictors": predictors, "differences": differences}


def _by_metric(seeds: list[dict[str, np.ndarray]], task: str) -> dict[str, np.ndarray]:
    return {metric: np.stack([found[metric] for found in seeds]) for metric in metric_names(task)}


def _figure(seeds: np.ndarray) -> dict[str, Any]:
    mean = seeds.mean(axis=0)
    low, high = percentile_interval(mean[1:])
    return {
        "value": plain(mean[0]),
        "low": plain(low),
        "high": plain(high),
        "seeds": [plain(value) for value in seeds[:, 0]],
    }
