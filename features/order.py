"""Does the order of rows and classes fit the labels? Says what is likely wrong, and never mends it by itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from .classes import PRESETS, preset_of
from .samples import Split

BETTER_BY = 0.10
_SIGNIFICANT = 1e-3
_CHANCE_ERRORS = 3.0
# Labelled rows of a split, below which it says nothing by itself.
_ENOUGH = 50
_DIGITS = re.compile(r"\d+")


def _mcnemar(right: np.ndarray, wrong: np.ndarray) -> float:
    """Exact two-sided p for two (n,) bool arrays of what each of two readings gets right."""
    from scipy.stats import binomtest

    gained, lost = int(np.sum(right & ~wrong)), int(np.sum(wrong & ~right))
    return 1.0 if gained + lost == 0 else float(binomtest(gained, gained + lost).pvalue)


def best_permutation(predicted: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """(k,) class that each predicted column matches best: Hungarian matching on the confusion matrix."""
    from scipy.optimize import linear_sum_assignment

    confusion = np.zeros((k, k), np.int64)
    np.add.at(confusion, (predicted, labels), 1)
    # Columns that match nothing stay where they are, so that a message names as few changes as can be.
    _, meaning = linear_sum_assignment(confusion + 1e-6 * np.eye(k), maximize=True)
    return np.asarray(meaning)


def at_chance(predicted: np.ndarray, labels: np.ndarray, k: int) -> bool:
    """Whether the agreement is no better than with labels shuffled (within 3 standard errors).

    False where nothing can be said: too few rows, or a predictor that always says the same.
    """
    n = len(labels)
    says = np.bincount(predicted, minlength=k) / n
    truth = np.bincount(labels, minlength=k) / n
    expected = float(says @ truth)
    spread = float(np.sqrt(max(expected * (1 - expected), 0) / n))
    limit = expected + _CHANCE_ERRORS * spread
    if says.max() == 1 or truth.max() == 1 or limit >= 1:
        return False
    return float(np.mean(predicted == labels)) <= limit


def class_order_problem(predicted: np.ndarray, labels: np.ndarray, columns: Sequence[str]) -> str | None:
    """What is likely wrong with the order of a file's columns, in words; None where nothing shows.

    Parameters
    ----------
    predicted, labels : (n,) int, indices into ``columns``
    columns : the classes in the order of the file's columns, as it was assumed or declared

    Notes
    -----
    A permutation has to be 10 points better, with McNemar's p below .001, and better than chance itself.
    """
    k = len(columns)
    if len(labels) == 0:
        return None
    meaning = best_permutation(predicted, labels, k)
    read, mapped = predicted == labels, meaning[predicted] == labels
    if mapped.mean() - read.mean() < BETTER_BY or at_chance(meaning[predicted], labels, k):
        return None
    if _mcnemar(mapped, read) >= _SIGNIFICANT:
        return None
    likely = tuple(columns[position] for position in meaning)
    best, name = float(mapped.mean()), preset_of(likely)
    index = {label: position for position, label in enumerate(columns)}
    for preset, order in PRESETS.items():
        # Classes that are hardly ever predicted leave the matching open: a known order as good as it is likelier.
        if name is None and set(order) == set(columns):
            hit = float(np.mean(np.array([index[label] for label in order])[predicted] == labels))
            if hit >= best - 0.02:
                name, best = preset, hit
    return (
        f"expected the class order {','.join(columns)} to fit the labels, got {read.mean():.1%} right against "
        f"{mapped.mean():.1%} under {name or ','.join(likely)}"
    )


def _natural(text: str) -> str:
    """A key that sorts numbers by their value: digits are filled up with zeros."""
    return _DIGITS.sub(lambda found: found.group().zfill(12), text)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


# Ways in which tools list a dataset's files: a path's key, compared as text. The folder is what stands before the name.
_LISTINGS: dict[str, Callable[[str], str]] = {
    "sorted by path": lambda path: path,
    "sorted by path, numbers by value": _natural,
    "class folders in order of their numbers, then names": lambda path: (
        f"{_natural(_parent(path))}\x01{_name(path)}"
    ),
    "sorted by file name": lambda path: f"{_name(path)}\x01{path}",
    "sorted by file name, numbers by value": lambda path: f"{_natural(_name(path))}\x01{path}",
    "sorted by path, without regard to case": lambda path: f"{path.lower()}\x01{path}",
}


# How tools put the parts of a dataset one after another; RAF-DB's list has the train rows first.
_SPLITS = {
    "train, val, test": (Split.train, Split.val, Split.test, Split.none),
    "train, test, val": (Split.train, Split.test, Split.val, Split.none),
    "test, val, train": (Split.test, Split.val, Split.train, Split.none),
}


def row_orders(paths: Sequence[str], labels: np.ndarray, splits: np.ndarray) -> dict[str, np.ndarray]:
    """Orders a file without ids may be in: name -> (n,) permutation, row of the file -> row of the samples.

    Those of :data:`_LISTINGS`, then by class, each of them also with one split after another.

    Parameters
    ----------
    paths : n paths in the order of the samples
    labels : (n,) int, -1 where there is none
    splits : (n,) int8 codes of :class:`~.samples.Split`
    """
    orders = {
        name: np.argsort(np.array([key(path) for path in paths], dtype=str), kind="stable")
        for name, key in _LISTINGS.items()
    }
    for name in ("sorted by path", "sorted by file name, numbers by value"):
        base = orders[name]
        orders[f"by class in order of its number, then {name}"] = base[
            np.argsort(labels[base], kind="stable")
        ]
    if len(np.unique(splits)) > 1:
        for said, parts in _SPLITS.items():
            rank = np.argsort(parts)  # of each code, from -1
            for name, base in list(orders.items())[: len(_LISTINGS) + 2]:
                part = rank[splits[base].astype(np.int64) + 1]
                orders[f"{said}, each {name}"] = base[np.argsort(part, kind="stable")]
    return orders


def row_order_problem(
    predicted: np.ndarray, labels: np.ndarray, paths: Sequence[str], k: int, *, splits: np.ndarray
) -> str | None:
    """What is likely wrong with rows that were taken in the samples' order, in words; None where nothing shows.

    Parameters
    ----------
    predicted : (n,) int in the order of the file
    labels : (n,) int in the order of the samples, -1 where there is none
    paths : n paths in the order of the samples
    k : number of classes
    splits : (n,) int8 codes of :class:`~.samples.Split`
    """
    known = labels >= 0

    def hits(order: np.ndarray) -> np.ndarray:
        moved = np.empty_like(predicted)
        moved[order] = predicted
        if not known.any():
            return np.zeros(0, bool)
        return best_permutation(moved[known], labels[known], k)[moved[known]] == labels[known]

    read = predicted[known] == labels[known]
    chance = bool(known.any()) and at_chance(predicted[known], labels[known], k)
    best_name, best = "", read
    for name, order in row_orders(paths, labels, splits).items():
        right = hits(order)
        if right.sum() > best.sum():
            best_name, best = name, right
    # An order is only likely when it beats what was read clearly, class orders left free for both.
    here = hits(np.arange(len(labels)))
    likely = len(best) > 0 and best.mean() - here.mean() >= BETTER_BY and _mcnemar(best, here) < _SIGNIFICANT
    if likely:
        return (
            f"expected rows in the order of the samples, got {read.mean():.1%} right; {best.mean():.1%} would be right "
            f"with the file in another order: {best_name}"
        )
    if chance:
        return (
            f"expected rows in the order of the samples, got {read.mean():.1%} right, which is chance, and no usual "
            "order of files fits better"
        )
    for split in np.unique(splits[known]).tolist():
        part = known & (splits == split)
        if part.sum() >= _ENOUGH and at_chance(predicted[part], labels[part], k):
            return (
                f"expected rows in the order of the samples, got {read.mean():.1%} right and those of the "
                f"{Split(split).name} split by chance ({np.mean(predicted[part] == labels[part]):.1%})"
            )
    return None


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r of two (n,) arrays; 0 where there are fewer than three rows, or one does not vary."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _agreement(values: np.ndarray, targets: np.ndarray) -> float:
    return (correlation(values[:, 0], targets[:, 0]) + correlation(values[:, 1], targets[:, 1])) / 2


def va_swap_problem(values: np.ndarray, targets: np.ndarray) -> str | None:
    """Whether (n, 2) valence-arousal predictions fit the (n, 2) truth far better with their columns swapped."""
    here, swapped = _agreement(values, targets), _agreement(values[:, ::-1], targets)
    if len(values) < 10 or swapped - here < max(BETTER_BY, _CHANCE_ERRORS / np.sqrt(len(values))):
        return None
    return (
        f"expected the columns valence, arousal, got a mean correlation of {here:.2f} with the labels against "
        f"{swapped:.2f} with the columns swapped"
    )


def va_row_problem(
    values: np.ndarray, targets: np.ndarray, paths: Sequence[str], *, splits: np.ndarray
) -> str | None:
    """As :func:`row_order_problem`, for (n, 2) values in file order and (n, 2) targets in the samples' order."""
    known = np.isfinite(targets).all(axis=1)
    if known.sum() < 10 or (np.ptp(values, axis=0) == 0).all():
        return None
    limit = _CHANCE_ERRORS / np.sqrt(known.sum())

    def fit(order: np.ndarray) -> float:
        moved = np.empty_like(values)
        moved[order] = values
        return max(
            _agreement(moved[known], targets[known]), _agreement(moved[known][:, ::-1], targets[known])
        )

    here = fit(np.arange(len(values)))
    alike = np.zeros(len(values), np.int64)
    found = {name: fit(order) for name, order in row_orders(paths, alike, splits).items()}
    name = max(found, key=lambda key: found[key])
    if found[name] - here >= max(BETTER_BY, limit):
        return (
            f"expected rows in the order of the samples, got a mean correlation of {here:.2f} with the labels; "
            f"{found[name]:.2f} with the file in another order: {name}"
        )
    if here <= limit:
        return (
            f"expected rows in the order of the samples, got a mean correlation of {here:.2f} with the labels, which "
            "is chance, and no usual order of files fits better"
        )
    return None
