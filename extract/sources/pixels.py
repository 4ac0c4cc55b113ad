"""Images as numbers in a CSV, FER2013's form: a column ``pixels`` with the grey values of a square, a member is a row.

Rows are numbered from 0 without the header and without blank rows, by :class:`PixelRows` alone, for listing
and for reading. ``fer2013.csv!17`` is the image with the id fer0000017.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from ...errors import listed, plural
from .storage import MAX_BYTES, File, Unreadable

COLUMN = "pixels"
_DELIMITERS = ",;\t"
# A row of nothing else is blank.
_BLANK = b" \t\r\n\f\v,;\"'\0\xef\xbb\xbf"


def _records(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """First byte and content of each record of a CSV, the header first; blank ones are left out.

    A record is a line, or several where a quoted cell goes on. Lines end with LF, CRLF or CR.

    Raises
    ------
    ValueError : a quote is not closed, or a line is absurdly long.
    """
    file.seek(0)
    start, parts, quoted = 0, list[bytes](), False
    while line := file.readline(MAX_BYTES):
        if len(line) == MAX_BYTES:
            raise ValueError(f"a line of more than {MAX_BYTES:,} bytes")
        for part in line.splitlines(keepends=True):
            parts.append(part)
            quoted ^= part.count(b'"') % 2 == 1
            if quoted:
                continue
            record = parts[0] if len(parts) == 1 else b"".join(parts)
            if record.strip(_BLANK):
                yield start, record
            start, parts = start + len(record), []
    if quoted:
        raise ValueError(f"a quote that is not closed, in the row that begins at byte {start}")


def _cells(record: bytes, delimiter: str) -> list[str]:
    """The cells of a record, stripped."""
    text = record.decode("utf-8-sig", errors="replace").strip("\r\n")
    if '"' not in text:  # csv refuses cells of more than 128 KiB
        return [cell.strip() for cell in text.split(delimiter)]
    return [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter, skipinitialspace=True))]


class PixelRows:
    """The first byte of each record is found once; then a member is one read and its numbers.

    Attributes
    ----------
    names : list of str
        Columns of the table, in lower case.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        rows = _records(file.stream())
        _, first = next(rows, (0, b""))
        text = first.decode("utf-8-sig", errors="replace")
        self._delimiter = max(_DELIMITERS, key=text.count)
        self.names = [name.lower() for name in _cells(first, self._delimiter)]
        self._spans = np.array([(start, len(record)) for start, record in rows], np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._spans)

    def cells(self, row: int) -> list[str]:
        """The cells of a row, stripped."""
        return _cells(self._file.read_at(*self._spans[row].tolist()), self._delimiter)

    def read(self, member: str) -> np.ndarray:
        """(side, side) uint8, grey."""
        if COLUMN not in self.names:
            raise Unreadable(f"no column {COLUMN} among {listed(self.names)}")
        row = int(member) if member.isdecimal() else -1
        if not 0 <= row < len(self):
            raise KeyError(member)
        cells, column = self.cells(row), self.names.index(COLUMN)
        if len(cells) <= column:
            raise Unreadable(f"the row has no cell {COLUMN}, only {plural(len(cells), 'cell')}")
        values = np.array(cells[column].split(), np.float64)
        side = math.isqrt(len(values))
        if not side or side * side != len(values):
            raise Unreadable(f"{len(values)} grey values do not make a square image")
        if not ((values >= 0) & (values <= 255)).all():
            raise Unreadable("grey values lie outside 0 to 255")
        return values.astype(np.uint8).reshape(side, side)
