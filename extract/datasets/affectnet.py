"""``affectnet`` and ``affectnet7``: AffectNet in the forms in which it is passed around.

Numbering (0 neutral ... 7 contempt, 8 none, 9 uncertain, 10 non-face; -2 for no valence and arousal): Mollahosseini,
Hasani and Mahoor, "AffectNet" (IEEE Transactions on Affective Computing, 2019).
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ...errors import DatasetError, LayoutError, number, short, some
from ...features.classes import PRESETS
from ...features.columns import say_columns
from ...features.samples import Sample, SampleList, Split
from . import DatasetOptions
from .affectnet_npy import read_annotations
from .files import (
    files_in,
    find_file,
    first_folder,
    is_folder,
    listing,
    posix,
    read_csv,
    read_lines,
    sample_id,
    size_of,
)

_NAMES = (*PRESETS["affectnet8"], "none", "uncertain", "non-face")
_SET_FOLDERS = {"train_set": Split.train, "val_set": Split.val, "valid_set": Split.val}
_LISTS = {"training.csv": Split.train, "validation.csv": Split.val}
_LIST_FOLDERS = ("Manually_Annotated_file_lists", "Manually_Annotated", ".")
_IMAGE_FOLDERS = (
    "Manually_Annotated_Images",
    "Manually_Annotated/Manually_Annotated_Images",
    "Manually_Annotated",
)
_COLUMNS = (
    "subdirectory_filepath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression",
    "valence", "arousal",
)  # fmt: skip
_OTHER_NAMES = {"exp": "expression", "val": "valence", "aro": "arousal", "id": "number"}


@dataclass(frozen=True, slots=True)
class Record:
    """One annotated image; ``sample`` has its label still to come."""

    sample: Sample
    expression: int


class AffectNet:
    """Eight classes; images of none, uncertain and non-face are left out."""

    name = "affectnet"
    layout = (
        "affectnet expects train_set|val_set/images/ID.jpg with annotations/ID_exp.npy (and _val, _aro), or with "
        "train_set_annotation_without_lnd.csv, or with train_annotations_8class.txt; or the original "
        "Manually_Annotated_file_lists/training.csv and validation.csv with Manually_Annotated_Images/"
    )
    classes = PRESETS["affectnet8"]

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList:
        marks = {*_SET_FOLDERS, *_LISTS, "manually_annotated_file_lists", "manually_annotated"}
        found = find_file(root, marks, skip={"images", "annotations"})
        if found is None:
            raise LayoutError(
                f"{self.name}: expected AffectNet's folders, found {listing(root)} in {root}; {self.layout} "
                "(docs/datasets.md); for folders 0 to 7 use --dataset folder --label-map affectnet8"
            )
        base = found.parent
        notes: list[str] = []
        say = notes.append
        records = list(
            _sets(base, root, len(self.classes), say)
            if found.name.lower() in _SET_FOLDERS
            else _original(base, root, say)
        )
        left_out = Counter(
            _NAMES[record.expression] for record in records if record.expression >= len(self.classes)
        )
        if left_out:
            words = ", ".join(f"{count} of {name}" for name, count in left_out.items())
            notes.append(f"left out, as AffectNet-{len(self.classes)} does: {words}")
        samples = tuple(
            replace(record.sample, label=record.expression)
            for record in records
            if record.expression < len(self.classes)
        )
        return SampleList(self.name, str(root), self.classes, samples, tuple(notes))


class AffectNet7(AffectNet):
    """Seven classes: without contempt."""

    name = "affectnet7"
    layout = "affectnet7 expects what affectnet does, and leaves contempt out"
    classes = PRESETS["affectnet7"]


def _sets(base: Path, root: Path, classes: int, say: Callable[[str], None]) -> Iterator[Record]:
    """``train_set`` and ``val_set``, whichever of the three kinds of annotation they have."""
    here = {
        Path(entry.path): _SET_FOLDERS[entry.name.lower()]
        for entry in os.scandir(base)
        if entry.name.lower() in _SET_FOLDERS and is_folder(entry)
    }
    for folder, split in sorted(here.items()):
        images = first_folder(folder / "images") or folder
        inside = posix(images, root)
        files = files_in(images)
        kind, rows = _annotated(base, folder, split, classes)
        say(f"{posix(folder, root)}: annotations from {kind}")
        named = set()
        for stem, expression, valence, arousal in rows:
            name, size = files.get(stem, (f"{stem}.jpg", -1))
            named.add(stem)
            path = f"{inside}/{name}"
            yield Record(
                Sample(sample_id(path), path, -1, split, valence, arousal, size_bytes=size), expression
            )
        without = sorted(files.keys() - named)
        if without:
            say(f"{inside}: {number(len(without), 'image')} left out, without annotation: {some(without)}")


_Row = tuple[str, int, float, float]


def _annotated(base: Path, folder: Path, split: Split, classes: int) -> tuple[str, Iterable[_Row]]:
    """What the annotations of one set are in, and its rows: stem, expression, valence, arousal."""
    for name in (f"{folder.name}_annotation_without_lnd.csv", f"{split.name}_set_annotation_without_lnd.csv"):
        for parent in (base, folder):
            if (parent / name).is_file():
                return name, _flat_rows(parent / name)
    for word in ("valid", "val") if split is Split.val else ("train",):
        for count in (classes, 15 - classes):  # 8 then 7, or 7 then 8
            for parent in (folder, base):
                path = parent / f"{word}_annotations_{count}class.txt"
                if path.is_file():
                    return path.name, _text_rows(path)
    if (folder / "annotations").is_dir():
        table = read_annotations(folder / "annotations")
        columns = (table.stems, table.expression, table.valence, table.arousal)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return "annotations/*.npy", ((s, e, _va(v, str(folder)), _va(a, str(folder))) for s, e, v, a in rows)
    # folders of these names are not AffectNet's alone: Aff-Wild2 has them, and class folders stand in them
    raise (DatasetError if (folder / "images").is_dir() else LayoutError)(
        f"affectnet: expected annotations/, {split.name}_set_annotation_without_lnd.csv or a text list for "
        f"{folder}, found {listing(folder)}; docs/datasets.md shows the forms"
    )


def _flat_rows(path: Path) -> Iterator[_Row]:
    """Rows of ``number,exp,val,aro``."""
    rows = read_csv(path, dataset="affectnet")
    found = next(rows, [])
    header = [_OTHER_NAMES.get(name.lower(), name.lower()) for name in found]
    wanted = ("number", "expression", "valence", "arousal")
    if not set(wanted) <= set(header):
        raise DatasetError(
            f"affectnet: expected the columns number,exp,val,aro in the first line of {path}, got {say_columns(found)}"
        )
    number, expression, valence, arousal = (header.index(name) for name in wanted)
    for place, row in enumerate(rows, start=1):
        where = f"row {place} of {path}"
        _check_width(row, header, where)
        yield (
            PurePosixPath(row[number]).stem,
            _expression(row[expression], where),
            _va(row[valence], where),
            _va(row[arousal], where),
        )


def _check_width(row: list[str], header: list[str], where: str) -> None:
    """Refuse a row of another number of cells: one too many shifts those after it."""
    if len(row) < len(header) or any(row[len(header) :]):
        raise DatasetError(
            f"affectnet: expected {len(header)} cells ({','.join(header[:3])},...) in {where}, got {len(row)}: "
            f"{short(','.join(row))}"
        )


def _text_rows(path: Path) -> Iterator[_Row]:
    """Lines like ``123.jpg 4``."""
    for place, line in enumerate(read_lines(path), start=1):
        if line:
            name, _, digits = line.rpartition(" ")
            yield PurePosixPath(name).stem, _expression(digits, f"line {place} of {path}"), math.nan, math.nan


def _original(base: Path, root: Path, say: Callable[[str], None]) -> Iterator[Record]:
    """The lists of the original release, with a header or without; the face's box is in them."""
    images = first_folder(*(base / name for name in _IMAGE_FOLDERS))
    lists = {
        path: split
        for name, split in _LISTS.items()
        if (path := next((p for f in _LIST_FOLDERS if (p := base / f / name).is_file()), None)) is not None
    }
    if images is None or not lists:
        lacking = "Manually_Annotated_Images/" if images is None else "training.csv or validation.csv"
        raise DatasetError(
            f"affectnet: expected {lacking} under {base}, found {listing(base)}; docs/datasets.md shows the forms"
        )
    inside = posix(images, root)
    for path, split in lists.items():
        say(f"{split.name}: annotations from {posix(path, root)}, with face boxes")
        header: list[str] | None = None
        headless = False
        for place, row in enumerate(read_csv(path, dataset="affectnet")):
            if header is None:
                header = [name.lower() for name in row]
                if set(_COLUMNS) - {"facial_landmarks"} <= set(header):
                    continue
                header, headless = list(_COLUMNS), True  # some copies have lost the header
            where = f"row {place + headless} of {path}"
            _check_width(row, header, where)
            cells = dict(zip(header, row, strict=False))
            name = f"{inside}/{cells[_COLUMNS[0]]}"
            sample = Sample(
                id=sample_id(name),
                path=name,
                split=split,
                valence=_va(cells["valence"], where),
                arousal=_va(cells["arousal"], where),
                size_bytes=size_of(root / name),
                box=_box(cells),
            )
            yield Record(sample, _expression(cells["expression"], where))
    if find_file(base, {"automatically_annotated.csv"}, skip={"images", images.name.lower()}):
        say("Automatically_annotated.csv is left out: no person has looked at those labels")


def _expression(text: str, where: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if value != value or value != int(value) or not 0 <= value <= 10:
        raise DatasetError(f"affectnet: expected expressions from 0 to 10 in {where}, got {short(text)!r}")
    return int(value)


def _va(value: str | float, where: str) -> float:
    """Valence or arousal; -2 is none."""
    try:
        number = float(value)
    except ValueError:
        number = math.inf
    if number == -2 or number != number:
        return math.nan
    if not -1 <= number <= 1:
        raise DatasetError(
            f"affectnet: expected valence and arousal in [-1, 1] or -2 in {where}, got {short(str(value))!r}"
        )
    return number


def _box(cells: dict[str, str]) -> tuple[float, float, float, float] | None:
    """The face's box; None where the list has no usable one."""
    try:
        x, y, width, height = (float(cells[name]) for name in _COLUMNS[1:5])
    except (KeyError, ValueError):
        return None
    return (x, y, x + width, y + height) if width > 0 and height > 0 else None
