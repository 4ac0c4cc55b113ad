"""Features and codes, aligned by id.

Features come from a file of ``ig3d logits --features``; its predictions are the reference ``2d``.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import PredictionsError, listed, plural
from ...features.array_files import read_array_file
from ...features.fusion_table import FusionTable
from ...features.groups import regrouped
from ...features.inputs import Inputs, Paths
from ...features.join import load_table
from ...features.network_features import load_features

_AT_A_TIME = 512


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """n samples with their 2D predictions and codes, and the features of those that are in the file.

    Attributes
    ----------
    table : n samples (:class:`~ig3d.features.fusion_table.FusionTable`)
    values : (m, d) float32, or (m, c, h, w) float16
    row : (n,) int64
        Row in ``values`` of each sample, -1 if it has no features.
    network : str
        Name of the network that computed the features, with layer and input, by content.
    """

    table: FusionTable
    values: np.ndarray
    row: np.ndarray
    network: str

    @property
    def has_input(self) -> np.ndarray:
        """(n,) bool: samples with features."""
        return np.asarray(self.row >= 0)

    @property
    def digest(self) -> str:
        """SHA-256 of all inputs of a training."""
        total = hashlib.sha256(self.network.encode())
        total.update(table_digest(self.table).encode())
        total.update(f"{self.values.dtype.str}{self.values.shape[1:]}".encode())
        total.update(self.has_input.tobytes())
        # in the order of samples, so that the order of the file does not matter; in parts, because maps are large
        rows = self.row[self.has_input]
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
    """Align a file of features and predictions to a store of codes.

    Parameters
    ----------
    features : ``.npz`` of ``ig3d logits --features``
    stores : path or paths of stores, which also give the samples and their labels
    blocks : which code blocks (:func:`~ig3d.features.blocks.choose_blocks`)
    groups : regular expression over ids whose first group names the person or video, or None
    task : ``classes``, ``va`` or ``both``; None is the task of the file
    force : continue if the order of rows or classes looks wrong
    need_labels, classes : see :func:`~ig3d.features.join.load_table`

    Raises
    ------
    PredictionsError : the file is malformed, has no features, or has ids that are not in the store.
    UsageError : a block is not in the store.
    """
    read = load_features(features)
    outputs = ("logits", "probabilities", "probs", "va")
    if task == "both" and {*read_array_file(Path(features), only=outputs, limit=sys.maxsize)} == {"va"}:
        raise PredictionsError(
            f"{features}: --task both needs a network that predicts classes, valence and arousal, and the file has no "
            "class logits; use --task va"
        )
    inputs = Inputs(features, stores, task="classes" if task == "both" else task)
    table = load_table(inputs, blocks=blocks, force=force, need_labels=need_labels, classes=classes)
    unknown = read.ids[~np.isin(read.ids, table.id)]
    if len(unknown):
        raise PredictionsError(
            f"{features}: {len(unknown)} of {plural(len(read), 'row')} ({listed(unknown.tolist(), 3)}) without a "
            f"sample in {table.sources.get('3d', 'the store')} ({listed(table.id.tolist(), 2)}); write features and "
            "store from the same dataset"
        )
    table = regrouped(table, groups)
    return FeatureTable(table, read.values, read.rows_of(table.id), read.network)
