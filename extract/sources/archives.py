"""Tar and zip: members by name, indexed once and read by position; nothing is unpacked to disk."""

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
from .storage import MOST_BYTES, File, Unreadable

# Memory for the dictionary of an LZMA member; 7-Zip's largest setting needs less.
_LZMA_MEMORY = 1 << 28


class TarMembers:
    """A tar that is not compressed: all headers are read once, then a member is one read."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._spans: dict[str, tuple[int, int]] = {}
        try:
            for name, start, size in tar_members(file.stream()):
                self._spans[name] = start, size
        except tarfile.ReadError:
            if not self._spans:
                raise  # else the members before the damage are good

    def read(self, member: str) -> bytes:
        start, size = self._spans[member]
        _check_size(size)
        content = self._file.read_at(start, size)
        if len(content) < size:
            raise Unreadable(f"cut short: {len(content)} of {size} bytes are there")
        return content


def tar_members(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and size of each file in a tar, in order; a link stands for the file that it names.

    Raises
    ------
    tarfile.ReadError : it is no tar, or, after the members before the damage, it is damaged or cut short.
    """
    spans: dict[str, tuple[int, int]] = {}
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (entry := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else an object is kept for each of a million
            name = entry.name.removeprefix("./")
            if entry.isreg() and not entry.issparse():
                spans[name] = entry.offset_data, entry.size
            elif entry.islnk() or entry.issym():
                target = entry.linkname
                if entry.issym():
                    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
                if (span := spans.get(target.removeprefix("./"))) is None:
                    continue
                spans[name] = span
            else:
                continue
            yield name, *spans[name]
        # the library takes a damaged header, and the end of a file that was cut between members, for the end
        file.seek(tar.offset)
        end = file.read(2 * tarfile.BLOCKSIZE)
        if end.strip(b"\0"):
            raise tarfile.ReadError(f"bad header after {len(spans)} files")
        if len(end) < 2 * tarfile.BLOCKSIZE:
            raise tarfile.ReadError(
                f"cut short after {len(spans)} files: its two closing blocks are not there"
            )


class ZipMembers:
    """A zip; its own directory is the index."""

    def __init__(self, file: File) -> None:
        self._file = file
        with zipfile.ZipFile(file.stream()) as archive:
            self._entries = dict(
                _entries(archive)
            )  # the last of several with one name, as unpacking leaves it

    def read(self, member: str) -> bytes:
        entry = self._entries[member]
        if entry.flag_bits & 1:
            raise Unreadable("encrypted: the zip has a password; unpack it")
        _check_size(entry.file_size)
        _check_size(entry.compress_size)
        header = self._file.read_at(entry.header_offset, 30)
        if len(header) < 30 or not header.startswith(b"PK\3\4"):
            raise zipfile.BadZipFile("no header")
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        content = _inflate(self._file.read_at(start, entry.compress_size), entry)
        if len(content) != entry.file_size:
            raise zipfile.BadZipFile(f"{len(content):,} bytes, {entry.file_size:,} in the directory")
        if zlib.crc32(content) != entry.CRC:
            raise zipfile.BadZipFile("wrong checksum")
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


def _inflate(packed: bytes, entry: zipfile.ZipInfo) -> bytes:
    """Content of a member, at most one byte more than its directory states: a bomb is not inflated."""
    limit = entry.file_size + 1
    if entry.compress_type == zipfile.ZIP_STORED:
        return packed
    if entry.compress_type == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, limit)
    if entry.compress_type == zipfile.ZIP_BZIP2:
        return bz2.BZ2Decompressor().decompress(packed, limit)
    if entry.compress_type == zipfile.ZIP_LZMA:
        # version, length of the properties, properties: FORMAT_ALONE is properties, size, data
        length = int.from_bytes(packed[2:4], "little")
        size = 0xFFFF_FFFF_FFFF_FFFF if entry.flag_bits & 2 else entry.file_size
        alone = packed[4 : 4 + length] + size.to_bytes(8, "little") + packed[4 + length :]
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY).decompress(alone, limit)
    raise Unreadable(f"compressed by method {entry.compress_type}, which is not read; unpack the zip")


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise Unreadable(f"absurdly large: {size:,} bytes")
