"""``affectnet`` and ``affectnet7``: AffectNet in the forms in which it is passed around.

Numbering (0 neutral ... 7 contempt, 8 none, 9 uncertain, 10 non-face; -2 for no valence and arousal): Mollahosseini,
Hasani and Mahoor, "AffectNet" (IEEE Transactions on Affective Computing, 2019).
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import DatasetError, LayoutError, listed, plural, shorten
from ...features.classes import PRESETS
from ...features.samples import BOX_COLUMNS, Listing, Split
from ...features.table_columns import list_columns, split_named
from .affectnet_npy import read_annotations
from .base import Dataset, DatasetOptions
from .files import (
    contents,
    files_in,
    find_file,
    first_folder,
    is_folder,
    posix,
    read_csv,
    read_lines,
    sample_id,
    size_of,
)
from .label_names import class_index

_NAMES = (*PRESETS["affectnet8"], "none", "uncertain", "non-face")
_SET_FOLDERS = ("train_set", "val_set", "valid_set")
_LISTS = ("training.csv", "validation.csv")
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

# Stem of the image, expression, valence, arousal.
_Annotation = tuple[str, int, float, float]


class AffectNet(Dataset):
    """Eight classes; images of none, uncertain and non-face are left out."""

    name = "affectnet"
    layout = (
        "affectnet expects train_set|val_set/images/ID.jpg with annotations/ID_exp.npy (and _val, _aro), or with "
        "train_set_annotation_without_lnd.csv, or with train_annotations_8class.txt; or the original "
        "Manually_Annotated_file_lists/training.csv and validation.csv with Manually_Annotated_Images/"
    )
    classes = PRESETS["affectnet8"]

    def read(self, root: Path, options: DatasetOptions) -> Listing:
        marks = {*_SET_FOLDERS, *_LISTS, "manually_annotated_file_lists", "manually_annotated"}
        mark = find_file(root, marks, skip={"images", "annotations"})
        if mark is None:
            hint = "; for folders 0 to 7 use --dataset folder --label-map affectnet8"
            raise self.wrong_layout(root, "folders of AffectNet", hint=hint)
        notes: list[str] = []
        if mark.name.lower() in _SET_FOLDERS:
            rows = _sets(mark.parent, root, len(self.classes), notes)
        else:
            rows = _original(mark.parent, root, notes)
        left_out = Counter[int]()
        listing = self.listing(root, _of_classes(rows, len(self.classes), left_out))
        if left_out:
            words = ", ".join(f"{count} of {_NAMES[label]}" for label, count in left_out.items())
            notes.append(f"left out, as AffectNet-{len(self.classes)} does: {words}")
        return Listing(self.name, listing.root, listing.samples, tuple(notes))


class AffectNet7(AffectNet):
    """Seven classes: without contempt."""

    name = "affectnet7"
    layout = "affectnet7 expects the folders and files of affectnet, and leaves contempt out"
    classes = PRESETS["affectnet7"]


def _of_classes(
    rows: Iterable[dict[str, Any]], count: int, left_out: Counter[int]
) -> Iterator[dict[str, Any]]:
    """Rows with a label below the number of classes; the others are counted."""
    for row in rows:
        if row["label"] < count:
            yield row
        else:
            left_out[row["label"]] += 1


def _sets(base: Path, root: Path, classes: int, notes: list[str]) -> Iterator[dict[str, Any]]:
    """``train_set`` and ``val_set``, with any of the three kinds of annotation."""
    folders = [
        Path(entry.path)
        for entry in os.scandir(base)
        if entry.name.lower() in _SET_FOLDERS and is_folder(entry)
    ]
    for folder in sorted(folders):
        split = split_named(folder.name) or Split.train
        images = first_folder(folder / "images") or folder
        inside = posix(images, root)
        files = files_in(images)
        kind, annotations = _annotated(base, folder, split, classes)
        notes.append(f"{posix(folder, root)}: annotations from {kind}")
        named = set()
        for stem, label, valence, arousal in annotations:
            name, size = files.get(stem, (f"{stem}.jpg", -1))
            named.add(stem)
            path = f"{inside}/{name}"
            yield {
                "id": sample_id(path),
                "path": path,
                "label": label,
                "split": split,
                "valence": valence,
                "arousal": arousal,
                "size_bytes": size,
            }
        if without := sorted(files.keys() - named):
            images_left = plural(len(without), "image")
            notes.append(f"{inside}: {images_left} left out, without annotation: {listed(without)}")


def _annotated(base: Path, folder: Path, split: Split, classes: int) -> tuple[str, Iterable[_Annotation]]:
    """The kind of annotations of one set, and the annotations."""
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
        rows = zip(*(table[name].tolist() for name in table), strict=True)
        where = str(folder)
        return "annotations/*.npy", ((s, e, _va(v, where), _va(a, where)) for s, e, v, a in rows)
    # other datasets have folders of these names too: those of Aff-Wild2, and splits with class folders
    raise (DatasetError if (folder / "images").is_dir() else LayoutError)(
        f"affectnet: no annotations/, {split.name}_set_annotation_without_lnd.csv or text list for {folder}, which "
        f"holds {contents(folder)}; docs/datasets.md shows the forms"
    )


def _flat_rows(path: Path) -> Iterator[_Annotation]:
    """Rows of ``number,exp,val,aro``."""
    rows = read_csv(path, dataset="affectnet")
    names = next(rows, [])
    header = [_OTHER_NAMES.get(name.lower(), name.lower()) for name in names]
    wanted = ("number", "expression", "valence", "arousal")
    if not set(wanted) <= set(header):
        raise DatasetError(
            f"affectnet: the first line of {path} must name the columns number,exp,val,aro; it is {list_columns(names)}"
        )
    stem, expression, valence, arousal = (header.index(name) for name in wanted)
    for row_number, row in enumerate(rows, start=1):
        where = f"row {row_number} of {path}"
        _check_width(row, header, where)
        yield (
            PurePosixPath(row[stem]).stem,
            _expression(row[expression], where),
            _va(row[valence], where),
            _va(row[arousal], where),
        )


def _check_width(row: list[str], header: list[str], where: str) -> None:
    """Refuse a row of another number of cells: one too many shifts those after it."""
    if len(row) < len(header) or any(row[len(header) :]):
        raise DatasetError(
            f"affectnet: {where} has {plural(len(row), 'cell')} instead of {len(header)} ({','.join(header[:3])},...): "
            f"{shorten(','.join(row))}; correct that row"
        )


def _text_rows(path: Path) -> Iterator[_Annotation]:
    """Lines like ``123.jpg 4``."""
    for line_number, line in enumerate(read_lines(path), start=1):
        if line:
            name, _, digits = line.rpartition(" ")
            label = _expression(digits, f"line {line_number} of {path}")
            yield PurePosixPath(name).stem, label, math.nan, math.nan


def _original(base: Path, root: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The lists of the original release, with a header or without; the face's box is in them."""
    images = first_folder(*(base / name for name in _IMAGE_FOLDERS))
    lists = [
        path
        for name in _LISTS
        if (path := next((p for f in _LIST_FOLDERS if (p := base / f / name).is_file()), None)) is not None
    ]
    if images is None or not lists:
        missing = "Manually_Annotated_Images/" if images is None else "training.csv or validation.csv"
        raise DatasetError(
            f"affectnet: no {missing} under {base}, which holds {contents(base)}; docs/datasets.md shows the forms"
        )
    inside = posix(images, root)
    for path in lists:
        split = split_named(path.stem) or Split.train
        notes.append(f"{split.name}: annotations from {posix(path, root)}, with face boxes")
        for where, cells in _original_rows(path):
            name = f"{inside}/{cells[_COLUMNS[0]]}"
            yield {
                "id": sample_id(name),
                "path": name,
                "label": _expression(cells["expression"], where),
                "split": split,
                "valence": _va(cells["valence"], where),
                "arousal": _va(cells["arousal"], where),
                "size_bytes": size_of(root / name),
                **_box(cells),
            }
    if find_file(base, {"automatically_annotated.csv"}, skip={"images", images.name.lower()}):
        notes.append("Automatically_annotated.csv is left out: no person has looked at those labels")


