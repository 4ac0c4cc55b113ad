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

import numpy as np

from ..image_formats import HEAD, non_image_kind
from .storage import MAX_BYTES, File, Unavailable, Unreadable

# Memory for the dictionary of an LZMA member; 7-Zip's largest setting needs less.
_LZMA_MEMORY = 1 << 28
_BLOCK = tarfile.BLOCKSIZE
# Errors of the decompressors on damaged content
_DAMAGE = (OSError, ValueError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile)


class TarMembers:
    """A tar that is not compressed: all headers are read once, then a member is one read.

    Attributes
    ----------
    damage : str
        Reason for which there may be more members than were found; empty in a sound tar.
    followed : bool
        Whether anything but padding follows its end, as where tars were joined.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._rows: dict[str, int] = {}
        self.damage = ""
        self.followed = False
        spans: list[tuple[int, int]] = []
        try:
            self._index(spans)
        except tarfile.ReadError as exc:
            if not self._rows:
                raise
            self.damage = str(exc)  # the members before the damage are good
        self._spans = np.array(spans, np.int64).reshape(-1, 2)

    def _index(self, spans: list[tuple[int, int]]) -> None:
        """Find first byte and size of each file; a link stands for the file that it names."""
        with tarfile.open(fileobj=self._file.stream(), mode="r:") as tar:
            while (entry := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else an object is kept for each of a million
                name = entry.name.removeprefix("./")
                if entry.isreg() and not entry.issparse():
                    self._rows[name] = len(spans)
                    spans.append((entry.offset_data, entry.size))
                elif entry.islnk() or entry.issym():
                    target = entry.linkname
                    if entry.issym():
                        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
                    if (row := self._rows.get(target.removeprefix("./"))) is not None:
                        self._rows[name] = row
            # the library takes a damaged header, and the end of a file that was cut between members, for the end
            end = self._file.read_at(tar.offset, 2 * _BLOCK)
            if end.strip(b"\0"):
                raise tarfile.ReadError(f"bad header after {len(self._rows)} files")
            if len(end) < 2 * _BLOCK:
                raise tarfile.ReadError(f"cut short after {len(self._rows)} files: no closing blocks")
            self.followed = self._goes_on(tar.offset + 2 * _BLOCK)

    def _goes_on(self, start: int) -> bool:
        while block := self._file.read_at(start, 1 << 20):
            if block.strip(b"\0"):
                return True
            start += len(block)
        return False

    def members(self) -> Iterator[tuple[str, int]]:
        """Name and size of each file, in order; of several with one name the last."""
        for name, row in self._rows.items():
            yield name, int(self._spans[row, 1])

    def head(self, member: str) -> bytes:
        """The first bytes of a member, by which its kind is recognised."""
        start, size = self._spans[self._rows[member]].tolist()
        return self._file.read_at(start, min(size, HEAD))

    def read(self, member: str) -> bytes:
        start, size = self._spans[self._rows[member]].tolist()
        _check_size(size)
        content = self._file.read_at(start, size)
        if len(content) < size:
            raise Unreadable(f"cut short: {len(content)} of {size} bytes are there")
        return content


class ZipMembers:
    """A zip, whose directory is the index."""

    def __init__(self, file: File) -> None:
        self._file = file
        with zipfile.ZipFile(file.stream()) as archive:
            self._list = [entry for entry in archive.infolist() if not _name(entry).endswith("/")]
        self._entries = {
            _name(entry): entry for entry in self._list
        }  # the last of a name, as unpacking leaves it

    def members(self) -> Iterator[tuple[str, int, str]]:
        """Name, size and kind of each file, in the order of the directory; several may have one name.

        Names are in POSIX form. The kind is empty for an image (:func:`~ig3d.extract.image_formats.non_image_kind`).
        """
        for entry in self._list:
            name = _name(entry)
            yield name, entry.file_size, non_image_kind(name.rpartition("/")[2], partial(self._head, entry))

    def _head(self, entry: zipfile.ZipInfo) -> bytes:
        if entry.flag_bits & 1:
            return b"encrypted"
        try:
            return _inflate(self._packed(entry, 4096), entry, HEAD)
        except Unavailable:
            raise
        except (*_DAMAGE, Unreadable):
            return b"damaged"

    def read(self, member: str) -> bytes:
        entry = self._entries[member]
        if entry.flag_bits & 1:
            raise Unreadable("encrypted: the zip has a password; unpack it")
        _check_size(max(entry.file_size, entry.compress_size))
        content = _inflate(self._packed(entry, entry.compress_size), entry, entry.file_size + 1)
        if len(content) != entry.file_size:
            raise zipfile.BadZipFile(f"{len(content):,} bytes, {entry.file_size:,} in the directory")
        if zlib.crc32(content) != entry.CRC:
            raise zipfile.BadZipFile("wrong checksum")
        return content

    def _packed(self, entry: zipfile.ZipInfo, most: int) -> bytes:
        """The first bytes of a member as they are in the file, after its local header of varying length."""
        header = self._file.read_at(entry.header_offset, 30)
        if len(header) < 30 or not header.startswith(b"PK\3\4"):
            raise zipfile.BadZipFile("no header")
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        return self._file.read_at(start, min(entry.compress_size, most))


def _name(entry: zipfile.ZipInfo) -> str:
    """Name in POSIX form."""
    return entry.filename.replace("\\", "/").removeprefix("./")


def _inflate(packed: bytes, entry: zipfile.ZipInfo, limit: int) -> bytes:
    """At most ``limit`` bytes of a member's content: a bomb is not inflated."""
    if entry.compress_type == zipfile.ZIP_STORED:
        return packed[:limit]
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
    if size > MAX_BYTES:
        raise Unreadable(f"absurdly large: {size:,} bytes")
