"""Writing a store: under a temporary neighbour's name, hashed, flushed to disk, renamed.

A final name is a finished file, and whatever goes wrong leaves what was there before.
"""

from __future__ import annotations

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
from typing import Any, Self

import h5py
import numpy as np

from ..errors import StoreError
from .atomic import temporary_name
from .store import FORMAT, FORMAT_VERSION, StoreInfo, content_hash
from .values import Block, Rows, Sample, Split, Status

MESSAGE_BYTES = 200
_CHUNK_BYTES = 1 << 18

_STATUS = h5py.enum_dtype({status.name: status.value for status in Status}, basetype="i1")
_SPLIT = h5py.enum_dtype({split.name: split.value for split in Split}, basetype="i1")


@contextmanager
def _signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the end: HDF5 calls back into :class:`_Disk`, and does not survive it raising."""
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
    """Writes one store: samples first, outcomes in any order, then closed, hashed, flushed and renamed.

    Used as a context manager; when the body raises, nothing appears under the final name.

    Parameters
    ----------
    path : final name of the file
    info : StoreInfo
    samples : sequence of Sample, one per row
    blocks : block name -> Block, in order

    Raises
    ------
    StoreError : the disk is full or the folder cannot be written.
    """

    def __init__(
        self, path: str | Path, info: StoreInfo, samples: tuple[Sample, ...], blocks: dict[str, Block]
    ) -> None:
        self.path = Path(path)
        self._temporary = temporary_name(self.path)
        self._info, self._samples, self._blocks = info, samples, blocks

    def __enter__(self) -> Self:
        try:
            with _signals_held():
                self._disk = _Disk(self._temporary)
                self._file = h5py.File(self._disk, "w")
                self._create()
        except OSError as exc:
            self._discard()
            raise self._cannot(exc) from exc
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
                raise self._cannot(value) from value
            return
        try:
            self._file.flush()
            self._file.attrs["content_sha256"] = content_hash(self._file)
            self._file.close()
            self._disk.finish()
            self._temporary.replace(self.path)
        except OSError as exc:
            self._discard()
            raise self._cannot(exc) from exc

    def _cannot(self, exc: OSError) -> StoreError:
        return StoreError(
            f"{self.path}: expected to write the store, got {exc}; free the disk and repeat the command"
        )

    @_signals_held()
    def _discard(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
        if hasattr(self, "_disk"):
            self._disk.close()
        self._temporary.unlink(missing_ok=True)

    def _create(self) -> None:
        file, n = self._file, len(self._samples)
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        for name, value in asdict(self._info).items():
            file.attrs[name] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)

        for column in ("id", "path", "group"):
            self._dataset(f"sample/{column}", _encode([getattr(sample, column) for sample in self._samples]))
        self._dataset("sample/split", np.array([sample.split for sample in self._samples], np.int8), _SPLIT)
        self._dataset("sample/label", np.array([sample.label for sample in self._samples], np.int16))
        for column in ("valence", "arousal"):
            self._dataset(
                f"sample/{column}",
                np.array([getattr(sample, column) for sample in self._samples], np.float32),
            )
        pending = Rows.pending(1, {})
        self._pending("sample/message", _encode(pending.message, MESSAGE_BYTES))
        self._pending("sample/status", pending.status, _STATUS)
        self._pending("sample/width", pending.size_wh[:, 0])
        self._pending("sample/height", pending.size_wh[:, 1])
        self._pending("sample/digest", pending.digest)
        self._pending("face/box", pending.xyxy)
        self._pending("face/score", pending.score)
        self._pending("face/count", pending.count)
        self._pending("face/transform", pending.transform)
        for position, (name, block) in enumerate(self._blocks.items()):
            dataset = file.create_dataset(
                f"codes/{name}",
                shape=(n, block.width),
                dtype=np.float32,
                chunks=_chunks((n, block.width), 4),
                fillvalue=np.nan,
                fletcher32=True,
            )
            dataset.attrs.update(
                unit=block.unit, description=block.description, basis=block.basis, position=position
            )
            if block.columns:
                dataset.attrs["columns"] = json.dumps(block.columns)

    def _dataset(self, name: str, values: np.ndarray, dtype: np.dtype | None = None) -> None:
        """A column that is known."""
        self._file.create_dataset(
            name,
            data=values,
            dtype=values.dtype if dtype is None else dtype,
            **_layout(values.shape, values.dtype),
        )

    def _pending(self, name: str, one: np.ndarray, dtype: np.dtype | None = None) -> None:
        """A column of outcomes, each as in the one row given; takes no room until it is written."""
        shape = (len(self._samples), *one.shape[1:])
        self._file.create_dataset(
            name,
            shape=shape,
            dtype=one.dtype if dtype is None else dtype,
            fillvalue=np.nan if one.dtype.kind == "f" else None,
            **_layout(shape, one.dtype),
        )

    @_signals_held()
    def write(self, start: int, rows: Rows) -> None:
        """Put the outcomes of ``len(rows)`` consecutive samples at row ``start``."""
        file, span = self._file, slice(start, start + len(rows))
        file["sample/status"][span] = rows.status
        file["sample/message"][span] = _encode(rows.message, MESSAGE_BYTES)
        file["sample/width"][span] = rows.size_wh[:, 0]
        file["sample/height"][span] = rows.size_wh[:, 1]
        file["sample/digest"][span] = rows.digest
        file["face/box"][span] = rows.xyxy
        file["face/score"][span] = rows.score
        file["face/count"][span] = rows.count
        file["face/transform"][span] = rows.transform
        for name in self._blocks:
            file[f"codes/{name}"][span] = rows.codes[name]
        self._disk.check()


class _Disk(io.RawIOBase):
    """The file under an HDF5 writer; it keeps a full disk from HDF5, which does not survive a failed close.

    After a write has failed it swallows the rest, and :meth:`check` and :meth:`finish` raise what happened.
    """

    def __init__(self, path: Path) -> None:
        self._raw = path.open("w+b", buffering=0)
        self._failure: OSError | None = None

    def write(self, content: Any) -> int:
        rest = memoryview(content).cast("B")
        size = len(rest)
        try:
            while len(rest) and self._failure is None:
                rest = rest[self._raw.write(rest) :]
        except OSError as exc:
            self._failure = exc
        return size

    def readinto(self, into: Any) -> int:
        return self._raw.readinto(into)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._raw.truncate(size)
        except OSError as exc:
            self._failure = self._failure or exc
            return size or 0

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Put everything on the disk and close; raises what a write had to hide."""
        self.check()
        os.fsync(self._raw.fileno())
        self.close()

    def close(self) -> None:
        self._raw.close()
        super().close()


def _layout(shape: tuple[int, ...], dtype: np.dtype) -> dict[str, Any]:
    """How a column lies in the file; only text is worth compressing (benchmarks/README.md)."""
    text = {"compression": "gzip", "compression_opts": 1} if dtype.kind == "S" else {}
    return {"chunks": _chunks(shape, dtype.itemsize), "fletcher32": True, **text}


def _chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    row_bytes = max(1, itemsize * int(np.prod(shape[1:])))
    return (max(1, min(shape[0], _CHUNK_BYTES // row_bytes)), *shape[1:])


def _encode(texts: Sequence[str], limit: int | None = None) -> np.ndarray:
    """Strings as fixed-length UTF-8, cut between characters where a limit says so."""
    width = limit or max(1, max((len(str(text).encode()) for text in texts), default=1))
    encoded = (_cut(str(text).encode(), width) for text in texts)  # never all of them as objects
    return np.fromiter(encoded, h5py.string_dtype("utf-8", width), len(texts))


def _cut(text: bytes, limit: int) -> bytes:
    return text if len(text) <= limit else text[:limit].decode(errors="ignore").encode()