def _original_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Cells by column of each row of a list, and the row in words."""
    header: list[str] | None = None
    without_header = False
    for row_number, row in enumerate(read_csv(path, dataset="affectnet")):
        if header is None:
            header = [name.lower() for name in row]
            if set(_COLUMNS) - {"facial_landmarks"} <= set(header):
                continue
            header, without_header = list(_COLUMNS), True  # some copies have lost the header
        where = f"row {row_number + without_header} of {path}"
        _check_width(row, header, where)
        yield where, dict(zip(header, row, strict=False))


def _expression(text: str, where: str) -> int:
    label = class_index(text, len(_NAMES))
    if label is None:
        raise DatasetError(
            f"affectnet: the expression {shorten(text)!r} in {where} is no number from 0 to 10; correct it"
        )
    return label


def _va(value: str | float, where: str) -> float:
    """Valence or arousal; -2 is none."""
    try:
        number = float(value)
    except ValueError:
        number = math.inf
    if number == -2 or math.isnan(number):
        return math.nan
    if not -1 <= number <= 1:
        raise DatasetError(
            f"affectnet: the valence or arousal {shorten(str(value))!r} in {where} is neither in [-1, 1] nor -2; "
            "correct it"
        )
    return number


def _box(cells: dict[str, str]) -> dict[str, float]:
    """The face's box; empty where the list has no usable one."""
    try:
        x, y, width, height = (float(cells[name]) for name in _COLUMNS[1:5])
    except (KeyError, ValueError):
        return {}
    if not (width > 0 and height > 0):
        return {}
    return dict(zip(BOX_COLUMNS, (x, y, x + width, y + height), strict=True))
