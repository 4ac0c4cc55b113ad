"""Plan of a training: task, training rows and validation rows, chosen before any image is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import DatasetError, UsageError, none_of, one_of, plural
from ..extract.datasets.splits import seeded_split
from ..features.samples import Listing, Split
from .checkpoint import TASKS, VA_COLUMNS


@dataclass(frozen=True, slots=True)
class Plan:
    """Task and rows of a training.

    Attributes
    ----------
    task : str
        ``classes`` or ``va``.
    columns : tuple of str
        Names of the network's outputs.
    train, validation : (n,) int64
        Indices into the sample list, ascending and disjoint; only rows of the train and val splits.
    targets : (n,) int64 labels, or (n, 2) float32 valence and arousal
    validation_from : str
        Description of the origin of the validation rows.
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
        """The plan reduced to readable rows (m,)."""
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
        ``classes``, ``va``, or None: classes if the train split has labels.
    fraction : float in (0, 1)
        Fraction of the train rows for validation if the dataset has no labelled ``val`` split: stratified, without
        dividing groups.
    seed : int
        Seed of this choice.

    Raises
    ------
    UsageError : the task does not exist.
    DatasetError : the train split has too few labels for the task.
    """
    if task is not None and task not in TASKS:
        raise UsageError(f"task: {task!r} is unknown; choose {one_of(TASKS)}")
    in_train = listing.splits == Split.train
    if not in_train.any():
        raise DatasetError(
            f"{listing.dataset}: {none_of(len(listing), 'sample', 'is')} in a train split; pass --split, a manifest "
            "with splits, or train/val/test folders"
        )
    labels = listing.labels.astype(np.int64)
    values = listing.samples[["valence", "arousal"]].to_numpy(np.float32)
    labelled = {"classes": labels >= 0, "va": np.isfinite(values).all(1)}
    unset = task is None
    if task is None:
        task = "classes" if (labelled["classes"] & in_train).any() else "va"
    rows = np.flatnonzero(labelled[task] & in_train)
    wanted = "labels" if task == "classes" else "valence and arousal"
    strata = labels if task == "classes" else _quadrants(values)
    if len(rows) < 2 or (task == "classes" and len(np.unique(labels[rows])) < 2):
        raise DatasetError(
            f"{listing.dataset}: {wanted} for only {len(rows)} of {plural(int(in_train.sum()), 'train sample')}"
            f"{', and two or more classes are needed' if task == 'classes' else ''}; check the labels of the dataset, "
            "or choose another task"
        )
    validation = np.flatnonzero(labelled[task] & (listing.splits == Split.val))
    if len(validation) >= 2:
        train, origin = rows, "the val split"
    else:
        train, validation = hold_out(rows, strata, listing.samples["group"].tolist(), fraction, seed)
        grouped = ", groups not divided" if (listing.samples["group"].iloc[rows] != "").any() else ""
        origin = f"{len(validation)} of the train rows (stratified{grouped}; seed {seed})"
    notes = []
    if unset and task == "classes" and (labelled["va"] & in_train).any():
        notes.append("classes are trained; the samples also have valence and arousal (--task va)")
    if int(in_train.sum()) > len(rows):
        notes.append(f"{plural(int(in_train.sum()) - len(rows), 'train row')} without {wanted} left out")
    columns = listing.classes if task == "classes" else VA_COLUMNS
    if task == "classes":
        absent = [name for index, name in enumerate(columns) if not (labels[train] == index).any()]
        if absent:
            notes.append(f"no training images of {', '.join(absent)}: the network will never predict this")
    return Plan(
        task=task,
        columns=columns,
        train=train,
        validation=validation,
        targets=labels if task == "classes" else values,
        validation_from=origin,
        notes=tuple(notes),
    )


def hold_out(
    rows: np.ndarray, strata: np.ndarray, groups: Sequence[str], fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split ``rows`` in two, stratified, without dividing groups.

    Returns
    -------
    train, validation : ascending indices; disjoint, and not empty

    Raises
    ------
    DatasetError : all rows belong to one group.
    """
    assigned = seeded_split(
        [int(strata[row]) for row in rows],
        [groups[row] for row in rows],
        (1 - fraction, fraction, 0.0),
        seed=seed,
    )
    held = assigned == Split.val
    if held.all() or not held.any():
        raise DatasetError(
            f"validation: {len(rows)} train rows cannot be split in two without dividing a group; add a val split"
        )
    return rows[~held], rows[held]


def _quadrants(values: np.ndarray) -> np.ndarray:
    """Strata for valence-arousal: the four quadrants."""
    return (values[:, 0] >= 0).astype(np.int64) * 2 + (values[:, 1] >= 0)
