"""Read tables of users: CSV, TSV (also gzipped) and Parquet, for all commands.

Cells of text tables remain text, so that ``0001`` remains an id. :mod:`.table_columns` finds columns and converts
cells.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import Ig3dError, PredictionsError, listed, plural, require, shorten

if TYPE_CHECKING:
    import pandas as pd

TEXT_SUFFIXES = (".csv", ".tsv")
PARQUET_SUFFIXES = (".parquet", ".pq")
# Largest size of a table after decompression.
MAX_BYTES = 4 << 30
_SEPARATORS = (",", ";", "\t", "|")
_SEPARATOR_NAMES = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save it as CSV",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUM": "a NumPy file; name it .npy",
    b"SQLi": "a database; save the table as CSV",
    b"%PDF": "a PDF document",
}
_ROWS_AT_ONCE = 4096
_DECIMAL_COMMA = r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?"
_ID_LIKE = re.compile(r"id|path|file|image|img|name", re.IGNORECASE)
_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def is_table(path: Path) -> bool:
    """Whether a file name has the suffix of a table: ``.csv``, ``.tsv`` or ``.parquet``, also with ``.gz``."""
    name = path.name.lower().removesuffix(".gz")
    return name.endswith((*TEXT_SUFFIXES, *PARQUET_SUFFIXES))


def read_table(
    path: str | Path,
    *,
    error: type[Ig3dError] = PredictionsError,
    numeric: Callable[[str], bool] = lambda name: False,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read a table with a header line.

    Text tables may be separated by commas, semicolons, tabs or vertical bars, be gzipped, start with a byte order
    mark, be UTF-8, UTF-16 or Latin-1, and have any line ends. Empty rows, and comment lines (``#``) above the header,
    are skipped. If the header is one cell shorter than the rows, the first column is an index without a name.

    Parameters
    ----------
    path : file, or a pipe
    error : class of the exception if the table cannot be read
    numeric : function ``(name of a column) -> bool``, optional
        Columns that are read as float64 (NaN for cells that are not numbers), which saves memory.

    Returns
    -------
    table : pandas.DataFrame
        Text without surrounding blanks for CSV and TSV; the stored values for Parquet. A column without a name gets
        the name ``Unnamed: 0``, with its position.
    notes : tuple of str
        Assumptions about encoding and separator, for the user.

    Raises
    ------
    Ig3dError : of class ``error``: the table cannot be read, has no rows, rows of different lengths, or repeated names
        of columns.
    MissingExtra : pyarrow, which Parquet needs, is not installed.
    """
    source = Path(path)
    try:
        raw, notes = _read_bytes(source, error), tuple[str, ...]()
        if source.suffix.lower() in PARQUET_SUFFIXES or raw.startswith(_PARQUET):
            table = _from_parquet(source, raw, error)
        else:
            table, notes = _from_text(source, raw, error, numeric)
    except Ig3dError:
        raise
    except Exception as exc:  # csv, pandas, gzip, zlib, codecs and pyarrow have no common base
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise error(
            f"{path}: cannot be read as a table: {shorten(reason, 200)}; save it as CSV with a header line"
        ) from exc
    if not len(table):
        problem = "has no rows below the header" if raw.strip() else "is empty"
        raise error(f"{path}: the table {problem}; save it as CSV with a header line and one row per sample")
    return table, notes


def read_text(path: str | Path, *, error: type[Ig3dError] = PredictionsError, nul: bool = False) -> str:
    """Text of a list, such as one id per line, in the encodings of :func:`read_table`.

    ``nul`` accepts NUL bytes: a damaged line in a long list of a dataset is then a file that does not exist.

    Raises
    ------
    Ig3dError : of class ``error``: the file cannot be read, or is not text.
    """
    source = Path(path)
    try:
        text = _decode(source, _read_bytes(source, error), error)[0]
        return text if nul else _check_nul(source, text, error)
    except OSError as exc:
        raise error(f"{path}: cannot be read: {exc.strerror or exc}; check the path") from exc


def _read_bytes(source: Path, error: type[Ig3dError]) -> bytes:
    """Decompressed content of a regular file or a pipe; raises an error for folders and devices."""
    if source.is_dir():
        raise error(f"{source}: is a folder; give the path of a table")
    # Without O_NONBLOCK, opening a pipe without a writer would hang.
    handle = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise error(f"{source}: is a device or another special file; give the path of a table")
        os.set_blocking(handle, True)
        raw = file.read(MAX_BYTES + 1)
    if raw.startswith(_GZIP):
        with gzip.open(io.BytesIO(raw)) as unpacked:
            raw = unpacked.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise error(f"{source}: the table exceeds {MAX_BYTES >> 30} GiB; split it or remove columns")
    return raw


