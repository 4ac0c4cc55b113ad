"""``folder``: a folder per class, with split or person folders above them or without."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...errors import LayoutError, number, some
from ...features.classes import CANONICAL, canonical
from ...features.samples import Sample, SampleList, Samples
from . import DatasetOptions
from .files import holds_image, images_of, listing, natural, own_path, sample_id, walk
from .labels import Labels, read_labels
from .levels import Folder, Place, read_levels
from .packed import Found, class_folders, listed_at


class FolderDataset:
    """Class folders, as most people keep their own data."""

    name = "folder"
    layout = "folder expects ROOT/<class>/*.jpg, or ROOT/train|val|test/<class>/*.jpg"
    shares = (0.6, 0.2, 0.2)
    maps_labels = True
    remote = True

    def __call__(self, root: str | Path, options: DatasetOptions) -> SampleList:
        if isinstance(root, str):
            listed, skipped = listed_at(root)
            return class_folders(self.name, root, listed, options, skipped, layout=self.layout)
        # first where images are, then what lies there: a list of all files would not fit for some datasets
        holds = {_parts(inside): holds_image(files) for inside, files in walk(root, root)}
        places, notes = read_levels(
            [folder for folder, images in holds.items() if images and folder],
            dataset=self.name,
            root=str(root),
        )
        if not places:
            raise LayoutError(
                f"folder: expected images in class folders, found {listing(root)} in {root}; {self.layout} "
                "(docs/datasets.md); images that lie side by side need a table (--dataset manifest)"
            )
        labels = read_labels({place.label for place in places.values()}, options.label_map)
        found = Found()
        samples = Samples.of(_samples(root, places, labels, found))
        notes = [*notes, *found.notes(labels, options), *_empty(holds, labels), *_same_folders(root, places)]
        return SampleList(self.name, str(root), labels.classes, samples, tuple(notes))


def _samples(root: Path, places: Mapping[Folder, Place], labels: Labels, found: Found) -> Iterator[Sample]:
    for inside, files in walk(root, root, found.skipped):
        place = places.get(_parts(inside))
        if place is None:
            for name, _ in images_of(files, found.skipped if inside else None):
                found.count_loose(inside + name)
            continue
        label = labels.index[place.label]
        images = list(images_of(files, found.skipped))
        found.count(place, len(images))
        for name, size in images:
            path = own_path(inside + name)
            yield Sample(sample_id(path), path, label, place.split, group=place.group, size_bytes=size)


def _parts(inside: str) -> Folder:
    """Names of a folder under the root, whose own are none."""
    return tuple(inside.split("/")[:-1])


def _empty(holds: Mapping[Folder, bool], labels: Labels) -> list[str]:
    """Notes on folders without any image, however deep; of those in one another the uppermost."""
    full = {folder[:depth] for folder, images in holds.items() if images for depth in range(len(folder) + 1)}
    empty = [folder for folder in holds if folder not in full and folder[:-1] in full]
    if not empty:
        return []
    gone = {name for *_, name in empty if canonical(name) in CANONICAL} - {*labels.index}
    paths = sorted(("/".join(folder) for folder in empty), key=natural)
    notes = [f"left out, {number(len(empty), 'folder')} without images: {some(paths)}"]
    if gone:
        notes.append(f"WARNING no image in any folder of {some(sorted(gone))}, which is no class therefore")
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
