"""Class shares of a rule on its calibration rows, and their comparison with the class shares of other rows.

References
----------
.. [1] Rao and Scott, The analysis of categorical data from complex sample surveys: chi-squared tests for goodness of
   fit and independence in two-way tables, Journal of the American Statistical Association 76 (1981).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.stats import f

from ..features.predictions import log_softmax

_PULL = 0.5  # penalty of the squared offsets of the implied shares; its unit is a row


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """Number of rows per predicted class.

    Attributes
    ----------
    counts : (k,) int64
    groups : int
        Number of groups; of rows, if there are no groups.
    design_effect : float, 1 or more
        Variance of the shares over that of independent rows, averaged over the classes [1]_.
    """

    counts: np.ndarray
    groups: int
    design_effect: float

    @property
    def shares(self) -> np.ndarray:
        """(k,) float64, of sum 1."""
        return np.asarray(self.counts / self.counts.sum())


@dataclass(frozen=True, slots=True)
class RuleShares:
    """Class shares of a rule on the rows that it was fitted on.

    Attributes
    ----------
    implied : (k,) float64
        Class shares for which the probabilities of the rule are calibrated (:func:`implied_shares`).
    predicted : ClassCounts
        Predicted classes of these rows.
    """

    implied: np.ndarray
    predicted: ClassCounts


def count_classes(log_p: np.ndarray, groups: np.ndarray | None = None) -> ClassCounts:
    """Count the predicted classes.

    Parameters
    ----------
    log_p : (n, k) log-probabilities
    groups : (n,) int, optional
        Group of each row, for the design effect; by default rows are independent.
    """
    n, k = log_p.shape
    predicted = np.eye(k)[log_p.argmax(axis=1)]
    counts = predicted.sum(axis=0).astype(np.int64)
    if groups is None:
        return ClassCounts(counts, n, 1.0)
    codes = np.unique(groups, return_inverse=True)[1].reshape(-1)
    per_group = np.zeros((codes.max() + 1, k))
    np.add.at(per_group, codes, predicted)
    n_groups = len(per_group)
    if n_groups == 1:
        return ClassCounts(counts, 1, 1.0)
    shares = counts / n
    deviations = per_group - per_group.sum(axis=1, keepdims=True) * shares
    variances = n_groups / (n_groups - 1) * (deviations**2).sum(axis=0) / n**2
    occurs = shares > 0
    effect = (n * variances[occurs] / shares[occurs]).sum() / max(occurs.sum() - 1, 1)
    return ClassCounts(counts, n_groups, float(np.clip(effect, 1, n)))


def difference_p(first: ClassCounts, second: ClassCounts) -> float:
    """P value of the hypothesis that two independent sets of rows have the same class shares.

    Pearson's chi-squared test of homogeneity with the first-order correction of Rao and Scott [1]_: counts are divided
    by their design effects. Because design effects are estimated from a limited number of groups, the statistic is
    compared with an F distribution; its denominator has the degrees of freedom of Welch and Satterthwaite times those
    of the classes. Classes that are in neither set are left out.
    """
    sets = (first, second)
    table = np.array([rows.counts / rows.design_effect for rows in sets])
    table = table[:, table.sum(axis=0) > 0]
    freedom = table.shape[1] - 1
    if not freedom or min(rows.groups for rows in sets) < 2:
        return 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = ((table - expected) ** 2 / expected).sum()
    variances = 1 / table.sum(axis=1)
    errors = sum(variance**2 / (rows.groups - 1) for variance, rows in zip(variances, sets, strict=True))
    welch_freedom = variances.sum() ** 2 / errors
    return float(f.sf(statistic / freedom, freedom, freedom * welch_freedom))


def implied_shares(log_p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(k,) class shares for which probabilities are calibrated, by an offset per class fitted to labelled rows.

    If a rule was fitted with equal weight of all rows, these are the class shares of the rows. If it was fitted with
    equal weight of all classes, they are about equal. If it has no fitted parameters, they are those of its inputs.

    Parameters
    ----------
    log_p : (n, k) log-probabilities
    labels : (n,) int; a class without rows gets the share 0
    """
    n, k = log_p.shape
    counts = np.bincount(labels, minlength=k)
    finite = np.maximum(log_p, np.log(np.finfo(float).tiny))

    def loss(offset: np.ndarray) -> tuple[float, np.ndarray]:
        logs = log_softmax(finite + offset)
        value = -logs[np.arange(n), labels].sum() + _PULL * (offset**2).sum()
        return value / n, (np.exp(logs).sum(axis=0) - counts + 2 * _PULL * offset) / n

    offset = minimize(loss, np.zeros(k), jac=True, method="L-BFGS-B").x
    shares = counts * np.exp(offset.min() - offset)
    return np.asarray(shares / shares.sum())


def shares_of(
    log_p: Mapping[str, np.ndarray], labels: np.ndarray, groups: np.ndarray | None
) -> dict[str, RuleShares]:
    """Name -> :class:`RuleShares` of each rule, from its (n, k) log-probabilities of the calibration rows.

    ``labels`` (n,) and ``groups`` (n,), if any, are those of the calibration rows.
    """
    return {
        name: RuleShares(implied_shares(values, labels), count_classes(values, groups))
        for name, values in log_p.items()
    }


def _per_cent(share: float) -> str:
    return "<0.1 %" if 0 < share < 1e-3 else f"{100 * share:.3g} %"


def describe_shares(classes: Sequence[str], shares: np.ndarray, others: np.ndarray, limit: int = 8) -> str:
    """Text of class shares (k,) in per cent, with ``others`` (k,) in brackets; largest difference first.

    >>> describe_shares(("sad", "happy", "fear"), np.array([0.5, 0.2, 0.3]), np.array([0.2, 0.6, 0.2]))
    'happy 20 % (60 %), sad 50 % (20 %), fear 30 % (20 %)'
    """
    order = np.argsort(-np.abs(shares - others), kind="stable")
    shown = [f"{classes[k]} {_per_cent(shares[k])} ({_per_cent(others[k])})" for k in order[:limit]]
    return ", ".join(shown) + (f" and {len(order) - limit} more" if len(order) > limit else "")
