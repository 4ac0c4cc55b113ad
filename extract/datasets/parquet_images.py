"""``parquet``: tables that hold the images themselves, as Hugging Face's datasets are kept.

A column of bytes, or a struct of ``bytes`` and ``path``; class names are those of Hugging Face's ``ClassLabel`` in the
schema's metadata. The image column is not read when the dataset is listed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import DatasetError, LayoutError, require
from ...features.samples import BOX_COLUMNS, Listing
from ..sources import Unreadable
from ..sources.parquet import image_column
from .archive_files import archives_in, row_name, split_in, without_suffix
from .base import Dataset, DatasetOptions
from .tabular import COLUMNS, find_label, list_table

# A file may have as many rows as it has bytes, and always as many as this.
_MOST_ROWS = 1_000_000
# To read one image all of its row group up to it is read.
_LARGE_GROUP = 1 << 30


class ParquetDataset(Dataset):
    """One or many files; the split is that of a column, else the one in a file's name."""

    name = "parquet"
    layout = (
        "parquet expects *.parquet under ROOT with a column of image bytes (or Hugging Face's struct) and any of "
        "label, split, valence, arousal, group, id, box; train, val or test in the files' names are splits"
    )
    split_fractions = (0.6, 0.2, 0.2)
    maps_labels = True
    suffix = ".parquet"
    remote = True

    def read(self, root: Path | str, options: DatasetOptions) -> Listing:
        files = archives_in(root, self)
        parquet = require("pyarrow.parquet", wanted_by="parquet")
        table: dict[str, list[Any]] = {}
        sizes: list[int] = []
        notes = files.notes
        class_names: tuple[str, ...] = ()
        unread: set[str] = set()
        for path, size in files.files:
            with files.open(path, dataset=self.name) as file:
                opened = parquet.ParquetFile(file)
                rows = opened.metadata.num_rows
                if size and rows > max(size, _MOST_ROWS):  # remote sizes are not always known
                    raise DatasetError(
                        f"parquet: {path} has {rows:,} rows in {size:,} bytes, which cannot hold as many images"
                    )
                try:
                    image = image_column(opened.schema_arrow)
                except Unreadable as exc:
                    raise LayoutError(f"parquet: {exc} in {path}; {self.layout} (docs/datasets.md)") from exc
                columns, label = _columns(opened, image, unread)
                notes += _group_notes(path, opened)
                names = _class_names(opened.schema_arrow, label)
            if names and class_names and names != class_names:
                raise DatasetError(
                    f"parquet: expected the same class names in all files, got others in {path}"
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


def _columns(opened: Any, image: str, unread: set[str]) -> tuple[dict[str, list[Any]], str]:
    """The columns that are used, by the sample table's names; and the label's name in the file."""
    there = {name.lower(): name for name in opened.schema_arrow.names}
    used = {name: there[name] for name in COLUMNS if name in there and name != "path"}
    if (label := find_label(there)) is not None:
        used["label"] = there[label]
    box = there.get("box")
    read = opened.read(columns=[*used.values(), *([box] if box else [])], use_threads=False)
    columns: dict[str, list[Any]] = {name: read.column(column).to_pylist() for name, column in used.items()}
    if box:
        corners = [
            list(one) if isinstance(one, Sequence) and len(one) == len(BOX_COLUMNS) else [None] * 4
            for one in read.column(box).to_pylist()
        ]
        columns |= {name: [one[i] for one in corners] for i, name in enumerate(BOX_COLUMNS)}
    unread |= {*there.values()} - {*used.values(), box, image.partition(".")[0]}
    return columns, used.get("label", "")


def _class_names(schema: Any, label: str) -> tuple[str, ...]:
    """Names of a ``ClassLabel`` in the metadata that Hugging Face's library writes; empty where there are none."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = about["info"]["features"][label].get("names", [])
        if isinstance(names, dict):  # an older form: {"0": "anger"}
            names = [names[key] for key in sorted(names, key=int)]
        return tuple(str(name) for name in names)
    except Exception:  # any other program's metadata
        return ()


def _group_notes(path: str, opened: Any) -> list[str]:
    groups = [
        opened.metadata.row_group(number).total_byte_size for number in range(opened.metadata.num_row_groups)
    ]
    if max(groups, default=0) <= _LARGE_GROUP:
        return []
    return [
        f"{path} has row groups of up to {max(groups) / 1e9:.1f} GB, and reading starts at the head of one: written "
        "with row_group_size=256 it reads faster"
    ]
