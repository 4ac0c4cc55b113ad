"""``fer2013`` and ``ferplus``: the same 35,887 images, with FER2013's labels or FER+'s votes.

References
----------
Goodfellow et al., "Challenges in Representation Learning" (2013); Barsoum et al., "Training Deep Networks for Facial
Expression Recognition with Crowd-Sourced Label Distribution" (ICMI 2016), whose majority rule is taken for FER+.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import DatasetError, LayoutError, number, short, some
from ...features.classes import PRESETS
from ...features.columns import label_text, say_columns
from ...features.samples import Sample, SampleList, Split
from ..sources import open_file
from ..sources.pixels import COLUMN, cells_of, header_of, records
from . import DatasetOptions
from .files import (
    files_in,
    find_file,
    listing,
    posix,
    read_csv,
    sample_id,
    size_of,
    unlisted_note,
)
from .folder import FolderDataset
from .levels import LevelError

USAGES = {"training": Split.train, "publictest": Split.val, "privatetest": Split.test}
PIXEL_TABLES = ("fer2013.csv", "icml_face_data.csv")
VOTE_TABLE = "fer2013new.csv"
# FER+'s folders, and how many images each split has
FOLDERS = {Split.train: "FER2013Train", Split.val: "FER2013Valid", Split.test: "FER2013Test"}
OFFICIAL_COUNTS = {Split.train: 28_709, Split.val: 3_589, Split.test: 3_589}
_VOTES = 10  # eight classes, unknown, not a face
# Training_3908.jpg in Kaggle's folders
_OF_ROW = re.compile(r"(^|/)(training|publictest|privatetest)_\d+$", re.IGNORECASE)
_NAME = re.compile(r"fer(\d+)\.\w+", re.IGNORECASE)


class Fer2013:
    """Seven classes: the table of pixels, else class folders by name or by number 0 to 6."""

    name = "fer2013"
    layout = "fer2013 expects fer2013.csv (emotion, pixels, Usage) under ROOT, or train|test/<class>/ by name or 0..6"

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList:
        classes = PRESETS[self.name]
        table = find_file(root, PIXEL_TABLES)
        if table is None:
            return self._folders(root, options)
        size, inside = size_of(table), posix(table, root)
        samples = []
        for row, cells in enumerate(_pixel_rows(table)):
            split, label = USAGES.get(cells["usage"].lower()), label_text(cells["emotion"])
            if split is None or label not in set("0123456"):
                raise DatasetError(
                    f"fer2013: expected emotions 0 to 6 and Usage {', '.join(USAGES)}, got "
                    f"{short(label)!r} and {short(cells['usage'])!r} in row {row} of {table}"
                )
            samples.append(
                Sample(_pixel_id(row), f"{inside}!{row}", int(label), split=split, size_bytes=size)
            )
        return SampleList(
            self.name, str(root), classes, tuple(samples), (f"pixels in {inside}", _count_note(samples))
        )

    def _folders(self, root: Path, options: DatasetOptions) -> SampleList:
        try:
            found = FolderDataset()(root, replace(options, label_map=self.name))
        except LevelError:
            raise
        except LayoutError as exc:
            raise LayoutError(
                f"fer2013: expected {' or '.join(PIXEL_TABLES)}, or class folders, found {listing(root)} in {root}; "
                f"{self.layout} (docs/datasets.md)"
            ) from exc
        return replace(found, dataset=self.name, notes=(*found.notes, _count_note(list(found.samples))))

    @staticmethod
    def marked(samples: SampleList) -> bool:
        """Whether the table of pixels is there, or the files are called as those made of it are."""
        named = sum("!" in sample.path or bool(_OF_ROW.search(sample.id)) for sample in samples.samples)
        return 2 * named > len(samples)


class FerPlus:
    """Eight classes by majority of ten votes; images are those of FER2013, as PNG or in the table of pixels."""

    name = "ferplus"
    layout = (
        "ferplus expects FER2013Train|FER2013Valid|FER2013Test/ with label.csv and fer0000000.png, or "
        "fer2013new.csv beside them or beside fer2013.csv, under ROOT"
    )

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList:
        classes = PRESETS[self.name]
        folders = {name.lower() for name in FOLDERS.values()}
        found = find_file(root, {*folders, VOTE_TABLE})
        if found is None:
            raise LayoutError(
                f"ferplus: expected FER+'s folders or {VOTE_TABLE}, found {listing(root)} in {root}; {self.layout} "
                "(docs/datasets.md)"
            )
        base = found.parent
        table = find_file(base, {VOTE_TABLE}, skip=folders)
        if table is not None:
            samples, said = _of_vote_table(table, root)
        else:
            samples, said = _of_label_files(base, root)
        unclear = sum(sample.label < 0 for sample in samples)
        notes = [
            *said,
            f"{number(unclear, 'image')} without a majority for one of the {len(classes)} classes, kept without label",
            _count_note(samples),
        ]
        return SampleList(self.name, str(root), classes, tuple(samples), tuple(notes))


def majority(votes: np.ndarray) -> np.ndarray:
    """Labels by FER+'s majority rule.

    Parameters
    ----------
    votes : (n, 10) float array
        Votes for eight classes, unknown, and not a face.

    Returns
    -------
    (n,) int64; -1 where no class has more than half of the votes (single votes do not count), or where that is
    unknown or not a face.

    Examples
    --------
    >>> majority(np.array([[4, 0, 0, 1, 3, 2, 0, 0, 0, 0], [6, 0, 0, 1, 3, 0, 0, 0, 0, 0.0]]))
    array([-1,  0])
    """
    counted = np.where(votes > 1, votes, 0.0)
    best = counted.argmax(axis=1)
    clear = counted.max(axis=1, initial=0) > counted.sum(axis=1) / 2
    return np.where(clear & (best < _VOTES - 2), best, -1)


def _of_vote_table(table: Path, root: Path) -> tuple[list[Sample], list[str]]:
    """Samples of ``fer2013new.csv``: Usage, Image name, ten columns of votes; a row for each row of FER2013."""
    base = table.parent
    folders = [folder for name in FOLDERS.values() if (folder := base / name).is_dir()]
    pixels = None if folders else find_file(base, PIXEL_TABLES)
    size = -1 if pixels is None else size_of(pixels)
    here = {folder.name: dict(files_in(folder).values()) for folder in folders}
    rows = _vote_rows(table)
    if pixels is not None:
        _check_same_rows(rows, table, pixels)
    found, votes = [], []
    for row, (split, name, counts) in enumerate(rows):
        if pixels is not None:
            found.append(Sample(_pixel_id(row), f"{posix(pixels, root)}!{row}", split=split, size_bytes=size))
        elif name:  # images that are no face have no name, and no file
            folder = base / FOLDERS[split]
            path = posix(folder / name, root)
            bytes_there = here.get(folder.name, {}).get(name, -1)
            found.append(Sample(sample_id(path), path, split=split, size_bytes=bytes_there))
        else:
            continue
        votes.append(counts)
    named = {sample.path for sample in found}
    inside = {folder: posix(folder, root) for folder in folders}
    notes = [
        f"votes from {posix(table, root)}" + ("" if pixels is None else f", pixels in {posix(pixels, root)}")
    ]
    for folder, where in inside.items():
        there = [f"{where}/{name}" for name in here[folder.name]]
        notes += unlisted_note(there, named, inside=where, said="without votes")
    return _labelled(found, votes), notes


_VoteRow = tuple[Split, str, list[float]]


def _vote_rows(table: Path) -> list[_VoteRow]:
    """Split, name (empty where it is no face) and votes of each row."""
    cells = read_csv(table, dataset="ferplus")
    next(cells, None)
    rows = []
    for place, row in enumerate(cells):
        split = USAGES.get(row[0].lower())
        if split is None or len(row) < 2 + _VOTES:
            raise DatasetError(
                f"ferplus: expected Usage, Image name and {_VOTES} votes in {table}, got {','.join(row)[:60]!r} in row "
                f"{place}"
            )
        rows.append((split, row[1], _votes(row[2 : 2 + _VOTES], table)))
    return rows


def _check_same_rows(rows: list[_VoteRow], table: Path, pixels: Path) -> None:
    """Refuse tables that were cut or sorted: only their order says whose votes a row's are.

    As published, both have a row for each image, and the names count the rows (or the rows that have a name).
    """
    undo = "rows were taken out or sorted; take both tables as they were published"
    splits = [USAGES.get(cells["usage"].lower()) for cells in _pixel_rows(pixels)]
    if len(splits) != len(rows):
        raise DatasetError(
            f"ferplus: expected as many rows of votes in {table.name} as of pixels in {pixels}, got {len(rows)} and "
            f"{len(splits)}; {undo}"
        )
    odd = [str(row) for row, (one, split) in enumerate(zip(rows, splits, strict=True)) if one[0] != split]
    if odd:
        raise DatasetError(
            f"ferplus: expected one Usage for each row in {table.name} and {pixels}, got others in "
            f"{number(len(odd), 'row')} ({some(odd)}); {undo}"
        )
    named = [(row, name) for row, (_, name, _) in enumerate(rows) if name]
    counted = [int(found[1]) if (found := _NAME.fullmatch(name)) else -1 for _, name in named]
    wrong = min(
        (
            [k for k, count in enumerate(counted) if count != wanted[k]]
            for wanted in ([r for r, _ in named], range(len(named)))
        ),
        key=len,
    )
    if wrong:
        row, name = named[wrong[0]]
        raise DatasetError(
            f"ferplus: expected the names fer0000000.png, fer0000001.png and so on in {table}, got {name!r} in row "
            f"{row}; {undo}"
        )


def _of_label_files(base: Path, root: Path) -> tuple[list[Sample], list[str]]:
    """Samples of ``FER2013Train/label.csv`` and so on: name, box, ten votes."""
    found, votes, lists, notes = [], [], [], []
    for split, name in FOLDERS.items():
        folder, where = base / name, posix(base / name, root)
        here = dict(files_in(folder).values()) if folder.is_dir() else {}
        table = folder / "label.csv"
        if not table.is_file():
            if here:
                notes.append(f"WARNING {where}: {number(len(here), 'image')} left out, without label.csv")
            continue
        lists.append(posix(table, root))
        named = set()
        for row in read_csv(table, dataset="ferplus"):
            if row[0].lower().startswith("image"):
                continue  # some copies have a header
            path = f"{where}/{row[0]}"
            named.add(row[0])
            found.append(Sample(sample_id(path), path, split=split, size_bytes=here.get(row[0], -1)))
            votes.append(_votes(row[-_VOTES:], table))
        notes += unlisted_note(here, named, inside=where, said="without votes")
    if not lists:
        raise DatasetError(
            f"ferplus: expected {VOTE_TABLE}, or label.csv in {', '.join(FOLDERS.values())}, found {listing(base)} in "
            f"{base}; the votes come with FER+"
        )
    return _labelled(found, votes), [f"votes from {', '.join(lists)}", *notes]


def _votes(cells: list[str], table: Path) -> list[float]:
    try:
        votes = [float(cell) for cell in cells]
    except ValueError:
        votes = []
    if len(votes) != _VOTES:
        raise DatasetError(f"ferplus: expected {_VOTES} votes in {table}, got {short(','.join(cells))!r}")
    return votes


def _labelled(samples: list[Sample], votes: list[list[float]]) -> list[Sample]:
    labels = majority(np.array(votes, np.float64).reshape(-1, _VOTES)).tolist()
    return [replace(sample, label=label) for sample, label in zip(samples, labels, strict=True)]


def _pixel_rows(table: Path) -> Iterator[Mapping[str, str]]:
    """Cells of each row of a table of pixels by lower-case name, in the rows' order of :mod:`~..sources.pixels`."""
    try:
        with open_file(str(table)) as file:
            rows = records(file)
            _, first = next(rows, (0, b""))
            header, delimiter = header_of(first)
            if not {"emotion", "usage", COLUMN} <= set(header):
                raise DatasetError(
                    f"fer2013: expected the columns emotion, pixels, Usage in the first line of {table}, got "
                    f"{say_columns(header)}"
                )
            for row, (_, record) in enumerate(rows):
                cells = cells_of(record, delimiter)
                if len(cells) != len(header):
                    raise DatasetError(
                        f"fer2013: expected {len(header)} cells in every row of {table}, got {len(cells)} in row "
                        f"{row}: {short(','.join(cells))!r}"
                    )
                yield dict(zip(header, cells, strict=True))
    except (ValueError, csv.Error) as exc:
        raise DatasetError(f"fer2013: expected a table of pixels in {table}, got {exc}") from exc


def _pixel_id(row: int) -> str:
    """The id of a row of FER2013."""
    return f"fer{row:07d}"


def _count_note(samples: list[Sample]) -> str:
    here = {split: sum(sample.split is split for sample in samples) for split in OFFICIAL_COUNTS}
    words = ", ".join(f"{count} {split.name}" for split, count in here.items())
    if here == OFFICIAL_COUNTS:
        return f"{words} images, as published"
    published = ", ".join(f"{count} {split.name}" for split, count in OFFICIAL_COUNTS.items())
    return f"{words} images, where FER2013 has {published}"
