"""Splits of datasets: assigned by shares, a validation part of the train split, or read from a table.

All are seeded, stratified and keep groups whole. ``ig3d split`` writes the table; ``--split`` takes it or shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import DatasetError, UsageError, listed, plural
from ...features.align import Alignment, choose_id_column, spelling_hint
from ...features.atomic import replacing
from ...features.samples import SPLITS, Listing, Split
from ...features.table_columns import (
    LABEL_NAMES,
    SPLIT_NAMES,
    as_text,
    find_column,
    id_candidates,
    list_columns,
    split_of,
)
from ...features.table_reader import read_table

HEADER = ("id", "split")
# Shares of train, val and test of a random split.
SHARES = (0.6, 0.2, 0.2)
# Share of the train rows that becomes val.
VAL_SHARE = 0.1


def seeded_split(
    labels: Sequence[int] | np.ndarray,
    groups: Sequence[str] | np.ndarray,
    fractions: tuple[float, float, float],
    *,
    seed: int,
) -> np.ndarray:
    """Train, val and test for samples that come without: stratified by class, groups kept whole.

    Groups (a sample without one is a group by itself) are assigned in a seeded random order, largest first, each to
    the split that has least of that group's classes.

    Returns
    -------
    (n,) int8 codes of :class:`Split`

    Raises
    ------
    UsageError : the fractions are not three numbers from 0 that sum to 1.
    """
    shares = np.array(fractions, float)
    if shares.shape != (3,) or not (shares >= 0).all() or not np.isclose(shares.sum(), 1):
        raise UsageError(
            f"split: {fractions} are not three fractions from 0 that sum to 1; give such as 0.7,0.1,0.2"
        )
    classes, label_of = np.unique(np.asarray(labels), return_inverse=True)
    groups = np.asarray(groups, dtype=object)
    alone, group_of = groups == "", np.empty(len(groups), int)
    group_of[alone] = np.arange(alone.sum())
    names, in_names = np.unique(groups[~alone], return_inverse=True)
    group_of[~alone] = alone.sum() + in_names
    counts = np.zeros((int(alone.sum()) + len(names), len(classes)), np.float32)
    np.add.at(counts, (group_of, label_of), 1)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts.sum(1)[order], kind="stable")]
    wanted = shares[:, None] * counts.sum(0, np.float64)  # (3, classes): rows that each split still needs
    chosen = np.zeros(len(counts), np.int8)
    for group in order:
        # the split that is relatively emptiest in this group's classes; ties go to the larger share
        lack = (wanted * counts[group]).sum(1) / np.where(shares > 0, shares, 1)
        lack[shares == 0] = -np.inf
        chosen[group] = int(np.argmax(lack + 1e-9 * shares))
        wanted[chosen[group]] -= counts[group]
    return chosen[group_of]


def strata(listing: Listing) -> np.ndarray:
    """(n,) int strata of a split: by label, else by the quadrant of valence and arousal, else one (-1)."""
    label, samples = listing.labels.astype(np.int64), listing.samples
    valence, arousal = (samples[name].to_numpy() for name in ("valence", "arousal"))
    quadrant = -2 - 2 * (valence >= 0) - (arousal >= 0)
    return np.where((label >= 0) | np.isnan(valence), label, quadrant)


def assign_splits(listing: Listing, shares: tuple[float, float, float], *, seed: int) -> Listing:
    """Train, val and test for a dataset that has no splits, over ids in order."""
    groups = listing.samples["group"].to_numpy()
    splits = seeded_split(strata(listing), groups, shares, seed=seed)
    words = "/".join(f"{share:g}" for share in shares)
    whole = ", groups kept whole" if (groups != "").any() else ""
    note = f"no split in the dataset: stratified split {words} into train/val/test with seed {seed}{whole}"
    listing = _with_splits(listing, splits, note)
    expected = np.array(shares) * len(splits)
    empty = [name for code, name in enumerate(SPLITS) if expected[code] >= 1 and not (splits == code).any()]
    if empty and whole:
        count = plural(len(np.unique(groups[groups != ""])), "group")
        note = f"WARNING no row is in {' or '.join(empty)}: {count} cannot be divided by these shares"
        listing = replace(listing, notes=(*listing.notes, note))
    return listing


def draw_val(listing: Listing, share: float | None, *, seed: int = 0) -> Listing:
    """Splits with a val split: a part of the train split, or a random split of a dataset without splits.

    Parameters
    ----------
    listing : Listing
    share : float in (0, 1), optional
        Of the train rows, by default 0.1; or, in a dataset without splits, of all rows, with 0.2 for test.
    seed : int

    Raises
    ------
    UsageError, DatasetError : see :func:`carve`; or the share leaves no train rows.
    """
    if not (listing.samples["group"] != "").any():
        note = "no groups: images of one person may be in several splits; pass --groups if ids name persons"
        listing = replace(listing, notes=(*listing.notes, note))
    if (listing.splits != Split.none).any():
        return carve(listing, VAL_SHARE if share is None else share, seed=seed)
    test = SHARES[2]
    if share is not None and not 0 < share < 1 - test:
        raise UsageError(
            f"split: the validation share {share:g} is not between 0 and {1 - test:g}: {listing.dataset} has no "
            f"splits, and {test:g} of the rows become test rows"
        )
    shares = SHARES if share is None else (1 - test - share, share, test)
    return assign_splits(listing, shares, seed=seed)


def carve(listing: Listing, share: float, *, seed: int = 0) -> Listing:
    """Move a part of the train split to ``val``: stratified by class, groups kept whole; other splits stay.

    Parameters
    ----------
    listing : Listing
        With a train split, without a val split.
    share : float in (0, 1)
        Of the train rows.
    seed : int

    Raises
    ------
    UsageError : the share is none.
    DatasetError : there is no train split, or a val split already, or one group holds all train rows.
    """
    if not 0 < share < 1:
        raise UsageError(f"split: the validation share {share} is not between 0 and 1; give such as 0.1")
    splits = listing.splits
    rows = np.flatnonzero(splits == Split.train)
    if not len(rows) or (splits == Split.val).any():
        present = ", ".join(
            f"{split.name} {count}" for split in Split if (count := int((splits == split).sum()))
        )
        raise DatasetError(
            f"split: {listing.dataset} already has a val split ({present}); to write its splits as a table, omit --val "
            "and pass --out with a name that ends in .csv"
            if len(rows)
            else f"split: {listing.dataset} has no train split ({present}); write one as a table {','.join(HEADER)}"
        )
    groups = listing.samples["group"].to_numpy()[rows]
    chosen = seeded_split(strata(listing)[rows], groups, (1 - share, share, 0.0), seed=seed)
    if not (chosen == Split.val).any() or (chosen == Split.val).all():
        raise DatasetError(
            f"split: the {plural(len(rows), 'train row')} cannot be divided without splitting a group; use another "
            "share or smaller groups"
        )
    splits[rows] = chosen
    return _with_splits(listing, splits, None)


def check_replaceable(out: Path) -> None:
    """Refuse to write over anything but a split table, which is made again at once.

    Raises
    ------
    UsageError : something else is there.
    """
    if out.exists() and not (out.is_file() and _is_split_table(out)):
        raise UsageError(f"{out}: exists and is no split table, so it is not replaced; name a new file")


def _is_split_table(path: Path) -> bool:
    with path.open("rb") as handle:
        return handle.read(16).startswith(",".join(HEADER).encode())


def write_split(path: Path, listing: Listing) -> None:
    """The table ``id,split`` that ``--split`` reads, a line for each sample."""
    with replacing(path) as temporary:
        listing.samples[list(HEADER)].to_csv(temporary, index=False, lineterminator="\n")


def apply_split(listing: Listing, table: Path) -> Listing:
    """The splits of a table in place of the dataset's.

    Raises
    ------
    DatasetError : it is no such table, or its ids are not those of the dataset.
    """
    ids, splits, alignment = _read_split(table, listing.samples)
    unknown = ids[~alignment.aligned].tolist()
    missing = listing.samples["id"].drop(alignment.rows[alignment.aligned]).tolist()
    if unknown or missing:
        raise DatasetError(
            f"split: {table} does not list the {plural(len(listing), 'sample')} of {listing.dataset}: "
            f"{plural(len(unknown), 'unknown id')}"
            + (f" ({listed(unknown, 3)})" if unknown else "")
            + f" and {len(missing)} missing"
            + (f" ({listed(missing, 3)})" if missing else "")
            + spelling_hint(np.array(unknown, dtype=str), listing.samples)
            + "; make it with ig3d split from the same folder, --dataset and options"
        )
    aligned = np.empty(len(listing), np.int8)
    aligned[alignment.rows] = splits
    return _with_splits(listing, aligned, f"splits: {alignment.report(str(table), listing.dataset)}")


def _read_split(table: Path, samples: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, Alignment]:
    """Ids (of the column that aligns most samples) and splits of a table, each id once."""
    columns, _ = read_table(table, error=DatasetError)
    split = find_column(columns, SPLIT_NAMES)
    no_ids = {split, find_column(columns, LABEL_NAMES)}
    candidates = id_candidates(columns[[name for name in columns if name not in no_ids]])
    best = choose_id_column(candidates, samples)
    if split is None or best is None:
        raise DatasetError(
            f"split: {table} needs the columns id,split and has {list_columns(list(columns))}; write one with "
            "ig3d split"
        )
    column, alignment = best
    ids = candidates[column]
    names, counts = np.unique(ids, return_counts=True)
    cells = as_text(columns[split]).tolist()
    if repeated := names[counts > 1].tolist():
        raise DatasetError(
            f"split: column {column} of {table} has duplicate ids ({listed(repeated)}); write one row for each sample"
        )
    if unknown := sorted({cell for cell in cells if split_of(cell) is None}):
        raise DatasetError(
            f"split: column {split} of {table} has {listed(unknown)}; write train, val, test or nothing"
        )
    return ids, np.array([split_of(cell) for cell in cells], np.int8), alignment


def _with_splits(listing: Listing, splits: np.ndarray, note: str | None) -> Listing:
    """The same samples in other splits; ``note`` is on where they come from."""
    samples = listing.samples.assign(split=pd.Categorical.from_codes(splits, list(SPLITS)))
    return replace(listing, samples=samples, notes=listing.notes if note is None else (*listing.notes, note))
