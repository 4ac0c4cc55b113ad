"""``manifest``: a CSV, TSV or Parquet table that lists images with their labels, splits and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import DatasetError, LayoutError, some
from ...features.columns import (
    GROUP_NAMES,
    LABEL_NAMES,
    PATH_NAMES,
    SPLIT_NAMES,
    as_text,
    cell_text,
    find_column,
    say_columns,
    split_of,
    va_columns,
)
from ...features.image_names import IMAGE_SUFFIXES
from ...features.samples import SampleList
from ...features.table_reader import read_table
from . import DatasetOptions
from .files import listing, sample_id
from .listed_paths import find_listed
from .table import BOX, COLUMNS, from_table

if TYPE_CHECKING:
    import pandas as pd

_NAMES = ("manifest.csv", "manifest.parquet", "manifest.tsv", "manifest.csv.gz", "manifest.tsv.gz")


class ManifestDataset:
    """A table with a column ``path`` (under the root), and any of the other columns."""

    name = "manifest"
    layout = (
        "manifest expects ROOT/manifest.csv or manifest.parquet (or --manifest FILE) with a column path and any of "
        "id, label, split, valence, arousal, group, x0, y0, x1, y1"
    )
    maps_labels = True

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList:
        file = _locate(root, options.manifest, self.layout)
        table, assumed = read_table(file, error=DatasetError)
        used, notes = _known_columns(file, table)
        columns = {name: table[column].to_numpy() for name, column in used.items()}
        cells = [cell_text(cell) for cell in columns["path"].tolist()]
        paths, sizes, moved = find_listed(root, cells, table=file)
        cells_of = {name: column.tolist() for name, column in columns.items()}
        cells_of["path"] = paths
        cells_of.setdefault("id", [sample_id(path) for path in paths])
        unread = [name for name in table if name not in used.values()]
        if unread:
            notes.append(f"columns left unread: {some(unread, 12)}")
        return from_table(self.name, str(root), cells_of, sizes, options, notes=(*assumed, *notes, *moved))


def _locate(root: Path, given: str | None, layout: str) -> Path:
    if given and Path(given).exists() and not Path(given).is_dir():  # a pipe will do
        return Path(given)
    for candidate in () if given else (root / name for name in _NAMES):
        if candidate.is_file():
            return candidate
    wanted = given or "manifest.csv or manifest.parquet"
    raise LayoutError(
        f"manifest: expected {wanted}, found {listing(root)} in {root}; {layout} (docs/datasets.md)"
    )


def _known_columns(file: Path, columns: pd.DataFrame) -> tuple[dict[str, str], list[str]]:
    """Our name -> name of the column that is used for it, and notes on those that have another name.

    Raises
    ------
    DatasetError : none holds paths.
    """
    names = list(columns)
    if any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names):
        raise DatasetError(
            f"manifest: expected a header line with a column path in {file}, got {say_columns(names)}"
        )
    found = {name: find_column(names, wanted) for name, wanted in (
        ("path", PATH_NAMES), ("id", ("id", "sample id")), ("label", LABEL_NAMES), ("group", GROUP_NAMES),
        *((corner, (corner,)) for corner in BOX),
    )}  # fmt: skip
    found["path"] = found["path"] or next((name for name in names if _holds_images(columns[name])), None)
    if found["path"] is None:
        raise DatasetError(f"manifest: expected a column path in {file}, got {say_columns(names)}")
    if found["id"] == found["path"]:
        found["id"] = None
    found["valence"], found["arousal"] = va_columns(names) or (
        find_column(names, ("valence",)),
        find_column(names, ("arousal",)),
    )
    if found["label"] in (found["valence"], found["arousal"]):
        found["label"] = None
    # Of the usual names only split is sure to mean one; a column set or part may hold other things.
    split = find_column(names, SPLIT_NAMES)
    if split is not None and (split.strip().lower() == "split" or _holds_splits(columns[split])):
        found["split"] = split
    used = {name: column for name in COLUMNS if (column := found.get(name))}
    notes = [
        f"column {column} of {file.name} read as {name}"
        for name, column in used.items()
        if column.strip().lower() != name
    ]
    return used, notes


def _holds_images(column: pd.Series) -> bool:
    """Whether most cells end as names of images do."""
    cells: Sequence[str] = as_text(column[:100]).tolist() if column.dtype.kind == "O" else []
    ends = sum(Path(cell).suffix.lower() in IMAGE_SUFFIXES for cell in cells)
    return bool(cells) and 2 * ends > len(cells)


def _holds_splits(column: pd.Series) -> bool:
    return all(split_of(cell) is not None for cell in np.unique(as_text(column)).tolist())
