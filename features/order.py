"""Check the order of rows and classes against the labels. Nothing is reordered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .classes import PRESETS, preset_of
from .image_names import natural
from .samples import Split

# Advice of the messages.
GIVE_IDS, GIVE_ORDER = "give the ids with --2d-ids", "give the order with --2d-classes"
BETTER_BY = 0.10
_SIGNIFICANT = 1e-3
_CHANCE_ERRORS = 3.0
# Labelled rows of a split, below which it is not tested alone.
_ENOUGH = 50
# Distributed inference: every process has each so-many-th row.
_MOST_PROCESSES, _USUAL_PROCESSES, _BATCHES = 16, (2, 4, 8), (16, 32, 64, 128, 256)


def class_problem(
    predicted: np.ndarray,
    labels: np.ndarray,
    columns: Sequence[str],
    *,
    paths: Sequence[str],
    splits: np.ndarray,
    has_ids: bool,
    numbered: bool,
) -> tuple[str, str]:
    """Probable error in the order of the rows or columns of a file, and advice; both empty if there is none.

    Parameters
    ----------
    predicted : (n,) int, index into ``columns`` of the highest score
    labels : (n,) int, index into ``columns``, -1 where there is none
    columns : the classes in the order of the file's columns
    paths, splits : of the rows' samples, splits as codes of :class:`~.samples.Split`
    has_ids : whether the rows were aligned by ids
    numbered : whether labels are numbers of the columns, which another name for a column would move along
    """
    known, k = labels >= 0, len(columns)
    give_order = "give the labels as class names" if numbered else GIVE_ORDER
    if has_ids:
        problem = class_order_problem(predicted[known], labels[known], columns)
        return problem or "", give_order
    # Rows in another order look like classes in another order where a class has its rows side by side.
    problem = row_order_problem(predicted, labels, paths, k, splits=splits)
    if problem is not None:
        return problem, GIVE_IDS
    order = find_class_order(predicted[known], labels[known], columns)
    if order is not None and order.preset and not changes_along_rows(predicted[known], labels[known]):
        return order.words(columns), give_order
    if order is not None:
        return (
            f"the rows do not seem to be in the order of the samples: {order.read:.1%} are right, and no usual order "
            "of files or classes fits them"
        ), f"{GIVE_IDS}; if the rows are in order, {give_order}"
    return chance_problem(predicted, labels, k, splits=splits) or "", GIVE_IDS


def va_problem(
    values: np.ndarray, targets: np.ndarray, *, paths: Sequence[str], splits: np.ndarray, has_ids: bool
) -> tuple[str, str]:
    """:func:`class_problem` of (n, 2) valence and arousal."""
    if not has_ids:
        problem = va_row_problem(values, targets, paths, splits=splits)
        if problem is not None:
            return problem, GIVE_IDS
    known = np.isfinite(targets).all(axis=1)
    return va_swap_problem(values[known], targets[known]) or "", "swap or rename them"


def _mcnemar(right: np.ndarray, wrong: np.ndarray) -> float:
    """Exact two-sided McNemar p-value; both (n,) bool: rows that are right under each of two orders."""
    from scipy.stats import binomtest

    gained, lost = int(np.sum(right & ~wrong)), int(np.sum(wrong & ~right))
    return 1.0 if gained + lost == 0 else float(binomtest(gained, gained + lost).pvalue)


def best_permutation(predicted: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """(k,) class that each predicted column matches best: Hungarian matching on the confusion matrix."""
    from scipy.optimize import linear_sum_assignment

    confusion = np.bincount(predicted * k + labels, minlength=k * k).reshape(k, k)
    # Columns that match nothing stay where they are, so that a message names as few changes as can be.
    _, meaning = linear_sum_assignment(confusion + 1e-6 * np.eye(k), maximize=True)
    return np.asarray(meaning)


def at_chance(predicted: np.ndarray, labels: np.ndarray, k: int) -> bool:
    """Whether the agreement is no better than with labels shuffled (within 3 standard errors).

    False where it cannot be tested: too few rows, or one class only.
    """
    n = len(labels)
    shares = np.bincount(predicted, minlength=k) / n
    truth = np.bincount(labels, minlength=k) / n
    expected = float(shares @ truth)
    spread = float(np.sqrt(max(expected * (1 - expected), 0) / n))
    limit = expected + _CHANCE_ERRORS * spread
    if shares.max() == 1 or truth.max() == 1 or limit >= 1:
        return False
    return float(np.mean(predicted == labels)) <= limit


@dataclass(frozen=True, slots=True)
class ClassOrder:
    """An order of the classes that fits the labels better than the one that was read.

    Attributes
    ----------
    read, likely : float
        Share of right rows as read and in the likely order.
    name : str
        Name of the likely order where it is a preset, else its classes by comma.
    preset : bool
    """

    read: float
    likely: float
    name: str
    preset: bool

    def words(self, columns: Sequence[str]) -> str:
        """Description of the fault, for a message."""
        return (
            f"the class order seems wrong: {self.read:.1%} of the rows are right as {','.join(columns)}, "
            f"{self.likely:.1%} under {self.name}"
        )


def find_class_order(predicted: np.ndarray, labels: np.ndarray, columns: Sequence[str]) -> ClassOrder | None:
    """The order of classes that fits the labels, if it differs from the one that was read.

    Parameters
    ----------
    predicted, labels : (n,) int, indices into ``columns``
    columns : the classes in the order of the file's columns, as it was assumed or declared

    Notes
    -----
    An order has to be 10 points better, with McNemar's p below .001, and better than chance itself. A free
    permutation has to be as much better than the best preset as well: with seven classes there are 5,040 of them.
    """
    k = len(columns)
    if len(labels) == 0:
        return None
    read = predicted == labels
    index = {label: position for position, label in enumerate(columns)}
    orders = {
        name: np.array([index[label] for label in order])
        for name, order in PRESETS.items()
        if set(order) == set(columns)
    }
    presets = {name: meaning[predicted] == labels for name, meaning in orders.items()}
    known = max(presets, key=lambda name: presets[name].sum(), default=None)
    best = read if known is None or presets[known].sum() <= read.sum() else presets[known]
    free = best_permutation(predicted, labels, k)
    mapped = free[predicted] == labels
    if _better(mapped, best) and not at_chance(free[predicted], labels, k):
        likely = tuple(columns[position] for position in free)
        return ClassOrder(
            float(read.mean()), float(mapped.mean()), preset_of(likely) or ",".join(likely), False
        )
    if known is None or not _better(best, read) or at_chance(orders[known][predicted], labels, k):
        return None
    return ClassOrder(float(read.mean()), float(best.mean()), known, True)


def _better(right: np.ndarray, than: np.ndarray) -> bool:
    """Whether one order is right for clearly more rows than another: 10 points more, and p < .001."""
    return bool(right.mean() - than.mean() >= BETTER_BY) and _mcnemar(right, than) < _SIGNIFICANT


def class_order_problem(predicted: np.ndarray, labels: np.ndarray, columns: Sequence[str]) -> str | None:
    """Message about a probable error in the order of the columns of a file; None if there is none.

    Parameters and rules are those of :func:`find_class_order`.
    """
    order = find_class_order(predicted, labels, columns)
    return None if order is None else order.words(columns)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


# Ways in which tools list a dataset's files: a path's key, compared as text. The folder is what stands before the name.
_LISTINGS: dict[str, Callable[[str], str]] = {
    "sorted by path": lambda path: path,
    "sorted by path, numbers by value": natural,
    "class folders in order of their numbers, then names": lambda path: (
        f"{natural(_parent(path))}\x01{_name(path)}"
    ),
    "sorted by file name": lambda path: f"{_name(path)}\x01{path}",
    "sorted by file name, numbers by value": lambda path: f"{natural(_name(path))}\x01{path}",
    "sorted by path, without regard to case": lambda path: f"{path.lower()}\x01{path}",
}


# How tools put the parts of a dataset one after another; RAF-DB's list has the train rows first.
_SPLITS = {
    "train, val, test": (Split.train, Split.val, Split.test, Split.none),
    "train, test, val": (Split.train, Split.test, Split.val, Split.none),
    "test, val, train": (Split.test, Split.val, Split.train, Split.none),
}


def row_orders(paths: Sequence[str], labels: np.ndarray, splits: np.ndarray) -> dict[str, np.ndarray]:
    """Usual orders of files without ids: name -> (n,) permutation, row of the file -> row of the samples.

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
    listed = list(orders.items())
    for name, order in _of_processes(len(paths)):
        for listing in ("sorted by path", "sorted by path, numbers by value"):
            orders[f"{name}, each {listing}"] = orders[listing][order]
    if len(np.unique(splits)) > 1:
        for listed_as, parts in _SPLITS.items():
            rank = np.argsort(parts)  # of each code, from -1
            for name, base in listed:
                part = rank[splits[base].astype(np.int64) + 1]
                orders[f"{listed_as}, each {name}"] = base[np.argsort(part, kind="stable")]
    return orders


