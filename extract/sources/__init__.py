"""Reading images from files, archives and videos, local or on remote storage.

A *location* is one string: the dataset's root, ``/``, and the sample's path. A path of the form ``ARCHIVE!MEMBER``
(``train-000.tar!0001.jpg``, ``images.zip!a/b.png``, ``data.parquet!17``, ``fer2013.csv!17``) names an image inside an
archive, whose kind is that of its suffix; ``clip.mp4#000123`` is a frame of a video, numbered from 0; a root with a
scheme (``s3://bucket/faces``) is read by fsspec. An archive is opened and indexed once in each process and stays open;
:func:`read_content` reads files and members alike.

A *source* is a class that reads one kind of archive::

    class Source(Protocol):
        def __init__(self, file: File) -> None: ...                      # index it
        def read(self, member: str) -> bytes | np.ndarray: ...           # an encoded image, or pixels

Pixels are uint8, (H, W) grey or (H, W, 3) RGB. ``read`` must be thread-safe. It raises ``KeyError`` for a member that
does not exist, and :class:`Unreadable` or any other exception for a damaged one: libraries raise errors of many types,
which this module turns into :class:`Unreadable`. After :class:`Unavailable` (the system or the storage failed), the
archive is opened again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Protocol

import numpy as np

from ...errors import Ig3dError, reason_of
from ...features.image_names import VIDEO_SUFFIXES
from .remote import is_remote
from .storage import File, Unavailable, Unreadable, read_file, stamp, unread

__all__ = [
    "FRAMES_PER_TASK",
    "Unavailable",
    "Unreadable",
    "has_size",
    "is_frame",
    "open_archive",
    "open_file",
    "parts_of",
    "read_content",
]

# Frames of a task of a video. Decoding begins at the key frame before the first one, often up to 250 frames earlier.
FRAMES_PER_TASK = 1024

# suffix of an archive -> "module:Class", imported on use
SOURCES: Mapping[str, str] = {
    ".csv": "ig3d.extract.sources.pixels:PixelRows",
    ".parquet": "ig3d.extract.sources.parquet:ParquetRows",
    ".tar": "ig3d.extract.sources.archives:TarMembers",
    ".zip": "ig3d.extract.sources.archives:ZipMembers",
    **dict.fromkeys(VIDEO_SUFFIXES, "ig3d.extract.sources.video:VideoFrames"),
}
KEPT_OPEN = 16  # archives in a process, each with its index
_ARCHIVES = "|".join(re.escape(suffix) for suffix in SOURCES if suffix not in VIDEO_SUFFIXES)
_INSIDE = re.compile(rf"(.+?(?:{_ARCHIVES}))!(.+)", re.DOTALL | re.IGNORECASE)
_FRAME = re.compile(rf"(.+(?:{'|'.join(map(re.escape, VIDEO_SUFFIXES))}))#(\d+)", re.DOTALL | re.IGNORECASE)


class Source(Protocol):
    """One kind of archive."""

    def __init__(self, file: File) -> None: ...

    def read(self, member: str) -> bytes | np.ndarray:
        """An encoded image, or pixels: uint8 (H, W) or (H, W, 3) RGB."""
        ...


def parts_of(location: str) -> tuple[str, str]:
    """Archive and member of a location; the member is empty if the location is a file.

    >>> parts_of("faces/train-000.tar!0001.jpg")
    ('faces/train-000.tar', '0001.jpg')
    >>> parts_of("faces/wow!.jpg")
    ('faces/wow!.jpg', '')
    >>> parts_of("videos/S1/clip.mp4#000123")
    ('videos/S1/clip.mp4', '000123')
    """
    inside = _INSIDE.fullmatch(location) if "!" in location else None
    if inside is None and "#" in location:
        inside = _FRAME.fullmatch(location)
    return (inside[1], inside[2]) if inside else (location, "")


def is_frame(path: str) -> bool:
    """Whether the path of a sample names a frame of a video.

    >>> is_frame("videos/clip.mp4#000123"), is_frame("a#000123.jpg")
    (True, False)
    """
    return _FRAME.fullmatch(path) is not None


def has_size(location: str, content: bytes, size: int) -> bool:
    """Whether the size in bytes is the listed one: that of the file or member, or of the archive of a member."""
    if len(content) == size:
        return True
    archive, member = parts_of(location)
    return bool(member) and (is_remote(archive) or stamp(archive)[1] == size)


def read_content(location: str | Path) -> bytes | np.ndarray:
    """Content of an image file, or the pixels of a frame or of an image that is stored as an array.

    Parameters
    ----------
    location : str or Path
        Root, ``/`` and path of a sample.

    Returns
    -------
    bytes, or a uint8 array (H, W) or (H, W, 3) RGB

    Raises
    ------
    FileNotFoundError : the file, archive or member does not exist; the message names it.
    Unreadable : the file is damaged; the message is the reason.
    Unavailable : the machine, the network or the storage failed.
    MissingExtra : a package that the archive or the storage needs is not installed.
    """
    path, member = parts_of(str(location))
    try:
        if not member:
            return read_file(path)
        return _archive(path).read(member)
    except (Ig3dError, Unreadable):
        raise
    except FileNotFoundError as exc:
        raise FileNotFoundError(str(exc) if member else "no such file") from exc
    except Exception as exc:  # drivers raise errors of many kinds
        raise unread(exc) from exc


def open_archive(path: str) -> Any:
    """Source of an archive: an instance of a class in :data:`SOURCES`, created once in each process.

    Raises
    ------
    FileNotFoundError : the archive does not exist.
    Unreadable : the archive is damaged, or cannot be opened.
    MissingExtra : a package that the archive or the storage needs is not installed.
    """
    try:
        archive = _archive(path)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise unread(exc, path.rpartition("/")[2]) from exc
    return archive.source()


def open_file(path: str) -> BinaryIO:
    """Stream of a local or remote file.

    Raises
    ------
    FileNotFoundError : the file does not exist.
    Unreadable : the file cannot be opened.
    """
    return File(path).stream()


class _Archive:
    """An archive, which is opened and indexed when its first member is read; a damaged one is opened only once."""

    def __init__(self, path: str) -> None:
        self._path, self._name = path, path.rpartition("/")[2]
        self._indexing = Lock()
        self._damage = ""
        self._source: Source | None = None

    def read(self, member: str) -> bytes | np.ndarray:
        source = self.source()
        try:
            return source.read(member)
        except KeyError:
            raise FileNotFoundError(f"no such member of {self._name}") from None
        except Unavailable:
            self._source = None  # its state may be wrong; the next call opens the archive again
            raise
        except (Ig3dError, Unreadable):
            raise
        except MemoryError as exc:
            self._source = None
            raise unread(exc, self._name) from exc
        except Exception as exc:
            raise Unreadable(f"damaged in {self._name}: {reason_of(exc)}") from exc

    def source(self) -> Source:
        with self._indexing:
            if self._damage:
                raise Unreadable(self._damage)
            if self._source is None:
                self._source = self._index()
            return self._source

    def _index(self) -> Source:
        module, _, attribute = SOURCES[f".{self._path.rpartition('.')[2].lower()}"].partition(":")
        kind: type[Source] = getattr(import_module(module), attribute)
        try:
            file = File(self._path)
        except FileNotFoundError:
            raise FileNotFoundError(f"no such file: {self._name}") from None
        try:
            return kind(file)
        except (Ig3dError, Unavailable):
            raise
        except MemoryError as exc:
            raise unread(exc, self._name) from exc
        except Unreadable as exc:
            reason = str(exc)
            self._damage = reason if reason.startswith(self._name) else f"{self._name}: {reason}"
            raise Unreadable(self._damage) from exc
        except Exception as exc:
            self._damage = f"{self._name} is damaged: {reason_of(exc)}"
            raise Unreadable(self._damage) from exc


_OPENING = Lock()


def _archive(path: str) -> _Archive:
    version = stamp(path)
    with _OPENING:  # otherwise several threads would index it
        return _open(path, version)


@lru_cache(maxsize=KEPT_OPEN)
def _open(path: str, version: tuple[int, int]) -> _Archive:
    return _Archive(path)
