"""Complementarity of two predictors: where each is right, correlation of their errors, bounds of a fusion.

Every measure is a function of summed per-row statistics, those of :mod:`.metrics` and one *cross* statistic per pair,
so that a bootstrap gives intervals. Both predictors need a prediction in every row that is summed.

References
----------
Kuncheva and Whitaker, Measures of diversity in classifier ensembles, Machine Learning 51 (2003): Q, correlation,
disagreement, double fault.
"""

from __future__ import annotations

import numpy as np

_VA_PARTS = ("valence", "arousal")
# Measures that are shares of rows.
SHARES = frozenset(
    {"both_right", "only_first", "only_second", "double_fault", "disagreement", "oracle", "rescued"}
)
# task -> measure -> title; ``{first}`` and ``{second}`` are the predictors
MEASURES = {
    "classes": {
        "both_right": "both right",
        "only_first": "only {first} right",
        "only_second": "only {second} right",
        "double_fault": "both wrong (double fault)",
        "disagreement": "one right, one wrong (disagreement)",
        "oracle": "at least one right (oracle)",
        "rescued": "of the rows that {first} gets wrong, {second} right",
        "phi": "phi correlation of correctness",
        "yule_q": "Yule's Q of correctness",
    },
    "va": {
        "error_correlation": "correlation of the errors",
        "first_alone": "lowest RMSE of a linear function of {first}, fitted to these rows",
        "both_linear": "lowest RMSE of a linear function of {first} and {second}, fitted to these rows",
        "gain_linear": "difference of these: highest linear gain by {second}",
    },
}


def cross_statistics(first: np.ndarray, second: np.ndarray, truth: np.ndarray, task: str) -> np.ndarray:
    """(n, 1) whether both are right, or (n, 2) products of the values: statistics of the pair."""
    if task == "va":
        return first * second
    return ((first.argmax(axis=1) == truth) & (second.argmax(axis=1) == truth))[:, None].astype(np.float64)


def complementarity_of(
    shared: np.ndarray, first: np.ndarray, second: np.ndarray, cross: np.ndarray, task: str
) -> dict[tuple[str, str], np.ndarray]:
    """Measures of a pair from summed statistics (..., s), each of shape (...); NaN where one is not defined.

    Keys are the measure and its dimension: valence, arousal, or empty for classes.

    Classes, as shares of the rows: ``both_right``, ``only_first``, ``only_second``, ``double_fault`` (neither is),
    ``disagreement`` (one is right, the other wrong), ``oracle`` (at least one is right: the most that any choice
    between the two answers can reach). ``rescued`` is the share of the first's errors where the second is right.
    ``phi`` and ``yule_q`` say how being right goes together, 0 where it does not, 1 where errors are the same.

    Valence-arousal, per dimension: ``error_correlation`` of the residuals; ``first_alone`` and ``both_linear`` are the
    RMSE of the best affine function of the first, and of both, fitted to these very rows: no stack does better on
    them. ``gain_linear`` is their difference, the most that the second can add linearly.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if task == "va":
            return _of_values(shared, first, second, cross)
        measures = _of_classes(shared, first, second, cross)
        return {(name, ""): values for name, values in measures.items()}


def _of_classes(
    shared: np.ndarray, first: np.ndarray, second: np.ndarray, cross: np.ndarray
) -> dict[str, np.ndarray]:
    n, k = shared[..., 0], shared.shape[-1] - 1
    right = [own[..., k : 2 * k].sum(axis=-1) / n for own in (first, second)]
    both = cross[..., 0] / n
    one, other = right[0] - both, right[1] - both
    neither = np.maximum(1 - both - one - other, 0)
    spread = np.sqrt(right[0] * (1 - right[0]) * right[1] * (1 - right[1]))
    agree, differ = both * neither, one * other
    return {
        "both_right": both,
        "only_first": one,
        "only_second": other,
        "double_fault": neither,
        "disagreement": one + other,
        "oracle": 1 - neither,
        "rescued": other / (1 - right[0]),
        "phi": (agree - differ) / spread,
        "yule_q": (agree - differ) / (agree + differ),
    }


def _of_values(
    shared: np.ndarray, first: np.ndarray, second: np.ndarray, cross: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    n = shared[..., 0]
    measures: dict[tuple[str, str], np.ndarray] = {}
    for column, part in enumerate(_VA_PARTS):
        t, tt = shared[..., 1 + column], shared[..., 3 + column]
        a, aa, at = (first[..., start + column] for start in (0, 2, 4))
        b, bb, bt = (second[..., start + column] for start in (0, 2, 4))

        def moment(xy: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
            return np.asarray(xy / n - x * y / n**2)

        var_t, var_a, var_b = moment(tt, t, t), moment(aa, a, a), moment(bb, b, b)
        cov_at, cov_bt, cov_ab = moment(at, a, t), moment(bt, b, t), moment(cross[..., column], a, b)
        error_a, error_b = var_a - 2 * cov_at + var_t, var_b - 2 * cov_bt + var_t
        together = cov_ab - cov_at - cov_bt + var_t
        alone = np.maximum(var_t - cov_at**2 / var_a, 0)
        # Part of the second that is no function of the first, and its covariance with the truth.
        rest = var_b - cov_ab**2 / var_a
        own = cov_bt - cov_ab * cov_at / var_a
        both = np.maximum(alone - np.where(rest > 1e-12 * var_b, own**2 / rest, 0), 0)
        measures |= {
            ("error_correlation", part): together / np.sqrt(error_a * error_b),
            ("first_alone", part): np.sqrt(alone),
            ("both_linear", part): np.sqrt(both),
            ("gain_linear", part): np.sqrt(alone) - np.sqrt(both),
        }
    return measures
