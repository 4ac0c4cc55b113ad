"""Datasets as users have them: one small adapter per file, found by name, each listing its samples.

An adapter is an object with a ``name``, the ``layout`` it expects in words, and ``__call__(root, options)``
returning a :class:`~ig3d.features.values.SampleList`. It reads names and tables, never pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...errors import DatasetError
from ...features.values import SampleList
from ..plugins import load

# name -> "module:Class", imported on use; other packages add theirs by the entry point group ig3d.datasets
ADAPTERS: Mapping[str, str] = {
    "folder": "ig3d.extract.datasets.folder:FolderDataset",
    "manifest": "ig3d.extract.datasets.manifest:ManifestDataset",
    "rafdb": "ig3d.extract.datasets.rafdb:RafDb",
}


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """Choices that some adapters take.

    Attributes
    ----------
    manifest : path or None
        Table of the ``manifest`` adapter; None looks for ``manifest.csv`` or ``manifest.parquet`` under the root.
    split_fractions : (train, val, test)
        Of the seeded split that ``folder`` makes where the folders do not say one.
    seed : int
        Of that split.
    group_pattern : str or None
        Regular expression over the id whose first group names the person or video.
    """

    manifest: str | None = None
    split_fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    seed: int = 0
    group_pattern: str | None = None


class Dataset(Protocol):
    """What an adapter has."""

    name: str
    layout: str

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList: ...


def list_samples(root: str | Path, dataset: str, options: DatasetOptions | None = None) -> SampleList:
    """The samples of a dataset, sorted by id.

    Parameters
    ----------
    root : folder of the dataset
    dataset : name of an adapter
    options : DatasetOptions, optional

    Raises
    ------
    UsageError : there is no such adapter.
    DatasetError : the folder is not laid out as the adapter expects; says what was looked for and what is there.
    """
    adapter: Dataset = load("dataset", dataset, ADAPTERS)
    folder = Path(root)
    if not folder.is_dir():
        raise DatasetError(
            f"{dataset}: expected the dataset's folder at {root}, found none; {adapter.layout} (docs/datasets.md)"
        )
    return adapter(folder, options or DatasetOptions())