def _from_parquet(source: Path, raw: bytes, error: type[Ig3dError]) -> pd.DataFrame:
    """Table of a Parquet file, with the index of a data frame as a column."""
    require("pyarrow", wanted_by=str(source))
    parquet = require("pyarrow.parquet", wanted_by=str(source))
    table: pd.DataFrame = parquet.read_table(io.BytesIO(raw), use_threads=False).to_pandas(
        ignore_metadata=True
    )
    unnamed = re.compile(r"__index_level_(\d+)__")
    table.columns = [unnamed.sub(r"Unnamed: \1", str(name).strip()) for name in table.columns]
    _check_names(source, list(table.columns), error)
    return table


def _from_text(
    source: Path, raw: bytes, error: type[Ig3dError], numeric: Callable[[str], bool]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    text, notes = _decode(source, raw, error)
    _check_nul(source, text, error)
    lines = text.splitlines()[:20]
    skipped = 0
    while skipped < len(lines) and (not lines[skipped].strip() or _is_comment(lines[skipped:])):
        skipped += 1
    separator = _separator(lines[skipped:])
    stream = io.StringIO(text, newline="")
    for _ in range(skipped):
        stream.readline()
    reader = csv.reader(stream, delimiter=separator, skipinitialspace=True)
    try:
        header = [" ".join(cell.split()) for cell in next(reader, [])]
        rows = (row for row in reader if any(map(str.strip, row)))  # without empty rows
        first = next(rows, [])
        names = _column_names(header, first)
        _check_names(source, names, error)
        width, line = len(names), lambda: reader.line_num + skipped
        checked = _checked_rows(source, chain([first] if first else [], rows), width, line, error)
        table = _from_rows(checked, names, separator, numeric)
    except csv.Error as exc:
        raise error(f"{source}: line {reader.line_num + skipped}: {exc}") from exc
    if separator != ",":
        notes = (*notes, f"{source.name}: read as separated by {_SEPARATOR_NAMES[separator]}")
    return table, notes


def _decode(source: Path, raw: bytes, error: type[Ig3dError]) -> tuple[str, tuple[str, ...]]:
    """Text of a table: by its byte order mark, else UTF-8, UTF-16 without a mark, or Latin-1 with a note."""
    for start, name in _OTHER_FORMATS.items():
        if raw.startswith(start):
            raise error(f"{source}: is {name}; save the table as CSV or Parquet")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if raw.startswith(mark)), None)
    if encoding is None and (zeros := np.frombuffer(raw[:4096], np.uint8) == 0).any():
        # Every other byte of UTF-16 text in a Western script is zero.
        if zeros[1::2].mean() > 0.4 and zeros[::2].mean() < 0.1:
            encoding = "utf-16-le"
        elif zeros[::2].mean() > 0.4 and zeros[1::2].mean() < 0.1:
            encoding = "utf-16-be"
    notes: tuple[str, ...] = ()
    try:
        text = raw.decode(encoding or "utf-8")
    except UnicodeDecodeError as exc:
        if encoding is not None:
            raise error(
                f"{source}: is marked as {encoding.upper()}, but cannot be decoded ({exc.reason}); save it as UTF-8"
            ) from exc
        text = raw.decode("cp1252", errors="replace") if b"\x81" not in raw else raw.decode("latin-1")
        notes = (
            f"WARNING {source.name}: read as Latin-1, because it is not UTF-8; check names with accents",
        )
    if text.lstrip()[:1] in ("[", "{"):
        raise error(f"{source}: is JSON; save the table as CSV")
    return text, notes


def _check_nul(source: Path, text: str, error: type[Ig3dError]) -> str:
    """The text; raises an error if it has a NUL byte."""
    if (at := text.find("\x00")) >= 0:
        raise error(
            f"{source}: line {text.count(chr(10), 0, at) + 1} has a NUL byte; the file is damaged or not a table: "
            "save it again as CSV"
        )
    return text


def _is_comment(lines: list[str]) -> bool:
    """Whether the first line is not the header: ``sep=;`` of Excel, or a comment (#) of fewer cells than the table."""
    if lines[0].lower().startswith("sep="):
        return True
    after = next((line for line in lines[1:] if line.strip() and not line.lstrip().startswith("#")), "")
    return lines[0].lstrip().startswith("#") and _width([lines[0]]) < _width([after])


def _width(lines: list[str]) -> int:
    """Largest number of cells of the first line, over all separators."""
    return max(len(next(csv.reader(lines[:1], delimiter=mark), [])) for mark in _SEPARATORS)


