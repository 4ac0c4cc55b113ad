"""Metrics as functions of summed per-row statistics, so that a bootstrap draw is one row of a matrix product.

A metric is one entry of ``METRICS``. Conventions: labels are indices 0 ... k-1; class predictions are natural
logarithms of probabilities; valence and arousal are columns 0 and 1. Moments are those of the population (divided by
n). *Joint* means valence and arousal concatenated to one vector. For each predictor there are ``shared`` statistics of
the truth and ``own`` ones; a metric takes their sums over rows, with any weights, in the last axis.

Notes
-----
There is one CCC here: Lin's, 2 cov / (var + var + (difference of means)^2), with every moment divided by n. The code of
Ig3D divides its covariance by n - 1 and its variances by n, which makes its figures larger by the factor n / (n - 1):
on the 3,991 rows of its valence-arousal tables a relative difference of .00025, .00013 for both dimensions together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

# scikit-learn clips probabilities here as well.
_LOG_FLOOR = float(np.log(np.finfo(np.float64).eps))


class ClassSums(NamedTuple):
    """Sums over rows: their number (...), and labels, predictions and right predictions of each class (..., k)."""

    n: np.ndarray
    support: np.ndarray
    predicted: np.ndarray
    hits: np.ndarray


class ValueSums(NamedTuple):
    """Sums over rows: their number (...), and moments of truth t and prediction p, and squared errors (..., 2)."""

    n: np.ndarray
    t: np.ndarray
    tt: np.ndarray
    p: np.ndarray
    pp: np.ndarray
    pt: np.ndarray
    error: np.ndarray


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: how it is computed and how it is shown.

    Attributes
    ----------
    title, head : in a sentence, and above a column
    task : ``classes`` or ``va``
    sums : function of :class:`ClassSums` or :class:`ValueSums`, or
    mean : function of values and truth that gives (n,) numbers, whose mean the metric is
        A metric without either is computed elsewhere and has no bootstrap.
    percent : shown in per cent; differences in points
    lower : whether lower is better
    shown : whether it is a column of tables, or in the files only
    """

    title: str
    head: str
    task: str
    sums: Callable[[Any], np.ndarray] | None = None
    mean: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    percent: bool = False
    lower: bool = False
    shown: bool = True


def _balanced(sums: ClassSums) -> np.ndarray:
    occurs = sums.support > 0
    recall = np.where(occurs, sums.hits / np.where(occurs, sums.support, 1), 0)
    return np.asarray(recall.sum(axis=-1) / occurs.sum(axis=-1))


def _macro_f1(sums: ClassSums) -> np.ndarray:
    total = sums.support + sums.predicted
    either = total > 0
    # A class that neither occurs nor is predicted has no F1; scikit-learn leaves it out of the mean as well.
    f1 = np.where(either, 2 * sums.hits / np.where(either, total, 1), 0)
    return np.asarray(f1.sum(axis=-1) / either.sum(axis=-1))


