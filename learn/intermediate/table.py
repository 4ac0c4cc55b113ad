"""Features and codes joined by id, and which rows a module is trained on, stopped on, reported on and asked for.

Features come from a file of ``ig3d logits --features``, whose predictions are the ``2d`` to compare with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import PredictionsError, ProtocolError, some
from ...features.inputs import Inputs, Paths
from ...features.join import load_table
from ...features.network_features import load_features
from ...features.store import CodeStore
from ...features.table import FusionTable
from ...features.values import Split
from ..folds import held_out, strata_of
from .config import IntermediateConfig


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """n samples with their 2D predictions and codes, and the features of those that a file has them for.

    Attributes
    ----------
    table : n samples (:class:`~ig3d.features.table.FusionTable`)
    values : (m, d) float32, or (m, c, h, w) float16
    row : (n,) int64
        Row in ``values`` of each sample, -1 where there is none.
    network : str
        Names the network that made the features, its layer and its input, by content.
    contents : (n,) int64
        Hash of each sample's image: the same photograph may come again under another id.
    """

    table: FusionTable
    values: np.ndarray
    row: np.ndarray
    network: str
    contents: np.ndarray

    @property
    def there(self) -> np.ndarray:
        """(n,) bool: samples with features."""
        return np.asarray(self.row >= 0)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that a training sees."""
        total = hashlib.sha256(self.network.encode())
        total.update(table_digest(self.table).encode())
        for array in (self.row, self.values):
            total.update(f"{array.dtype.str}{array.shape}".encode())
            total.update(np.ascontiguousarray(array))
        return total.hexdigest()


def table_digest(table: FusionTable) -> str:
    """SHA-256 of the samples with their truth, 2D predictions and codes."""
    total = hashlib.sha256(f"{table.classes}{table.blocks}".encode())
    for array in (table.id, table.group):
        total.update("\n".join(array.tolist()).encode())
    for array in (table.split, table.labels, table.targets, table.two_d, table.codes):
        if array is not None:
            total.update(f"{array.dtype.str}{array.shape}".encode())
            total.update(np.ascontiguousarray(array))
    return total.hexdigest()


def load_feature_table(
    features: str | Path,
    stores: Paths,
    *,
    blocks: str = "full",
    task: str | None = None,
    force: bool = False,
) -> FeatureTable:
    """Join a file of features and predictions to a store of codes.

    Parameters
    ----------
    features : ``.npz`` of ``ig3d logits --features``
    stores : path or paths of stores, which also give the samples and their labels
    blocks : which code blocks (:func:`~ig3d.features.blocks.choose_blocks`)
    task : ``classes``, ``va`` or ``both``; None takes what the file holds
    force : go on where the order of rows or classes is likely wrong

    Raises
    ------
    PredictionsError : the file is malformed, holds no features, or has ids that the store does not have.
    UsageError : a block that the store does not have.
    """
    read = load_features(features)
    inputs = Inputs(features, stores, task="classes" if task == "both" else task)
    table = load_table(inputs, blocks=blocks, force=force)
    strangers = read.ids[~np.isin(read.ids, table.id)]
    if len(strangers):
        raise PredictionsError(
            f"{features}: expected features of samples of {table.sources.get('3d', 'the store')} "
            f"({some(table.id.tolist(), 2)}), got {len(strangers)} of {len(read)} rows that are none "
            f"({some(strangers.tolist(), 3)}); write them from the same dataset"
        )
    return FeatureTable(
        table, read.values, read.rows_of(table.id), read.network, contents_of(inputs.stores, table.id)
    )


def contents_of(stores: Sequence[Path], ids: np.ndarray) -> np.ndarray:
    """(n,) int64 hashes of the images of ``ids``, by their bytes; of the ids themselves where no store knows those."""
    names = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids.tolist())
    contents = np.frombuffer(b"".join(names), "<i8").astype(np.int64)
    for path in stores:
        with CodeStore(path) as store:
            samples = store.samples
        hashes = np.ascontiguousarray(samples.digest[:, :8]).view("<i8").ravel()
        rows = np.searchsorted(ids, samples.id)
        there = (rows < len(ids)) & samples.digest.any(axis=1)
        there[there] = ids[rows[there]] == samples.id[there]
        contents[rows[there]] = hashes[there]
    return contents


@dataclass(frozen=True, slots=True)
class RowPlan:
    """Who sees which rows of a table; indices, ascending.

    Attributes
    ----------
    task : ``classes``, ``va`` or ``both``
    train : rows that weights are fitted to
    validation : rows that choose the epoch; none of them is reported
    reported : labelled rows whose figures are shown
    predicted : rows that predictions are written for: all that are of no train split
    notes : tuple of str
    """

    task: str
    train: np.ndarray
    validation: np.ndarray
    reported: np.ndarray
    predicted: np.ndarray
    notes: tuple[str, ...]


