"""Datasets as users have them: one small adapter per file, found by name, each listing its samples.

An adapter is an object with a ``name``, the ``layout`` it expects in words, and ``__call__(root, options)``
returning a :class:`~ig3d.features.samples.SampleList`. It reads names and tables, never pixels. Groups by a pattern
and splits that the dataset does not say are seen to here, for all adapters alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...errors import LayoutError, UsageError, some
from ...features.classes import CANONICAL, canonical
from ...features.groups import groups_of
from ...features.samples import SampleList, Split
from ..plugins import load
from ..sources.remote import is_remote
from .files import missing_note, own_path
from .splits import apply_split, deal

# name -> "module:Class", imported on use; other packages add theirs by the entry point group ig3d.datasets. The more
# specific come first: it is the order in which `ig3d datasets check` tries them.
ADAPTERS: Mapping[str, str] = {
    "rafdb": "ig3d.extract.datasets.rafdb:RafDb",
    "rafdb-compound": "ig3d.extract.datasets.rafdb:RafDbCompound",
    "affectnet": "ig3d.extract.datasets.affectnet:AffectNet",
    "affectnet7": "ig3d.extract.datasets.affectnet:AffectNet7",
    "ferplus": "ig3d.extract.datasets.fer:FerPlus",
    "fer2013": "ig3d.extract.datasets.fer:Fer2013",
    "sfew": "ig3d.extract.datasets.sfew:Sfew",
    "expw": "ig3d.extract.datasets.expw:ExpW",
    "affwild2": "ig3d.extract.datasets.affwild2:AffWild2",
    "affwild2-va": "ig3d.extract.datasets.affwild2:AffWild2VA",
    "ckplus": "ig3d.extract.datasets.ckplus:CkPlus",
    "manifest": "ig3d.extract.datasets.manifest:ManifestDataset",
    "webdataset": "ig3d.extract.datasets.webdataset:WebDataset",
    "parquet": "ig3d.extract.datasets.parquet:ParquetDataset",
    "zip": "ig3d.extract.datasets.packed:ZipDataset",
    "folder": "ig3d.extract.datasets.folder:FolderDataset",
}


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """Choices that some or all adapters take.

    Attributes
    ----------
    manifest : path or None
        Table of the ``manifest`` adapter; None looks for ``manifest.csv`` or ``manifest.parquet`` under the root.
    split_fractions : (train, val, test) or None
        Of the seeded split that is dealt out where the dataset says none; None leaves that to the adapter.
    split_table : path or None
        Table ``id,split`` whose splits replace those of the dataset.
    seed : int
        Of the split.
    group_pattern : str or None
        Regular expression over the id whose first group names the person or video.
    label_map : str or None
        What labels mean: ``1=surprise,2=fear``, a preset, or names in order; see
        :func:`~ig3d.extract.datasets.labels.read_labels`.
    """

    manifest: str | None = None
    split_fractions: tuple[float, float, float] | None = None
    split_table: str | None = None
    seed: int = 0
    group_pattern: str | None = None
    label_map: str | None = None


class Dataset(Protocol):
    """What an adapter has.

    An adapter may also have ``shares`` (train, val, test), dealt out where no sample has a split, ``maps_labels``
    = True where it heeds ``label_map``, ``container``, the suffix of the files that it lists, one of which may be the
    root, and ``remote`` = True where the root may be an address (``s3://bucket/faces``), which it is called with.
    One whose layout others have as well has ``marked(samples)``, which says whether it is this dataset for certain.
    """

    name: str
    layout: str

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList: ...


def list_samples(root: str | Path, dataset: str, options: DatasetOptions | None = None) -> SampleList:
    """The samples of a dataset, sorted by id.

    Parameters
    ----------
    root : folder of the dataset; for some adapters a container, or an address such as ``s3://bucket/faces``
    dataset : name of an adapter
    options : DatasetOptions, optional

    Raises
    ------
    UsageError : there is no such adapter, or it does not take an option that was given.
    DatasetError : the folder is not laid out as the adapter expects; says what was looked for and what is there.
    """
    adapter: Dataset = load("dataset", dataset, ADAPTERS)
    options = options or DatasetOptions()
    where = _root(root, dataset, adapter)
    if options.label_map is not None and not getattr(adapter, "maps_labels", False):
        raise UsageError(
            f"label map: expected --dataset folder or manifest with --label-map, got {dataset}, which knows its labels"
        )
    samples = adapter(where, options)
    if options.group_pattern is not None:
        samples = _grouped(samples, options.group_pattern)
    if options.split_table is not None:
        samples = apply_split(samples, Path(options.split_table))
    elif (samples.splits == Split.none).all():
        shares = options.split_fractions or getattr(adapter, "shares", None)
        if shares is not None:
            samples = deal(samples, shares, seed=options.seed)
    elif options.split_fractions is not None:
        samples = _noted(samples, "--split is not used: the dataset has splits of its own")
    return _noted(
        samples,
        *_class_notes(samples),
        *missing_note(samples),
    )


def _root(root: str | Path, dataset: str, adapter: Dataset) -> Any:
    """What the adapter is called with: the folder or container, or the address as it is."""
    own_path(f"{root}/")
    if is_remote(root):
        if not getattr(adapter, "remote", False):
            raise UsageError(f"{dataset}: expected a folder on this machine, got {root}; copy it here")
        return str(root)
    suffix = getattr(adapter, "container", None)
    if not Path(root).is_dir() and not (
        suffix and Path(root).is_file() and str(root).lower().endswith(suffix)
    ):
        path = Path(root)
        there = "a file" if path.is_file() else "a pipe or device" if path.exists() else "none"
        raise LayoutError(
            f"{dataset}: expected the dataset's folder at {root}, found {there}; {adapter.layout} (docs/datasets.md)"
        )
    return Path(root)


def _noted(samples: SampleList, *notes: str) -> SampleList:
    return replace(samples, notes=(*samples.notes, *notes)) if notes else samples


def _grouped(samples: SampleList, pattern: str) -> SampleList:
    """The person or video of each sample by the first group of a regular expression over its id.

    Raises
    ------
    UsageError : the pattern is no regular expression with a group, or does not match every id.
    """
    names = groups_of(np.array([sample.id for sample in samples.samples], dtype=str), pattern).tolist()
    grouped = tuple(replace(sample, group=name) for sample, name in zip(samples.samples, names, strict=True))
    notes = ("--groups replaces the groups that the dataset names",) if _has_groups(samples) else ()
    return replace(samples, samples=grouped, notes=(*samples.notes, *notes))


def _has_groups(samples: SampleList) -> bool:
    return any(sample.group for sample in samples.samples)


def _class_notes(samples: SampleList) -> list[str]:
    """Classes without images, and labels of one class only."""
    counts = Counter(samples.labels.tolist())
    here = [name for label, name in enumerate(samples.classes) if counts[label]]
    absent = [name for name in samples.classes if name not in here]
    notes = [f"no images of {some(absent, 12)}"] if absent and here else []
    notes += [
        f"WARNING the class {name} stands beside {near[0]}: is it misspelt?"
        if CANONICAL[near[0]] in samples.classes
        else f"WARNING the class {name} is no known one: is {near[0]} meant?"
        for name in here
        if canonical(name) not in CANONICAL and (near := get_close_matches(name.lower(), CANONICAL, 1, 0.8))
    ]
    if len(here) == 1:
        notes.append(
            f"WARNING all labels are {here[0]}: with one class there is nothing to learn or to measure"
        )
    return notes
