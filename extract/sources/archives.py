"""Tar and zip: members by name, found once, read in place; nothing is ever unpacked to disk."""

from __future__ import annotations

import bz2
import lzma
import posixpath
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from ..kinds import HEAD, other_kind
from . import MOST_BYTES, Unreadable

# Memory for the dictionary of an LZMA member; 7-Zip's largest setting needs less.
_LZMA_MEMORY = 1 << 28


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
        self._file = file
        self._zip = zipfile.ZipFile(file)
        self._entries = dict(_entries(self._zip))  # the last of several with one name, as unpacking leaves it

    def read(self, member: str) -> bytes:
        entry = self._entries[member]
        if entry.flag_bits & 1:
            raise Unreadable("encrypted: the zip has a password; unpack it")
        _check_size(entry.file_size)
        if entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            with self._zip.open(entry) as packed:
                content = packed.read(entry.file_size + 1)  # without a limit all of a bomb would be inflated
        else:
            content = _inflate(self._file, entry)
        if len(content) != entry.file_size:
            raise Unreadable(f"{len(content):,} bytes, where the directory has {entry.file_size:,}")
        return content


def zip_members(file: BinaryIO) -> Iterator[tuple[str, int, str]]:
    """Name, size and kind of each file in a zip, in the order of its directory.

    Names are in POSIX form, as :class:`ZipMembers` takes them. The kind is that of
    :func:`~ig3d.extract.kinds.other_kind`: empty for an image.

    Raises
    ------
    zipfile.BadZipFile : it is no zip.
    """
    with zipfile.ZipFile(file) as archive:
        for name, entry in _entries(archive):
            yield name, entry.file_size, other_kind(name.rpartition("/")[2], partial(_head, archive, entry))


def _entries(archive: zipfile.ZipFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Files of a zip with their names in POSIX form."""
    for entry in archive.infolist():
        name = entry.filename.replace("\\", "/").removeprefix("./")
        if not name.endswith("/"):
            yield name, entry


def _head(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.flag_bits & 1:
        return b"encrypted"
    try:
        with archive.open(entry) as packed:
            return packed.read(HEAD)
    except Exception:
        return b"damaged"


def _inflate(file: BinaryIO, entry: zipfile.ZipInfo) -> bytes:
    """Content of a member that is compressed with bzip2 or LZMA, of at most the size that its directory gives.

    zipfile has no limit on what one read of these inflates to.
    """
    file.seek(entry.header_offset)
    header = file.read(30)
    file.seek(entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30])))
    packed = file.read(min(entry.compress_size, MOST_BYTES))
    if entry.compress_type == zipfile.ZIP_BZIP2:
        content = bz2.BZ2Decompressor().decompress(packed, entry.file_size + 1)
    elif entry.compress_type == zipfile.ZIP_LZMA:
        # version, length of the properties, properties: FORMAT_ALONE is properties, size, data
        length = int.from_bytes(packed[2:4], "little")
        size = 0xFFFF_FFFF_FFFF_FFFF if entry.flag_bits & 2 else entry.file_size
        alone = packed[4 : 4 + length] + size.to_bytes(8, "little") + packed[4 + length :]
        stream = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY)
        content = stream.decompress(alone, entry.file_size + 1)
    else:
        raise Unreadable(f"compressed by method {entry.compress_type}, which is not read; unpack the zip")
    if zlib.crc32(content) != entry.CRC:
        raise Unreadable("damaged: wrong checksum")
    return content


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise Unreadable(f"absurdly large: {size:,} bytes")
