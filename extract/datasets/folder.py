"""``folder``: a folder per class, with train/val/test folders above them or a seeded split."""

from __future__ import annotations

import os
from collections import Counter
from heapq import nsmallest
from pathlib import Path

from ...errors import DatasetError, LayoutError, number, some
from ...features.samples import Sample, SampleList, Samples, Split
from . import DatasetOptions
from .files import images_under, is_file, is_folder, is_image, listing, natural, sample_id, split_named
from .labels import digit_notes, read_labels
from .packed import class_folders, listed_at


class FolderDataset:
    """Class folders, as most people keep their own data."""

    name = "folder"
    layout = "folder expects ROOT/<class>/*.jpg, or ROOT/train|val|test/<class>/*.jpg"
    shares = (0.6, 0.2, 0.2)
    maps_labels = True
    remote = True

    def __call__(self, root: str | Path, options: DatasetOptions) -> SampleList:
        if isinstance(root, str):
            return class_folders(self.name, root, listed_at(root), options, layout=self.layout)
        top = _top(root)
        tops = _folders_in(top, root)
        split_folders = {folder: split for folder in tops if (split := split_named(folder.name)) is not None}
        others = [folder.name for folder in tops if folder not in split_folders and _has_images(folder, root)]
        if split_folders and others:
            raise DatasetError(
                f"folder: expected split folders or class folders in {top}, got both "
                f"({', '.join(folder.name for folder in split_folders)}; {some(others)}); move one kind elsewhere"
            )
        parents = list(split_folders) or [top]
        candidates = [folder for parent in parents for folder in _folders_in(parent, root)]
        # another kind of folder among the classes (such as __MACOSX) would be a class without a meaning
        names = {folder.name for folder in candidates}
        if options.label_map is not None:
            names = {folder.name for folder in candidates if _has_images(folder, root)}
        labels = read_labels(names, options.label_map) if names else None
        found: list[Samples] = []
        counts: dict[str, Counter[str]] = {}
        for folder in candidates:
            if labels is None or folder.name not in labels.index:
                continue
            split = split_folders.get(folder.parent, Split.none)
            label = labels.index[folder.name]
            inside = Samples.of(
                Sample(id=sample_id(path), path=path, label=label, split=split, size_bytes=size)
                for path, size in images_under(folder, root)
            )
            found.append(inside)
            counts.setdefault(split.name, Counter())[folder.name] += len(inside)
        if labels is None or not any(found):
            raise LayoutError(
                f"folder: expected images in class folders, found {listing(root)} in {root}; {self.layout} "
                "(docs/datasets.md); images that lie side by side need a table (--dataset manifest)"
            )
        notes = [
            *(["splits as the folders say"] if split_folders else []),
            *labels.notes,
            *digit_notes(counts, labels.classes if options.label_map else ()),
            *_loose(parents),
        ]
        return SampleList(self.name, str(root), labels.classes, Samples.together(found), tuple(notes))


def _top(root: Path) -> Path:
    """The root, or the one folder in it that holds the splits or classes, as archives are often packed."""
    inside = _folders_in(root, root)
    if len(inside) == 1 and split_named(inside[0].name) is None:
        below = _folders_in(inside[0], root)
        if any(split_named(folder.name) is not None for folder in below):
            return inside[0]
    return root


def _folders_in(parent: Path, root: Path) -> list[Path]:
    """Folders in natural order, linked ones too, but for links that lead back to the root or above it."""
    above = {root.resolve(), *root.resolve().parents}
    with os.scandir(parent) as entries:
        found = [Path(entry.path) for entry in entries if not entry.name.startswith(".") and is_folder(entry)]
    return sorted(
        (folder for folder in found if not (folder.is_symlink() and folder.resolve() in above)), key=_natural
    )


def _natural(path: Path) -> tuple[tuple[int, int | str], ...]:
    return natural(path.name)


def _has_images(folder: Path, root: Path) -> bool:
    return next(images_under(folder, root), None) is not None


def _loose(parents: list[Path]) -> list[str]:
    """A note on images beside the class folders."""
    count = 0
    first: list[str] = []
    for parent in parents:
        with os.scandir(parent) as entries:
            for entry in entries:
                if is_image(entry.name) and is_file(entry):
                    count += 1
                    first = nsmallest(5, [*first, entry.name])
    if not count:
        return []
    shown = some(first + [""] * (count - len(first)))
    return [f"{number(count, 'image')} left out, outside of class folders: {shown}"]
