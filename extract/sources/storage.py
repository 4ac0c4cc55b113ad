"""Local and remote files that are read by position, also by several threads at once.

Errors are :class:`Unreadable` if the file is the cause, and :class:`Unavailable` if the machine, the network or the
storage is.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from ...errors import Ig3dError, reason_of
from .remote import is_remote, open_remote, read_remote

# Larger files and members are refused: they are no images and would fill the memory.
MAX_BYTES = 1 << 29
# Error numbers that concern the path; all others concern the machine or the storage at that moment.
_OF_THE_PATH = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


class Unreadable(Exception):
    """An image that cannot be read or decoded; the message is the reason."""


class Unavailable(Unreadable):
    """An image that could not be read for a reason outside of its file; another attempt may succeed."""


class File:
    """A file that is read by position.

    Parameters
    ----------
    path : str
        Path, or address with a scheme.

    Attributes
    ----------
    name : str
        Last part of the path; messages begin with it.
    size : int
        Size in bytes.

    Raises
    ------
    FileNotFoundError : the file does not exist.
    Unreadable : the file cannot be opened.
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
        Unavailable : the bytes could not be read.
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
        """A stream with its own position, for libraries that read files."""
        return io.BufferedReader(_Stream(self))

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def _pread(descriptor: int, start: int, length: int) -> bytes:
    content = os.pread(descriptor, length, start)
    while len(content) < length:  # a call may return fewer bytes
        more = os.pread(descriptor, length - len(content), start + len(content))
        if not more:
            break
        content += more
    return content


class _Stream(io.RawIOBase):
    """Stream of a :class:`File`. Its errors are not ``OSError``, which libraries such as zipfile take for damage."""

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
    """Content of a file.

    Raises
    ------
    FileNotFoundError : the file does not exist.
    Unreadable : the file is larger than :data:`MAX_BYTES`, or is a device, a pipe or a socket.
    OSError : the file cannot be read.
    """
    if is_remote(path):
        return read_remote(path)
    with _open_local(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
            raise Unreadable(f"absurdly large: {size:,} bytes")
        return file.read()


def stamp(path: str) -> tuple[int, int]:
    """Time of change (ns) and size (bytes) of a local file, which show whether it has changed; (0, 0) if remote.

    Raises
    ------
    FileNotFoundError : the file does not exist.
    """
    if is_remote(path):
        return 0, 0
    try:
        about = Path(path).stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"no such file: {Path(path).name}") from None
    return about.st_mtime_ns, about.st_size


def unread(exc: Exception, name: str = "") -> Unreadable:
    """Unreadable, or Unavailable if the cause of an error is not the file."""
    if (
        isinstance(exc, IsADirectoryError | NotADirectoryError)  # drivers raise these without a number
        or getattr(exc, "errno", None) in _OF_THE_PATH
        or not isinstance(exc, OSError | MemoryError)
    ):
        return Unreadable(f"{name} cannot be opened: {reason_of(exc)}".lstrip())
    return Unavailable(f"{name} could not be read: {reason_of(exc)}".lstrip())


def _open_local(path: str) -> BinaryIO:
    mode = os.stat(path).st_mode  # noqa: PTH116
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise Unreadable("not a regular file")
    return Path(path).open("rb")
