"""``rafdb`` and ``rafdb-compound``: RAF-DB in the official form and in Kaggle's.

Layouts, numbering and counts: Li, Deng and Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning
for Expression Recognition in the Wild" (CVPR 2017), and the list file that comes with it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from ...errors import DatasetError, LayoutError
from ...features.classes import PRESETS
from ...features.values import Sample, SampleList, Split
from . import DatasetOptions
from .files import (
    find_file,
    first_folder,
    images_under,
    listing,
    posix,
    read_csv,
    read_lines,
    sample_id,
    size_of,
)

# The list file's misspelt name is the real one.
LIST_FILE = "list_patition_label.txt"
# Images per class in the published split, in the order of the labels.
OFFICIAL_COUNTS = {
    Split.train: (1290, 281, 717, 4772, 1982, 705, 2524),
    Split.test: (329, 74, 160, 1185, 478, 162, 680),
}
_IMAGES = ("Image/aligned", "aligned", "Image/aligned_224", "Image/original", "original")


class RafDb:
    """Seven basic expressions, labels 1 to 7. The list file is searched under the root; else Kaggle's folders are."""

    name = "rafdb"
    layout = (
        f"rafdb expects basic/EmoLabel/{LIST_FILE} with basic/Image/aligned/ (official), or DATASET/train|test/1..7/ "
        "with train_labels.csv (Kaggle), anywhere under ROOT"
    )

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList:
        classes = PRESETS["rafdb"]
        in_compound = root.name.lower() == "compound"
        list_file = None if in_compound else find_file(root, {LIST_FILE}, skip={"image", "compound"})
        if list_file is not None:
            samples, what = _official(list_file, root, len(classes), self.name)
        elif (kaggle := _kaggle_folder(root)) is not None:
            samples, what = _kaggle(kaggle, root)
        else:
            raise LayoutError(
                f"rafdb: expected RAF-DB's folders, found {listing(root)} in {root}; {self.layout} (docs/datasets.md)"
            )
        return SampleList(self.name, str(root), classes, tuple(samples), (what, _count_note(samples)))


class RafDbCompound:
    """Eleven compound expressions, labels 1 to 11."""

    name = "rafdb-compound"
    layout = f"rafdb-compound expects compound/EmoLabel/{LIST_FILE} with compound/Image/aligned/ under ROOT"

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList:
        classes = PRESETS[self.name]
        compound = root if root.name.lower() == "compound" else find_file(root, {"compound"}, skip={"image"})
        found = None if compound is None else find_file(compound, {LIST_FILE}, skip={"image"})
        if found is None:
            raise LayoutError(
                f"rafdb-compound: expected RAF-DB's compound/ folder, found {listing(root)} in {root}; {self.layout} "
                "(docs/datasets.md)"
            )
        samples, what = _official(found, root, len(classes), self.name)
        return SampleList(self.name, str(root), classes, tuple(samples), (what,))


def _official(list_file: Path, root: Path, labels: int, dataset: str) -> tuple[list[Sample], str]:
    """Samples of lines like ``train_00001.jpg 5``; ``_aligned``, which only the files have, is not in the id."""
    part = list_file.parent.parent
    images = first_folder(*(part / name for name in _IMAGES))
    if images is None:
        zipped = [name for name in ("aligned", "original") if (part / "Image" / f"{name}.zip").is_file()]
        raise DatasetError(
            f"{dataset}: expected Image/aligned/ beside {list_file.parent}, found {listing(part)}"
            + (f" and Image/{zipped[0]}.zip" if zipped else "")
            + "; unpack the images there"
        )
    folder = posix(images, root)
    suffix = "_aligned" if images.name.startswith("aligned") else ""
    samples = []
    for number, line in enumerate(read_lines(list_file, dataset=dataset), start=1):
        if not line:
            continue
        name, _, digits = line.rpartition(" ")
        stem, extension = PurePosixPath(name).stem, PurePosixPath(name).suffix
        split = Split.train if stem.startswith("train") else Split.test if stem.startswith("test") else None
        if split is None or not digits.isdecimal() or not 1 <= int(digits) <= labels:
            raise DatasetError(
                f"{dataset}: expected lines like 'train_00001.jpg 5' with labels 1 to {labels}, got {line!r} "
                f"in line {number} of {list_file}"
            )
        path = f"{folder}/{stem}{suffix}{extension}"
        samples.append(
            Sample(
                id=f"{folder}/{stem}",
                path=path,
                label=int(digits) - 1,
                split=split,
                size_bytes=size_of(root / path),
            )
        )
    return samples, f"official RAF-DB list {posix(list_file, root)} with the images of {folder}/"


def _kaggle_folder(root: Path) -> Path | None:
    """The folder with ``train/1``, ``test/1`` and so on."""
    train = find_file(root, {"train"})
    if train is None or not (train / "1").is_dir() or not (train.parent / "test").is_dir():
        return None
    return None if (train / "0").is_dir() else train.parent


def _kaggle(dataset: Path, root: Path) -> tuple[list[Sample], str]:
    """Samples of the folders, and those that only the tables name, which are missing."""
    samples, wrong, tables = [], [], 0
    for split in (Split.train, Split.test):
        said = _kaggle_labels(dataset, split)
        tables += bool(said)
        here = [
            (path, label, size)
            for label in range(7)
            if (folder := dataset / split.name / str(label + 1)).is_dir()
            for path, size in images_under(folder, root)
        ]
        names = {PurePosixPath(path).name for path, _, _ in here}
        wrong += [
            PurePosixPath(path).name
            for path, label, _ in here
            if said.get(PurePosixPath(path).name, label) != label
        ]
        inside = posix(dataset / split.name, root)
        here += [
            (f"{inside}/{label + 1}/{name}", label, -1) for name, label in said.items() if name not in names
        ]
        samples += [
            Sample(
                id=sample_id(path).removesuffix("_aligned"),
                path=path,
                label=label,
                split=split,
                size_bytes=size,
            )
            for path, label, size in here
        ]
    if wrong:
        raise DatasetError(
            f"rafdb: expected folders and *_labels.csv to agree, got {len(wrong)} images with another label in the "
            f"table ({', '.join(wrong[:5])})"
        )
    checked = "labels agree with *_labels.csv" if tables else "no *_labels.csv to check labels against"
    return samples, f"Kaggle's RAF-DB folders 1 to 7 in RAF-DB's order; {checked}"


def _kaggle_labels(dataset: Path, split: Split) -> dict[str, int]:
    """File name -> label from 0, from ``train_labels.csv`` beside or in the folder; empty where there is none."""
    for folder in (dataset.parent, dataset):
        path = folder / f"{split.name}_labels.csv"
        if path.is_file():
            rows = (row for row in read_csv(path, dataset="rafdb") if len(row) >= 2)
            return {row[0]: int(row[1]) - 1 for row in rows if row[1] in set("1234567")}
    return {}


def _count_note(samples: list[Sample]) -> str:
    """Whether the counts per class are those of the published split."""
    counts = Counter((sample.split, sample.label) for sample in samples)
    here = {split: tuple(counts[split, label] for label in range(7)) for split in OFFICIAL_COUNTS}
    words = " and ".join(f"{sum(here[split])} {split.name}" for split in here)
    if here == OFFICIAL_COUNTS:
        return f"{words} images, class by class as published"
    published = " and ".join(f"{sum(of)} {split.name}" for split, of in OFFICIAL_COUNTS.items())
    return f"{words} images, where the published split has {published}: figures are not comparable with published ones"
