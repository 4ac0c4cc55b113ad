"""Which rows a network learns from, which choose its epoch, and what it is asked: decided before a pixel is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import DatasetError, UsageError
from ..extract.datasets.splits import seeded_split
from ..features.samples import Listing, Split
from .checkpoint import TASKS, VA_COLUMNS


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows and the question.

    Attributes
    ----------
    task : str
        ``classes`` or ``va``.
    columns : tuple of str
        The network's outputs.
    train, validation : (n,) int64
        Indices into the sample list, ascending; disjoint, and no row of another split is among them.
    targets : (n,) int64 labels, or (n, 2) float32 valence and arousal
    validation_from : str
        How the validation part was made, in words.
    notes : tuple of str
    """

    task: str
    columns: tuple[str, ...]
    train: np.ndarray
    validation: np.ndarray
    targets: np.ndarray
    validation_from: str
    notes: tuple[str, ...]

    def keep(self, readable: np.ndarray) -> Plan:
        """Without the rows whose pictures could not be read."""
        return replace(
            self,
            train=self.train[np.isin(self.train, readable)],
            validation=self.validation[np.isin(self.validation, readable)],
        )


def plan_training(listing: Listing, *, task: str | None, fraction: float, seed: int) -> Plan:
    """Choose the task and the rows.

    Parameters
    ----------
    listing : Listing
    task : str or None
        ``classes``, ``va``, or None: classes where the train split has labels.
    fraction : float in (0, 1)
        Part of the train rows held out where the dataset has no ``val`` split with truth: stratified, groups whole.
    seed : int
        Of that part.

    Raises
    ------
    UsageError : no such task.
    DatasetError : the train split does not have what the task needs.
    """
    if task is not None and task not in TASKS:
        raise UsageError(f"task: expected {' or '.join(TASKS)}, got {task!r}")
    in_train = listing.splits == Split.train
    if not in_train.any():
        raise DatasetError(
            f"{listing.dataset}: expected samples in a train split, got none of {len(listing)}; give a split in a "
            "manifest, or train/val/test folders"
        )
    labels = listing.labels.astype(np.int64)
    values = listing.samples[["valence", "arousal"]].to_numpy(np.float32)
    known = {"classes": labels >= 0, "va": np.isfinite(values).all(1)}
    if task is None:
        task = "classes" if (known["classes"] & in_train).any() else "va"
    rows = np.flatnonzero(known[task] & in_train)
    wanted = "labels" if task == "classes" else "valence and arousal"
    strata = labels if task == "classes" else _quadrants(values)
    if len(rows) < 2 or (task == "classes" and len(np.unique(labels[rows])) < 2):
        raise DatasetError(
            f"{listing.dataset}: expected train samples with {wanted}"
            f"{' of two classes or more' if task == 'classes' else ''}, got "
            f"{len(rows)} of {int(in_train.sum())} with {wanted}; check the dataset's labels, or choose another task"
        )
    validation = np.flatnonzero(known[task] & (listing.splits == Split.val))
    if len(validation) >= 2:
        train, made = rows, "the val split"
    else:
        train, validation = hold_out(rows, strata, listing.samples["group"].tolist(), fraction, seed)
        grouped = ", groups whole" if (listing.samples["group"].iloc[rows] != "").any() else ""
        made = f"{len(validation)} of the train rows (stratified{grouped}; seed {seed})"
    notes = []
    if int(in_train.sum()) > len(rows):
        notes.append(f"{int(in_train.sum()) - len(rows)} train rows have no {wanted} and are left out")
    columns = listing.classes if task == "classes" else VA_COLUMNS
    if task == "classes":
        never = [name for index, name in enumerate(columns) if not (labels[train] == index).any()]
        if never:
            notes.append(f"no training images of {', '.join(never)}: the network will never say so")
    return Plan(
        task=task,
        columns=columns,
        train=train,
        validation=validation,
        targets=labels if task == "classes" else values,
        validation_from=made,
        notes=tuple(notes),
    )


def hold_out(
    rows: np.ndarray, strata: np.ndarray, groups: Sequence[str], fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Part ``rows`` in two, stratified and with whole groups.

    Returns
    -------
    train, validation : ascending indices, both without an overlap and never empty

    Raises
    ------
    DatasetError : all rows are of one group.
    """
    dealt = seeded_split(
        [int(strata[row]) for row in rows],
        [groups[row] for row in rows],
        (1 - fraction, fraction, 0.0),
        seed=seed,
    )
    held = dealt == Split.val
    if held.all() or not held.any():
        raise DatasetError(
            f"validation: expected train rows that can be parted in two without splitting a group, got {len(rows)} "
            "rows that cannot; add a val split"
        )
    return rows[~held], rows[held]


def _quadrants(values: np.ndarray) -> np.ndarray:
    """Strata of valence-arousal: which of the four quadrants."""
    return (values[:, 0] >= 0).astype(np.int64) * 2 + (values[:, 1] >= 0)