def plan_rows(table: FusionTable, there: np.ndarray, config: IntermediateConfig, *, what: str) -> RowPlan:
    """Choose the rows.

    Parameters
    ----------
    table : n samples
    there : (n,) bool
        Samples with features (or with a readable image).
    config : IntermediateConfig
    what : str
        What ``there`` means, for messages: ``features``, ``an image``.

    Raises
    ------
    ProtocolError : no train split, or too few rows of one of the parts.
    """
    task = config.task or table.task
    known = _known(table, task)
    in_train = table.split_mask("train")
    source = str(table.sources.get("3d", "store"))
    if not in_train.any():
        raise ProtocolError(
            f"{source}: expected a train split to fit on, got none of {len(table)} rows; extract with a dataset that "
            "has one (--split, or a manifest)"
        )
    usable = known & there
    if not (usable & in_train).any():
        raise ProtocolError(
            f"train rows: expected labelled ones with {what}, got none of {int(in_train.sum())}, "
            f"{int((known & in_train).sum())} of them labelled; give those of the train split too "
            "(ig3d logits --splits all)"
        )
    name = _reported(table, usable, config, what)
    reported = np.flatnonzero(usable & table.split_mask(name))
    notes = [] if config.report else [f"Reported on {name}: assumed; --report chooses."]
    rows = np.flatnonzero(usable & in_train)
    validation = np.flatnonzero(usable & table.split_mask("val")) if name != "val" else np.zeros(0, np.intp)
    if len(validation) >= 2:
        train, made = rows, "the val split"
    else:
        train, validation = _hold_out(table, rows, task, config)
        made = f"{len(validation)} of the train rows, by seed {config.seeds[0]}" + (
            ", groups whole" if table.grouped else ""
        )
    _check_classes(table, train, task)
    notes.append(f"Fitted on {len(train)} train rows; the epoch chosen on {made}.")
    without = int((~table.covered[train]).sum())
    if without:
        notes.append(f"{without} train rows have no codes: they teach the module what to do without a face.")
    shared = np.intersect1d(table.group_codes[rows], table.group_codes[reported])
    if table.grouped and len(shared):
        notes.append(
            f"WARNING {len(shared)} groups of the reported rows also stand among the train rows: the dataset's splits "
            "share them, and figures are likely too good."
        )
    return RowPlan(task, train, validation, reported, np.flatnonzero(there & ~in_train), tuple(notes))


def _known(table: FusionTable, task: str) -> np.ndarray:
    """Rows with the truth that a task needs."""
    valued = np.isfinite(table.targets).all(axis=1)
    if task == "both" and not (valued & (table.labels >= 0)).any():
        raise ProtocolError(
            f"task both: expected rows with a class and with valence and arousal, got {int((table.labels >= 0).sum())} "
            f"with a class, {int(valued.sum())} with both values; choose classes or va"
        )
    if task == "both":
        return np.asarray(valued & (table.labels >= 0))
    return valued if task == "va" else np.asarray(table.labels >= 0)


def _reported(table: FusionTable, usable: np.ndarray, config: IntermediateConfig, what: str) -> str:
    for name in (config.report,) if config.report else ("test", "val"):
        if (usable & table.split_mask(name)).any():
            return name
    asked = config.report or "test or val"
    raise ProtocolError(
        f"reported rows: expected labelled ones of {asked} with {what}, got none; "
        + ", ".join(f"{part.name} has {int((usable & (table.split == part)).sum())}" for part in Split)
    )


def _hold_out(
    table: FusionTable, rows: np.ndarray, task: str, config: IntermediateConfig
) -> tuple[np.ndarray, np.ndarray]:
    truth = table.targets[rows] if task == "va" else table.labels[rows]
    parts = max(2, round(1 / config.validation))
    held = held_out(
        strata_of(truth, "va" if task == "va" else "classes"),
        table.group_codes[rows] if table.grouped else None,
        parts,
        config.seeds[0],
    )
    if not held.any():
        raise ProtocolError(
            f"validation: expected {2 * parts} train rows or groups to part, got {len(rows)} rows in "
            f"{len(np.unique(table.group_codes[rows]))}; give more, or a val split that is not reported"
        )
    return rows[~held], rows[held]


def _check_classes(table: FusionTable, train: np.ndarray, task: str) -> None:
    if task != "va" and len(np.unique(table.labels[train])) < 2:
        raise ProtocolError(
            f"train rows: expected two classes or more, got only {table.classes[int(table.labels[train[0]])]}"
        )
    if not len(train) or not table.covered[train].any():
        raise PredictionsError(
            f"codes: expected train rows with 3D codes, got none of {len(train)}; see ig3d inspect"
        )


def codes_of(
    table: FusionTable, arm: str, parts: list[np.ndarray], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (n, d) float32 and (n,) bool of the rows that have some, as one arm of the comparison sees them.

    Parameters
    ----------
    table : n samples
    arm : ``codes``, ``masked`` (no row has any), or ``permuted`` (rows with codes change places within each part)
    parts : row indices that are permuted among themselves: fitted, choosing and predicted rows stay apart
    seed : of the permutation
    """
    codes = np.asarray(table.codes, np.float32)
    covered = table.covered
    if arm == "masked":
        return codes, np.zeros(len(table), bool)
    if arm == "permuted":
        codes = codes.copy()
        random = np.random.default_rng([seed, 3])
        for part in parts:
            rows = part[covered[part]]
            codes[rows] = codes[rows[random.permutation(len(rows))]]
    return codes, covered
