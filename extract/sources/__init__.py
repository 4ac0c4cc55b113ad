"""Where the bytes of an image come from: a file, a member of a container, here or on remote storage.

A *location* is one string: the dataset's root, ``/``, and the sample's path. A path of the form ``CONTAINER!MEMBER``
(``train-000.tar!0001.jpg``, ``images.zip!a/b.png``, ``data.parquet!17``, ``fer2013.csv!17``) names something inside a
container, told by the container's suffix; a root with a scheme (``s3://bucket/faces``) is read by fsspec. Containers
are opened and indexed once in each process and kept open; :func:`read_content` is the only way to their members.

A *source* is one kind of container, a class made with a seekable binary file::

    class Source(Protocol):
        def __init__(self, file: BinaryIO) -> None: ...                  # index it; the file stays open
        def read(self, member: str) -> bytes | np.ndarray: ...           # an encoded image, or pixels as they are

Pixels are uint8, (H, W) grey or (H, W, 3) RGB. ``read`` raises ``KeyError`` for a member that is not there, and any of
:data:`DAMAGE` or :class:`Unreadable` for one that is damaged. It is called by one thread at a time.
"""

from __future__ import annotations

import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Protocol

import numpy as np

from .remote import is_remote, open_remote, read_remote

# suffix of a container -> "module:Class", imported on use
SOURCES: Mapping[str, str] = {
    ".csv": "ig3d.extract.sources.pixels:PixelRows",
    ".parquet": "ig3d.extract.sources.parquet:ParquetRows",
    ".tar": "ig3d.extract.sources.archives:TarMembers",
    ".zip": "ig3d.extract.sources.archives:ZipMembers",
}
# An image of more bytes than this is none: a member that claims them would only fill the memory.
MOST_BYTES = 1 << 29
# Containers kept open in a process, each with its index.
KEPT_OPEN = 16
# What the libraries under the sources raise on damaged files.
DAMAGE = (
    OSError, ValueError, LookupError, EOFError, MemoryError, RuntimeError, struct.error, zlib.error,
    tarfile.TarError, zipfile.BadZipFile,
)  # fmt: skip

_INSIDE = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, SOURCES))}))!(.+)", re.DOTALL | re.IGNORECASE)


class Unreadable(Exception):
    """An image that cannot be read or decoded; the message is the reason."""


class Source(Protocol):
    """One kind of container."""

    def __init__(self, file: BinaryIO) -> None: ...

    def read(self, member: str) -> bytes | np.ndarray:
        """An encoded image, or pixels: uint8 (H, W) or (H, W, 3) RGB."""
        ...


def parts_of(location: str) -> tuple[str, str]:
    """Container and member of a location; the member is empty where it names a file of its own.

    >>> parts_of("faces/train-000.tar!0001.jpg")
    ('faces/train-000.tar', '0001.jpg')
    >>> parts_of("faces/wow!.jpg")
    ('faces/wow!.jpg', '')
    """
    inside = _INSIDE.fullmatch(location) if "!" in location else None
    return (inside[1], inside[2]) if inside else (location, "")


def read_content(location: str | Path) -> bytes | np.ndarray:
    """The bytes of an encoded image, or the pixels of one that is kept without encoding.

    Parameters
    ----------
    location : root, ``/`` and path of a sample

    Returns
    -------
    bytes, or a uint8 array (H, W) or (H, W, 3) RGB

    Raises
    ------
    FileNotFoundError : there is no such file, container or member; the message says which.
    Unreadable : it cannot be read; the message says why.
    MissingExtra : a package that the container or the storage needs is not installed.
    """
    container, member = parts_of(str(location))
    try:
        if member:
            stamp = _stamp(container)
            with _OPENING:  # or several threads would index it at once
                opened = _open(container, stamp)
            return opened.read(member)
        return read_remote(container) if is_remote(container) else _read_file(Path(container))
    except FileNotFoundError as exc:
        raise FileNotFoundError(str(exc) if member else "no such file") from exc
    except DAMAGE as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise Unreadable(f"cannot be opened: {reason}") from exc


def _read_file(path: Path) -> bytes:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise Unreadable("not a regular file")  # a pipe would be waited for
    return path.read_bytes()


def _stamp(container: str) -> tuple[int, int]:
    """What changes when a local container is written anew: its time and its size."""
    if is_remote(container):
        return 0, 0
    try:
        found = Path(container).stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"no such file: {Path(container).name}") from None
    return found.st_mtime_ns, found.st_size


def _open_local(path: str) -> BinaryIO:
    return Path(path).open("rb")


class _Container:
    """An open container, or the reason why it cannot be opened, which is found out once."""

    def __init__(self, path: str) -> None:
        self._name = path.rpartition("/")[2]
        self._lock = Lock()
        self._broken = ""
        self._file: BinaryIO | None = None
        module, _, attribute = SOURCES[f".{path.rpartition('.')[2].lower()}"].partition(":")
        kind: type[Source] = getattr(import_module(module), attribute)
        try:
            self._file = open_remote(path) if is_remote(path) else _open_local(path)
            self._source = kind(self._file)
        except FileNotFoundError:
            raise FileNotFoundError(f"no such file: {self._name}") from None
        except (Unreadable, *DAMAGE) as exc:
            self._broken = f"{self._name} is damaged: {exc}"

    def read(self, member: str) -> bytes | np.ndarray:
        if self._broken:
            raise Unreadable(self._broken)
        try:
            with self._lock:
                return self._source.read(member)
        except KeyError:
            raise FileNotFoundError(f"no such member of {self._name}") from None
        except DAMAGE as exc:
            raise Unreadable(f"damaged in {self._name}: {exc or type(exc).__name__}") from exc

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self._file.close()  # type: ignore[union-attr]


_OPENING = Lock()


@lru_cache(maxsize=KEPT_OPEN)
def _open(container: str, stamp: tuple[int, int]) -> _Container:
    return _Container(container)
