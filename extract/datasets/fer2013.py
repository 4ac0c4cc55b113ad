"""``fer2013``: the table of pixels, or class folders made of it.

Reference: Goodfellow et al., "Challenges in Representation Learning" (2013).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from ...errors import DatasetError, plural, shorten
from ...features.classes import PRESETS
from ...features.samples import Listing, Split
from ...features.table_columns import list_columns, split_named
from ..sources import Unreadable, open_archive
from ..sources.pixels import COLUMN, PixelRows
from .base import Dataset, DatasetOptions
from .files import find_file, posix, size_of
from .folder import read_folders
from .label_names import class_index

USAGES = ("training", "publictest", "privatetest")
PIXEL_TABLES = ("fer2013.csv", "icml_face_data.csv")
OFFICIAL_COUNTS = {Split.train: 28_709, Split.val: 3_589, Split.test: 3_589}
# Training_3908.jpg in Kaggle's folders
_OF_ROW = rf"(?i)(?:^|/)(?:{'|'.join(USAGES)})_[0-9]+$"


class Fer2013(Dataset):
    """Seven classes: the table of pixels, else class folders by name or by number 0 to 6."""

    name = "fer2013"
    layout = "fer2013 expects fer2013.csv (emotion, pixels, Usage) under ROOT, or train|test/<class>/ by name or 0..6"
    classes = PRESETS["fer2013"]
    shared_layout = True

    def read(self, root: Path, options: DatasetOptions) -> Listing:
        table = find_file(root, PIXEL_TABLES)
        if table is None:
            listing = read_folders(self, root, f"{' or '.join(PIXEL_TABLES)}, or class folders", options)
        else:
            listing = self.listing(root, self._rows(table, root), [f"pixels in {posix(table, root)}"])
        return replace(listing, notes=(*listing.notes, count_note(listing)))

    def _rows(self, table: Path, root: Path) -> Iterator[dict[str, Any]]:
        for row, (sample, cells) in enumerate(
            zip(pixel_samples(table, root), pixel_rows(table), strict=False)
        ):
            split, label = usage(cells["usage"]), class_index(cells["emotion"], len(self.classes))
            if split is None or label is None:
                raise DatasetError(
                    f"fer2013: row {row} of {table} has emotion {shorten(cells['emotion'])!r} and Usage "
                    f"{shorten(cells['usage'])!r}; use emotions 0 to 6 and Usage {', '.join(USAGES)}"
                )
            yield {**sample, "label": label, "split": split}

    def is_certain(self, listing: Listing) -> bool:
        """Whether the table of pixels was read, or most files have the names of those made of it."""
        samples = listing.samples
        named = samples["path"].str.contains("!", regex=False) | samples["id"].str.contains(_OF_ROW)
        return 2 * int(named.sum()) > len(listing)


def usage(cell: str) -> Split | None:
    """The split that a cell of the column Usage names."""
    return split_named(cell) if cell.strip().lower() in USAGES else None


def pixel_samples(table: Path, root: Path) -> Iterator[dict[str, Any]]:
    """Id, path and size of row after row of the table of pixels, without end."""
    size, inside = size_of(table), posix(table, root)
    return ({"id": f"fer{row:07d}", "path": f"{inside}!{row}", "size_bytes": size} for row in count())


def pixel_rows(table: Path) -> Iterator[Mapping[str, str]]:
    """Cells of each row of a table of pixels by lower-case name, in the rows' order of :mod:`~..sources.pixels`.

    Raises
    ------
    DatasetError : it is no such table.
    """
    try:
        rows: PixelRows = open_archive(str(table))
        if not {"emotion", "usage", COLUMN} <= set(rows.names):
            raise DatasetError(
                f"fer2013: the first line of {table} must name the columns emotion, pixels, Usage; it is "
                f"{list_columns(rows.names)}"
            )
        for row in range(len(rows)):
            cells = rows.cells(row)
            if len(cells) != len(rows.names):
                raise DatasetError(
                    f"fer2013: row {row} of {table} has {plural(len(cells), 'cell')} instead of {len(rows.names)}: "
                    f"{shorten(','.join(cells))!r}; correct that row"
                )
            yield dict(zip(rows.names, cells, strict=True))
    except (OSError, Unreadable, ValueError, csv.Error) as exc:
        raise DatasetError(
            f"fer2013: {table} cannot be read as a table of pixels: {exc}; get the file again"
        ) from exc


def count_note(listing: Listing) -> str:
    """Whether the counts per split are the published ones."""
    counts = {split: int((listing.splits == split).sum()) for split in OFFICIAL_COUNTS}
    words = ", ".join(f"{of} {split.name}" for split, of in counts.items())
    if counts == OFFICIAL_COUNTS:
        return f"{words} images, as published"
    published = ", ".join(f"{of} {split.name}" for split, of in OFFICIAL_COUNTS.items())
    return f"{words} images, where FER2013 has {published}"