def _separator(lines: list[str]) -> str:
    """The separator that gives the widest header; on ties, the most rows of the same width."""

    def fit(mark: str) -> tuple[int, int]:
        try:
            rows = [row for row in csv.reader(lines, delimiter=mark, skipinitialspace=True) if row]
        except csv.Error:
            return 0, 0
        width = len(rows[0]) if rows else 0
        return width, sum(len(row) == width for row in rows)

    return max(_SEPARATORS, key=fit)


def _column_names(header: list[str], first: list[str]) -> list[str]:
    """Names of the columns, with one for an index column without a name if the first row has one cell more."""
    names = list(header)
    if len(first) == len(names) + 1:
        if not first[-1]:
            names.append("")
        elif first[0] in ("0", "1") or not _ID_LIKE.search(names[0]):  # R writes no name for the row names
            names.insert(0, "")
    return [name or f"Unnamed: {position}" for position, name in enumerate(names)]


def _checked_rows(
    source: Path,
    rows: Iterable[list[str]],
    width: int,
    line: Callable[[], int],
    error: type[Ig3dError],
) -> Iterator[list[str]]:
    """Rows of ``width`` cells; further empty cells are removed. Raises an error for other rows, with their line."""
    for row in rows:
        if len(row) < width or any(row[width:]):
            raise error(
                f"{source}: line {line()} has {plural(len(row), 'cell')}, the header has {width} "
                f"({shorten(' '.join(', '.join(row).split()), 60)}); correct that line"
            )
        yield row[:width]


def _from_rows(
    rows: Iterator[list[str]], names: list[str], separator: str, numeric: Callable[[str], bool]
) -> pd.DataFrame:
    """Table of rows; columns are text, or numbers if ``numeric`` of their name is true.

    The parser of pandas is not used: it fills rows that are too short, and loses an empty first cell after a carriage
    return.
    """
    import pandas as pd

    numbers = {name for name in names if numeric(name)}
    parts: dict[str, list[np.ndarray]] = {name: [np.empty(0, object)] for name in names}
    while part := list(islice(rows, _ROWS_AT_ONCE)):
        for name, cells in zip(names, zip(*part, strict=True), strict=True):
            column = _as_numbers(cells, separator) if name in numbers else _as_text(cells)
            parts[name].append(column)
    table = pd.DataFrame({name: np.concatenate(parts[name][1:] or parts[name]) for name in names})
    if not len(table):
        return table
    for name in names:
        if name not in numbers:
            table[name] = _with_points(_unquoted(table[name]), separator)
    unnamed = [name for name in names if name.startswith("Unnamed: ") and name not in numbers]
    return table.drop(columns=[name for name in unnamed if (table[name] == "").all()])


def _check_names(source: Path, names: list[str], error: type[Ig3dError]) -> None:
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = list(dict.fromkeys(name for name in names if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
        raise error(f"{source}: several columns are named {listed(twice)}; rename or remove all but one")


def _unquoted(column: pd.Series) -> pd.Series:
    """Column without single quotes, if all cells have them."""
    if column.iloc[0][:1] == "'" and column[column != ""].str.fullmatch("'.*'", flags=re.DOTALL).all():
        return column.str.slice(1, -1)
    return column


def _with_points(column: pd.Series, separator: str) -> pd.Series:
    """Column with decimal points, if its cells are numbers with a decimal comma and the separator is not a comma."""
    filled = column[column != ""]
    if separator == "," or not filled.head(50).str.fullmatch(_DECIMAL_COMMA).any():
        return column
    replaced = column.str.replace(",", ".", regex=False)
    return replaced if np.isfinite(to_numbers(replaced[column != ""].to_numpy())).all() else column


def _as_text(cells: Sequence[str]) -> np.ndarray:
    """Cells as (n,) object without surrounding blanks."""
    return np.array([cell.strip() for cell in cells], dtype=object)


def _as_numbers(cells: Sequence[str], separator: str) -> np.ndarray:
    """Cells as (n,) float64, NaN for cells that are not numbers; fast if all are numbers."""
    try:
        if "_" not in "".join(cells):
            return np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        pass
    texts = [cell.replace(",", ".") for cell in cells] if separator != "," else cells
    return to_numbers(_as_text(texts))


def to_numbers(column: np.ndarray) -> np.ndarray:
    """Cells as (n,) float64, NaN for cells that are not numbers."""
    return np.fromiter(map(_to_number, column.tolist()), np.float64, len(column))


def _to_number(cell: Any) -> float:
    try:
        return math.nan if isinstance(cell, str) and "_" in cell else float(cell)  # 1_000 is not a number
    except (TypeError, ValueError, OverflowError):
        return math.nan
