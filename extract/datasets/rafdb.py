"""``rafdb``: RAF-DB's basic expressions, in the official form and in Kaggle's.

Layouts, numbering and counts: Li, Deng and Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning
for Expression Recognition in the Wild" (CVPR 2017), and the list file that comes with it.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

from ...errors import DatasetError
from ...features.classes import PRESETS
from ...features.values import Sample, SampleList, Split
from . import DatasetOptions
from .files import find_images, groups_of, listing, missing_note, posix, sample_id, size_of

# The list file's misspelt name is the real one.
LIST_FILE = "list_patition_label.txt"
CLASSES = PRESETS["rafdb"]  # labels 1 to 7 in this order
# Images per class in the published split.
OFFICIAL_COUNTS = {
    Split.train: (1290, 281, 717, 4772, 1982, 705, 2524),
    Split.test: (329, 74, 160, 1185, 478, 162, 680),
}


class RafDb:
    """The list file is searched under the root, however deep it is nested; else Kaggle's DATASET folders."""

    name = "rafdb"
    layout = (
        f"rafdb expects basic/EmoLabel/{LIST_FILE} with basic/Image/aligned/ (official), or DATASET/train|test/1..7/ "
        "with train_labels.csv (Kaggle), anywhere under ROOT"
    )

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList:
        found = _search(root)
        if found is None:
            raise DatasetError(
                f"rafdb: expected RAF-DB's folders, found {listing(root)} in {root}; {self.layout} (docs/datasets.md)"
            )
        rows, what = _official(found) if found.name == LIST_FILE else _kaggle(found)
        paths = [posix(path, root) for path, _, _ in rows]
        groups = groups_of([sample_id(path) for path in paths], options.group_pattern)
        samples = tuple(
            Sample(
                id=sample_id(path), path=path, label=label, split=split, group=group, size_bytes=size_of(file)
            )
            for path, (file, label, split), group in zip(paths, rows, groups, strict=True)
        )
        sizes = [sample.size_bytes for sample in samples]
        notes = (what, *_count_notes(rows), *missing_note(paths, sizes))
        return SampleList(self.name, str(root), CLASSES, samples, notes)


def _search(root: Path) -> Path | None:
    """The basic list file, else Kaggle's DATASET folder; the shallowest, and never the compound set's list."""
    kaggle = None
    for parent, folders, files in os.walk(root):
        folders.sort()
        here = Path(parent)
        if LIST_FILE in files and "compound" not in {part.lower() for part in here.relative_to(root).parts}:
            return here / LIST_FILE
        if kaggle is None and {"train", "test"} <= set(folders) and (here / "train" / "1").is_dir():
            kaggle = here
        # image folders hold no lists; walking them would take a while
        folders[:] = [name for name in folders if name.lower() != "image" and not name.isdigit()]
    return kaggle


def _official(list_file: Path) -> tuple[list[tuple[Path, int, Split]], str]:
    basic = list_file.parent.parent
    images = next(
        (
            basic / name
            for name in ("Image/aligned", "aligned", "Image/original", "original")
            if (basic / name).is_dir()
        ),
        None,
    )
    if images is None:
        raise DatasetError(
            f"rafdb: expected Image/aligned/ beside {list_file.parent}, found {listing(basic)}; unpack the images there"
        )
    suffix = "_aligned" if images.name == "aligned" else ""
    rows = []
    for number, line in enumerate(list_file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        name, _, digit = line.strip().rpartition(" ")
        stem, extension = Path(name).stem, Path(name).suffix
        split = Split.train if stem.startswith("train") else Split.test if stem.startswith("test") else None
        if split is None or digit not in set("1234567"):
            raise DatasetError(
                f"rafdb: expected lines like 'train_00001.jpg 5' with labels 1 to 7, got {line.strip()!r} "
                f"in line {number} of {list_file}"
            )
        rows.append((images / f"{stem}{suffix}{extension}", int(digit) - 1, split))
    return rows, f"official RAF-DB list {list_file.name} with the images of {images.name}/"


def _kaggle(dataset: Path) -> tuple[list[tuple[Path, int, Split]], str]:
    rows = [
        (path, label, split)
        for split in (Split.train, Split.test)
        for label in range(7)
        if (folder := dataset / split.name / str(label + 1)).is_dir()
        for path in find_images(folder)
    ]
    table = {split: _kaggle_labels(dataset, split) for split in (Split.train, Split.test)}
    wrong = [
        path.name
        for path, label, split in rows
        if table[split] and table[split].get(path.name, label) != label
    ]
    if wrong:
        raise DatasetError(
            f"rafdb: expected folders and *_labels.csv to agree, got {len(wrong)} images with another label in the "
            f"table ({', '.join(wrong[:5])})"
        )
    checked = (
        "labels agree with *_labels.csv" if any(table.values()) else "no *_labels.csv to check labels against"
    )
    return rows, f"Kaggle's RAF-DB folders 1 to 7 in RAF-DB's order; {checked}"


def _kaggle_labels(dataset: Path, split: Split) -> dict[str, int]:
    """File name -> label from 0, from ``train_labels.csv`` beside or in the folder; empty where there is none."""
    for folder in (dataset.parent, dataset):
        path = folder / f"{split.name}_labels.csv"
        if path.is_file():
            with path.open(newline="", encoding="utf-8-sig") as handle:
                lines = [row for row in csv.reader(handle) if len(row) >= 2]
            return {row[0]: int(row[1]) - 1 for row in lines if row[1].strip().isdigit()}
    return {}


def _count_notes(rows: list[tuple[Path, int, Split]]) -> list[str]:
    """Whether the counts per class are those of the published split."""
    counts = Counter((split, label) for _, label, split in rows)
    here = {split: tuple(counts[split, label] for label in range(7)) for split in OFFICIAL_COUNTS}
    words = " and ".join(f"{sum(here[split])} {split.name}" for split in here)
    if here == OFFICIAL_COUNTS:
        return [f"{words} images, class by class as published"]
    published = " and ".join(f"{sum(of)} {split.name}" for split, of in OFFICIAL_COUNTS.items())
    return [
        f"{words} images, where the published split has {published}: figures are not comparable with published ones"
    ]
