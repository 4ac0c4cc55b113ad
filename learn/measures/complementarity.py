"""Whether fusing two predictors can help at all: where each is right, how their errors go together, what is the most.

Everything is a function of summed per-row statistics, those of :mod:`.metrics` and one *cross* statistic per pair, so
that a bootstrap gives intervals. Both predictors have to be there in every row that is summed.

References
----------
Kuncheva and Whitaker, Measures of diversity in classifier ensembles, Machine Learning 51 (2003): Q, correlation,
disagreement, double fault.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_VA_PARTS = ("valence", "arousal")


def cross_statistics(first: np.ndarray, second: np.ndarray, truth: np.ndarray, task: str) -> np.ndarray:
    """(n, 1) whether both are right, or (n, 2) products of the values; what sums of one predictor cannot tell."""
    if task == "va":
        return first * second
    return ((first.argmax(axis=1) == truth) & (second.argmax(axis=1) == truth))[:, None].astype(np.float64)


def complementarity_of(
    shared: np.ndarray, first: np.ndarray, second: np.ndarray, cross: np.ndarray, task: str
) -> dict[str, np.ndarray]:
    """Measures of a pair from summed statistics (..., s), each of shape (...); NaN where one is not defined.

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
        return _of_classes(shared, first, second, cross)


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
) -> dict[str, np.ndarray]:
    n = shared[..., 0]
    found: dict[str, np.ndarray] = {}
    for column, part in enumerate(_VA_PARTS):
        t, tt = shared[..., 1 + column], shared[..., 3 + column]
        a, aa, at = (first[..., place + column] for place in (0, 2, 4))
        b, bb, bt = (second[..., place + column] for place in (0, 2, 4))

        def moment(xy: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
            return np.asarray(xy / n - x * y / n**2)

        var_t, var_a, var_b = moment(tt, t, t), moment(aa, a, a), moment(bb, b, b)
        cov_at, cov_bt, cov_ab = moment(at, a, t), moment(bt, b, t), moment(cross[..., column], a, b)
        error_a, error_b = var_a - 2 * cov_at + var_t, var_b - 2 * cov_bt + var_t
        together = cov_ab - cov_at - cov_bt + var_t
        alone = np.maximum(var_t - cov_at**2 / var_a, 0)
        # What of the second the first does not tell, and what that tells of the truth.
        rest = var_b - cov_ab**2 / var_a
        told = cov_bt - cov_ab * cov_at / var_a
        both = np.maximum(alone - np.where(rest > 1e-12 * var_b, told**2 / rest, 0), 0)
        found |= {
            f"error_correlation_{part}": together / np.sqrt(error_a * error_b),
            f"first_alone_{part}": np.sqrt(alone),
            f"both_linear_{part}": np.sqrt(both),
            f"gain_linear_{part}": np.sqrt(alone) - np.sqrt(both),
        }
    return found


def complementarity_words(first: str, second: str, found: dict[str, Any], task: str) -> str:
    """One sentence for a reader, from figures with ``value``, ``low`` and ``high`` (fractions or values)."""
    value = {name: figure["value"] for name, figure in found.items() if isinstance(figure, dict)}
    if any(number is None for name, number in value.items() if name not in ("phi", "yule_q", "rescued")):
        return f"Complementarity of {first} and {second} is not defined on these rows."
    if task == "va":
        parts = " and ".join(
            f"{part} {value[f'first_alone_{part}']:.3f} to {value[f'both_linear_{part}']:.3f} "
            f"(errors correlate {value[f'error_correlation_{part}']:+.2f})"
            for part in _VA_PARTS
        )
        return f"Linearly, {second} can bring the RMSE of {first} from {parts}, and no further on these rows."
    if value["rescued"] is None:
        return f"{first} is right on every row: there is nothing for {second} to add."
    related = "" if value["phi"] is None else f"; their errors correlate {value['phi']:+.2f}"
    return (
        f"{second} is right on {100 * value['rescued']:.0f} % of the rows that {first} gets wrong "
        f"({100 * value['only_second']:.1f} % of all), and wrong on {100 * value['only_first']:.1f} % of all that "
        f"{first} gets right{related}. Choosing the better of both answers on every row would reach "
        f"{100 * value['oracle']:.1f} %."
    )
