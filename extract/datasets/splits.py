"""Splits that a dataset does not say itself: dealt out by shares, carved from the train part, or read from a table.

All are seeded, stratified and keep groups whole. ``ig3d split`` writes the table; ``--split`` takes it or shares.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import DatasetError, UsageError, number, some
from ...features.align import Alignment, Names, align_column, difference
from ...features.atomic import replacing
from ...features.columns import SPLIT_NAMES, as_text, find_column, id_candidates, say_columns, split_of
from ...features.samples import SampleList, Samples, Split
from ...features.table_reader import read_table

HEADER = ("id", "split")


def seeded_split(
    labels: Sequence[int] | np.ndarray,
    groups: Sequence[str] | np.ndarray,
    fractions: tuple[float, float, float],
    *,
    seed: int,
) -> np.ndarray:
    """Train, val and test for samples that come without: stratified by class, groups kept whole.

    Groups (text or its UTF-8; a sample without one is its own) are dealt out in a seeded random order, largest
    first, each to the split that lacks most of that group's classes.

    Returns
    -------
    (n,) int8 codes of :class:`Split`

    Raises
    ------
    UsageError : the fractions are not three numbers from 0 that sum to 1.
    """
    shares = np.array(fractions, float)
    if shares.shape != (3,) or not (shares >= 0).all() or not np.isclose(shares.sum(), 1):
        raise UsageError(f"split: expected three fractions from 0 that sum to 1, got {fractions}")
    classes, label_of = np.unique(np.asarray(labels), return_inverse=True)
    given = np.asarray(groups)
    given = given if given.dtype.kind == "S" else np.char.encode(given.astype("U"), "utf-8")
    alone, group_of = given == b"", np.empty(len(given), int)
    group_of[alone] = np.argsort(np.argsort(np.flatnonzero(alone).astype("S"), kind="stable"))
    names, in_names = np.unique(given[~alone], return_inverse=True)
    group_of[~alone] = alone.sum() + in_names
    counts = np.zeros((int(alone.sum()) + len(names), len(classes)), np.float32)
    np.add.at(counts, (group_of, label_of), 1)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts.sum(1)[order], kind="stable")]
    wanted = shares[:, None] * counts.sum(0, np.float64)  # (3, classes): how many each split still lacks
    chosen = np.zeros(len(counts), np.int8)
    for group in order:
        # the split that is relatively emptiest in this group's classes; ties go to the larger share
        lack = (wanted * counts[group]).sum(1) / np.where(shares > 0, shares, 1)
        lack[shares == 0] = -np.inf
        chosen[group] = int(np.argmax(lack + 1e-9 * shares))
        wanted[chosen[group]] -= counts[group]
    return chosen[group_of]


def strata(samples: Samples) -> np.ndarray:
    """What a split is stratified by: the label, else the quadrant of valence and arousal, else nothing (-1)."""
    label, valence, arousal = (samples.column(name) for name in ("label", "valence", "arousal"))
    quadrant = -2 - 2 * (valence >= 0) - (arousal >= 0)
    return np.where((label >= 0) | np.isnan(valence), label, quadrant)


def deal(samples: SampleList, shares: tuple[float, float, float], *, seed: int) -> SampleList:
    """Train, val and test for a dataset that has no splits, over ids in order."""
    rows = Samples.of(samples.samples)
    dealt = seeded_split(strata(rows), rows.column("group"), shares, seed=seed)
    words = "/".join(f"{share:g}" for share in shares)
    whole = ", groups kept whole" if (rows.column("group") != b"").any() else ""
    note = f"no split in the dataset: stratified split {words} into train/val/test with seed {seed}{whole}"
    return _with_splits(samples, dealt, note)


def carve(samples: SampleList, share: float, *, seed: int = 0) -> SampleList:
    """Move a part of the train split to ``val``: stratified by class, groups kept whole; other splits stay.

    Parameters
    ----------
    samples : SampleList
        With a train split; a val split that is there already is refused.
    share : float in (0, 1)
        Of the train rows.
    seed : int

    Raises
    ------
    UsageError : the share is none.
    DatasetError : there is no train split, or a val split already, or one group holds all train rows.
    """
    if not 0 < share < 1:
        raise UsageError(f"split: expected a share between 0 and 1 for the validation part, got {share}")
    splits = samples.splits
    rows = np.flatnonzero(splits == Split.train)
    if not len(rows) or (splits == Split.val).any():
        there = ", ".join(
            f"{split.name} {count}" for split in Split if (count := int((splits == split).sum()))
        )
        raise DatasetError(
            f"split: expected a train split and no val split in {samples.dataset}, got {there}; nothing is to be carved"
            if len(rows)
            else f"split: expected a train split in {samples.dataset}, got {there}; "
            "deal one out with --split TRAIN,VAL,TEST"
        )
    chosen = Samples.of(samples.samples).take(rows)
    dealt = seeded_split(strata(chosen), chosen.column("group"), (1 - share, share, 0.0), seed=seed)
    if not (dealt == Split.val).any() or (dealt == Split.val).all():
        raise DatasetError(
            f"split: expected train rows that can be parted without splitting a group, got "
            f"{number(len(rows), 'row')} that cannot"
        )
    splits[rows] = dealt
    return _with_splits(samples, splits, None)


def check_replaceable(out: Path) -> None:
    """Refuse to write over anything but a split table, which is made again at once.

    Raises
    ------
    UsageError : something else is there.
    """
    if out.exists() and not (out.is_file() and _is_split_table(out)):
        raise UsageError(
            f"{out}: expected nothing there, or a split table to replace, got another thing; name a new file"
        )


def _is_split_table(path: Path) -> bool:
    with path.open("rb") as handle:
        return handle.read(16).startswith(",".join(HEADER).encode())


def write_split(path: Path, samples: SampleList) -> None:
    """The table ``id,split`` that ``--split`` reads, a line for each sample."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(
            (sample.id, "" if sample.split is Split.none else sample.split.name) for sample in samples.samples
        )


