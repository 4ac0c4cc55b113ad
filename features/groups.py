"""Groups of samples: persons or videos whose rows never stand on both sides of a fold.

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

_SECONDS = 10.0  # for a pattern over all ids; a sound one takes microseconds for each
_LARGEST = 3  # groups that are named
# So few beginnings of ids are no names of persons: they are classes or splits. More where there are no labels.
_FEW, _FEW_UNLABELLED = 4, 20
# Ids that look like several images of one person or video, most telling first: what is before the last number, after a
# separator or not; the folder.
_PATTERNS = (r"([^/]*[^/_. -])[_. -]+\d+$", r"([^/]*[^/\d_. -])\d+$", r"([^/]+)/[^/]*$")


def groups_of(ids: np.ndarray, pattern: str) -> np.ndarray:
    """(n,) str group of each id: the first group of a regular expression, searched in the id.

    Raises
    ------
    UsageError : the pattern is no regular expression with a group, takes too long (nested repeats), or does not match
        every id.
    """
    try:
        matches = _search_all(pattern, ids.tolist())
    except TimeoutError:
        raise UsageError(
            f"groups: matching {shorten(pattern)!r} took more than {_SECONDS:g} s over {plural(len(ids), 'id')}; avoid "
            "repeats within repeats, such as (a+)+"
        ) from None
    except (regex.error, ValueError, RecursionError, OverflowError, MemoryError) as exc:
        raise UsageError(f"groups: {shorten(pattern)!r} is no regular expression: {exc}; correct it") from exc
    without = [name for name, match in zip(ids.tolist(), matches, strict=True) if match is None]
    if without:
        raise UsageError(
            f"groups: the pattern {shorten(pattern)!r} does not match {len(without)} of {len(ids)} ids "
            f"({listed(without)}); change it to match every id"
        )
    return np.array([match.group(1) or "" for match in matches if match is not None], dtype=str)


def _search_all(pattern: str, ids: list[str]) -> list[regex.Match[str] | None]:
    """The match in each id.

    Raises
    ------
    TimeoutError : all of them together take more than ``_SECONDS``.
    """
    expression = regex.compile(pattern)
    if expression.groups < 1:
        raise UsageError(
            f"groups: the pattern {shorten(pattern)!r} has no parentheses; put them around the part that names the "
            "person or video"
        )
    end = time.monotonic() + _SECONDS
    return [expression.search(name, timeout=max(end - time.monotonic(), 1e-3)) for name in ids]


def regrouped(table: FusionTable, pattern: str | None) -> FusionTable:
    """The table with groups by a pattern, and with a note on its groups or on ids that look like groups."""
    notes = table.notes
    if pattern is not None:
        if table.grouped:
            notes = (*notes, "--groups replaces the groups of the store.")
        table = replace(table, group=groups_of(table.id, pattern))
    note = note_on_groups(table.id, table.group, table.labels)
    return replace(table, notes=(*notes, *note))


def note_on_groups(ids: np.ndarray, group: np.ndarray, labels: np.ndarray) -> tuple[str, ...]:
    """The largest groups; where there are none, a hint if ids look like several images of one person or video.

    Parameters
    ----------
    ids, group : (n,) str, group empty where there is none
    labels : (n,) int, -1 where there is none
    """
    known = group[group != ""]
    if len(known):
        return (f"Groups (persons, videos): {_in_words(known)}, of {plural(len(known), 'row')}.",)
    for pattern in _PATTERNS:
        matches = [re.search(pattern, name) for name in ids.tolist()]
        names = np.array([match[1] for match in matches if match], dtype=str)
        if len(names) < len(ids) or not _like_groups(names, labels):
            continue
        return (
            "WARNING no groups are given, but ids look like several images of one person or video: "
            f"{_in_words(names)}. If they are, give --groups '{pattern}': otherwise rows of one person are both fitted "
            "and reported, and figures "
            "and intervals are too good. (A column group in a manifest or in --labels does the same.)",
        )
    return ()


def _like_groups(names: np.ndarray, labels: np.ndarray) -> bool:
    """Whether beginnings of ids are likely persons: several rows for most, and no names of classes or splits."""
    _, where, counts = np.unique(names, return_inverse=True, return_counts=True)
    if len(counts) < _FEW or (counts[where] > 1).mean() < 0.5:
        return False
    labelled = labels >= 0
    if not labelled.any():
        return len(counts) >= _FEW_UNLABELLED
    pairs = np.unique(np.stack([where.reshape(-1)[labelled], labels[labelled]]), axis=1)
    # Folders and prefixes that hold one class each, of a few splits: names of classes.
    pure = pairs.shape[1] == len(np.unique(pairs[0]))
    return not (pure and len(counts) <= 4 * len(np.unique(labels[labelled])))


def _in_words(names: np.ndarray) -> str:
    """``57, the largest George_W_Bush (530 rows), Colin_Powell (236), Tony_Blair (144)``."""
    values, counts = np.unique(names, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_LARGEST]
    shown = ", ".join(f"{shorten(str(values[at]), 40)} with {counts[at]}" for at in order)
    return f"{len(values)}, the largest {shown}"
