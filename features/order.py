"""Check the order of the rows and classes of predictions against the labels; predictions are never reordered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .classes import PRESETS, preset_of
from .image_names import natural
from .samples import Split

# Advice at the end of messages.
GIVE_IDS, GIVE_ORDER = "give the ids with --2d-ids", "give the order with --2d-classes"
BETTER_BY = 0.10  # difference in accuracy, or in correlation, from which another order is better
_SIGNIFICANT = 1e-3
_CHANCE_ERRORS = 3.0  # standard errors above chance up to which an agreement counts as chance
MIN_SPLIT_ROWS = 50  # labelled rows that a split needs to be tested separately
# For distributed inference, in which process i of p predicts the rows i, i + p, i + 2 p, ...
_MAX_PROCESSES, _USUAL_PROCESSES, _BATCHES = 16, (2, 4, 8), (16, 32, 64, 128, 256)


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
    """Message about a probable error in the order of the rows or columns of a file, and advice.

    The message is empty if there is no error.

    Parameters
    ----------
    predicted : (n,) int, index into ``columns`` of the highest score
    labels : (n,) int, index into ``columns``, -1 if missing
    columns : k classes in the order of the columns of the file
    paths, splits : (n,) paths of the samples, and codes of :class:`~.samples.Split`
    has_ids : whether the rows were aligned by ids
    numbered : whether labels are numbers of columns, so that a different order of the names changes the labels too
    """
    labelled, k = labels >= 0, len(columns)
    give_order = "give the labels as class names" if numbered else GIVE_ORDER
    if has_ids:
        problem = class_order_problem(predicted[labelled], labels[labelled], columns)
        return problem or "", give_order
    # The rows are checked first: if rows are sorted by class, a wrong order of rows can look like a wrong order of
    # classes.
    problem = row_order_problem(predicted, labels, paths, k, splits=splits)
    if problem is not None:
        return problem, GIVE_IDS
    order = find_class_order(predicted[labelled], labels[labelled], columns)
    if order is not None and order.preset and not changes_along_rows(predicted[labelled], labels[labelled]):
        return order.message(columns), give_order
    if order is not None:
        return (
            f"the rows do not seem to be in the order of the samples: {order.as_read:.1%} are right, and no usual "
            "order of files or classes fits them"
        ), f"{GIVE_IDS}; if the rows are in order, {give_order}"
    return chance_problem(predicted, labels, k, splits=splits) or "", GIVE_IDS


def va_problem(
    values: np.ndarray, targets: np.ndarray, *, paths: Sequence[str], splits: np.ndarray, has_ids: bool
) -> tuple[str, str]:
    """As :func:`class_problem`, for (n, 2) valence and arousal and their (n, 2) targets, NaN if missing."""
    if not has_ids:
        problem = va_row_problem(values, targets, paths, splits=splits)
        if problem is not None:
            return problem, GIVE_IDS
    labelled = np.isfinite(targets).all(axis=1)
    return va_swap_problem(values[labelled], targets[labelled]) or "", "swap or rename them"


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided p of the hypothesis that two predictors, right on (n,) bool rows, are right equally often.

    McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12 (1947).
    """
    from scipy.stats import binomtest

    gained, lost = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    return 1.0 if gained + lost == 0 else float(binomtest(gained, gained + lost).pvalue)