def apply_split(samples: SampleList, table: Path) -> SampleList:
    """The splits of a table instead of the dataset's own.

    Raises
    ------
    DatasetError : it is no such table, or its ids are not those of the dataset.
    """
    rows = _names(samples)
    ids, splits, alignment = _read_split(table, rows)
    unknown = ids[~alignment.aligned].tolist()
    missing = np.delete(rows.id, alignment.rows[alignment.aligned]).tolist()
    if unknown or missing:
        raise DatasetError(
            f"split: expected in {table} the {len(rows.id)} ids of {samples.dataset}, got "
            f"{number(len(unknown), 'other')}"
            + (f" ({some(unknown, 3)})" if unknown else "")
            + f" and {len(missing)} missing"
            + (f" ({some(missing, 3)})" if missing else "")
            + difference(np.array(unknown, dtype=str), rows)
            + "; make it with ig3d split from the same folder, --dataset and options"
        )
    aligned = np.empty(len(rows.id), np.int8)
    aligned[alignment.rows] = splits
    return _with_splits(samples, aligned, f"splits: {alignment.report(str(table), samples.dataset)}")


def _names(samples: SampleList) -> Names:
    rows = Samples.of(samples.samples)
    return Names(*(np.char.decode(rows.column(name), "utf-8") for name in ("id", "path")))


def _read_split(table: Path, samples: Names) -> tuple[np.ndarray, np.ndarray, Alignment]:
    """Ids (of the column that aligns most samples) and splits of a table, each id once."""
    columns, _ = read_table(table, error=DatasetError)
    split = find_column(columns, SPLIT_NAMES)
    candidates = id_candidates(columns[[name for name in columns if name != split]])
    best = align_column(candidates, samples)
    if split is None or best is None:
        raise DatasetError(
            f"split: expected a table with the columns id,split in {table}, got {say_columns(list(columns))}; "
            "ig3d split writes one"
        )
    column, alignment = best
    ids = candidates[column]
    names, counts = np.unique(ids, return_counts=True)
    cells = as_text(columns[split]).tolist()
    bad = [*names[counts > 1].tolist(), *sorted({cell for cell in cells if split_of(cell) is None})]
    if bad:
        raise DatasetError(
            f"split: expected each id once with train, val, test or nothing in {table}, got {some(bad)}"
        )
    return ids, np.array([split_of(cell) for cell in cells], np.int8), alignment


def _with_splits(samples: SampleList, splits: np.ndarray, note: str | None) -> SampleList:
    """The same samples in other splits; ``note`` says whose they are."""
    return replace(
        samples,
        samples=Samples.of(samples.samples).with_column("split", splits),
        notes=samples.notes if note is None else (*samples.notes, note),
    )
