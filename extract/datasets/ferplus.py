"""``ferplus``: FER2013's images with FER+'s votes.

Reference: Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label
Distribution" (ICMI 2016), whose majority rule is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import DatasetError, listed, plural, shorten
from ...features.classes import PRESETS
from ...features.samples import Listing, Split
from .base import Dataset, DatasetOptions
from .fer2013 import PIXEL_TABLES, count_note, pixel_rows, pixel_samples, usage
from .files import contents, files_in, find_file, posix, read_csv, sample_id, unlisted_note

VOTE_TABLE = "fer2013new.csv"
FOLDERS = {Split.train: "FER2013Train", Split.val: "FER2013Valid", Split.test: "FER2013Test"}
_VOTES = 10  # eight classes, unknown, not a face
_NAME = re.compile(r"fer(\d+)\.\w+", re.IGNORECASE)


class FerPlus(Dataset):
    """Eight classes by majority of ten votes; images are those of FER2013, as PNG or in the table of pixels."""

    name = "ferplus"
    layout = (
        "ferplus expects FER2013Train|FER2013Valid|FER2013Test/ with label.csv and fer0000000.png, or "
        "fer2013new.csv beside them or beside fer2013.csv, under ROOT"
    )
    classes = PRESETS["ferplus"]

    def read(self, root: Path, options: DatasetOptions) -> Listing:
        folders = {name.lower() for name in FOLDERS.values()}
        mark = find_file(root, {*folders, VOTE_TABLE})
        if mark is None:
            raise self.wrong_layout(root, f"folders of FER+ or {VOTE_TABLE}")
        table = find_file(mark.parent, {VOTE_TABLE}, skip=folders)
        voted = _of_label_files(mark.parent, root) if table is None else _of_vote_table(table, root)
        labels = majority(np.array(voted.votes, np.float64).reshape(-1, _VOTES))
        unclear = int((labels < 0).sum())
        voted.notes.append(
            f"{plural(unclear, 'image')} without a majority for one of the {len(self.classes)} classes, kept without "
            "label"
        )
        rows = ({**row, "label": label} for row, label in zip(voted.rows, labels.tolist(), strict=True))
        listing = self.listing(root, rows, voted.notes)
        return replace(listing, notes=(*listing.notes, count_note(listing)))


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


@dataclass(slots=True)
class _Voted:
    """Rows of the sample table without labels, the votes on each, and notes."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    votes: list[list[float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, path: str, split: Split, size: int, votes: list[float]) -> None:
        self.rows.append({"id": sample_id(path), "path": path, "split": split, "size_bytes": size})
        self.votes.append(votes)


class _VoteRow(NamedTuple):
    """A row of the table of votes; the name is empty where it is no face."""

    split: Split
    name: str
    votes: list[float]


def _of_vote_table(table: Path, root: Path) -> _Voted:
    """Samples of ``fer2013new.csv``: Usage, Image name, ten columns of votes; a row for each row of FER2013."""
    base = table.parent
    folders = {split: folder for split, name in FOLDERS.items() if (folder := base / name).is_dir()}
    rows = list(_vote_rows(table))
    voted = _Voted(notes=[f"votes from {posix(table, root)}"])
    if not folders and (pixels := find_file(base, PIXEL_TABLES)) is not None:
        _check_same_rows(rows, table, pixels)
        voted.notes[0] += f", pixels in {posix(pixels, root)}"
        for sample, (split, _, votes) in zip(pixel_samples(pixels, root), rows, strict=False):
            voted.rows.append({**sample, "split": split})
            voted.votes.append(votes)
        return voted
    files = {split: dict(files_in(folder).values()) for split, folder in folders.items()}
    named: set[str] = set()
    for split, name, votes in rows:
        if name:  # images that are no face have no name, and no file
            path = f"{posix(base / FOLDERS[split], root)}/{name}"
            voted.add(path, split, files.get(split, {}).get(name, -1), votes)
            named.add(path)
    for split, folder in folders.items():
        inside = posix(folder, root)
        images = [f"{inside}/{name}" for name in files[split]]
        voted.notes += unlisted_note(images, named, inside=inside, why="without votes")
    return voted