def best_permutation(predicted: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """(k,) class of each predicted column under the permutation with the most right rows (Hungarian algorithm).

    ``predicted`` and ``labels`` are (n,) int below k.
    """
    from scipy.optimize import linear_sum_assignment

    confusion = np.bincount(predicted * k + labels, minlength=k * k).reshape(k, k)
    # The small term keeps columns without right rows in place, so that a message names as few changes as possible.
    _, class_of_column = linear_sum_assignment(confusion + 1e-6 * np.eye(k), maximize=True)
    return np.asarray(class_of_column)


def at_chance(predicted: np.ndarray, labels: np.ndarray, k: int, *, errors: float = _CHANCE_ERRORS) -> bool:
    """Whether the agreement is not better than with shuffled labels (within ``errors`` standard errors).

    False if this cannot be tested: with too few rows, or a single class. ``predicted`` and ``labels`` are (n,) int.
    """
    n = len(labels)
    shares = np.bincount(predicted, minlength=k) / n
    truth = np.bincount(labels, minlength=k) / n
    expected = float(shares @ truth)
    spread = float(np.sqrt(max(expected * (1 - expected), 0) / n))
    limit = expected + errors * spread
    if shares.max() == 1 or truth.max() == 1 or limit >= 1:
        return False
    return float(np.mean(predicted == labels)) <= limit


@dataclass(frozen=True, slots=True)
class ClassOrder:
    """An order of the classes that fits the labels better than the order that was read.

    Attributes
    ----------
    as_read, likely : float
        Share of right rows with the order that was read, and with the likely order.
    name : str
        Name of the likely order if it is a preset, else its classes separated by commas.
    preset : bool
        Whether the likely order is a preset.
    """

    as_read: float
    likely: float
    name: str
    preset: bool

    def message(self, columns: Sequence[str]) -> str:
        """Message about the error; ``columns`` are the classes as they were read."""
        return (
            f"the class order seems wrong: {self.as_read:.1%} of the rows are right as {','.join(columns)}, "
            f"{self.likely:.1%} under {self.name}"
        )


def find_class_order(predicted: np.ndarray, labels: np.ndarray, columns: Sequence[str]) -> ClassOrder | None:
    """The order of classes that fits the labels better than the order that was read; None if there is none.

    Parameters
    ----------
    predicted, labels : (n,) int, indices into ``columns``
    columns : k classes in the order of the columns of the file, as assumed or declared

    Notes
    -----
    An order is better if its accuracy is 10 points higher, with McNemar's p below .001, and above chance. A permutation
    that is not a preset must also be better by this rule than the best preset, because there are many permutations
    (5,040 of seven classes).
    """
    k = len(columns)
    if len(labels) == 0:
        return None
    right_as_read = predicted == labels
    index = {label: position for position, label in enumerate(columns)}
    orders = {
        name: np.array([index[label] for label in order])
        for name, order in PRESETS.items()
        if set(order) == set(columns)
    }
    right = {name: class_of_column[predicted] == labels for name, class_of_column in orders.items()}
    preset = max(right, key=lambda name: right[name].sum(), default=None)
    best = right_as_read
    if preset is not None and right[preset].sum() > best.sum():
        best = right[preset]
    permutation = best_permutation(predicted, labels, k)
    right_permuted = permutation[predicted] == labels
    if _better(right_permuted, best) and not at_chance(permutation[predicted], labels, k):
        classes = tuple(columns[position] for position in permutation)
        name = preset_of(classes) or ",".join(classes)
        return ClassOrder(float(right_as_read.mean()), float(right_permuted.mean()), name, False)
    if preset is None or not _better(best, right_as_read) or at_chance(orders[preset][predicted], labels, k):
        return None
    return ClassOrder(float(right_as_read.mean()), float(best.mean()), preset, True)


def _better(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether an order is better than another, by 10 points and with p < .001; (n,) bool each: right rows."""
    return bool(first.mean() - second.mean() >= BETTER_BY) and mcnemar(first, second) < _SIGNIFICANT


def class_order_problem(predicted: np.ndarray, labels: np.ndarray, columns: Sequence[str]) -> str | None:
    """Message about a probable error in the order of the columns of a file; None if there is none.

    Parameters and rules are those of :func:`find_class_order`.
    """
    order = find_class_order(predicted, labels, columns)
    return None if order is None else order.message(columns)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


# Orders in which tools list the files of a dataset: name -> function from a path to the text by which it is sorted.
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

# Orders in which tools concatenate the splits of a dataset; the list of RAF-DB has the train rows first.
_SPLITS = {
    "train, val, test": (Split.train, Split.val, Split.test, Split.none),
    "train, test, val": (Split.train, Split.test, Split.val, Split.none),
    "test, val, train": (Split.test, Split.val, Split.train, Split.none),
}


def row_orders(paths: Sequence[str], labels: np.ndarray, splits: np.ndarray) -> dict[str, np.ndarray]:
    """Usual orders of the rows of files without ids: name -> (n,) permutation, row of the file -> row of the samples.

    Orders by path, by class, and of distributed processing. Orders by path and by class also split by split.

    Parameters
    ----------
    paths : n paths in the order of the samples
    labels : (n,) int, -1 if missing
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
    unsplit = list(orders.items())
    for name, order in _of_processes(len(paths)):
        for listing in ("sorted by path", "sorted by path, numbers by value"):
            orders[f"{name}, each {listing}"] = orders[listing][order]
    if len(np.unique(splits)) > 1:
        for split_order, parts in _SPLITS.items():
            rank = np.argsort(parts)  # rank of each split, by its code + 1
            for name, base in unsplit:
                part = rank[splits[base].astype(np.int64) + 1]
                orders[f"{split_order}, each {name}"] = base[np.argsort(part, kind="stable")]
    return orders


def _of_processes(n: int) -> Iterator[tuple[str, np.ndarray]]:
    """Orders of ``n`` sorted rows after distributed processing: name, and (n,) row of the file -> sorted row."""
    rows = np.arange(n)
    yield "backwards", rows[::-1]
    for processes in range(2, min(_MAX_PROCESSES, n // 2) + 1):
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
    labels : (n,) int in the order of the samples, -1 if missing
    paths : n paths in the order of the samples
    k : number of classes
    splits : (n,) int8 codes of :class:`~.samples.Split`
    """
    labelled = labels >= 0
    if not labelled.any():
        return None
    right_as_read = predicted[labelled] == labels[labelled]
    # name of an order of the rows -> rows that are right with the classes as read, and with their best permutation
    right: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, order in row_orders(paths, labels, splits).items():
        moved = np.empty_like(predicted)
        moved[order] = predicted
        permuted = _right_after_permutation(moved[labelled], labels[labelled], k)
        right[name] = moved[labelled] == labels[labelled], permuted
    best_name = max(right, key=lambda name: right[name][1].sum())
    best = right[best_name][1]
    # Classes as they were read are likelier than a permutation that is hardly better.
    name_as_read = max(right, key=lambda name: right[name][0].sum())
    if not _better(best, right[name_as_read][0]):
        best_name, best = name_as_read, right[name_as_read][0]
    # The order of the rows must be better than every order of the classes in the rows as they are.
    if _better(best, _right_after_permutation(predicted[labelled], labels[labelled], k)):
        return (
            f"the rows do not seem to be in the order of the samples: {right_as_read.mean():.1%} are right; "
            f"{best.mean():.1%} would be right with the file in another order: {best_name}"
        )
    return None


def _right_after_permutation(predicted: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """(n,) bool: rows that are right under the best permutation of the classes."""
    return np.asarray(best_permutation(predicted, labels, k)[predicted] == labels)


def chance_problem(predicted: np.ndarray, labels: np.ndarray, k: int, *, splits: np.ndarray) -> str | None:
    """Message if the accuracy of rows without ids, or of a split of them, is that of chance; else None.

    Parameters are those of :func:`row_order_problem`.
    """
    labelled = labels >= 0
    if not labelled.any():
        return None
    accuracy = np.mean(predicted[labelled] == labels[labelled])
    if at_chance(predicted[labelled], labels[labelled], k):
        return (
            f"the rows do not seem to be in the order of the samples: {accuracy:.1%} are right, which is chance, "
            "and no usual order of files fits better"
        )
    for split in np.unique(splits[labelled]).tolist():
        part = labelled & (splits == split)
        if part.sum() >= MIN_SPLIT_ROWS and at_chance(predicted[part], labels[part], k):
            return (
                f"the rows do not seem to be in the order of the samples: {accuracy:.1%} are right, but those of "
                f"the {Split(split).name} split only by chance ({np.mean(predicted[part] == labels[part]):.1%})"
            )
    return None


def changes_along_rows(predicted: np.ndarray, labels: np.ndarray) -> bool:
    """Whether predictions differ between the first and the second half of the consecutive rows of a class.

    They differ if rows are shifted against their labels: at one end, rows then belong to a neighbouring class. They
    also differ if rows are those of videos, person by person.

    Parameters
    ----------
    predicted, labels : (n,) int in the order of the samples
    """
    from scipy.stats import chi2

    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    lengths = np.diff(np.r_[starts, len(labels)])
    position = np.arange(len(labels)) - np.repeat(starts, lengths)
    in_second_half = position >= np.repeat((lengths + 1) // 2, lengths)
    long_run = np.repeat(lengths, lengths) >= 4
    statistic, freedom = 0.0, 0
    for label in np.unique(labels).tolist():
        rows = long_run & (labels == label)
        counts = np.zeros((2, int(predicted.max()) + 1))
        np.add.at(counts, (in_second_half[rows].astype(int), predicted[rows]), 1)
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


def va_at_chance(values: np.ndarray, targets: np.ndarray, *, errors: float) -> bool:
    """Whether the correlation of two (n,) arrays is within ``errors`` standard errors of 0, or negative."""
    return correlation(values, targets) <= errors / np.sqrt(max(len(values), 1))


def _agreement(values: np.ndarray, targets: np.ndarray) -> float:
    """Mean of the correlations of valence and of arousal."""
    return (correlation(values[:, 0], targets[:, 0]) + correlation(values[:, 1], targets[:, 1])) / 2


def va_swap_problem(values: np.ndarray, targets: np.ndarray) -> str | None:
    """Message if (n, 2) predictions fit the (n, 2) targets much better with valence and arousal swapped; else None."""
    as_read, swapped = _agreement(values, targets), _agreement(values[:, ::-1], targets)
    if len(values) < 10 or swapped - as_read < max(BETTER_BY, _CHANCE_ERRORS / np.sqrt(len(values))):
        return None
    return (
        f"valence and arousal seem swapped: the mean correlation with the labels is {as_read:.2f}, and {swapped:.2f} "
        "with the columns swapped"
    )


def va_row_problem(
    values: np.ndarray, targets: np.ndarray, paths: Sequence[str], *, splits: np.ndarray
) -> str | None:
    """As :func:`row_order_problem`, for (n, 2) values in the order of the file and (n, 2) targets of the samples."""
    labelled = np.isfinite(targets).all(axis=1)
    if labelled.sum() < 10 or (np.ptp(values, axis=0) == 0).all():
        return None
    limit = _CHANCE_ERRORS / np.sqrt(labelled.sum())

    def fit(order: np.ndarray) -> float:
        moved = np.empty_like(values)
        moved[order] = values
        moved = moved[labelled]
        return max(_agreement(moved, targets[labelled]), _agreement(moved[:, ::-1], targets[labelled]))

    as_read = fit(np.arange(len(values)))
    same_class = np.zeros(len(values), np.int64)
    fits = {name: fit(order) for name, order in row_orders(paths, same_class, splits).items()}
    name = max(fits, key=lambda key: fits[key])
    if fits[name] - as_read >= max(BETTER_BY, limit):
        return (
            f"the rows do not seem to be in the order of the samples: the mean correlation with the labels is "
            f"{as_read:.2f}, and {fits[name]:.2f} with the file in another order: {name}"
        )
    if as_read <= limit:
        return (
            f"the rows do not seem to be in the order of the samples: the mean correlation with the labels is "
            f"{as_read:.2f}, which is chance, and no usual order of files fits better"
        )
    return None
