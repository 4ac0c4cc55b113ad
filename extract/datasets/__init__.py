"""Dataset adapters: table of names, and :func:`list_samples`, which lists the samples of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DatasetError, LayoutError, UsageError, listed
from ...features.classes import CANONICAL, canonical
from ...features.groups import groups_of
from ...features.samples import Listing, Split
from ..plugins import find
from ..sources import Unavailable
from ..sources.remote import is_remote
from .base import Dataset, DatasetOptions
from .files import missing_note, own_path
from .splits import apply_split, assign_splits

__all__ = ["ADAPTERS", "Dataset", "DatasetOptions", "adapter_of", "list_samples"]

# name -> "module:Class", imported on use; other packages register theirs as entry points in the group ig3d.datasets.
# `ig3d datasets check` tries them in this order, so more specific layouts come first.
ADAPTERS: Mapping[str, str] = {
    "rafdb": "ig3d.extract.datasets.rafdb:RafDb",
    "rafdb-compound": "ig3d.extract.datasets.rafdb:RafDbCompound",
    "affectnet": "ig3d.extract.datasets.affectnet:AffectNet",
    "affectnet7": "ig3d.extract.datasets.affectnet:AffectNet7",
    "ferplus": "ig3d.extract.datasets.ferplus:FerPlus",
    "fer2013": "ig3d.extract.datasets.fer2013:Fer2013",
    "sfew": "ig3d.extract.datasets.sfew:Sfew",
    "expw": "ig3d.extract.datasets.expw:ExpW",
    "affwild2": "ig3d.extract.datasets.affwild2:AffWild2",
    "affwild2-va": "ig3d.extract.datasets.affwild2:AffWild2VA",
    "ckplus": "ig3d.extract.datasets.ckplus:CkPlus",
    "manifest": "ig3d.extract.datasets.manifest:ManifestDataset",
    "webdataset": "ig3d.extract.datasets.webdataset:WebDataset",
    "parquet": "ig3d.extract.datasets.parquet_images:ParquetDataset",
    "zip": "ig3d.extract.datasets.zip_folders:ZipDataset",
    "folder": "ig3d.extract.datasets.folder:FolderDataset",
}
# Adapters of archives.
_ARCHIVES = ("zip", "webdataset", "parquet")


def adapter_of(name: str) -> Dataset:
    """Dataset adapter by name.

    Raises
    ------
    UsageError, MissingExtra, PluginError : see :func:`~ig3d.extract.plugins.find`.
    """
    return find("dataset", name, ADAPTERS, Dataset)()  # type: ignore[type-abstract]


def list_samples(
    root: str | Path, dataset: str, options: DatasetOptions | None = None, *, draw_split: bool = True
) -> Listing:
    """List the samples of a dataset, sorted by id. Images are not decoded.

    Parameters
    ----------
    root : path of the folder of the dataset; for some adapters of an archive, or an address (``s3://bucket/faces``)
    dataset : name of an adapter, as for ``--dataset``
    options : DatasetOptions, optional
    draw_split : bool
        Divide the samples at random if the dataset has no splits, but the adapter or the options have shares of them.

    Returns
    -------
    Listing
        Sample table, classes, and notes for the user.

    Raises
    ------
    UsageError : the adapter does not exist, or an option is not valid for it.
    DatasetError : the folder has another layout, or a part is missing or damaged.
    """
    adapter = adapter_of(dataset)
    options = options or DatasetOptions()
    where = _root(root, dataset, adapter)
    if options.label_map is not None and not adapter.maps_labels:
        raise UsageError(
            f"label map: the labels of {dataset} have a fixed meaning; omit --label-map, or use --dataset folder or "
            "manifest"
        )
    try:
        listing = adapter.read(where, options)
    except Unavailable as exc:  # from an archive
        raise DatasetError(f"{dataset}: {exc}; run it again") from exc
    if options.fps is not None and "time" not in listing.samples:
        raise UsageError(f"fps: --fps chooses frames of videos, and {root} has none; leave it out")
    if options.group_pattern is not None:
        listing = with_groups(listing, options.group_pattern)
    if options.split_table is not None:
        listing = apply_split(listing, Path(options.split_table))
    elif not draw_split:
        pass
    elif (listing.splits == Split.none).all():
        labelled = (listing.labels >= 0).any() or listing.samples["valence"].notna().any()
        fractions = options.split_fractions or (adapter.split_fractions if labelled else None)
        if fractions is not None:
            listing = assign_splits(listing, fractions, seed=options.seed)
    elif options.split_fractions is not None:
        listing = _noted(listing, "--split is not used: the dataset has splits")
    return _noted(listing, *_class_notes(listing), *missing_note(listing))


def _root(root: str | Path, dataset: str, adapter: Dataset) -> Any:
    """The root as a Path, or as a str if it is an address.

    Raises
    ------
    UsageError, LayoutError : the adapter cannot read such a root, or it does not exist.
    """
    own_path(f"{root}/")
    if is_remote(root):
        if not adapter.remote:
            raise UsageError(
                f"{dataset}: cannot be read from a remote address ({root}); copy the folder to this machine"
            )
        return str(root)
    path, suffix = Path(root), adapter.suffix
    if not path.is_dir() and not (suffix and path.is_file() and str(root).lower().endswith(suffix)):
        if not path.exists():
            raise LayoutError(f"{dataset}: {root} does not exist; check the path")
        kind = "a file" if path.is_file() else "a pipe or device"
        archive = next(
            (name for name in _ARCHIVES if str(root).lower().endswith(adapter_of(name).suffix)), None
        )
        hint = f"{adapter.layout} (docs/datasets.md)"
        if archive and dataset == "folder":
            hint = f"pass --dataset {archive}"
        raise LayoutError(f"{dataset}: {root} is {kind}, not a folder; {hint}")
    return path


def _noted(listing: Listing, *notes: str) -> Listing:
    return replace(listing, notes=(*listing.notes, *notes)) if notes else listing


def with_groups(listing: Listing, pattern: str) -> Listing:
    """The listing with groups: what the first group of a regular expression matches in each id.

    Raises
    ------
    UsageError : the pattern is not a regular expression with a group, or does not match every id.
    """
    groups = groups_of(listing.samples["id"].to_numpy(dtype="U"), pattern)
    notes = ("--groups replaces the groups of the dataset",) if (listing.samples["group"] != "").any() else ()
    return replace(
        listing, samples=listing.samples.assign(group=groups.astype(object)), notes=(*listing.notes, *notes)
    )


def _class_notes(listing: Listing) -> list[str]:
    """Notes on classes without images, on likely misspellings, and on labels of one class only."""
    counts = np.bincount(listing.labels[listing.labels >= 0], minlength=len(listing.classes))
    present = [name for name, count in zip(listing.classes, counts, strict=True) if count]
    absent = [name for name in listing.classes if name not in present]
    notes = [f"no images of {listed(absent, 12)}"] if absent and present else []
    notes += [
        f"WARNING class {name} may be a misspelling of {near[0]}; if so, rename it"
        for name in present
        if canonical(name) not in CANONICAL and (near := get_close_matches(name.lower(), CANONICAL, 1, 0.8))
    ]
    if len(present) == 1:
        notes.append(
            f"WARNING all labels are {present[0]}: with one class, nothing can be learned or measured"
        )
    return notes
