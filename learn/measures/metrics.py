"""Metrics as functions of summed per-row statistics, so that a bootstrap draw is one row of a matrix product.

Conventions: labels are indices 0 ... k-1; class predictions are natural logarithms of probabilities; valence and
arousal are columns 0 and 1. Moments are those of the population (divided by n). *Joint* means valence and arousal
concatenated to one vector. For each predictor there are ``shared`` statistics of the truth and ``own`` ones; a metric
takes their sums over rows, with any weights, in the last axis.

Notes
-----
There is one CCC here: Lin's, 2 cov / (var + var + (difference of means)^2), with every moment divided by n. The code of
Ig3D divides its covariance by n - 1 and its variances by n, which makes its figures larger by the factor n / (n - 1):
on the 3,991 rows of its valence-arousal tables a relative difference of .00025, .00013 for both dimensions together.
"""

from __future__ import annotations

import numpy as np

CLASS_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier")
VA_METRICS = ("rmse_valence", "rmse_arousal", "rmse_joint", "ccc_valence", "ccc_arousal", "ccc_joint")
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "rmse_valence", "rmse_arousal", "rmse_joint"})
# scikit-learn clips probabilities here as well.
_LOG_FLOOR = float(np.log(np.finfo(np.float64).eps))


def metric_names(task: str) -> tuple[str, ...]:
    """Metrics of a task, in the order of the table."""
    return VA_METRICS if task == "va" else CLASS_METRICS


def shared_statistics(truth: np.ndarray, task: str, k: int) -> np.ndarray:
    """(n, s) float64 statistics of the truth: labels (n,) of k classes, or targets (n, 2)."""
    ones = np.ones((len(truth), 1))
    if task == "va":
        return np.hstack([ones, truth, truth**2])
    return np.hstack([ones, np.eye(k)[truth]])


def own_statistics(values: np.ndarray, truth: np.ndarray, task: str) -> np.ndarray:
    """(n, s) float64 statistics of one predictor: log-probabilities (n, k), or values (n, 2)."""
    if task == "va":
        return np.hstack([values, values**2, values * truth, (values - truth) ** 2])
    said, true = np.eye(values.shape[1])[values.argmax(axis=1)], np.eye(values.shape[1])[truth]
    loss = -np.maximum(values[np.arange(len(truth)), truth], _LOG_FLOOR)
    squares = ((np.exp(values) - true) ** 2).sum(axis=1)
    return np.hstack([said, said * true, loss[:, None], squares[:, None]])


def metrics_of(shared: np.ndarray, own: np.ndarray, task: str) -> dict[str, np.ndarray]:
    """Metrics from summed statistics (..., s), each of shape (...); NaN where a metric is not defined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _va_metrics(shared, own) if task == "va" else _class_metrics(shared, own)


def recalls_of(shared: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(..., k) recall of every class from summed statistics (..., s); NaN for a class that does not occur."""
    support = shared[..., 1:]
    k = support.shape[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(own[..., k : 2 * k] / support)


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


def _class_metrics(shared: np.ndarray, own: np.ndarray) -> dict[str, np.ndarray]:
    n, support = shared[..., 0], shared[..., 1:]
    k = support.shape[-1]
    said, hits = own[..., :k], own[..., k : 2 * k]
    seen = support > 0
    recall = np.where(seen, hits / np.where(seen, support, 1), 0)
    either = support + said > 0
    # A class that neither occurs nor is predicted has no F1; scikit-learn leaves it out of the mean as well.
    f1 = np.where(either, 2 * hits / np.where(either, support + said, 1), 0)
    return {
        "accuracy": hits.sum(axis=-1) / n,
        "balanced_accuracy": recall.sum(axis=-1) / seen.sum(axis=-1),
        "macro_f1": f1.sum(axis=-1) / either.sum(axis=-1),
        "log_loss": own[..., 2 * k] / n,
        "brier": own[..., 2 * k + 1] / n,
    }


def _ccc(
    n: np.ndarray, t: np.ndarray, tt: np.ndarray, p: np.ndarray, pp: np.ndarray, pt: np.ndarray
) -> np.ndarray:
    """Lin's concordance 2 cov / (var + var + (mean - mean)^2) from sums; NaN where both are the same constant.

    Lin, A concordance correlation coefficient to evaluate reproducibility, Biometrics 45 (1989).
    """
    mean_t, mean_p = t / n, p / n
    var_t = np.maximum(tt / n - mean_t**2, 0)
    var_p = np.maximum(pp / n - mean_p**2, 0)
    return np.asarray(2 * (pt / n - mean_t * mean_p) / (var_t + var_p + (mean_t - mean_p) ** 2))


def _va_metrics(shared: np.ndarray, own: np.ndarray) -> dict[str, np.ndarray]:
    n, t, tt = shared[..., 0], shared[..., 1:3], shared[..., 3:5]
    p, pp, pt, error = own[..., 0:2], own[..., 2:4], own[..., 4:6], own[..., 6:8]
    rmse = np.sqrt(np.maximum(error, 0) / n[..., None])
    ccc = _ccc(n[..., None], t, tt, p, pp, pt)
    joint = _ccc(2 * n, *(sums.sum(axis=-1) for sums in (t, tt, p, pp, pt)))
    return {
        "rmse_valence": rmse[..., 0],
        "rmse_arousal": rmse[..., 1],
        "rmse_joint": np.sqrt(np.maximum(error.sum(axis=-1), 0) / (2 * n)),
        "ccc_valence": ccc[..., 0],
        "ccc_arousal": ccc[..., 1],
        "ccc_joint": joint,
    }
