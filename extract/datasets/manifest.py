"""``manifest``: a CSV, TSV or Parquet table that lists images or videos with their labels, splits and boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import DatasetError, listed, plural
from ...features.image_names import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from ...features.samples import BOX_COLUMNS, Listing
from ...features.table_columns import (
    GROUP_NAMES,
    LABEL_NAMES,
    PATH_NAMES,
    SPLIT_NAMES,
    as_text,
    cell_text,
    find_column,
    list_columns,
    normalised,
    split_of,
    va_columns,
)
from ...features.table_reader import read_table
from .base import Dataset, DatasetOptions
from .files import sample_id
from .intervals import SPANS, expand
from .listed_paths import find_listed
from .tabular import COLUMNS, list_table
from .videos import Videos, is_video

MEDIA_SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES
_NAMES = ("manifest.csv", "manifest.parquet", "manifest.tsv", "manifest.csv.gz", "manifest.tsv.gz")


class ManifestDataset(Dataset):
    """A table with a column ``path`` (under the root), and any of the other columns.

    A row that names a video stands for its frames, or for those of an interval.
    """

    name = "manifest"
    layout = (
        "manifest expects ROOT/manifest.csv or manifest.parquet (or --manifest FILE) with a column path and any of "
        "id, label, split, valence, arousal, group, x0, y0, x1, y1, and for videos start, end, frame"
    )
    maps_labels = True

    def read(self, root: Path, options: DatasetOptions) -> Listing:
        file = self._table(root, options.manifest)
        table, assumed = read_table(file, error=DatasetError)
        used, notes = _used_columns(file, table)
        cells = {name: table[column].tolist() for name, column in used.items()}
        cells["path"], sizes, moved = find_listed(root, list(map(cell_text, cells["path"])), table=file)
        cells.setdefault("id", [sample_id(path) for path in cells["path"]])
        times: Sequence[float] | None = None
        if any(map(is_video, cells["path"])):
            columns = {name: find_column(table, names) for name, names in SPANS.items()}
            spans = {name: column for name, column in columns.items() if column is not None}
            used |= spans
            notes += _renamed(spans, file)
            videos = Videos(str(root), options.fps)
            expanded = expand(
                cells,
                {name: table[column].tolist() for name, column in spans.items()},
                videos,
                table=file.name,
            )
            cells, times = expanded.cells, expanded.times
            sizes = [sizes[row] for row in expanded.rows.tolist()]
            notes += [*videos.notes(), *expanded.notes]
        repeated = [name for name, count in Counter(map(cell_text, cells["id"])).items() if count > 1]
        if repeated:
            raise DatasetError(
                f"manifest: {plural(len(repeated), 'duplicate id')} in {file.name} ({listed(repeated)}); keep one row "
                "per sample, or write a column id, such as for several faces of an image"
            )
        if unread := [name for name in table if name not in used.values()]:
            notes.append(f"columns left unread: {listed(unread, 12)}")
        return list_table(
            self, str(root), cells, sizes, options, times=times, notes=(*assumed, *notes, *moved)
        )

    def _table(self, root: Path, named: str | None) -> Path:
        """The table that the option names, else the one under the root."""
        if named:
            if not Path(named).exists():
                inside = f"; {root / named} exists: pass this path" if (root / named).is_file() else ""
                raise DatasetError(f"manifest: {named} does not exist{inside or '; check the path'}")
            return Path(named)
        if usual := find_manifest(root):
            return usual
        raise self.wrong_layout(root, "manifest.csv or manifest.parquet")


def find_manifest(root: Path) -> Path | None:
    """The table of a folder, by its usual names."""
    return next((root / name for name in _NAMES if (root / name).is_file()), None)


def _used_columns(file: Path, table: pd.DataFrame) -> tuple[dict[str, str], list[str]]:
    """Column of the sample table -> name of the column that is used for it; and notes on those of another name.

    Raises
    ------
    DatasetError : none holds paths.
    """
    names = list(table)
    if any(Path(name).suffix.lower() in MEDIA_SUFFIXES for name in names):
        raise DatasetError(
            f"manifest: {file} has no header line ({list_columns(names)}); add one that names the column path"
        )
    columns = {
        "path": find_column(names, PATH_NAMES)
        or next((name for name in names if _holds_images(table[name])), None),
        "id": find_column(names, ("id", "sample id")),
        "label": find_column(names, LABEL_NAMES),
        "group": find_column(names, GROUP_NAMES),
        **{corner: find_column(names, (corner,)) for corner in BOX_COLUMNS},
    }
    if columns["path"] is None:
        raise DatasetError(
            f"manifest: {file} has no column path, only {list_columns(names)}; add or rename one"
        )
    if columns["id"] == columns["path"]:
        columns["id"] = None
    if columns["group"] == columns["path"]:  # a column video: its frames are a group anyway
        columns["group"] = None
    columns["valence"], columns["arousal"] = va_columns(names) or (
        find_column(names, ("valence",)),
        find_column(names, ("arousal",)),
    )
    if columns["label"] in (columns["valence"], columns["arousal"]):
        columns["label"] = None
    # A column named split has splits; columns with the other usual names, such as set or part, are checked.
    split = find_column(names, SPLIT_NAMES)
    if split is not None and (split.strip().lower() == "split" or _holds_splits(table[split])):
        columns["split"] = split
    used = {name: column for name in COLUMNS if (column := columns.get(name)) is not None}
    notes = _renamed(used, file)
    for name, other in (("valence", "arousal"), ("arousal", "valence")):
        if name in used and other not in used:
            notes.append(
                f"WARNING {file.name} has {name} without {other}: its rows have no valence-arousal labels"
            )
    if {"valence", "arousal"} <= used.keys():
        empty = [
            np.array([not cell_text(cell) for cell in table[used[name]].tolist()])
            for name in ("valence", "arousal")
        ]
        if incomplete := int((empty[0] ^ empty[1]).sum()):
            notes.append(
                f"WARNING {plural(incomplete, 'row')} of {file.name} with only one of valence and arousal: no "
                "valence-arousal label"
            )
    return used, notes


def _renamed(used: Mapping[str, str], file: Path) -> list[str]:
    """Notes on columns that are used under another name."""
    return [
        f"column {column} of {file.name} read as {name}"
        for name, column in used.items()
        if normalised(column) != normalised(name)
    ]


def _holds_images(column: pd.Series) -> bool:
    """Whether most cells end as names of images or videos do."""
    cells = as_text(column[:100]).tolist() if column.dtype.kind in "OUS" else []
    ends = sum(Path(cell).suffix.lower() in MEDIA_SUFFIXES for cell in cells)
    return bool(cells) and 2 * ends > len(cells)


def _holds_splits(column: pd.Series) -> bool:
    return all(split_of(cell) is not None for cell in np.unique(as_text(column)).tolist())
