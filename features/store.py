"""The HDF5 store of codes: one file, one sample per row. ``docs/format.md`` states the format.

A store is written under a temporary neighbour's name, flushed to disk and renamed, so a final name is a
finished file. Shards of a run are small stores of the same format.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from .. import __version__
from ..errors import StoreError
from .values import Block, Rows, Sample, Split, Status

FORMAT = "ig3d-codes"
FORMAT_VERSION = 1
MESSAGE_BYTES = 200
_CHUNK_BYTES = 1 << 18

_STATUS = h5py.enum_dtype({status.name: status.value for status in Status}, basetype="i1")
_SPLIT = h5py.enum_dtype({split.name: split.value for split in Split}, basetype="i1")
_TEXT_COLUMNS = ("id", "path", "group", "message")
# Not part of the content hash: where and when, not what.
_UNHASHED = frozenset({"created", "root", "content_sha256"})


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """The store's attributes: what was extracted, from what, by what.

    Attributes
    ----------
    dataset : str
        Name of the adapter.
    root : str
        Folder the paths are relative to, when it was extracted.
    classes : tuple of str
    regressor, detector, crop, config : dict
        As JSON: names, versions, runtimes, weights' SHA-256, options.
    ig3d_version : str
    created : str
        ISO 8601, UTC.
    """

    dataset: str
    root: str
    classes: tuple[str, ...]
    regressor: dict[str, Any] = field(default_factory=dict)
    detector: dict[str, Any] = field(default_factory=dict)
    crop: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    ig3d_version: str = __version__
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


@dataclass(frozen=True, slots=True)
class SampleTable:
    """The ``/sample`` columns as arrays of n rows (units and codes as in :class:`Sample` and :class:`Rows`)."""

    id: np.ndarray
    path: np.ndarray
    group: np.ndarray
    message: np.ndarray
    split: np.ndarray
    label: np.ndarray
    valence: np.ndarray
    arousal: np.ndarray
    status: np.ndarray
    width: np.ndarray
    height: np.ndarray
    digest: np.ndarray

    def __len__(self) -> int:
        return len(self.id)

    @property
    def ok(self) -> np.ndarray:
        """(n,) bool: rows that have codes."""
        return np.asarray(self.status == Status.ok)


@dataclass(frozen=True, slots=True)
class FaceTable:
    """The ``/face`` columns: box (n, 4), score (n,), count (n,), transform (n, 2, 3)."""

    box: np.ndarray
    score: np.ndarray
    count: np.ndarray
    transform: np.ndarray


class CodeStore:
    """A finished store, open for reading; samples and faces are read once, codes when asked for.

    Parameters
    ----------
    path : path of the HDF5 file

    Raises
    ------
    StoreError : not an ig3d store, of another version, cut short, or with unfinished rows.

    Examples
    --------
    ::

        with CodeStore("rafdb.h5") as store:
            expression = store.codes("expression")      # (n, width) float32, NaN where the status is not ok
            happy = store.samples.label == store.info.classes.index("happy")
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise StoreError(f"{path}: expected an ig3d store, found no file; make one with ig3d extract")
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as exc:
            raise StoreError(
                f"{path}: expected an HDF5 file, got one that is not, or is cut short; extract it again"
            ) from exc
        try:
            with self._border("its datasets"):
                self._check()
        except StoreError:
            self._file.close()
            raise

    def _check(self) -> None:
        attrs = self._file.attrs
        if attrs.get("format") != FORMAT:
            raise StoreError(f"{self.path}: expected an ig3d store, got an HDF5 file of another kind")
        version = int(attrs.get("format_version", -1))
        if version != FORMAT_VERSION:
            raise StoreError(
                f"{self.path}: expected format version {FORMAT_VERSION}, got {version}; read it with the ig3d that "
                f"wrote it ({attrs.get('ig3d_version', 'unknown')}) or update ig3d"
            )
        names = {f"sample/{column}" for column in SampleTable.__slots__}
        names |= {f"face/{column}" for column in FaceTable.__slots__}
        lacking = sorted(name for name in names if name not in self._file)
        if lacking or "codes" not in self._file:
            raise StoreError(f"{self.path}: expected the dataset {(lacking or ['codes'])[0]}, found none")
        names |= {f"codes/{name}" for name in self._file["codes"]}
        lengths = {name: len(self._file[name]) for name in sorted(names)}
        if len(set(lengths.values())) != 1:
            raise StoreError(f"{self.path}: expected as many rows in every dataset, got {lengths}")
        pending = int(np.sum(self._read("sample/status") == Status.pending))
        if pending:
            raise StoreError(f"{self.path}: expected finished rows, got {pending} pending; extract it again")

    @contextmanager
    def _border(self, what: str) -> Iterator[None]:
        """Whatever HDF5, a checksum or JSON says of damaged bytes becomes one line."""
        try:
            yield
        except (OSError, KeyError, ValueError, RuntimeError, TypeError) as exc:
            raise StoreError(
                f"{self.path}: expected the bytes that were written to {what}, got others; extract it again"
            ) from exc

    def _read(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        with self._border(name):
            return np.asarray(self._file[name][rows])

    def _text(self, name: str) -> np.ndarray:
        with self._border(name):
            return np.char.decode(self._read(name).astype("S"), "utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._file["sample/id"])

    @cached_property
    def info(self) -> StoreInfo:
        attrs = self._file.attrs
        with self._border("its attributes"):
            return StoreInfo(
                dataset=str(attrs["dataset"]),
                root=str(attrs["root"]),
                classes=tuple(json.loads(attrs["classes"])),
                **{name: json.loads(attrs[name]) for name in ("regressor", "detector", "crop", "config")},
                ig3d_version=str(attrs["ig3d_version"]),
                created=str(attrs["created"]),
            )

    @cached_property
    def samples(self) -> SampleTable:
        columns = {
            column: self._text(f"sample/{column}")
            if column in _TEXT_COLUMNS
            else self._read(f"sample/{column}")
            for column in SampleTable.__slots__
        }
        return SampleTable(**columns)

    @cached_property
    def faces(self) -> FaceTable:
        return FaceTable(**{column: self._read(f"face/{column}") for column in FaceTable.__slots__})

    @cached_property
    def blocks(self) -> dict[str, Block]:
        """Block name -> what it holds, in the order the regressor wrote them."""
        with self._border("its blocks"):
            group = self._file["codes"]
            found = {}
            for name in sorted(group, key=lambda block: int(group[block].attrs.get("position", 0))):
                attrs = group[name].attrs
                found[name] = Block(
                    width=group[name].shape[1],
                    unit=str(attrs["unit"]),
                    basis=str(attrs["basis"]),
                    description=str(attrs["description"]),
                    columns=tuple(json.loads(attrs["columns"])) if "columns" in attrs else (),
                )
        return found

    def codes(self, block: str, rows: slice = slice(None)) -> np.ndarray:
        """(n, width) float32 codes of one block, NaN exactly where the status is not ok.

        Raises
        ------
        StoreError : there is no such block, or its bytes were changed.
        """
        if block not in self._file["codes"]:
            raise StoreError(
                f"{self.path}: expected one of the blocks {', '.join(self.blocks)}, got {block!r}"
            )
        return self._read(f"codes/{block}", rows)

    @property
    def content_sha256(self) -> str:
        """Hash of everything but where and when; equal for equal stores. As written, not recomputed."""
        return str(self._file.attrs.get("content_sha256", ""))

    def verify(self) -> list[str]:
        """Read everything and say what is wrong: changed bytes, ids twice, NaN where there should be none.

        Returns
        -------
        list of str, empty when the store is sound
        """
        problems = []
        try:
            with self._border("its datasets"):
                changed = content_hash(self._file) != self.content_sha256
            if changed:
                problems.append(
                    "content: expected the hash written with the store, got another; bytes were changed"
                )
            samples = self.samples
            if len(np.unique(samples.id)) != len(samples):
                problems.append("sample/id: expected every id once, got some twice")
            for name in self.blocks:
                finite = np.isfinite(self.codes(name))
                if not finite[samples.ok].all():
                    problems.append(f"codes/{name}: expected finite codes where the status is ok, got others")
                if finite[~samples.ok].any():
                    problems.append(f"codes/{name}: expected NaN where the status is not ok, got numbers")
        except StoreError as exc:
            problems.append(str(exc))
        return problems


def content_hash(file: h5py.File) -> str:
    """SHA-256 over names, types and bytes of all datasets and attributes, less where and when it was made."""
    total = hashlib.sha256()

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        for key in sorted(item.attrs):
            if key not in _UNHASHED:
                total.update(f"{name}@{key}={item.attrs[key]!s}\n".encode())
        if isinstance(item, h5py.Dataset):
            total.update(f"{name}:{item.dtype.str}:{item.shape}\n".encode())
            for start in range(0, len(item), 4096):
                total.update(np.ascontiguousarray(item[start : start + 4096]).tobytes())

    add("/", file)
    names: list[str] = []
    file.visit(names.append)
    for name in sorted(names):
        add(name, file[name])
    return total.hexdigest()


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
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._info, self._samples, self._blocks = info, samples, blocks

    def __enter__(self) -> Self:
        try:
            self._disk = _Disk(self._temporary)
            self._file = h5py.File(self._disk, "w")
            self._create()
        except OSError as exc:
            self._discard()
            raise self._cannot(exc) from exc
        return self

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
            os.replace(self._temporary, self.path)  # noqa: PTH105  (atomic on every platform)
        except OSError as exc:
            self._discard()
            raise self._cannot(exc) from exc

    def _cannot(self, exc: OSError) -> StoreError:
        return StoreError(
            f"{self.path}: expected to write the store, got {exc}; free the disk and repeat the command"
        )

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
        self._dataset("sample/message", _encode([""] * n, MESSAGE_BYTES))
        self._dataset("sample/split", np.array([sample.split for sample in self._samples], np.int8), _SPLIT)
        self._dataset("sample/label", np.array([sample.label for sample in self._samples], np.int16))
        for column in ("valence", "arousal"):
            self._dataset(
                f"sample/{column}",
                np.array([getattr(sample, column) for sample in self._samples], np.float32),
            )
        pending = Rows.pending(n, {})
        self._dataset("sample/status", pending.status, _STATUS)
        self._dataset("sample/width", pending.size_wh[:, 0])
        self._dataset("sample/height", pending.size_wh[:, 1])
        self._dataset("sample/digest", pending.digest)
        self._dataset("face/box", pending.xyxy)
        self._dataset("face/score", pending.score)
        self._dataset("face/count", pending.count)
        self._dataset("face/transform", pending.transform)
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
        text = values.dtype.kind == "S"
        self._file.create_dataset(
            name,
            data=values,
            dtype=values.dtype if dtype is None else dtype,
            chunks=_chunks(values.shape, values.dtype.itemsize),
            compression="gzip" if text else None,
            compression_opts=1 if text else None,
            fletcher32=True,
        )

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


def read_rows(store: CodeStore) -> Iterator[Rows]:
    """The outcomes in a store as :class:`Rows`, some thousand at a time, in order."""
    step = 4096
    samples, faces = store.samples, store.faces
    for start in range(0, len(store), step):
        span = slice(start, start + step)
        yield Rows(
            status=samples.status[span],
            message=samples.message[span].tolist(),
            size_wh=np.stack([samples.width[span], samples.height[span]], axis=1),
            digest=samples.digest[span],
            xyxy=faces.box[span],
            score=faces.score[span],
            count=faces.count[span],
            transform=faces.transform[span],
            codes={name: store.codes(name, span) for name in store.blocks},
        )


def _chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    row_bytes = max(1, itemsize * int(np.prod(shape[1:])))
    return (max(1, min(shape[0], _CHUNK_BYTES // row_bytes)), *shape[1:])


def _encode(texts: object, limit: int | None = None) -> np.ndarray:
    """Strings as fixed-length UTF-8, cut between characters where a limit says so."""
    encoded = [str(text).encode() for text in texts]  # type: ignore[attr-defined]
    if limit is not None:
        encoded = [
            text if len(text) <= limit else text[:limit].decode(errors="ignore").encode() for text in encoded
        ]
    width = limit or max(1, *(len(text) for text in encoded), 1)
    return np.array(encoded, h5py.string_dtype("utf-8", width))
