"""What adapters share: finding images, ids from paths, natural order, the seeded split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ...errors import DatasetError, UsageError
from ...features.values import Split
from ..read import SUFFIXES

_SPLIT_NAMES = {
    "train": Split.train, "training": Split.train, "train_set": Split.train,
    "val": Split.val, "valid": Split.val, "validation": Split.val, "val_set": Split.val,
    "test": Split.test, "testing": Split.test, "test_set": Split.test,
}  # fmt: skip


def find_images(folder: Path) -> Iterator[Path]:
    """Image files under a folder, in natural order; links to folders are not followed, so none can loop."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural)
        for name in sorted(files, key=natural):
            if is_image(Path(name)):
                yield Path(parent, name)


def is_image(path: Path) -> bool:
    """Whether a name is that of an image, and not of a hidden file."""
    return not path.name.startswith(".") and path.suffix.lower() in SUFFIXES


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key that puts ``img2`` before ``img10``."""
    return tuple(
        (0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", name) if part
    )


def sample_id(path: str) -> str:
    """The id of an image: its POSIX path under the root, without extension.

    >>> sample_id("val_set/images/0.jpg")
    'val_set/images/0'
    """
    return str(PurePosixPath(path).with_suffix(""))


def posix(path: Path, root: Path) -> str:
    """``path`` under ``root`` in POSIX form."""
    return path.relative_to(root).as_posix()


def size_of(path: Path) -> int:
    """Bytes of a file, -1 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def split_named(name: str) -> Split | None:
    """The split that a folder or a table cell names, None where it names none."""
    return _SPLIT_NAMES.get(name.strip().lower())


def groups_of(ids: Sequence[str], pattern: str | None) -> list[str]:
    """The person or video in each id, by the first group of a regular expression; empty without a pattern.

    Raises
    ------
    UsageError : the pattern is no regular expression with a group.
    DatasetError : it matches some ids only.
    """
    if pattern is None:
        return [""] * len(ids)
    try:
        expression = re.compile(pattern)
    except re.error as exc:
        raise UsageError(f"group pattern: expected a regular expression, got {pattern!r} ({exc})") from exc
    if expression.groups < 1:
        raise UsageError(f"group pattern: expected a group in parentheses, got {pattern!r}")
    matches = [expression.search(identifier) for identifier in ids]
    without = [identifier for identifier, match in zip(ids, matches, strict=True) if match is None]
    if without:
        raise DatasetError(
            f"group pattern: expected a match in every id, got none in {len(without)} of {len(ids)} "
            f"({', '.join(without[:5])})"
        )
    return [match.group(1) for match in matches if match is not None]


def seeded_split(
    labels: Sequence[int], groups: Sequence[str], fractions: tuple[float, float, float], *, seed: int
) -> np.ndarray:
    """Train, val and test for samples that come without: stratified by class, groups kept whole.

    Groups (a sample without one is its own) are dealt out in a seeded random order, largest first, each to the
    split that lacks most of that group's classes.

    Returns
    -------
    (n,) int8 codes of :class:`Split`

    Raises
    ------
    UsageError : the fractions are not three numbers from 0 that sum to 1.
    """
    shares = np.array(fractions, float)
    if shares.shape != (3,) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise UsageError(f"split: expected three fractions from 0 that sum to 1, got {fractions}")
    classes, label_of = np.unique(np.asarray(labels), return_inverse=True)
    own = [group or f"\0{row}" for row, group in enumerate(groups)]
    names, group_of = np.unique(own, return_inverse=True)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (group_of, label_of), 1)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(names))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    wanted = shares[:, None] * counts.sum(0)  # (3, classes): how many each split still lacks
    chosen = np.zeros(len(names), np.int8)
    for group in order:
        # the split that is relatively emptiest in this group's classes; ties go to the larger share
        lack = (wanted * counts[group]).sum(1) / np.where(shares > 0, shares, 1)
        lack[shares == 0] = -np.inf
        chosen[group] = int(np.argmax(lack + 1e-9 * shares))
        wanted[chosen[group]] -= counts[group]
    return chosen[group_of]


def listing(folder: Path, limit: int = 5) -> str:
    """What a folder holds, in a few words, for messages."""
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    if not names:
        return "an empty folder"
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def missing_note(paths: Iterable[str], sizes: Iterable[int]) -> tuple[str, ...]:
    """A note on listed files that are not there; empty where all are."""
    gone = [path for path, size in zip(paths, sizes, strict=True) if size < 0]
    if not gone:
        return ()
    return (
        f"{len(gone)} listed images are not there ({', '.join(gone[:5])}); they keep their rows as missing",
    )
