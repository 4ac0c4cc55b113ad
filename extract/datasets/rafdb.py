"""``rafdb`` and ``rafdb-compound``: RAF-DB in the official form and in Kaggle's.

Layouts, numbering and counts: Li, Deng and Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning
for Expression Recognition in the Wild" (CVPR 2017), and the list file that comes with it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...errors import DatasetError, LayoutError, listed, plural, shorten
from ...features.classes import PRESETS
from ...features.samples import Listing, Split
from .base import Dataset, DatasetOptions
from .files import (
    contents,
    files_in,
    find_all,
    find_file,
    first_folder,
    images_under,
    posix,
    read_csv,
    read_lines,
    sample_id,
    unlisted_note,
)
from .label_names import PUBLISHED, class_index

# misspelt so by the publishers
LIST_FILE = "list_patition_label.txt"
_IMAGES = ("Image/aligned", "aligned", "Image/aligned_224", "Image/original", "original")
_PARTS = {Split.train: "RAF-DB", Split.test: "RAF-DB's test part"}


class RafDb(Dataset):
    """Seven basic expressions, labels 1 to 7. The list file is searched under the root; else Kaggle's folders are."""

    name = "rafdb"
    layout = (
        f"rafdb expects basic/EmoLabel/{LIST_FILE} with basic/Image/aligned/ (official), or DATASET/train|test/1..7/ "
        "with train_labels.csv (Kaggle), anywhere under ROOT"
    )
    classes = PRESETS["rafdb"]

    def read(self, root: Path, options: DatasetOptions) -> Listing:
        in_compound = root.name.lower() == "compound"
        lists = [] if in_compound else _lists(root, skip={"image", "compound"})
        if lists:
            listing = _official(self, lists, root)
        elif (kaggle := _kaggle_folder(root)) is not None:
            listing = _kaggle(self, kaggle, root)
        else:
            raise self._missing(root)
        return replace(listing, notes=(*listing.notes, _count_note(listing)))

    def _missing(self, root: Path) -> DatasetError:
        """Error for a folder in which neither form is complete, by the part that is missing."""
        images = find_file(root, {"aligned", "aligned_224", "original"}, skip={"compound", "emolabel"})
        if images is not None and images.is_dir():
            part = images.parent.parent if images.parent.name.lower() == "image" else images.parent
            return DatasetError(
                f"rafdb: no EmoLabel/{LIST_FILE} beside the images of {images}; {part} holds {contents(part)}; get "
                "the list, which comes with RAF-DB"
            )
        train = find_file(root, {"train", "test"})
        parent = root if train is None else train.parent
        half = [name for name in ("train", "test") if (parent / name / "1").is_dir()]
        if len(half) != 1 or (parent / half[0] / "0").is_dir():
            return self.wrong_layout(root, "folders of RAF-DB")
        other = "test" if half[0] == "train" else "train"
        # with RAF-DB's table beside them the digits are RAF-DB's
        table = any(
            (folder / f"{name}_labels.csv").is_file() for folder in (parent, parent.parent) for name in half
        )
        return self.wrong_layout(
            parent,
            f"{other}/1 to {other}/7 beside {parent / half[0]}",
            hint="; unpack the other part as well",
            error=DatasetError if table else LayoutError,
        )


class RafDbCompound(Dataset):
    """Eleven compound expressions, labels 1 to 11."""

    name = "rafdb-compound"
    layout = f"rafdb-compound expects compound/EmoLabel/{LIST_FILE} with compound/Image/aligned/ under ROOT"
    classes = PRESETS["rafdb-compound"]

    def read(self, root: Path, options: DatasetOptions) -> Listing:
        compound = root if root.name.lower() == "compound" else find_file(root, {"compound"}, skip={"image"})
        lists = [] if compound is None else _lists(compound, skip={"image"})
        if not lists:
            raise self.wrong_layout(root, "compound/ folder of RAF-DB")
        return _official(self, lists, root)


def _lists(root: Path, *, skip: set[str]) -> list[Path]:
    """The list file that is nearest to the root, then those of other copies that lie not much deeper."""
    return find_all(root, lambda name: name == LIST_FILE, skip=skip, further=2)


