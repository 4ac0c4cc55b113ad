"""Features and codes, joined by id.

Features come from a file of ``ig3d logits --features``, whose predictions are the ``2d`` to compare with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import PredictionsError, some
from ...features.align import find_rows
from ...features.fusion_table import FusionTable
from ...features.groups import regrouped
from ...features.inputs import Inputs, Paths
from ...features.join import load_table
from ...features.network_features import load_features
from ...features.store import CodeStore

_AT_A_TIME = 512


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """n samples with their 2D predictions and codes, and the features of those that a file has them for.

    Attributes
    ----------
    table : n samples (:class:`~ig3d.features.fusion_table.FusionTable`)
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
        total.update(f"{self.values.dtype.str}{self.values.shape[1:]}".encode())
        total.update(self.there.tobytes())
        # by sample: the order of a file's rows is of no meaning; in parts, as maps are large
        rows = self.row[self.there]
        for start in range(0, len(rows), _AT_A_TIME):
            total.update(self.values[rows[start : start + _AT_A_TIME]].tobytes())
        return total.hexdigest()


def table_digest(table: FusionTable) -> str:
    """SHA-256 of the samples with their truth, 2D predictions and codes."""
    total = hashlib.sha256(f"{table.classes}{table.blocks}".encode())
    for array in (table.id, table.group):
        total.update("\n".join(array.tolist()).encode())
    for numbers in (table.split, table.labels, table.targets, table.two_d, table.codes):
        if numbers is not None:
            total.update(f"{numbers.dtype.str}{numbers.shape}".encode())
            total.update(np.ascontiguousarray(numbers).data)
    return total.hexdigest()


def load_feature_table(
    features: str | Path,
    stores: Paths,
    *,
    blocks: str = "full",
    groups: str | None = None,
    task: str | None = None,
    force: bool = False,
    need_labels: bool = True,
    classes: Sequence[str] = (),
) -> FeatureTable:
    """Join a file of features and predictions to a store of codes.

    Parameters
    ----------
    features : ``.npz`` of ``ig3d logits --features``
    stores : path or paths of stores, which also give the samples and their labels
    blocks : which code blocks (:func:`~ig3d.features.blocks.choose_blocks`)
    groups : regular expression over ids whose first group names the person or video, or None
    task : ``classes``, ``va`` or ``both``; None takes what the file holds
    force : go on where the order of rows or classes is likely wrong
    need_labels, classes : see :func:`~ig3d.features.join.load_table`

    Raises
    ------
    PredictionsError : the file is malformed, holds no features, or has ids that the store does not have.
    UsageError : a block that the store does not have.
    """
    read = load_features(features)
    inputs = Inputs(features, stores, task="classes" if task == "both" else task)
    table = load_table(inputs, blocks=blocks, force=force, need_labels=need_labels, classes=classes)
    strangers = read.ids[~np.isin(read.ids, table.id)]
    if len(strangers):
        raise PredictionsError(
            f"{features}: expected features of samples of {table.sources.get('3d', 'the store')} "
            f"({some(table.id.tolist(), 2)}), got {len(strangers)} of {len(read)} rows that are none "
            f"({some(strangers.tolist(), 3)}); write them from the same dataset"
        )
    contents = contents_of(inputs.stores, table.id)
    table = regrouped(table, groups)
    return FeatureTable(table, read.values, read.rows_of(table.id), read.network, contents)


def contents_of(stores: Sequence[Path], ids: np.ndarray) -> np.ndarray:
    """(n,) int64 hashes of the images of ``ids``, by their bytes; of the ids themselves where no store knows those."""
    names = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids.tolist())
    contents = np.frombuffer(b"".join(names), "<i8").astype(np.int64)
    for path in stores:
        with CodeStore(path) as store:
            digest = store.column("sample/digest")
            rows, _ = find_rows(store.samples["id"], ids)
        hashes = np.ascontiguousarray(digest[:, :8]).view("<i8").ravel()
        there = (rows >= 0) & digest.any(axis=1)
        contents[rows[there]] = hashes[there]
    return contents
