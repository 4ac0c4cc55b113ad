"""Class shares of a rule on the rows it was fitted on, and their comparison with those of other rows.

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

_PULL = 0.5  # of the squared offsets in the implied shares, in units of rows


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """Predicted classes of some rows.

    Attributes
    ----------
    counts : (k,) int64
    groups : int
        Number of groups; each row is a group where there are none.
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
        Class shares for which the rule's probabilities are right (:func:`implied_shares`).
    predicted : ClassCounts
    """

    implied: np.ndarray
    predicted: ClassCounts


def count_classes(log_p: np.ndarray, groups: np.ndarray | None = None) -> ClassCounts:
    """Count the predicted classes.

    Parameters
    ----------
    log_p : (n, k) log-probabilities
    groups : (n,) int, optional
        Rows of one group are not independent.
    """
    n, k = log_p.shape
    predicted = np.eye(k)[log_p.argmax(axis=1)]
    counts = predicted.sum(axis=0).astype(np.int64)
    if groups is None:
        return ClassCounts(counts, n, 1.0)
    codes = np.unique(groups, return_inverse=True)[1].reshape(-1)
    per_group = np.zeros((codes.max() + 1, k))
    np.add.at(per_group, codes, predicted)
    number = len(per_group)
    if number == 1:
        return ClassCounts(counts, 1, 1.0)
    shares = counts / n
    deviations = per_group - per_group.sum(axis=1, keepdims=True) * shares
    variances = number / (number - 1) * (deviations**2).sum(axis=0) / n**2
    some = shares > 0
    effect = (n * variances[some] / shares[some]).sum() / max(some.sum() - 1, 1)
    return ClassCounts(counts, number, float(np.clip(effect, 1, n)))


def difference_p(first: ClassCounts, second: ClassCounts) -> float:
    """P value of the hypothesis that two independent sets of rows have the same class shares.

    Pearson's chi-squared test of homogeneity with the first-order correction of Rao and Scott [1]_: the counts are
    divided by their design effects, and the statistic is referred to an F distribution, as their design effects are
    estimated from few groups (denominator: degrees of freedom of Welch and Satterthwaite, times those of the classes).
    Classes that neither set has are left out.
    """
    parts = (first, second)
    table = np.array([part.counts / part.design_effect for part in parts])
    table = table[:, table.sum(axis=0) > 0]
    freedom = table.shape[1] - 1
    if not freedom or min(part.groups for part in parts) < 2:
        return 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = ((table - expected) ** 2 / expected).sum()
    variances = 1 / table.sum(axis=1)
    errors = sum(variance**2 / (part.groups - 1) for variance, part in zip(variances, parts, strict=True))
    clusters = variances.sum() ** 2 / errors
    return float(f.sf(statistic / freedom, freedom, freedom * clusters))


def implied_shares(log_p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(k,) class shares for which probabilities are right, by an offset per class fitted to labelled rows.

    A rule that was fitted with all rows weighing the same has the shares of these rows; one that was fitted with all
    classes weighing the same has about equal shares; one that fits nothing has those of its predictors.

    Parameters
    ----------
    log_p : (n, k) log-probabilities
    labels : (n,) int; a class without a row has the share 0
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
    """:class:`RuleShares` of each rule, from its (n, k) log-probabilities of the rows it was fitted on."""
    return {
        name: RuleShares(implied_shares(values, labels), count_classes(values, groups))
        for name, values in log_p.items()
    }


def describe_shares(classes: Sequence[str], shares: np.ndarray, others: np.ndarray, limit: int = 8) -> str:
    """Shares in per cent beside others, the largest difference first.

    >>> describe_shares(("sad", "happy", "fear"), np.array([0.5, 0.2, 0.3]), np.array([0.2, 0.6, 0.2]))
    'happy 20 % (60 %), sad 50 % (20 %), fear 30 % (20 %)'
    """
    order = np.argsort(-np.abs(shares - others), kind="stable")
    shown = [f"{classes[k]} {100 * shares[k]:.3g} % ({100 * others[k]:.3g} %)" for k in order[:limit]]
    return ", ".join(shown) + (f" and {len(order) - limit} more" if len(order) > limit else "")