def _official(dataset: Dataset, lists: list[Path], root: Path) -> Listing:
    """Samples of lines like ``train_00001.jpg 5``; ``_aligned``, which only the files have, is not in the id."""
    list_file, *copies = lists
    part = list_file.parent.parent
    images = first_folder(*(part / name for name in _IMAGES))
    files = {} if images is None else files_in(images)
    zipped = [name for name in ("aligned", "original") if (part / "Image" / f"{name}.zip").is_file()]
    if images is None or (zipped and not files):
        raise DatasetError(
            f"{dataset.name}: no images in Image/aligned/ beside {list_file.parent}, only "
            + contents(part)
            + (f" and Image/{zipped[0]}.zip" if zipped else "")
            + "; unpack the images there"
        )
    folder = posix(images, root)
    suffix = "_aligned" if images.name.startswith("aligned") else ""
    rows = []
    names = set()
    for line_number, line in enumerate(read_lines(list_file), start=1):
        if not line:
            continue
        name, _, digits = line.rpartition(" ")
        stem, extension = PurePosixPath(name).stem, PurePosixPath(name).suffix
        split = Split.train if stem.startswith("train") else Split.test if stem.startswith("test") else None
        label = class_index(digits, len(dataset.classes), first=1)
        if split is None or label is None:
            raise DatasetError(
                f"{dataset.name}: line {line_number} of {list_file} is {shorten(line)!r}; lines must read "
                f"'train_00001.jpg 5' with labels 1 to {len(dataset.classes)}"
            )
        if f"{stem}{suffix}" in names:
            raise DatasetError(
                f"{dataset.name}: line {line_number} of {list_file} repeats {name}; take the list as it was published"
            )
        names.add(f"{stem}{suffix}")
        file, size = files.get(f"{stem}{suffix}", (f"{stem}{suffix}{extension}", -1))
        rows.append(_row(f"{folder}/{stem}", f"{folder}/{file}", label, split, size))
    notes = [
        f"read the list {posix(list_file, root)} (RAF-DB layout) and the images of {folder}/",
        *unlisted_note(files, names, inside=folder, why="not in the list"),
    ]
    if copies:
        others = listed([posix(copy, root) for copy in copies])
        notes.append(f"WARNING {dataset.name}: left out are other copies under the root: {others}")
    return dataset.listing(root, rows, notes)


def _row(sample: str, path: str, label: int, split: Split, size: int) -> dict[str, Any]:
    return {"id": sample, "path": path, "label": label, "split": split, "size_bytes": size}


def _kaggle_folder(root: Path) -> Path | None:
    """The folder with ``train/1``, ``test/1`` and so on."""
    train = find_file(root, {"train"})
    if train is None or not (train / "1").is_dir() or not (train.parent / "test").is_dir():
        return None
    return None if (train / "0").is_dir() else train.parent


def _kaggle(dataset: Dataset, folder: Path, root: Path) -> Listing:
    """Samples of the folders, and those that only the tables name, which are missing."""
    rows: list[dict[str, Any]] = []
    wrong: list[str] = []
    unlisted: list[str] = []
    tables = 0
    for split in (Split.train, Split.test):
        table = _kaggle_labels(folder, split)
        tables += bool(table)
        images = [
            (path, label, size)
            for label in range(7)
            if (inside := folder / split.name / str(label + 1)).is_dir()
            for path, size in images_under(inside, root)
        ]
        label_of = {_plain(name): label for name, label in table.items()}
        for path, label, _ in images:
            name = _plain(path)
            if label_of.get(name, label) != label:
                wrong.append(name)
            elif table and name not in label_of:
                unlisted.append(path)
        names = {_plain(path) for path, _, _ in images}
        above = posix(folder / split.name, root)
        images += [
            (f"{above}/{label + 1}/{name}", label, -1)
            for name, label in table.items()
            if _plain(name) not in names
        ]
        rows += [
            _row(sample_id(path).removesuffix("_aligned"), path, label, split, size)
            for path, label, size in images
        ]
    if wrong:
        raise DatasetError(
            f"rafdb: {plural(len(wrong), 'image')} in a folder other than the label in *_labels.csv ({listed(wrong)}); "
            "take folders and tables as they were published"
        )
    checked = "labels agree with *_labels.csv" if tables else "no *_labels.csv to check labels against"
    notes = [f"Kaggle's RAF-DB folders 1 to 7 in RAF-DB's order; {checked}"]
    if unlisted:
        notes.append(
            f"WARNING {plural(len(unlisted), 'image')} not in *_labels.csv, labelled as their folders: "
            f"{listed(unlisted)}"
        )
    return dataset.listing(root, rows, notes)


def _plain(path: str) -> str:
    """A file's name without regard to the case of its extension."""
    name = PurePosixPath(path)
    return name.stem + name.suffix.lower()


def _kaggle_labels(folder: Path, split: Split) -> dict[str, int]:
    """File name -> label from 0, from ``train_labels.csv`` beside or in the folder; empty where there is none."""
    for parent in (folder.parent, folder):
        path = parent / f"{split.name}_labels.csv"
        if path.is_file():
            rows = (row for row in read_csv(path, dataset="rafdb") if len(row) >= 2)
            return {row[0]: label for row in rows if (label := class_index(row[1], 7, first=1)) is not None}
    return {}


def _count_note(listing: Listing) -> str:
    """Note whether the counts per class are those of the published split."""
    counts = {
        split: np.bincount(listing.labels[listing.splits == split], minlength=len(listing.classes))
        for split in _PARTS
    }
    published = {split: np.array([*PUBLISHED[part].values()]) for split, part in _PARTS.items()}
    words = " and ".join(f"{of.sum()} {split.name}" for split, of in counts.items())
    if all(np.array_equal(counts[split], published[split]) for split in _PARTS):
        return f"{words} images, class by class as published"
    official = " and ".join(f"{of.sum()} {split.name}" for split, of in published.items())
    return f"{words} images, but the published split has {official}: results are not comparable with published ones"
