"""Images as numbers in a CSV, FER2013's form: a column ``pixels`` with the grey values of a square, a member is a row.

Rows are numbered from 0, the header is none of them: ``fer2013.csv!17`` is the image with the id fer0000017.
"""

from __future__ import annotations

import csv
import math
from typing import BinaryIO

import numpy as np

from ...errors import some
from . import Unreadable

COLUMN = "pixels"
_BLOCK = 1 << 24


class PixelRows:
    """The first byte of each line is found once; then a member is one seek, one line and its numbers."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        header = file.readline().decode("utf-8-sig")
        names = [name.strip().lower() for name in next(csv.reader([header]), [])]
        if COLUMN not in names:
            raise Unreadable(f"expected a column {COLUMN}, got {some(names) or 'nothing'}")
        self._column = names.index(COLUMN)
        self._starts = _line_starts(file)

    def read(self, member: str) -> np.ndarray:
        """(side, side) uint8, grey."""
        row = int(member) if member.isdecimal() else -1
        if not 0 <= row < len(self._starts) - 1:
            raise KeyError(member)
        self._file.seek(int(self._starts[row]))
        line = self._file.read(int(self._starts[row + 1] - self._starts[row])).decode()
        cells = next(csv.reader([line]), [])
        if len(cells) <= self._column:
            raise Unreadable(f"expected a cell {COLUMN}, got {len(cells)} cells")
        values = np.array(cells[self._column].split(), np.float64)
        side = math.isqrt(len(values))
        if not side or side * side != len(values):
            raise Unreadable(f"expected the grey values of a square, got {len(values)} values")
        if not ((values >= 0) & (values <= 255)).all():
            raise Unreadable("expected grey values from 0 to 255, got others")
        return values.astype(np.uint8).reshape(side, side)


def _line_starts(file: BinaryIO) -> np.ndarray:
    """(rows + 1,) int64: the first byte of each line from where the file stands, and its end; empty lines at the end
    are no rows."""
    starts, ends = [file.tell()], []
    place = starts[0]
    while block := file.read(_BLOCK):
        ends.append(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + place + 1)
        place += len(block)
    found = np.concatenate([starts, *ends, [place]]).astype(np.int64)
    found = np.unique(found)
    while len(found) > 1 and found[-1] - found[-2] <= 2:  # nothing but a line's end
        found = found[:-1]
    return found
