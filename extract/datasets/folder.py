"""``folder``: a folder per class, with train/val/test folders above them or a seeded split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ...errors import DatasetError, some
from ...features.classes import canonical_all
from ...features.values import Sample, SampleList, Split
from . import DatasetOptions
from .files import (
    find_images,
    groups_of,
    is_image,
    listing,
    natural,
    posix,
    sample_id,
    seeded_split,
    size_of,
    split_named,
)


class FolderDataset:
    """Class folders, as most people keep their own data."""

    name = "folder"
    layout = "folder expects ROOT/<class>/*.jpg, or ROOT/train|val|test/<class>/*.jpg"

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList:
        tops = _folders_in(root, root)
        split_folders = {folder: split for folder in tops if (split := split_named(folder.name)) is not None}
        others = [folder.name for folder in tops if folder not in split_folders and any(find_images(folder))]
        if split_folders and others:
            raise DatasetError(
                f"folder: expected split folders or class folders in {root}, got both "
                f"({', '.join(folder.name for folder in split_folders)}; {some(others)}); move one kind elsewhere"
            )
        has_splits = bool(split_folders)
        parents = list(split_folders) if has_splits else [root]
        class_folders = [folder for parent in parents for folder in _folders_in(parent, root)]
        found = {folder: list(find_images(folder)) for folder in class_folders}
        if not any(found.values()):
            raise DatasetError(
                f"folder: expected images in class folders, found {listing(root)} in {root}; {self.layout} "
                "(docs/datasets.md)"
            )
        names = sorted({folder.name for folder in class_folders}, key=natural)
        classes = canonical_all(names)
        label_of = {name: label for label, name in enumerate(names)}
        rows = [
            (posix(path, root), label_of[folder.name], split_folders.get(folder.parent))
            for folder, paths in found.items()
            for path in paths
        ]
        groups = groups_of([sample_id(path) for path, _, _ in rows], options.group_pattern)
        if has_splits:
            splits = [Split.none if split is None else split for _, _, split in rows]
            notes = ["splits as the folders say"]
        else:
            # dealt out over ids in order, so that the order of the listing has no say
            order = sorted(range(len(rows)), key=lambda row: rows[row][0])
            dealt = seeded_split(
                [rows[row][1] for row in order],
                [groups[row] for row in order],
                options.split_fractions,
                seed=options.seed,
            )
            splits = [Split.none] * len(rows)
            for row, split in zip(order, dealt, strict=True):
                splits[row] = Split(int(split))
            shares = "/".join(f"{share:g}" for share in options.split_fractions)
            notes = [
                f"no split folders: stratified split {shares} into train/val/test with seed {options.seed}"
            ]
        notes += _notes(names, found)
        loose = [
            path.name for parent in parents for path in parent.iterdir() if is_image(path) and path.is_file()
        ]
        if loose:
            notes.append(
                f"{len(loose)} images lie outside of class folders and are left out: {some(sorted(loose))}"
            )
        samples = tuple(
            Sample(
                id=sample_id(path),
                path=path,
                label=label,
                split=split,
                group=group,
                size_bytes=size_of(root / path),
            )
            for (path, label, _), split, group in zip(rows, splits, groups, strict=True)
        )
        return SampleList(self.name, str(root), classes, samples, tuple(notes))


def _folders_in(parent: Path, root: Path) -> list[Path]:
    """Folders in natural order, linked ones too, but for links that lead back to the root or above it."""
    above = {root.resolve(), *root.resolve().parents}
    return sorted(
        (
            entry
            for entry in parent.iterdir()
            if entry.name[0] != "."
            and entry.is_dir()
            and not (entry.is_symlink() and entry.resolve() in above)
        ),
        key=_natural,
    )


def _natural(path: Path) -> tuple[tuple[int, int | str], ...]:
    return natural(path.name)


def _notes(names: list[str], found: dict[Path, list[Path]]) -> list[str]:
    counts: Counter[str] = Counter()
    for folder, paths in found.items():
        counts[folder.name] += len(paths)
    notes = []
    empty = [name for name in names if not counts[name]]
    if empty:
        notes.append(f"no images in the class folders {', '.join(empty)}")
    if all(name.isdigit() for name in names):
        notes.append(
            f"class folders are bare digits ({', '.join(names)}): their meaning is not known here, "
            "so name the folders, or give a manifest with label names"
        )
    return notes
