"""``parquet``: tables that hold the images themselves, as Hugging Face's datasets are kept.

A column of bytes, or a struct of ``bytes`` and ``path``; class names are those of Hugging Face's ``ClassLabel`` in the
schema's metadata. The image column is not read when the dataset is listed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import DatasetError, LayoutError
from ...features.samples import BOX_COLUMNS, Listing
from ..sources import Unavailable, Unreadable
from ..sources.parquet import ParquetRows
from .archive_files import archives_in, row_name, split_in, without_suffix
from .base import Dataset, DatasetOptions
from .splits import SHARES
from .tabular import COLUMNS, find_label, list_table

# A file may have as many rows as it has bytes, and always as many as this.
_MAX_ROWS = 1_000_000
# To read one image all of its row group up to it is read.
_LARGE_GROUP = 1 << 30


class ParquetDataset(Dataset):
    """One or many files; the split is that of a column, else the one in a file's name."""

    name = "parquet"
    layout = (
        "parquet expects *.parquet under ROOT with a column of image bytes (or Hugging Face's struct) and any of "
        "label, split, valence, arousal, group, id, box; train, val or test in the files' names are splits"
    )
    split_fractions = SHARES
    maps_labels = True
    suffix = ".parquet"
    remote = True

    def read(self, root: Path | str, options: DatasetOptions) -> Listing:
        files = archives_in(root, self)
        table: dict[str, list[Any]] = {}
        sizes: list[int] = []
        notes = files.notes
        class_names: tuple[str, ...] = ()
        unread: set[str] = set()
        for path, size in files.files:
            archive: ParquetRows = files.open(path, dataset=self.name)
            rows = len(archive)
            if size and rows > max(size, _MAX_ROWS):  # remote sizes are not always known
                raise DatasetError(
                    f"parquet: {path} has {rows:,} rows in {size:,} bytes, which cannot hold as many images"
                )
            if not archive.image:
                raise LayoutError(
                    f"parquet: no column of image bytes among {', '.join(archive.names)} in {path}; {self.layout} "
                    "(docs/datasets.md)"
                )
            try:
                columns, label = _columns(archive, unread)
            except Unavailable:
                raise
            except Unreadable as exc:
                raise files.damaged(path, str(exc), dataset=self.name) from exc
            notes += _group_notes(path, archive)
            names = _class_names(archive.metadata, label)
            if names and class_names and names != class_names:
                raise DatasetError(
                    f"parquet: the class names of {path} differ from those of the other files; move it elsewhere"
                )
            class_names = class_names or names
            numbers = [row_name(row, rows) for row in range(rows)]
            columns["path"] = [f"{path}!{number}" for number in numbers]
            columns.setdefault("id", [f"{without_suffix(path)}/{number}" for number in numbers])
            split = split_in(path)
            columns.setdefault("split", [None if split is None else split.name] * rows)
            for name in {*table, *columns}:
                before = table.setdefault(name, [None] * len(sizes))
                before += columns.get(name, [None] * rows)
            sizes += [size] * rows
        if unread:
            notes.append(f"columns left unread: {', '.join(sorted(unread))}")
        return list_table(self, files.root, table, sizes, options, class_names=class_names, notes=notes)


def _columns(archive: ParquetRows, unread: set[str]) -> tuple[dict[str, list[Any]], str]:
    """The columns that are used, by the sample table's names; and the label's name in the file."""
    names = {name.lower(): name for name in archive.names}
    used = {name: names[name] for name in COLUMNS if name in names and name != "path"}
    if (label := find_label(names)) is not None:
        used["label"] = names[label]
    box = names.get("box")
    read = archive.columns([*used.values(), *([box] if box else [])])
    columns = {name: read[column] for name, column in used.items()}
    if box:
        corners = [
            list(cell) if isinstance(cell, Sequence) and len(cell) == len(BOX_COLUMNS) else [None] * 4
            for cell in read[box]
        ]
        columns |= {name: [cell[i] for cell in corners] for i, name in enumerate(BOX_COLUMNS)}
    unread |= {*names.values()} - {*used.values(), box, archive.image.partition(".")[0]}
    return columns, used.get("label", "")


def _class_names(metadata: Mapping[bytes, bytes], label: str) -> tuple[str, ...]:
    """Names of a ``ClassLabel`` in the metadata that Hugging Face's library writes; empty where there are none."""
    try:
        about = json.loads(metadata.get(b"huggingface", b"{}"))
        names = about["info"]["features"][label].get("names", [])
        if isinstance(names, dict):  # an older form: {"0": "anger"}
            names = [names[key] for key in sorted(names, key=int)]
        return tuple(str(name) for name in names)
    except Exception:  # any other program's metadata
        return ()


def _group_notes(path: str, archive: ParquetRows) -> list[str]:
    if archive.largest_group <= _LARGE_GROUP:
        return []
    return [
        f"{path} has row groups of up to {archive.largest_group / 1e9:.1f} GB, and reading starts at the head of one: "
        "written with row_group_size=256 it reads faster"
    ]