def _of_processes(n: int) -> Iterator[tuple[str, np.ndarray]]:
    """Orders of ``n`` sorted rows after distributed processing, and their inverses: name, row of the file -> row."""
    rows = np.arange(n)
    yield "backwards", rows[::-1]
    for processes in range(2, min(_MOST_PROCESSES, n // 2) + 1):
        yield (
            f"{processes} processes one after another (a DistributedSampler's)",
            np.argsort(rows % processes, kind="stable"),
        )
        for batch in _BATCHES:
            if processes in _USUAL_PROCESSES and batch * processes < n:
                step = rows // (batch * processes)
                yield (
                    f"{processes} processes gathered batch by batch ({batch} rows each)",
                    np.lexsort((rows // processes, rows % processes, step)),
                )


def row_order_problem(
    predicted: np.ndarray, labels: np.ndarray, paths: Sequence[str], k: int, *, splits: np.ndarray
) -> str | None:
    """Message about a probable error in the order of rows without ids; None if there is none.

    Parameters
    ----------
    predicted : (n,) int in the order of the file
    labels : (n,) int in the order of the samples, -1 where there is none
    paths : n paths in the order of the samples
    k : number of classes
    splits : (n,) int8 codes of :class:`~.samples.Split`
    """
    known = labels >= 0
    if not known.any():
        return None
    read = predicted[known] == labels[known]
    as_given = _free_hits(predicted[known], labels[known], k)
    hits: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, order in row_orders(paths, labels, splits).items():
        moved = np.empty_like(predicted)
        moved[order] = predicted
        hits[name] = moved[known] == labels[known], _free_hits(moved[known], labels[known], k)
    best_name = max(hits, key=lambda name: hits[name][1].sum())
    best = hits[best_name][1]
    # Classes as they were read are likelier than others that fit hardly better.
    as_read = max(hits, key=lambda name: hits[name][0].sum())
    if not _better(best, hits[as_read][0]):
        best_name, best = as_read, hits[as_read][0]
    # Class orders are left free for both: an order of the rows must be better than every order of the classes.
    if _better(best, as_given):
        return (
            f"the rows do not seem to be in the order of the samples: {read.mean():.1%} are right; {best.mean():.1%} "
            f"would be right with the file in another order: {best_name}"
        )
    return None


def _free_hits(predicted: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """(n,) bool: rows that are right under the order of classes that fits best."""
    return np.asarray(best_permutation(predicted, labels, k)[predicted] == labels)


def chance_problem(predicted: np.ndarray, labels: np.ndarray, k: int, *, splits: np.ndarray) -> str | None:
    """Message if rows without ids, or those of a split, are right by chance only; else None.

    Parameters are those of :func:`row_order_problem`.
    """
    known = labels >= 0
    if not known.any():
        return None
    read = predicted[known] == labels[known]
    if at_chance(predicted[known], labels[known], k):
        return (
            f"the rows do not seem to be in the order of the samples: {read.mean():.1%} are right, which is chance, "
            "and no usual order of files fits better"
        )
    for split in np.unique(splits[known]).tolist():
        part = known & (splits == split)
        if part.sum() >= _ENOUGH and at_chance(predicted[part], labels[part], k):
            return (
                f"the rows do not seem to be in the order of the samples: {read.mean():.1%} are right, but those of "
                f"the {Split(split).name} split only by chance ({np.mean(predicted[part] == labels[part]):.1%})"
            )
    return None


def changes_along_rows(predicted: np.ndarray, labels: np.ndarray) -> bool:
    """Whether the answers for a class differ between the first and the second half of each run of its rows.

    They do where rows are shifted against their labels: a part of them belongs to the classes before or after. So do
    those of videos, person by person.

    Parameters
    ----------
    predicted, labels : (n,) int in the order of the samples
    """
    from scipy.stats import chi2

    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    lengths = np.diff(np.r_[starts, len(labels)])
    position = np.arange(len(labels)) - np.repeat(starts, lengths)
    second = position >= np.repeat((lengths + 1) // 2, lengths)
    long = np.repeat(lengths, lengths) >= 4
    statistic, freedom = 0.0, 0
    for label in np.unique(labels).tolist():
        rows = long & (labels == label)
        counts = np.zeros((2, int(predicted.max()) + 1))
        np.add.at(counts, (second[rows].astype(int), predicted[rows]), 1)
        counts = counts[:, counts.sum(axis=0) > 0]
        if counts.sum() < 10 or counts.shape[1] < 2:
            continue
        expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
        statistic += float(((counts - expected) ** 2 / expected).sum())
        freedom += counts.shape[1] - 1
    return freedom > 0 and float(chi2.sf(statistic, freedom)) < _SIGNIFICANT


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r of two (n,) arrays; 0 if there are fewer than three rows or an array is constant."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _agreement(values: np.ndarray, targets: np.ndarray) -> float:
    return (correlation(values[:, 0], targets[:, 0]) + correlation(values[:, 1], targets[:, 1])) / 2


def va_swap_problem(values: np.ndarray, targets: np.ndarray) -> str | None:
    """Whether (n, 2) valence-arousal predictions fit the (n, 2) truth far better with their columns swapped."""
    given, swapped = _agreement(values, targets), _agreement(values[:, ::-1], targets)
    if len(values) < 10 or swapped - given < max(BETTER_BY, _CHANCE_ERRORS / np.sqrt(len(values))):
        return None
    return (
        f"valence and arousal seem swapped: the mean correlation with the labels is {given:.2f}, and {swapped:.2f} "
        "with the columns swapped"
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

    as_given = fit(np.arange(len(values)))
    alike = np.zeros(len(values), np.int64)
    fits = {name: fit(order) for name, order in row_orders(paths, alike, splits).items()}
    name = max(fits, key=lambda key: fits[key])
    if fits[name] - as_given >= max(BETTER_BY, limit):
        return (
            f"the rows do not seem to be in the order of the samples: the mean correlation with the labels is "
            f"{as_given:.2f}, and {fits[name]:.2f} with the file in another order: {name}"
        )
    if as_given <= limit:
        return (
            f"the rows do not seem to be in the order of the samples: the mean correlation with the labels is "
            f"{as_given:.2f}, which is chance, and no usual order of files fits better"
        )
    return None
