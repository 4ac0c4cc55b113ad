"""Checkpoints and pickles as arrays: nothing that a file says is imported, called or trusted.

The one door through which weights come in (``extract/weights.py``, the regressors, ``faces/flame.py``). A file is first
noted (:mod:`.inert`: structure, no effects), then the notes of a fixed table become arrays (:mod:`.rebuild`); whatever
else it names comes back as an inert :class:`Foreign`. torch is not needed.

References
----------
pickle's instructions: CPython's ``pickletools``. torch's files: ``torch/serialization.py`` (2.4 to 2.15; both formats).
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import WeightsError
from .builders import Budget, Foreign, storage_array, torch_type
from .inert import Note, read_notes
from .rebuild import Rebuilder

__all__ = ["Foreign", "read_arrays"]

ZIP, NPY = b"PK\x03\x04", b"\x93NUMPY"
_LEGACY = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch before 1.6: a pickle of its magic number comes first
)
_BROKEN = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError,
    RecursionError, RuntimeError, SyntaxError, TypeError, ValueError, pickle.UnpicklingError, struct.error,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_arrays(path: str | Path) -> Any:
    """Read a checkpoint, pickle or array file without executing anything of it.

    Parameters
    ----------
    path : path
        A torch file (the zip format, the older one, Lightning's checkpoints), a pickle of Python 2 or 3, ``.npy`` or
        ``.npz``; told apart by content, not by name.

    Returns
    -------
    dict, list, tuple, NumPy array, number, str, bytes, None or Foreign
        As nested in the file. Tensors are arrays of their own type, bit for bit (bfloat16 widened to float32, which is
        exact); views of one storage share memory, as in torch. Ordered and default dicts are dicts, sets are lists,
        object arrays are nested lists. chumpy's arrays are their values; scipy's csc, csr and coo matrices come dense.
        Python 2's 8-bit strings are latin-1 text. Any other object, and every class, is a :class:`Foreign`.

    Raises
    ------
    WeightsError : the file is missing, of another kind, cut short, damaged, or asks for more than it contains.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except OSError as error:
        raise WeightsError(
            f"{path}: expected a readable file, got: {plain(error.strerror or error)}"
        ) from error
    except _BROKEN as error:
        said = plain(error)
        if not isinstance(error, (pickle.UnpicklingError, EOFError, zipfile.BadZipFile)):
            said = f"other or damaged contents ({type(error).__name__}: {said})"
        raise WeightsError(
            f"{path}: expected a sound checkpoint, pickle or array file, got: {said or 'a file cut short'}; "
            "get the file again"
        ) from error


def plain(text: object, limit: int = 120) -> str:
    """``text`` as one short printable line: a file's own words must not reach the terminal as they are."""
    line = " ".join(str(text)[: 4 * limit].split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:limit]


def _read(file: BinaryIO, path: Path) -> Any:
    start = file.read(16)
    file.seek(0)
    if not start:
        raise pickle.UnpicklingError("an empty file")
    if start.lstrip()[:1] == b"<":
        raise pickle.UnpicklingError("a web page (a download that was refused?)")
    budget = Budget(path.stat().st_size)
    if start.startswith(ZIP):
        return _read_zip(file, budget, path.stat().st_size)
    if start.startswith(NPY):
        return _read_npy(file, budget)
    if start.startswith(_LEGACY):
        return _read_legacy(file, budget)
    return Rebuilder(budget, nested=_nested_reader(budget)).value(read_notes(file))


def _nested_reader(budget: Budget) -> Callable[[bytes], Any]:
    """Reads a torch file that lies inside a pickle as bytes (``torch.storage._load_from_bytes``); one level."""

    def read(data: bytes) -> Any:
        budget.take(2 * len(data))
        if data.startswith(_LEGACY):
            return _read_legacy(io.BytesIO(data), budget)
        return _read_zip(io.BytesIO(data), budget, len(data))

    return read


def _read_npy(file: BinaryIO, budget: Budget) -> Any:
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        return Rebuilder(budget, nested=_nested_reader(budget)).value(read_notes(file))
    here = file.tell()
    if math.prod(shape) * dtype.itemsize > file.seek(0, io.SEEK_END) - here:
        raise EOFError("the file is cut short")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _read_zip(file: BinaryIO, budget: Budget, size: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if sum(entry.file_size for entry in archive.infolist()) > (64 << 20) + 20 * size:
            raise pickle.UnpicklingError("an archive that unpacks to far more than its size")
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) == 1:
            return _TorchZip(archive, pickles[0].removesuffix("data.pkl"), budget).read()
        if names and all(name.endswith(".npy") for name in names):
            return {
                name.removesuffix(".npy"): _read_npy(io.BytesIO(archive.read(name)), budget) for name in names
            }
        raise pickle.UnpicklingError(
            f"a zip archive of other things ({', '.join(names[:3]) or 'nothing'}); unpack it, or ig3d weights add"
        )


class _TorchZip:
    """torch's zip format: ``data.pkl`` and one record per storage, each read once and only if something uses it."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str, budget: Budget) -> None:
        self.archive = archive
        self.prefix = prefix
        self.budget = budget
        self.little = True
        self.storages: dict[tuple[str, str], np.ndarray] = {}

    def read(self) -> Any:
        if self.prefix + "byteorder" in self.archive.namelist():
            self.little = self.archive.read(self.prefix + "byteorder") != b"big"
        notes = read_notes(io.BytesIO(self.archive.read(self.prefix + "data.pkl")))
        return Rebuilder(self.budget, storage=self.storage, nested=_nested_reader(self.budget)).value(notes)

    def storage(self, pid: Any) -> np.ndarray | Foreign:
        entry_id = _storage_id(pid)
        key, kind = entry_id.key, torch_type(entry_id.kind_name)
        if kind is None:
            return Foreign(entry_id.kind_name, (key,), None)
        if (key, kind) not in self.storages:
            entry = self.archive.getinfo(f"{self.prefix}data/{key}")
            self.budget.take(entry.file_size)
            with self.archive.open(entry) as record:
                raw = _filled(record, entry.file_size)  # zipfile compares the checksum at the end
            used = _width(kind) * entry_id.count
            if used > raw.size:
                raise pickle.UnpicklingError(f"a storage of {used} bytes in a record of {raw.size}")
            self.storages[key, kind] = storage_array(raw[:used], kind, little=self.little)
        return self.storages[key, kind]


def _read_legacy(file: BinaryIO, budget: Budget) -> Any:
    """torch's format before 1.6: magic number, version, system, objects, the storages' names, the storages in a row."""
    ids: list[Any] = []
    _, version, system = (read_notes(file) for _ in range(3))
    notes = read_notes(file, ids)
    keys = read_notes(file)
    if version != 1001 or not isinstance(keys, list) or not isinstance(system, dict):
        raise pickle.UnpicklingError("a torch file of an unknown version")
    little = system.get("little_endian", True) is True
    kinds = {entry.key: entry.kind_name for entry in map(_storage_id, ids)}
    here = file.tell()
    end = file.seek(0, io.SEEK_END)
    file.seek(here)
    arrays: dict[str, np.ndarray] = {}
    for key in keys:
        kind = torch_type(kinds[key])
        if kind is None:
            raise pickle.UnpicklingError(f"tensors of the type {kinds[key]}, which NumPy does not have")
        (count,) = struct.unpack("<q" if little else ">q", file.read(8))
        size = count * _width(kind)
        if not 0 <= size <= end - file.tell():
            raise EOFError("the file is cut short")
        arrays[key] = storage_array(_filled(file, size), kind, little=little)

    def storage(pid: Any) -> np.ndarray:
        entry = _storage_id(pid)
        whole = arrays[entry.key]
        if entry.view is None:
            return whole
        _, first, length = entry.view  # files from before torch 0.4
        if min(first, length) < 0 or first + length > len(whole):
            raise pickle.UnpicklingError("a view outside of its storage")
        return whole[first : first + length]

    return Rebuilder(budget, storage=storage).value(notes)


@dataclass(frozen=True, slots=True)
class _StorageId:
    """What a torch file says of a storage where a tensor uses it."""

    key: str
    kind_name: str
    count: int
    view: Any


def _storage_id(pid: Any) -> _StorageId:
    match pid:
        case ("storage", Note(name=kind_name), str(key), _, int(count), *view) if count >= 0:
            return _StorageId(key, kind_name, count, view[0] if view else None)
    raise pickle.UnpicklingError("a storage in an unknown form")


def _width(kind: str) -> int:
    """Bytes of one number."""
    return 2 if kind == "bf16" else np.dtype(kind).itemsize


def _filled(file: Any, size: int) -> np.ndarray:
    """The next ``size`` bytes of ``file`` in an array of their own, which can be written to."""
    raw = np.empty(size, np.uint8)
    view, done = memoryview(raw), 0  # type: ignore[arg-type]
    while done < size:
        count = file.readinto(view[done:])
        if not count:
            raise EOFError("the file is cut short")
        done += count
    return raw
