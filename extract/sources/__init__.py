"""Where the bytes of an image come from: a file, a member of a container, here or on remote storage.

A *location* is one string: the dataset's root, ``/``, and the sample's path. A path of the form ``CONTAINER!MEMBER``
(``train-000.tar!0001.jpg``, ``images.zip!a/b.png``, ``data.parquet!17``, ``fer2013.csv!17``) names something inside a
container, told by the container's suffix; a root with a scheme (``s3://bucket/faces``) is read by fsspec. Containers
are opened and indexed once in each process and kept open; :func:`read_content` is the only way to their members.

A *source* is one kind of container, a class made with a seekable binary file::

    class Source(Protocol):
        def __init__(self, file: BinaryIO) -> None: ...                  # index it; the file stays open
        def read(self, member: str) -> bytes | np.ndarray: ...           # an encoded image, or pixels as they are

Pixels are uint8, (H, W) grey or (H, W, 3) RGB. ``read`` raises ``KeyError`` for a member that is not there, and
:class:`Unreadable` or any other exception for one that is damaged: the libraries below raise errors of many kinds, and
this module turns them all into :class:`Unreadable`. It is called by one thread at a time. Where the system or the
storage does not give the bytes of ``file``, :class:`Unavailable` goes through a source, which is then made anew.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Protocol

import numpy as np

from ...errors import Ig3dError
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
# What the system says of a path; all else that it says is of the machine or the storage at that moment.
_OF_THE_PATH = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)

_INSIDE = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, SOURCES))}))!(.+)", re.DOTALL | re.IGNORECASE)


class Unreadable(Exception):
    """An image that cannot be read or decoded; the message is the reason."""


class Unavailable(Unreadable):
    """One that could not be read for a reason that is not its file's: another time it may be."""


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


def has_size(location: str, content: bytes, size: int) -> bool:
    """Whether bytes are as many as were listed: those of the file or member, or all those of a member's container."""
    if len(content) == size:
        return True
    container, member = parts_of(location)
    return bool(member) and (is_remote(container) or _stamp(container)[1] == size)


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
    Unavailable : the machine, the network or the storage did not let it be read.
    MissingExtra : a package that the container or the storage needs is not installed.
    """
    container, member = parts_of(str(location))
    try:
        if member:
            stamp = _stamp(container)
            with _OPENING:  # or several threads would have one each
                opened = _open(container, stamp)
            return opened.read(member)
        return read_remote(container) if is_remote(container) else _read_file(Path(container))
    except (Ig3dError, Unreadable):
        raise
    except FileNotFoundError as exc:
        raise FileNotFoundError(str(exc) if member else "no such file") from exc
    except Exception as exc:
        raise _unread(exc) from exc


def _unread(exc: Exception, name: str = "") -> Unreadable:
    """Why a file could not be opened: for what it is, or for what went wrong at that moment."""
    if (
        isinstance(exc, IsADirectoryError | NotADirectoryError)  # drivers raise these without a number
        or getattr(exc, "errno", None) in _OF_THE_PATH
        or not isinstance(exc, OSError | MemoryError)
    ):
        return Unreadable(f"{name} cannot be opened: {reason_of(exc)}".lstrip())
    return Unavailable(f"{name} could not be read: {reason_of(exc)}".lstrip())


def reason_of(exc: Exception) -> str:
    """What to say of an error of the system, or of a storage driver."""
    if isinstance(exc, MemoryError):
        return "out of memory"
    return getattr(exc, "strerror", None) or " ".join(str(exc).split()) or type(exc).__name__


def _read_file(path: Path) -> bytes:
    with _open_local(str(path)) as file:
        if (size := os.fstat(file.fileno()).st_size) > MOST_BYTES:
            raise Unreadable(f"absurdly large: {size:,} bytes")
        return file.read()


def _stamp(container: str) -> tuple[int, int]:
    """What changes when a local container is written anew: its time and its size."""
    if is_remote(container):
        return 0, 0
    try:
        found = Path(container).stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"no such file: {Path(container).name}") from None
    return found.st_mtime_ns, found.st_size


def open_file(path: str) -> BinaryIO:
    """A file here or on remote storage, to be read anywhere.

    Raises
    ------
    Unreadable : it is a device, a pipe or a socket, which a reader would wait for.
    OSError : it cannot be opened.
    """
    return open_remote(path) if is_remote(path) else _open_local(path)


def _open_local(path: str) -> BinaryIO:
    mode = os.stat(path).st_mode  # noqa: PTH116
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise Unreadable("not a regular file")
    return Path(path).open("rb")


class _Bytes(io.RawIOBase):
    """The file under a source: not to get its bytes is told from their being damaged, whatever the library between
    makes of an ``OSError`` (zipfile: no zip). Its position is its own: some drivers have one handle for all."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name, self._at = file, name, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        try:
            self._file.seek(self._at)
            content = self._file.read(len(into))
        except Exception as exc:  # drivers have errors of their own
            raise Unavailable(f"{self._name} could not be read: {reason_of(exc)}") from exc
        into[: len(content)] = content
        self._at += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == io.SEEK_CUR:
            offset, whence = self._at + offset, io.SEEK_SET
        self._at = self._file.seek(offset, whence)
        return self._at

    def close(self) -> None:
        self._file.close()
        super().close()


class _Container:
    """A container, opened and indexed when a member is asked for; one that is damaged is not tried again."""

    def __init__(self, path: str) -> None:
        self._path, self._name = path, path.rpartition("/")[2]
        self._lock = Lock()
        self._broken = ""
        self._source: Source | None = None

    def read(self, member: str) -> bytes | np.ndarray:
        with self._lock:
            if self._source is None:
                self._source = self._indexed()
            try:
                return self._source.read(member)
            except KeyError:
                raise FileNotFoundError(f"no such member of {self._name}") from None
            except Unavailable:
                self._source = None  # what it holds may be of no use any more
                raise
            except (Ig3dError, Unreadable):
                raise
            except MemoryError as exc:
                self._source = None
                raise _unread(exc, self._name) from exc
            except Exception as exc:
                raise Unreadable(f"damaged in {self._name}: {reason_of(exc)}") from exc

    def _indexed(self) -> Source:
        if self._broken:
            raise Unreadable(self._broken)
        module, _, attribute = SOURCES[f".{self._path.rpartition('.')[2].lower()}"].partition(":")
        kind: type[Source] = getattr(import_module(module), attribute)
        try:
            file = open_file(self._path)
        except FileNotFoundError:
            raise FileNotFoundError(f"no such file: {self._name}") from None
        except (Ig3dError, Unavailable):
            raise
        except Exception as exc:
            raise _unread(exc, self._name) from exc
        try:
            return kind(io.BufferedReader(_Bytes(file, self._name)))
        except (Ig3dError, Unavailable):
            raise
        except MemoryError as exc:
            raise _unread(exc, self._name) from exc
        except Exception as exc:
            self._broken = f"{self._name} is damaged: {reason_of(exc)}"
            raise Unreadable(self._broken) from exc


_OPENING = Lock()


@lru_cache(maxsize=KEPT_OPEN)
def _open(container: str, stamp: tuple[int, int]) -> _Container:
    return _Container(container)
