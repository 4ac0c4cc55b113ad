"""Write a store: under a temporary name, then hashed, flushed to disk and renamed.

A file with its final name is complete. After an error, an earlier file with this name is unchanged.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import h5py
import numpy as np

from ...errors import StoreError, reason_of
from ..atomic import check_output, flush_folder, temporary_name
from ..samples import TEXT_COLUMNS, Split
from ..values import Block, Rows, Status
from .format import COLUMNS, FORMAT, FORMAT_VERSION, Column, StoreInfo, check_blocks, content_hash

if TYPE_CHECKING:
    import pandas as pd  # imported where a table is made: reading codes does not need it

MESSAGE_BYTES = 200
MAX_CLASSES = np.iinfo(np.int16).max
_CHUNK_BYTES = 1 << 18

# Types in the file, of columns whose type differs from that in memory.
_TYPES = {
    "sample/split": h5py.enum_dtype({split.name: split.value for split in Split}, basetype="i1"),
    "sample/status": h5py.enum_dtype({status.name: status.value for status in Status}, basetype="i1"),
    "sample/message": h5py.string_dtype("utf-8", MESSAGE_BYTES),
}


@contextmanager
def _signals_held() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the end of the block.

    HDF5 calls methods of :class:`_Disk`, and crashes if a signal raises an exception in them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs its signal handlers in the main thread only
        return
    waiting: list[int] = []
    before = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(number)) is not None
    }
    for number in before:
        signal.signal(number, lambda number, frame: waiting.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for held in dict.fromkeys(waiting):
            signal.raise_signal(held)


class StoreWriter:
    """Context manager that writes one store: samples when it is opened, then results of rows in any order.

    At the end, the file is hashed, flushed and renamed. Missing folders are created. If the block raises an error, no
    file with the final name is written.

    Parameters
    ----------
    path : final name of the file
    info : StoreInfo
    samples : pandas.DataFrame
        The sample table (:func:`~ig3d.features.samples.sample_table`), a sample per row.
    blocks : block name -> Block, in order

    Raises
    ------
    StoreError : the disk is full, the folder cannot be written, or a block's name or the number of classes does not
        fit the format.
    RunError : the path is an existing folder, device, FIFO or socket.
    """

    def __init__(
        self, path: str | Path, info: StoreInfo, samples: pd.DataFrame, blocks: dict[str, Block]
    ) -> None:
        self.path = Path(path)
        self._temporary = temporary_name(self.path)
        self._info, self._samples, self._blocks = info, samples, blocks
        try:
            check_blocks(blocks)
        except ValueError as exc:
            raise StoreError(f"{path}: {exc}") from exc
        if len(info.classes) > MAX_CLASSES:
            raise StoreError(f"{path}: {len(info.classes)} classes; a store holds at most {MAX_CLASSES}")
        # Datasets stay open while they are written, so that each chunk is filled in memory and written once.
        self._columns: dict[str, h5py.Dataset] = {}

    def __enter__(self) -> Self:
        check_output(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise self._cannot_write(exc) from exc
        try:
            with _signals_held():
                self._disk = _Disk(self._temporary)
                self._file = h5py.File(self._disk, "w", rdcc_nbytes=_CHUNK_BYTES)
                self._create()
        except OSError as exc:
            self._discard()
            raise self._cannot_write(exc) from exc
        except BaseException:
            self._discard()
            raise
        return self

    @_signals_held()
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            if isinstance(value, OSError):
                raise self._cannot_write(value) from value
            return
        try:
            self._file.flush()
            self._disk.check()  # before the content is read for the hash
            self._file.attrs["content_sha256"] = content_hash(self._file)
            self._file.close()
            # While signals are delayed: an exception would be lost in the weak references of h5py to open objects.
            self._columns.clear()
            del self._file
            self._disk.finish()
            self._temporary.replace(self.path)
            flush_folder(self.path.parent)  # the shards are removed next
        except OSError as exc:
            self._discard()
            raise self._cannot_write(exc) from exc

    def _cannot_write(self, exc: OSError) -> StoreError:
        if hasattr(self, "_disk"):
            exc = self._disk.failure or exc  # the first error; that of HDF5 is only a consequence
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        todo = "free the disk and repeat the command" if full else "choose a folder that can be written to"
        return StoreError(f"{self.path}: the store cannot be written: {reason_of(exc)}; {todo}")

    @_signals_held()
    def _discard(self) -> None:
        """Close and remove the temporary file."""
        if hasattr(self, "_file"):
            self._file.close()
        if hasattr(self, "_disk"):
            self._disk.close()
        self._temporary.unlink(missing_ok=True)

    def _create(self) -> None:
        """Write the attributes and the samples, and create the datasets of results."""
        file = self._file
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        for name, value in asdict(self._info).items():
            file.attrs[name] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)

        for column in TEXT_COLUMNS:
            texts = np.array([text.encode() for text in self._samples[column].tolist()], "S")
            self._write_column(f"sample/{column}", texts, h5py.string_dtype("utf-8", texts.itemsize))
        for column in ("split", "label", "valence", "arousal"):
            name, values = f"sample/{column}", self._samples[column]
            values = values if values.dtype.kind == "f" else values.cat.codes
            self._write_column(name, values.to_numpy(), _TYPES.get(name, np.dtype(COLUMNS[name].dtype)))
        if "time" in self._samples:
            self._write_column("sample/time", self._samples["time"].to_numpy(), np.dtype("<f8"))
        for name, column_format in COLUMNS.items():
            if name not in file:
                self._create_column(name, column_format)
        for position, (name, block) in enumerate(self._blocks.items()):
            dataset = self._create_column(f"codes/{name}", Column("f4", (block.width,)))
            dataset.attrs.update(
                unit=block.unit, description=block.description, basis=block.basis, position=position
            )
            if block.columns:
                dataset.attrs["columns"] = json.dumps(block.columns)

    def _write_column(self, name: str, values: np.ndarray, dtype: np.dtype) -> None:
        """Create a dataset of the samples with its values."""
        values = values.astype(dtype)
        self._file.create_dataset(name, data=values, **_layout(values.shape, dtype))

    def _create_column(self, name: str, column: Column) -> h5py.Dataset:
        """Create a dataset of results, which uses no disk space until it is written."""
        dtype = _TYPES.get(name, np.dtype(column.dtype))
        shape = (len(self._samples), *column.row)
        fill = np.nan if dtype.kind == "f" else None
        dataset = self._file.create_dataset(
            name, shape=shape, dtype=dtype, fillvalue=fill, **_layout(shape, dtype)
        )
        self._columns[name] = dataset
        return dataset

    @_signals_held()
    def write(self, start: int, rows: Rows) -> None:
        """Write the results of ``len(rows)`` consecutive samples, from row ``start``."""
        columns = {
            "sample/status": rows.status,
            "sample/message": _encode(rows.message),
            "sample/width": rows.size_wh[:, 0],
            "sample/height": rows.size_wh[:, 1],
            "sample/digest": rows.digest,
            "face/box": rows.xyxy,
            "face/score": rows.score,
            "face/count": rows.count,
            "face/landmark_box": rows.landmark_box,
            "face/crop_box": rows.crop_box,
            **{f"codes/{name}": rows.codes[name] for name in self._blocks},
        }
        for name, values in columns.items():
            self._columns[name][start : start + len(rows)] = values
        self._disk.check()


class _Disk(io.RawIOBase):
    """File object for an HDF5 writer that hides write errors, because HDF5 crashes if closing a file fails.

    After an error, further writes do nothing; :meth:`check` and :meth:`finish` raise the error.

    Attributes
    ----------
    failure : OSError or None
        The first error.
    """

    def __init__(self, path: Path) -> None:
        self._raw = path.open("w+b", buffering=0)
        self.failure: OSError | None = None

    def write(self, content: Any) -> int:
        rest = memoryview(content).cast("B")
        size = len(rest)
        try:
            while len(rest) and self.failure is None:
                rest = rest[self._raw.write(rest) :]
        except OSError as exc:
            self.failure = exc
        return size

    def readinto(self, into: Any) -> int:
        return self._raw.readinto(into)

    def seek(self, offset: int, origin: int = 0) -> int:
        return self._raw.seek(offset, origin)

    def tell(self) -> int:
        return self._raw.tell()

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._raw.truncate(size)
        except OSError as exc:
            self.failure = self.failure or exc
            return size or 0

    def check(self) -> None:
        """Raise the first error of a write, if there was one."""
        if self.failure is not None:
            raise self.failure

    def finish(self) -> None:
        """Flush the file to disk and close it; raises the first error of a write."""
        self.check()
        os.fsync(self._raw.fileno())
        self.close()

    def close(self) -> None:
        self._raw.close()
        super().close()


def _layout(shape: tuple[int, ...], dtype: np.dtype) -> dict[str, Any]:
    """Options of h5py for a dataset: chunks, checksums, and compression of text (benchmarks/README.md)."""
    text = {"compression": "gzip", "compression_opts": 1} if dtype.kind == "S" else {}
    return {"chunks": _chunks(shape, dtype.itemsize), "fletcher32": True, **text}


def _chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    row_bytes = max(1, itemsize * int(np.prod(shape[1:])))
    return (max(1, min(shape[0], _CHUNK_BYTES // row_bytes)), *shape[1:])


def _encode(messages: Sequence[str]) -> np.ndarray:
    """(n,) messages as fixed-length UTF-8; longer ones are cut between characters."""
    encoded = [_cut(message.encode(), MESSAGE_BYTES) for message in messages]
    return np.array(encoded, _TYPES["sample/message"])


def _cut(text: bytes, limit: int) -> bytes:
    return text if len(text) <= limit else text[:limit].decode(errors="ignore").encode()