def _log_loss(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.asarray(-np.maximum(values[np.arange(len(truth)), truth], _LOG_FLOOR))


def _brier(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.asarray(((np.exp(values) - np.eye(values.shape[1])[truth]) ** 2).sum(axis=1))


def _rmse(column: int) -> Callable[[ValueSums], np.ndarray]:
    return lambda sums: np.sqrt(np.maximum(sums.error, 0) / sums.n[..., None])[..., column]


def _rmse_joint(sums: ValueSums) -> np.ndarray:
    return np.asarray(np.sqrt(np.maximum(sums.error.sum(axis=-1), 0) / (2 * sums.n)))


def _ccc(column: int) -> Callable[[ValueSums], np.ndarray]:
    return lambda sums: _concordance(sums.n[..., None], *sums[1:6])[..., column]


def _ccc_joint(sums: ValueSums) -> np.ndarray:
    return _concordance(2 * sums.n, *(of.sum(axis=-1) for of in sums[1:6]))


def _concordance(
    n: np.ndarray, t: np.ndarray, tt: np.ndarray, p: np.ndarray, pp: np.ndarray, pt: np.ndarray
) -> np.ndarray:
    """Lin's concordance 2 cov / (var + var + (mean - mean)^2) from sums; NaN where both are the same constant.

    Lin, A concordance correlation coefficient to evaluate reproducibility, Biometrics 45 (1989).
    """
    mean_t, mean_p = t / n, p / n
    var_t = np.maximum(tt / n - mean_t**2, 0)
    var_p = np.maximum(pp / n - mean_p**2, 0)
    return np.asarray(2 * (pt / n - mean_t * mean_p) / (var_t + var_p + (mean_t - mean_p) ** 2))


# In the order of tables.
METRICS = {
    "accuracy": Metric(
        "accuracy", "acc", "classes", sums=lambda of: of.hits.sum(axis=-1) / of.n, percent=True
    ),
    "balanced_accuracy": Metric("balanced accuracy", "bal", "classes", sums=_balanced, percent=True),
    "macro_f1": Metric("macro-F1", "macro-F1", "classes", sums=_macro_f1, percent=True),
    "log_loss": Metric("log loss", "log loss", "classes", mean=_log_loss, lower=True),
    "brier": Metric("Brier score", "Brier", "classes", mean=_brier, lower=True, shown=False),
    "ece": Metric("ECE", "ECE", "classes", percent=True, lower=True, shown=False),
    "ece_adaptive": Metric(
        "ECE, bins of equal size", "ECE eq.", "classes", percent=True, lower=True, shown=False
    ),
    "recall": Metric("recall", "recall", "classes", percent=True, shown=False),
    "refinement": Metric("refinement loss", "refinement", "classes", lower=True, shown=False),
    "calibration_loss": Metric("calibration loss", "calibration", "classes", lower=True, shown=False),
    "rmse_valence": Metric("RMSE of valence", "RMSE V", "va", sums=_rmse(0), lower=True),
    "rmse_arousal": Metric("RMSE of arousal", "RMSE A", "va", sums=_rmse(1), lower=True),
    "rmse_joint": Metric("joint RMSE", "RMSE VA", "va", sums=_rmse_joint, lower=True),
    "ccc_valence": Metric("CCC of valence", "CCC V", "va", sums=_ccc(0)),
    "ccc_arousal": Metric("CCC of arousal", "CCC A", "va", sums=_ccc(1)),
    "ccc_joint": Metric("joint CCC", "CCC VA", "va", sums=_ccc_joint),
}
# The metrics of the effect size and of the differences in tables; every run has them.
LEADING = {"classes": ("accuracy", "macro_f1"), "va": ("ccc_joint", "rmse_joint")}
LOWER_IS_BETTER = frozenset(name for name, metric in METRICS.items() if metric.lower)


def metric_names(task: str) -> tuple[str, ...]:
    """Metrics of a task that have intervals, in the order of tables."""
    return tuple(
        name
        for name, of in METRICS.items()
        if of.task == task and (of.sums is not None or of.mean is not None)
    )


def better_by(metric: str, difference: float) -> float:
    """A difference with the sign of a gain: positive where it is on the better side."""
    return -difference if METRICS[metric].lower else difference


def shared_statistics(truth: np.ndarray, task: str, k: int) -> np.ndarray:
    """(n, s) float64 statistics of the truth: labels (n,) of k classes, or targets (n, 2)."""
    ones = np.ones((len(truth), 1))
    if task == "va":
        return np.hstack([ones, truth, truth**2])
    return np.hstack([ones, np.eye(k)[truth]])


def own_statistics(values: np.ndarray, truth: np.ndarray, task: str) -> np.ndarray:
    """(n, s) float64 statistics of one predictor: log-probabilities (n, k), or values (n, 2)."""
    means = [of.mean(values, truth)[:, None] for of in METRICS.values() if of.task == task and of.mean]
    if task == "va":
        return np.hstack([values, values**2, values * truth, (values - truth) ** 2, *means])
    predicted, true = np.eye(values.shape[1])[values.argmax(axis=1)], np.eye(values.shape[1])[truth]
    return np.hstack([predicted, predicted * true, *means])


def sums_of(shared: np.ndarray, own: np.ndarray, task: str) -> ClassSums | ValueSums:
    """Summed statistics (..., s) by name."""
    n = shared[..., 0]
    if task == "va":
        return ValueSums(n, shared[..., 1:3], shared[..., 3:5], *(own[..., i : i + 2] for i in (0, 2, 4, 6)))
    k = shared.shape[-1] - 1
    return ClassSums(n, shared[..., 1:], own[..., :k], own[..., k : 2 * k])


def column_of(metric: str, k: int) -> int:
    """Column of the own statistics whose mean a metric is."""
    task = METRICS[metric].task
    means = [name for name, of in METRICS.items() if of.task == task and of.mean]
    return (8 if task == "va" else 2 * k) + means.index(metric)


def metrics_of(shared: np.ndarray, own: np.ndarray, task: str) -> dict[str, np.ndarray]:
    """Metrics from summed statistics (..., s), each of shape (...); NaN where a metric is not defined."""
    sums, k = sums_of(shared, own, task), shared.shape[-1] - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            name: metric.sums(sums) if metric.sums else own[..., column_of(name, k)] / sums.n
            for name, metric in METRICS.items()
            if metric.task == task and (metric.sums or metric.mean)
        }


def recalls_of(shared: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(..., k) recall of every class from summed statistics (..., s); NaN for a class that does not occur."""
    k = shared.shape[-1] - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(shared[..., 1:] > 0, own[..., k : 2 * k] / shared[..., 1:], np.nan)


def measure(values: np.ndarray, truth: np.ndarray, task: str) -> dict[str, float]:
    """All metrics of one predictor over all rows.

    Parameters
    ----------
    values : (n, k) log-probabilities, or (n, 2) valence and arousal
    truth : (n,) labels, or (n, 2) targets
    task : ``classes`` or ``va``

    Examples
    --------
    >>> values = np.log([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    >>> round(measure(values, np.array([0, 1, 1]), "classes")["accuracy"], 3)
    0.667
    """
    shared = shared_statistics(truth, task, values.shape[1]).sum(axis=0)
    own = own_statistics(values, truth, task).sum(axis=0)
    return {name: float(value) for name, value in metrics_of(shared, own, task).items()}
