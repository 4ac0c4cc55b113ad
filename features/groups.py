"""Groups of samples: persons or videos, whose rows are in one fold.

They come from the dataset, a manifest, a table of labels, or a regular expression over ids (``--groups``).
"""

from __future__ import annotations

import re
import time
from dataclasses import replace

import numpy as np
import regex

from ..errors import UsageError, listed, plural, shorten
from .fusion_table import FusionTable

_SECONDS = 10.0  # limit for a pattern on all ids; usual patterns take microseconds per id
_MAX_NAMED = 3  # number of groups that a note names
# With fewer distinct names, parts of ids are classes or splits rather than persons; without labels, more are needed.
_FEW, _FEW_UNLABELLED = 4, 20
# Parts of ids that may name a person or video, the likeliest first: the text before the last number, with or without a
# separator; the folder.
_PATTERNS = (r"([^/]*[^/_. -])[_. -]+\d+$", r"([^/]*[^/\d_. -])\d+$", r"([^/]+)/[^/]*$")


def groups_of(ids: np.ndarray, pattern: str) -> np.ndarray:
    """(n,) str group of each id: the first group of a regular expression, searched in the id.

    Raises
    ------
    UsageError : the pattern is not a regular expression with a group, takes too long (nested repeats), or does not
        match every id.
    """
    try:
        matches = _search_all(pattern, ids.tolist())
    except TimeoutError:
        raise UsageError(
            f"groups: matching '{shorten(pattern)}' took more than {_SECONDS:g} s over {plural(len(ids), 'id')}; avoid "
            "repeats within repeats, such as (a+)+"
        ) from None
    except (regex.error, ValueError, RecursionError, OverflowError, MemoryError) as exc:
        raise UsageError(
            f"groups: '{shorten(pattern)}' is not a regular expression: {exc}; correct it"
        ) from exc
    without = [name for name, match in zip(ids.tolist(), matches, strict=True) if match is None]
    if without:
        raise UsageError(
            f"groups: the pattern '{shorten(pattern)}' does not match {len(without)} of {plural(len(ids), 'id')} "
            f"({listed(without)}); change it to match every id"
        )
    return np.array([match.group(1) or "" for match in matches if match is not None], dtype=str)


def _search_all(pattern: str, ids: list[str]) -> list[regex.Match[str] | None]:
    """Match of the pattern in each id, or None.

    Raises
    ------
    TimeoutError : the search takes more than ``_SECONDS``.
    """
    expression = regex.compile(pattern)
    if expression.groups < 1:
        raise UsageError(
            f"groups: the pattern '{shorten(pattern)}' has no parentheses; put them around the part that names the "
            "person or video"
        )
    end = time.monotonic() + _SECONDS
    return [expression.search(name, timeout=max(end - time.monotonic(), 1e-3)) for name in ids]


def regrouped(table: FusionTable, pattern: str | None) -> FusionTable:
    """The table with groups by a pattern (None: unchanged groups), and with the note of :func:`note_on_groups`."""
    notes = table.notes
    if pattern is not None:
        if table.grouped:
            notes = (*notes, "--groups replaces the groups of the store.")
        table = replace(table, group=groups_of(table.id, pattern))
    note = note_on_groups(table.id, table.group, table.labels)
    return replace(table, notes=(*notes, *note))


def note_on_groups(ids: np.ndarray, group: np.ndarray, labels: np.ndarray) -> tuple[str, ...]:
    """Note on the largest groups; without groups, a warning if ids look like several images of one person or video.

    Parameters
    ----------
    ids, group : (n,) str, group empty if missing
    labels : (n,) int, -1 if missing
    """
    named = group[group != ""]
    if len(named):
        return (f"Groups (persons, videos): {_count_and_largest(named)}.",)
    for pattern in _PATTERNS:
        matches = [re.search(pattern, name) for name in ids.tolist()]
        names = np.array([match[1] for match in matches if match], dtype=str)
        if len(names) < len(ids) or not _may_be_groups(names, labels):
            continue
        return (
            "WARNING no groups are given, but ids look like several images of one person or video: "
            f"{_count_and_largest(names)}. If they are, give --groups '{pattern}': otherwise rows of one person are "
            "both fitted and reported, and results are too optimistic. (A column group in a manifest or in --labels "
            "does the same.)",
        )
    return ()


def _may_be_groups(names: np.ndarray, labels: np.ndarray) -> bool:
    """Whether parts of ids (n,) may name persons: most rows share their name with others, and names are not classes."""
    _, where, counts = np.unique(names, return_inverse=True, return_counts=True)
    if len(counts) < _FEW or (counts[where] > 1).mean() < 0.5:
        return False
    labelled = labels >= 0
    if not labelled.any():
        return len(counts) >= _FEW_UNLABELLED
    pairs = np.unique(np.stack([where.reshape(-1)[labelled], labels[labelled]]), axis=1)
    # Names with one class each, and only a few per class, are those of classes (in several splits).
    one_class_each = pairs.shape[1] == len(np.unique(pairs[0]))
    return not (one_class_each and len(counts) <= 4 * len(np.unique(labels[labelled])))


def _count_and_largest(names: np.ndarray) -> str:
    """Number of groups and the largest: ``57 in 1200 rows, the largest Ann_Fox (530), Ann_Gil (236)``."""
    values, counts = np.unique(names, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_MAX_NAMED]
    shown = ", ".join(f"{shorten(str(values[index]), 40)} ({counts[index]})" for index in order)
    every = f"{len(values)} in {plural(len(names), 'row')}"
    return f"{every}: {shown}" if len(values) <= _MAX_NAMED else f"{every}, the largest {shown}"
