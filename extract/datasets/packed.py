"""``zip``: class folders in zip files, read where they are; and class folders by name alone, for remote roots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from ...errors import DatasetError, LayoutError, number, some
from ...features.samples import Sample, SampleList, Split
from ..sources.archives import zip_members
from ..sources.remote import list_remote
from . import DatasetOptions
from .containers import containers_in, is_hidden, without_suffix
from .files import is_image, own_path, sample_id, split_named
from .labels import digit_notes, read_labels


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
        notes = archives.notes
        for path, _ in archives.files:
            # the ids are those of the unpacked files: in place, or a folder for each of several
            above = "" if len(archives.files) == 1 else without_suffix(path) + "/"
            with archives.open(path, dataset=self.name) as file:
                images, note = _images(path, file)
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
        samples = class_folders(self.name, archives.root, listed, options, layout=self.layout)
        return replace(samples, notes=(*notes, *samples.notes))


def _images(path: str, file: BinaryIO) -> tuple[dict[str, int], list[str]]:
    """Name and size of each image in a zip; of several of one name the last, which is read, as it would be unpacked."""
    found = [
        (name, size)
        for name, size in zip_members(file)
        if is_image(name.rpartition("/")[2]) and not is_hidden(name)
    ]
    counts = Counter(name for name, _ in found)
    if not (twice := sorted(name for name, count in counts.items() if count > 1)):
        return dict(found), []
    return dict(found), [
        f"WARNING {path}: {number(len(twice), 'name')} given to several images, of which the last is taken: "
        f"{some(twice)}"
    ]


def listed_at(address: str) -> list[Listed]:
    """The images on remote storage, by name."""
    return [
        Listed(own_path(path), sample_id(path), tuple(path.split("/")[:-1]), size)
        for path, size in list_remote(address.rstrip("/"))
        if is_image(path.rpartition("/")[2]) and not is_hidden(path)
    ]


def class_folders(
    dataset: str, root: str, listed: Sequence[Listed], options: DatasetOptions, *, layout: str
) -> SampleList:
    """The samples of class folders that are known by name only, with split folders above them or without.

    Folders that all images share are passed over, but for a split's and for the last.

    Raises
    ------
    DatasetError : there is no class folder, or split folders stand beside class folders.
    """
    inside = [one for one in listed if one.folders]
    shared = _shared([one.folders for one in inside])
    places = [_place(one.folders[shared:]) for one in inside]
    with_split = {split for split, _ in places if split is not None}
    without = sorted({name for split, name in places if split is None})
    if with_split and without:
        raise DatasetError(
            f"{dataset}: expected split folders or class folders in {root}, got both "
            f"({', '.join(sorted(split.name for split in with_split))}; {some(without)}); move one kind elsewhere"
        )
    kept = [(one, split, name) for one, (split, name) in zip(inside, places, strict=True) if name]
    if not kept:
        raise LayoutError(
            f"{dataset}: expected images in class folders, found none in {root}; {layout} (docs/datasets.md)"
        )
    labels = read_labels({name for _, _, name in kept}, options.label_map)
    samples = tuple(
        Sample(
            one.id, one.path, labels.index[name], Split.none if split is None else split, size_bytes=one.size
        )
        for one, split, name in kept
    )
    counts: dict[str, Counter[str]] = {}
    for _, split, name in kept:
        counts.setdefault("none" if split is None else split.name, Counter())[name] += 1
    loose = [one.path for one in listed if not one.folders]
    loose += [one.path for one, (_, name) in zip(inside, places, strict=True) if not name]
    notes = (
        *(["splits as the folders say"] if with_split else []),
        *labels.notes,
        *digit_notes(counts, labels.classes if options.label_map else ()),
        *(
            [f"{number(len(loose), 'image')} left out, outside of class folders: {some(sorted(loose))}"]
            if loose
            else []
        ),
    )
    return SampleList(dataset, root, labels.classes, samples, notes)


def _shared(folders: Iterable[tuple[str, ...]]) -> int:
    """How many of the first folders all images share, less a split's and the last."""
    paths = list({*folders})
    shared = 0
    while (
        paths
        and all(len(path) > shared + 1 for path in paths)
        and len({path[shared] for path in paths}) == 1
        and split_named(paths[0][shared]) is None
    ):
        shared += 1
    return shared


def _place(folders: tuple[str, ...]) -> tuple[Split | None, str]:
    """Split and class of an image by its folders; ``train/train/happy`` is how a packed folder is often packed."""
    split = split_named(folders[0])
    if split is None:
        return None, folders[0]
    rest = [name for name in folders[1:] if split_named(name) is not split]
    return split, rest[0] if rest else ""
