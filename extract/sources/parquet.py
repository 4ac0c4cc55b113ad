"""Parquet with images in a column: bytes, or Hugging Face's struct of bytes and path; a member is a row's number."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from threading import Lock
from typing import Any

import numpy as np

from ...errors import reason_of, require
from .storage import MAX_BYTES, File, Unreadable

# Rows that are decoded together, and how many such batches are kept, for threads that read a little out of order.
BATCH_ROWS = 16
BATCHES_KEPT = 4
# Encoded images are hardly compressed by Parquet: one that grows more is none.
_MAX_GROWTH = 100
# Names of the image column, tried in this order before any other column of bytes.
_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "pixels", "bytes", "image_bytes")


class ParquetRows:
    """Rows are read forwards, batch by batch within a row group; going back starts the group again.

    One thread reads at a time: batches are decoded in order.

    Attributes
    ----------
    names : list of str
        Columns of the table.
    image : str
        Path of the column with the encoded images, ``image.bytes`` in Hugging Face's form; empty if there is none.
    metadata : dict of bytes
    largest_group : int
        Bytes of the largest row group, decoded.
    """

    def __init__(self, file: File) -> None:
        parquet = require("pyarrow.parquet", wanted_by="parquet")
        self._lock = Lock()
        self._file = parquet.ParquetFile(file.stream())
        schema = self._file.schema_arrow
        self.names: list[str] = schema.names
        self.image = _image_column(schema)
        self.metadata: dict[bytes, bytes] = schema.metadata or {}
        groups = [self._file.metadata.row_group(group) for group in range(self._file.metadata.num_row_groups)]
        self.largest_group = max((group.total_byte_size for group in groups), default=0)
        self._starts = np.concatenate([[0], np.cumsum([group.num_rows for group in groups], dtype=np.int64)])
        self._bombs = {number for number, group in enumerate(groups) if self._is_bomb(group)}
        self._kept: deque[tuple[int, list[bytes | None]]] = deque(maxlen=BATCHES_KEPT)
        self._group, self._next = -1, 0
        self._batches: Iterator[Any] = iter(())

    def __len__(self) -> int:
        return int(self._starts[-1])

    def columns(self, names: list[str]) -> dict[str, list[Any]]:
        """Values of some columns, all rows.

        Raises
        ------
        Unreadable : they are damaged.
        """
        arrow = require("pyarrow", wanted_by="parquet")
        try:
            with self._lock:
                table = self._file.read(columns=names, use_threads=False)
            return {name: table.column(name).to_pylist() for name in names}
        except (arrow.ArrowException, OSError, ValueError, ArithmeticError) as exc:
            raise Unreadable(reason_of(exc)) from exc

    def _is_bomb(self, group: Any) -> bool:
        """Whether the images of a group grow far more in memory than any encoded image does."""
        chunks = [group.column(number) for number in range(group.num_columns)]
        return any(
            chunk.path_in_schema == self.image
            and chunk.total_uncompressed_size > MAX_BYTES
            and chunk.total_uncompressed_size > _MAX_GROWTH * max(chunk.total_compressed_size, 1)
            for chunk in chunks
        )

    def read(self, member: str) -> bytes:
        row = int(member) if member.isdecimal() else -1
        if not self.image:
            raise Unreadable(f"no column of image bytes among {', '.join(self.names)}")
        if not 0 <= row < len(self):
            raise KeyError(member)
        with self._lock:
            content = self._at(row)
        if content is None:
            raise Unreadable("no bytes in this row")
        if len(content) > MAX_BYTES:
            raise Unreadable(f"absurdly large: {len(content):,} bytes")
        return content

    def _at(self, row: int) -> bytes | None:
        for start, values in self._kept:
            if start <= row < start + len(values):
                return values[row - start]
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if group in self._bombs:
            raise Unreadable("absurdly large: its row group would fill the memory")
        if group != self._group or row < self._next:
            self._group, self._next = group, int(self._starts[group])
            self._batches = self._file.iter_batches(
                batch_size=BATCH_ROWS, row_groups=[group], columns=[self.image], use_threads=False
            )
        while True:
            batch = next(self._batches, None)
            if batch is None:
                self._group = -1
                raise Unreadable("the row group is cut short")
            start, self._next = self._next, self._next + len(batch)
            if row < self._next:
                values = [value.as_py() for value in _bytes_of(batch)]
                self._kept.append((start, values))
                return values[row - start]


def _bytes_of(batch: Any) -> Any:
    array = batch.column(0)
    return array.field("bytes") if hasattr(array, "field") else array


def _image_column(schema: Any) -> str:
    types = require("pyarrow.types", wanted_by="parquet")

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    paths = {}
    for field in schema:
        if is_bytes(field.type):
            paths[field.name] = field.name
        elif types.is_struct(field.type) and any(
            part.name == "bytes" and is_bytes(part.type) for part in field.type
        ):
            paths[field.name] = f"{field.name}.bytes"
    return next((paths[name] for name in (*_IMAGE_NAMES, *paths) if name in paths), "")
