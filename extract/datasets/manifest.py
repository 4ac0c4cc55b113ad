"""``manifest``: a CSV, TSV or Parquet table that lists images with their labels, splits and boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...errors import DatasetError, LayoutError, some
from ...features.image_names import IMAGE_SUFFIXES
from ...features.samples import SampleList
from ...features.table_reader import read_table
from ...features.tables import (
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
from . import DatasetOptions
from .files import listing, sample_id
from .listed_paths import find_listed
from .table import BOX, COLUMNS, from_table

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
        table = read_table(file, error=DatasetError)
        columns, notes = _known_columns(file, table.columns)
        cells = [cell_text(cell) for cell in columns["path"].tolist()]
        paths, sizes, moved = find_listed(root, cells, table=file)
        cells_of = {name: column.tolist() for name, column in columns.items()}
        cells_of["path"] = paths
        cells_of.setdefault("id", [sample_id(path) for path in paths])
        unread = [
            name
            for name in table.columns
            if not any(table.columns[name] is used for used in columns.values())
        ]
        if unread:
            notes.append(f"columns left unread: {some(unread, 12)}")
        return from_table(
            self.name, str(root), cells_of, sizes, options, notes=(*table.notes, *notes, *moved)
        )


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


def _known_columns(file: Path, columns: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The columns that are used by our names, and notes on those that have another name.

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
    used = {name: found[name] for name in COLUMNS if found.get(name)}
    notes = [
        f"column {column} of {file.name} read as {name}"
        for name, column in used.items()
        if column is not None and column.strip().lower() != name
    ]
    return {name: columns[column] for name, column in used.items() if column is not None}, notes


def _holds_images(column: np.ndarray) -> bool:
    """Whether most cells end as names of images do."""
    cells: Sequence[str] = as_text(column[:100]).tolist() if column.dtype.kind in "OUS" else []
    ends = sum(Path(cell).suffix.lower() in IMAGE_SUFFIXES for cell in cells)
    return bool(cells) and 2 * ends > len(cells)


def _holds_splits(column: np.ndarray) -> bool:
    return all(split_of(cell) is not None for cell in np.unique(as_text(column)).tolist())