def _vote_rows(table: Path) -> Iterator[_VoteRow]:
    cells = read_csv(table, dataset="ferplus")
    next(cells, None)
    for row_number, row in enumerate(cells):
        split = usage(row[0])
        if split is None or len(row) < 2 + _VOTES:
            raise DatasetError(
                f"ferplus: row {row_number} of {table} is {','.join(row)[:60]!r}; it must hold Usage, Image name and "
                f"{_VOTES} votes"
            )
        yield _VoteRow(split, row[1], _votes(row[2 : 2 + _VOTES], table))


def _check_same_rows(rows: list[_VoteRow], table: Path, pixels: Path) -> None:
    """Refuse tables that were cut or sorted: votes and pixels are joined by their order only.

    As published, both have a row for each image, and the names count the rows (or the rows that have a name).
    """
    advice = "take both tables as they were published, without removing or sorting rows"
    splits = [usage(cells["usage"]) for cells in pixel_rows(pixels)]
    if len(splits) != len(rows):
        raise DatasetError(
            f"ferplus: {table.name} has {plural(len(rows), 'row')} of votes, {pixels} has {len(splits)} of pixels; "
            f"{advice}"
        )
    other = [
        str(row) for row, (votes, split) in enumerate(zip(rows, splits, strict=True)) if votes.split != split
    ]
    if other:
        raise DatasetError(
            f"ferplus: {table.name} and {pixels} differ in Usage in {plural(len(other), 'row')} ({listed(other)}); "
            f"{advice}"
        )
    named = [(row, votes.name) for row, votes in enumerate(rows) if votes.name]
    counted = np.array([int(match[1]) if (match := _NAME.fullmatch(name)) else -1 for _, name in named])
    by_row, by_name = counted != [row for row, _ in named], counted != np.arange(len(named))
    wrong = by_row if by_row.sum() <= by_name.sum() else by_name
    if wrong.any():
        row, name = named[int(wrong.argmax())]
        raise DatasetError(
            f"ferplus: row {row} of {table} names {name!r}, but names must count fer0000000.png, fer0000001.png and "
            f"so on; {advice}"
        )


def _of_label_files(base: Path, root: Path) -> _Voted:
    """Samples of ``FER2013Train/label.csv`` and so on: name, box, ten votes."""
    voted, tables = _Voted(), []
    for split, name in FOLDERS.items():
        folder = base / name
        inside = posix(folder, root)
        files = dict(files_in(folder).values()) if folder.is_dir() else {}
        table = folder / "label.csv"
        if not table.is_file():
            if files:
                voted.notes.append(
                    f"WARNING {inside}: {plural(len(files), 'image')} left out, without label.csv"
                )
            continue
        tables.append(posix(table, root))
        named = set()
        for row in read_csv(table, dataset="ferplus"):
            if row[0].lower().startswith("image"):
                continue  # some copies have a header
            named.add(row[0])
            voted.add(f"{inside}/{row[0]}", split, files.get(row[0], -1), _votes(row[-_VOTES:], table))
        voted.notes += unlisted_note(files, named, inside=inside, why="without votes")
    if not tables:
        raise DatasetError(
            f"ferplus: no {VOTE_TABLE}, and no label.csv in {', '.join(FOLDERS.values())}; {base} holds "
            f"{contents(base)}; get the votes, which come with FER+"
        )
    voted.notes.insert(0, f"votes from {', '.join(tables)}")
    return voted


def _votes(cells: list[str], table: Path) -> list[float]:
    try:
        votes = [float(cell) for cell in cells]
    except ValueError:
        votes = []
    if len(votes) != _VOTES:
        raise DatasetError(
            f"ferplus: {shorten(','.join(cells))!r} in {table} are not {_VOTES} votes; take the table as it was "
            "published"
        )
    return votes
