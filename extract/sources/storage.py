"""Files here and on remote storage, read by position: several threads read one file at once.

A file that cannot be read is :class:`Unreadable` where that is the file's fault, and :class:`Unavailable` where the
machine, the network or the storage did not give its bytes.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from ...errors import Ig3dError
from .remote import is_remote, open_remote, read_remote

# A larger file or member is no image: it would only fill the memory.
MAX_BYTES = 1 << 29
# Error numbers that concern the path; all others concern the machine or the storage at that moment.
_OF_THE_PATH = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


class Unreadable(Exception):
    """An image that cannot be read or decoded; the message is the reason."""


class Unavailable(Unreadable):
    """An image that could not be read for a reason outside of its file: it may be read another time."""


class File:
    """A file that is read by position.

    Parameters
    ----------
    path : path, or address with a scheme

    Attributes
    ----------
    name : str
        Its last part; begins messages.
    size : int
        Bytes.

    Raises
    ------
    FileNotFoundError : there is none.
    Unreadable : it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.name = path.rpartition("/")[2]
        self._lock = Lock()
        try:
            self._file = open_remote(path) if is_remote(path) else _open_local(path)
            self._parallel = hasattr(os, "pread") and not is_remote(path)
            self.size = self._file.seek(0, io.SEEK_END)
        except (Ig3dError, Unreadable, FileNotFoundError):
            raise
        except Exception as exc:  # drivers raise errors of many kinds
            raise unread(exc, self.name) from exc

    def read_at(self, start: int, length: int) -> bytes:
        """Bytes from ``start``; fewer than ``length`` only at the end of the file.

        Raises
        ------
        Unavailable : they did not come.
        """
        length = min(length, self.size - start)  # a damaged index may point anywhere
        if start < 0 or length <= 0:
            return b""
        try:
            if self._parallel:
                return _pread(self._file.fileno(), start, length)
            with self._lock:
                self._file.seek(start)
                return self._file.read(length)
        except Exception as exc:  # drivers raise errors of many kinds
            raise Unavailable(f"{self.name} could not be read: {reason_of(exc)}") from exc

    def stream(self) -> BinaryIO:
        """The file for a library that reads on from a position; each stream has another."""
        return io.BufferedReader(_Stream(self))

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def _pread(descriptor: int, start: int, length: int) -> bytes:
    content = os.pread(descriptor, length, start)
    while len(content) < length:  # some storage gives less at a time
        more = os.pread(descriptor, length - len(content), start + len(content))
        if not more:
            break
        content += more
    return content


class _Stream(io.RawIOBase):
    """A position in a file. Libraries take an ``OSError`` for damage (zipfile: no zip), not :class:`Unavailable`."""

    def __init__(self, file: File) -> None:
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        content = self._file.read_at(self._position, len(into))
        into[: len(content)] = content
        self._position += len(content)
        return len(content)

    def seek(self, offset: int, origin: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[origin]
        if start + offset < 0:
            raise ValueError(f"a position of {start + offset}")
        self._position = start + offset
        return self._position


def read_file(path: str) -> bytes:
    """The bytes of one file.

    Raises
    ------
    FileNotFoundError : there is none.
    Unreadable : it is absurdly large, or a device, a pipe or a socket.
    OSError : it cannot be read.
    """
    if is_remote(path):
        return read_remote(path)
    with _open_local(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
            raise Unreadable(f"absurdly large: {size:,} bytes")
        return file.read()


def stamp(path: str) -> tuple[int, int]:
    """Time and size of a local file, by which a changed one is recognised; (0, 0) of a remote one.

    Raises
    ------
    FileNotFoundError : there is none.
    """
    if is_remote(path):
        return 0, 0
    try:
        about = Path(path).stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"no such file: {Path(path).name}") from None
    return about.st_mtime_ns, about.st_size


def unread(exc: Exception, name: str = "") -> Unreadable:
    """Error for a file that could not be opened: its own fault, or that of the moment."""
    if (
        isinstance(exc, IsADirectoryError | NotADirectoryError)  # drivers raise these without a number
        or getattr(exc, "errno", None) in _OF_THE_PATH
        or not isinstance(exc, OSError | MemoryError)
    ):
        return Unreadable(f"{name} cannot be opened: {reason_of(exc)}".lstrip())
    return Unavailable(f"{name} could not be read: {reason_of(exc)}".lstrip())


def reason_of(exc: Exception) -> str:
    """Short reason from an error of the system, a storage driver or a library."""
    if isinstance(exc, MemoryError):
        return "out of memory"
    return getattr(exc, "strerror", None) or " ".join(str(exc).split()) or type(exc).__name__


def _open_local(path: str) -> BinaryIO:
    mode = os.stat(path).st_mode  # noqa: PTH116
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise Unreadable("not a regular file")
    return Path(path).open("rb")
