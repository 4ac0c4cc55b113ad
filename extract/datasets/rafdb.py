"""``rafdb`` and ``rafdb-compound``: RAF-DB in the official form and in Kaggle's.

Layouts, numbering and counts: Li, Deng and Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning
for Expression Recognition in the Wild" (CVPR 2017), and the list file that comes with it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from ...errors import DatasetError, LayoutError, number, short, some
from ...features.classes import PRESETS
from ...features.samples import Sample, SampleList, Split
from . import DatasetOptions
from .files import (
    files_in,
    find_all,
    find_file,
    first_folder,
    images_under,
    listing,
    posix,
    read_csv,
    read_lines,
    sample_id,
    unlisted_note,
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
        lists = [] if in_compound else _lists(root, skip={"image", "compound"})
        if lists:
            samples, notes = _official(lists, root, len(classes), self.name)
        elif (kaggle := _kaggle_folder(root)) is not None:
            samples, notes = _kaggle(kaggle, root)
        else:
            raise _lacking(root, self.layout)
        return SampleList(self.name, str(root), classes, tuple(samples), (*notes, _count_note(samples)))


class RafDbCompound:
    """Eleven compound expressions, labels 1 to 11."""

    name = "rafdb-compound"
    layout = f"rafdb-compound expects compound/EmoLabel/{LIST_FILE} with compound/Image/aligned/ under ROOT"

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList:
        classes = PRESETS[self.name]
        compound = root if root.name.lower() == "compound" else find_file(root, {"compound"}, skip={"image"})
        lists = [] if compound is None else _lists(compound, skip={"image"})
        if not lists:
            raise LayoutError(
                f"rafdb-compound: expected RAF-DB's compound/ folder, found {listing(root)} in {root}; {self.layout} "
                "(docs/datasets.md)"
            )
        samples, notes = _official(lists, root, len(classes), self.name)
        return SampleList(self.name, str(root), classes, tuple(samples), notes)


def _lists(root: Path, *, skip: set[str]) -> list[Path]:
    """The list file that is nearest to the root, then those of other copies that lie not much deeper."""
    return find_all(root, lambda name: name == LIST_FILE, skip=skip, further=2)


def _lacking(root: Path, layout: str) -> DatasetError:
    """What to say where neither form is whole: which part of it is not there."""
    images = find_file(root, {"aligned", "aligned_224", "original"}, skip={"compound", "emolabel"})
    if images is not None and images.is_dir():
        part = images.parent.parent if images.parent.name.lower() == "image" else images.parent
        return DatasetError(
            f"rafdb: expected EmoLabel/{LIST_FILE} beside the images of {images}, found {listing(part)} in {part}; "
            "the list comes with RAF-DB"
        )
    train = find_file(root, {"train", "test"})
    parent = root if train is None else train.parent
    half = [name for name in ("train", "test") if (parent / name / "1").is_dir()]
    if len(half) == 1 and not (parent / half[0] / "0").is_dir():
        other = "test" if half[0] == "train" else "train"
        # with RAF-DB's table beside them the digits are RAF-DB's
        table = any(
            (folder / f"{name}_labels.csv").is_file() for folder in (parent, parent.parent) for name in half
        )
        return (DatasetError if table else LayoutError)(
            f"rafdb: expected {other}/1 to {other}/7 beside {parent / half[0]}, found {listing(parent)}; "
            "unpack the other part as well"
        )
    return LayoutError(
        f"rafdb: expected RAF-DB's folders, found {listing(root)} in {root}; {layout} (docs/datasets.md)"
    )


def _official(
    lists: list[Path], root: Path, labels: int, dataset: str
) -> tuple[list[Sample], tuple[str, ...]]:
    """Samples of lines like ``train_00001.jpg 5``; ``_aligned``, which only the files have, is not in the id."""
    list_file, *copies = lists
    part = list_file.parent.parent
    images = first_folder(*(part / name for name in _IMAGES))
    files = {} if images is None else files_in(images)
    zipped = [name for name in ("aligned", "original") if (part / "Image" / f"{name}.zip").is_file()]
    if images is None or (zipped and not files):
        raise DatasetError(
            f"{dataset}: expected Image/aligned/ beside {list_file.parent} with images in it, found {listing(part)}"
            + (f" and Image/{zipped[0]}.zip" if zipped else "")
            + "; unpack the images there"
        )
    folder = posix(images, root)
    suffix = "_aligned" if images.name.startswith("aligned") else ""
    samples = []
    listed = set()
    for place, line in enumerate(read_lines(list_file), start=1):
        if not line:
            continue
        name, _, digits = line.rpartition(" ")
        stem, extension = PurePosixPath(name).stem, PurePosixPath(name).suffix
        split = Split.train if stem.startswith("train") else Split.test if stem.startswith("test") else None
        if split is None or not digits.isdecimal() or not 1 <= int(digits) <= labels:
            raise DatasetError(
                f"{dataset}: expected lines like 'train_00001.jpg 5' with labels 1 to {labels}, got "
                f"{short(line)!r} in line {place} of {list_file}"
            )
        if f"{stem}{suffix}" in listed:
            raise DatasetError(
                f"{dataset}: expected every image once in {list_file}, got {name} again in line {place}; take the list "
                "as it was published"
            )
        file, size = files.get(f"{stem}{suffix}", (f"{stem}{suffix}{extension}", -1))
        listed.add(f"{stem}{suffix}")
        samples.append(
            Sample(
                id=f"{folder}/{stem}",
                path=f"{folder}/{file}",
                label=int(digits) - 1,
                split=split,
                size_bytes=size,
            )
        )
    others = some([posix(copy, root) for copy in copies])
    return samples, (
        f"official RAF-DB list {posix(list_file, root)} with the images of {folder}/",
        *unlisted_note(files, listed, inside=folder, said="not in the list"),
        *([f"WARNING {dataset}: left out are other copies under the root: {others}"] if copies else []),
    )


def _kaggle_folder(root: Path) -> Path | None:
    """The folder with ``train/1``, ``test/1`` and so on."""
    train = find_file(root, {"train"})
    if train is None or not (train / "1").is_dir() or not (train.parent / "test").is_dir():
        return None
    return None if (train / "0").is_dir() else train.parent


def _kaggle(dataset: Path, root: Path) -> tuple[list[Sample], tuple[str, ...]]:
    """Samples of the folders, and those that only the tables name, which are missing."""
    samples, wrong, unsaid, tables = [], [], [], 0
    for split in (Split.train, Split.test):
        said = _kaggle_labels(dataset, split)
        tables += bool(said)
        here = [
            (path, label, size)
            for label in range(7)
            if (folder := dataset / split.name / str(label + 1)).is_dir()
            for path, size in images_under(folder, root)
        ]
        names = {_plain(path): (path, label) for path, label, _ in here}
        by_name = {_plain(name): label for name, label in said.items()}
        wrong += [name for name, (_, label) in names.items() if by_name.get(name, label) != label]
        unsaid += [path for name, (path, _) in names.items() if said and name not in by_name]
        inside = posix(dataset / split.name, root)
        here += [
            (f"{inside}/{label + 1}/{name}", label, -1)
            for name, label in said.items()
            if _plain(name) not in names
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
            f"rafdb: expected folders and *_labels.csv to agree, got {number(len(wrong), 'image')} with another "
            f"label in the table ({some(wrong)})"
        )
    checked = "labels agree with *_labels.csv" if tables else "no *_labels.csv to check labels against"
    notes = [f"Kaggle's RAF-DB folders 1 to 7 in RAF-DB's order; {checked}"]
    if unsaid:
        notes.append(
            f"WARNING {number(len(unsaid), 'image')} not in *_labels.csv, labelled as their folders: {some(unsaid)}"
        )
    return samples, tuple(notes)


def _plain(path: str) -> str:
    """A file's name without regard to the case of its extension."""
    name = PurePosixPath(path)
    return name.stem + name.suffix.lower()


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
