"""``folder``: a folder per class, with split or person folders above them or without."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ...errors import LayoutError, number, some
from ...features.classes import CANONICAL, canonical
from ...features.image_names import natural
from ...features.samples import Listing
from ..kinds import is_image_name, is_leaving, other_kind
from ..sources.remote import list_remote
from .archive_files import is_hidden
from .base import Dataset, DatasetOptions
from .class_folders import ImageFile, list_class_folders
from .files import holds_image, images_of, own_path, sample_id, walk
from .levels import Folder, LevelError, Place


class FolderDataset(Dataset):
    """Class folders, as most people keep their own data."""

    name = "folder"
    layout = "folder expects ROOT/<class>/*.jpg, or ROOT/train|val|test/<class>/*.jpg"
    split_fractions = (0.6, 0.2, 0.2)
    maps_labels = True
    remote = True

    def read(self, root: Path | str, options: DatasetOptions) -> Listing:
        skipped = Counter[str]()
        if isinstance(root, str):
            images = list(_remote_images(root, skipped))
            folders = {image.folders for image in images}
            return list_class_folders(self, root, folders, images, options, skipped=skipped, found="none")[0]
        # two walks: all files together would take much memory
        holds = {_parts(inside): holds_image(files) for inside, files in walk(root, root)}
        full = [folder for folder, images in holds.items() if images]
        listing, places = list_class_folders(
            self, str(root), full, _images(root, skipped), options, skipped=skipped
        )
        labels = {place.label for place in places.values()}
        return replace(listing, notes=(*listing.notes, *_empty(holds, labels), *_same_folders(root, places)))


def read_folders(dataset: Dataset, root: Path, expected: str, options: DatasetOptions) -> Listing:
    """Class folders of a dataset whose classes have the preset of its name.

    Raises
    ------
    LayoutError : there are none.
    """
    try:
        listing = FolderDataset().read(root, replace(options, label_map=dataset.name))
    except LevelError:
        raise
    except LayoutError as exc:
        raise dataset.wrong_layout(root, expected) from exc
    return replace(listing, dataset=dataset.name)


def _images(root: Path, skipped: Counter[str]) -> Iterator[ImageFile]:
    for inside, files in walk(root, root, skipped):
        for name, size in images_of(files, skipped if inside else None):
            path = own_path(inside + name)
            yield ImageFile(_parts(inside), path, sample_id(path), size)


def _remote_images(address: str, skipped: Counter[str]) -> Iterator[ImageFile]:
    """Images on remote storage, by name: other files are not opened there."""
    for path, size in list_remote(address.rstrip("/")):
        *folders, name = path.split("/")
        if is_hidden(path):
            continue
        if is_image_name(name):
            yield ImageFile(tuple(folders), own_path(path), sample_id(path), size)
        elif not is_leaving(name):
            skipped[other_kind(name, lambda: b"unknown")] += 1


def _parts(inside: str) -> Folder:
    """Names of the folders of a path that ends with a slash."""
    return tuple(inside.split("/")[:-1])


def _empty(holds: Mapping[Folder, bool], labels: Collection[str]) -> list[str]:
    """Notes on folders without any image, however deep; of those in one another the uppermost."""
    full = {folder[:depth] for folder, images in holds.items() if images for depth in range(len(folder) + 1)}
    empty = [folder for folder in holds if folder not in full and folder[:-1] in full]
    if not empty:
        return []
    paths = sorted(("/".join(folder) for folder in empty), key=natural)
    notes = [f"left out, {number(len(empty), 'folder')} without images: {some(paths)}"]
    if missing := {name for *_, name in empty if canonical(name) in CANONICAL} - {*labels}:
        notes.append(
            f"WARNING no image in any folder of {some(sorted(missing))}, which is no class therefore"
        )
    return notes


def _same_folders(root: Path, places: Mapping[Folder, Place]) -> list[str]:
    """Warnings on folders of two classes or splits that are one, by links."""
    meant: dict[str, dict[Place, str]] = {}
    for folder, place in places.items():
        path = root.joinpath(*folder)
        meant.setdefault(os.path.realpath(path), {})[place] = "/".join(folder)
    return [
        f"WARNING {' and '.join(sorted(folders.values()))} are one folder: its images have several labels or splits"
        for folders in meant.values()
        if len(folders) > 1
    ]
