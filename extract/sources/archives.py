"""Tar and zip: members by name, found once, read in place; nothing is ever unpacked to disk."""

from __future__ import annotations

import posixpath
import tarfile
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from . import MOST_BYTES, Unreadable


class TarMembers:
    """A tar that is not compressed: every header is read once, then a member is one seek and one read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}
        try:
            for name, start, size in tar_members(file):
                self._places[name] = start, size
        except tarfile.ReadError:
            if not self._places:
                raise  # else what comes before the damage is good

    def read(self, member: str) -> bytes:
        start, size = self._places[member]
        _check_size(size)
        self._file.seek(start)
        content = self._file.read(size)
        if len(content) < size:
            raise Unreadable(f"cut short: {len(content)} of {size} bytes are there")
        return content


def tar_members(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and size of each file in a tar, in order; a link stands for the file that it names.

    Raises
    ------
    tarfile.ReadError : it is no tar, or, after all members before that place, it is damaged or cut short.
    """
    places: dict[str, tuple[int, int]] = {}
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (entry := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else an object is kept for each of a million
            name = entry.name.removeprefix("./")
            if entry.isreg() and not entry.issparse():
                places[name] = entry.offset_data, entry.size
            elif entry.islnk() or entry.issym():
                target = entry.linkname
                if entry.issym():
                    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
                if (place := places.get(target.removeprefix("./"))) is None:
                    continue
                places[name] = place
            else:
                continue
            yield name, *places[name]
        # the library takes a damaged header, and the end of a file that was cut between members, for the end
        file.seek(tar.offset)
        end = file.read(2 * tarfile.BLOCKSIZE)
        if end.strip(b"\0"):
            raise tarfile.ReadError(f"bad header after {len(places)} files")
        if len(end) < 2 * tarfile.BLOCKSIZE:
            raise tarfile.ReadError(
                f"cut short after {len(places)} files: its two closing blocks are not there"
            )


class ZipMembers:
    """A zip; its own directory is the index."""

    def __init__(self, file: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(file)

    def read(self, member: str) -> bytes:
        entry = self._zip.getinfo(member)
        if entry.flag_bits & 1:
            raise Unreadable("encrypted")
        _check_size(entry.file_size)
        return self._zip.read(entry)


def zip_members(file: BinaryIO) -> Iterator[tuple[str, int]]:
    """Name and size of each file in a zip, in its directory's order. Raises ``zipfile.BadZipFile`` for no zip."""
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                yield entry.filename, entry.file_size


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise Unreadable(f"absurdly large: {size:,} bytes")
