"""``zip``: class folders in zip files, read where they are; and class folders by name alone, for remote roots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from pathlib import Path
from typing import BinaryIO

from ...errors import LayoutError, number, some
from ...features.samples import Sample, SampleList
from ..kinds import is_image_name, is_leaving, other_kind
from ..sources.archives import zip_members
from ..sources.remote import list_remote
from . import DatasetOptions
from .containers import containers_in, is_hidden, without_suffix
from .files import own_path, sample_id, skipped_note
from .labels import Labels, digit_notes, read_labels
from .levels import Place, read_levels


@dataclass(frozen=True, slots=True)
class Listed:
    """An image by name: the path and id of its sample, the folders it lies in, its size in bytes."""

    path: str
    id: str
    folders: tuple[str, ...]
    size: int


class ZipDataset:
    """Zip files with what ``folder`` expects inside; several (a split or a class each) are as many folders."""

    name = "zip"
    layout = (
        "zip expects class folders in a zip file, with train/val/test folders above them or without, or a zip file for "
        "each split or class"
    )
    shares = (0.6, 0.2, 0.2)
    maps_labels = True
    container = ".zip"
    remote = True

    def __call__(self, root: str | Path, options: DatasetOptions) -> SampleList:
        archives = containers_in(root, self.container, dataset=self.name, layout=self.layout)
        listed: list[Listed] = []
        skipped: Counter[str] = Counter()
        notes = archives.notes
        for path, _ in archives.files:
            # the ids are those of the unpacked files: in place, or a folder for each of several
            above = "" if len(archives.files) == 1 else without_suffix(path) + "/"
            with archives.open(path, dataset=self.name) as file:
                images, note = _images(path, file, skipped)
            notes += note
            listed += [
                Listed(
                    f"{path}!{name}",
                    sample_id(above + name),
                    tuple(f"{without_suffix(path)}/{name}".split("/")[:-1]),
                    size,
                )
                for name, size in images.items()
            ]
        samples = class_folders(self.name, archives.root, listed, options, skipped, layout=self.layout)
        return replace(samples, notes=(*notes, *samples.notes))


def _images(path: str, file: BinaryIO, skipped: Counter[str]) -> tuple[dict[str, int], list[str]]:
    """Name and size of each image in a zip; of several of one name the last, which is read, as it would be unpacked."""
    found = []
    for name, size, kind in zip_members(file):
        if not kind and not is_hidden(name):
            found.append((name, size))
        elif not is_leaving(name.rpartition("/")[2]):
            skipped[kind if kind else "hidden image"] += 1
    counts = Counter(name for name, _ in found)
    if not (twice := sorted(name for name, count in counts.items() if count > 1)):
        return dict(found), []
    return dict(found), [
        f"WARNING {path}: {number(len(twice), 'name')} given to several images, of which the last is taken: "
        f"{some(twice)}"
    ]


def listed_at(address: str) -> tuple[list[Listed], Counter[str]]:
    """The images on remote storage, by name; and the kinds of other files, which are not looked into there."""
    listed, skipped = [], Counter[str]()
    for path, size in list_remote(address.rstrip("/")):
        name = path.rpartition("/")[2]
        if is_image_name(name) and not is_hidden(path):
            listed.append(Listed(own_path(path), sample_id(path), tuple(path.split("/")[:-1]), size))
        elif not is_hidden(path) and not is_leaving(name):
            skipped[other_kind(name, lambda: b"unknown")] += 1
    return listed, skipped


@dataclass(slots=True)
class Found:
    """Images and other files of class folders, counted for the notes.

    Attributes
    ----------
    counts : split name -> class folder -> images
    loose : int
        Images outside of class folders; ``first`` are the first five by name.
    skipped : kind -> files
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    loose: int = 0
    first: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def count(self, place: Place, images: int = 1) -> None:
        """More images of a class folder."""
        self.counts.setdefault(place.split.name, Counter())[place.label] += images

    def count_loose(self, path: str) -> None:
        """One more image outside of class folders."""
        self.loose += 1
        self.first = nsmallest(5, [*self.first, path])

    def notes(self, labels: Labels, options: DatasetOptions) -> list[str]:
        """Notes on labels, on images outside of class folders and on other files."""
        notes = [*labels.notes, *digit_notes(self.counts, labels.classes if options.label_map else ())]
        if self.loose:
            shown = some(self.first + [""] * (self.loose - len(self.first)))
            notes.append(f"{number(self.loose, 'image')} left out, outside of class folders: {shown}")
        return notes + skipped_note(self.skipped)


def class_folders(
    dataset: str,
    root: str,
    listed: Sequence[Listed],
    options: DatasetOptions,
    skipped: Counter[str],
    *,
    layout: str,
) -> SampleList:
    """The samples of class folders that are known by name only; see :mod:`.levels` for the folders above them.

    Raises
    ------
    LayoutError : there is no class folder, or other folders stand in their place.
    """
    places, notes = read_levels({one.folders for one in listed if one.folders}, dataset=dataset, root=root)
    if not places:
        raise LayoutError(
            f"{dataset}: expected images in class folders, found none in {root}; {layout} (docs/datasets.md)"
        )
    labels = read_labels({place.label for place in places.values()}, options.label_map)
    found = Found(skipped=skipped)
    samples = []
    for one in listed:
        place = places.get(one.folders)
        if place is None:
            found.count_loose(one.path)
            continue
        found.count(place)
        label = labels.index[place.label]
        samples.append(Sample(one.id, one.path, label, place.split, group=place.group, size_bytes=one.size))
    return SampleList(dataset, root, labels.classes, tuple(samples), (*notes, *found.notes(labels, options)))
