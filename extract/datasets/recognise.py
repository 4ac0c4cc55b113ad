"""Recognise a dataset by its layout: the first adapter that understands a folder, the most specific first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...errors import DatasetError, LayoutError, UsageError
from ...features.samples import Listing
from ..plugins import names
from ..sources.remote import is_remote
from . import ADAPTERS, Dataset, DatasetOptions, adapter_of, list_samples
from .files import contents
from .levels import LevelError


def recognise(root: str | Path, options: DatasetOptions | None = None) -> Listing:
    """The samples of a folder by the first adapter that understands it.

    Raises
    ------
    LayoutError : none does.
    UsageError : an adapter understands the layout, but not the options or the names of the classes.
    DatasetError : the first adapter that understands the layout cannot read it.
    """
    options = options or DatasetOptions()
    if not is_remote(root) and not Path(root).exists():
        raise DatasetError(f"datasets: {root} does not exist; check the path")
    refusal: UsageError | None = None
    misplaced: LevelError | None = None
    also: list[str] = []
    for adapter in _candidates(root, options):
        try:
            # other errors are for the user: a layout of which a part is missing, a damaged table
            listing = list_samples(root, adapter.name, options)
        except LevelError as exc:
            misplaced = exc
            continue
        except LayoutError:
            continue
        except UsageError as exc:
            if not adapter.shared_layout:
                refusal = refusal or exc
            continue
        if not adapter.shared_layout:
            note = (f"also fits {' and '.join(also)}: choose with --dataset",) if also else ()
            return replace(listing, notes=(*listing.notes, *note))
        if adapter.is_certain(listing):
            return listing
        if listing.classes and set(listing.labels.tolist()) >= set(range(len(listing.classes))):
            also.append(adapter.name)
    if options.label_map is not None:
        named = recognise(root, replace(options, label_map=None)).dataset
        if not adapter_of(named).maps_labels:
            raise UsageError(f"label map: the labels of {named} have a fixed meaning; omit --label-map")
    if refusal is not None or misplaced is not None:
        raise refusal or misplaced  # type: ignore[misc]
    inside = f", which holds {contents(Path(root))}" if Path(root).is_dir() else ""
    raise LayoutError(
        f"datasets: no known layout in {root}{inside}; name the intended one with --dataset for a more exact error "
        "(ig3d datasets lists all)"
    )


def _candidates(root: str | Path, options: DatasetOptions) -> list[Dataset]:
    """The adapters that fit the options: a manifest, a meaning of labels, a remote root."""
    if options.manifest is not None:
        return [adapter_of("manifest")]
    return [
        adapter
        for adapter in map(adapter_of, names("dataset", ADAPTERS))
        if (adapter.maps_labels or options.label_map is None) and (adapter.remote or not is_remote(root))
    ]
