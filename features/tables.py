"""Columns of a CSV, TSV or Parquet file, for predictions and labels. pandas is imported when one is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import PredictionsError, require, some
from .classes import CANONICAL, canonical, canonical_all

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")

# Column names, compared in lower case; the first of a list that the file has is taken.
_ID_COLUMNS = (
    "id",
    "ids",
    "sample_id",
    "sample",
    "image_id",
    "path",
    "image_path",
    "file",
    "filename",
    "file_name",
    "image",
    "subdirectory_filepath",
    "name",
)
_VALENCE = ("valence", "valence_pred", "val_pred", "pred_valence", "val")
_AROUSAL = ("arousal", "arousal_pred", "aro_pred", "pred_arousal", "aro")
_PREFIX = re.compile(r"^(p|prob|probability|logit|logits|score|class)[_:. ]+", re.IGNORECASE)


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Columns by name, as text (CSV, TSV) or as stored (Parquet), rows in the file's order.

    Raises
    ------
    PredictionsError : the file is not such a table, or has no rows.
    MissingExtra : pandas, or pyarrow for Parquet, is not installed.
    """
    pandas = require("pandas", wanted_by=str(path))
    try:
        if path.suffix.lower() == ".parquet":
            require("pyarrow", wanted_by=str(path))
            frame = pandas.read_parquet(path)
        else:
            # All as text: "0001" stays an id, and a cell that is no number can be named.
            separator = "\t" if path.suffix.lower() == ".tsv" else ","
            frame = pandas.read_csv(
                path,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                skipinitialspace=True,
                sep=separator,
            )
    except (ValueError, OSError) as exc:  # pandas' parser errors and pyarrow's are ValueErrors
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise PredictionsError(f"{path}: expected a table with a header line, got {reason}") from exc
    if not len(frame):
        raise PredictionsError(f"{path}: expected rows under the header, got none")
    return {str(name).strip(): frame[name].to_numpy() for name in frame.columns}


def say_columns(names: Sequence[str]) -> str:
    """The columns of a table in words, with a hint where another mark than a comma parts them.

    >>> say_columns(["id", "label"]), say_columns(["id;label"])
    ('id, label', 'id;label (parted by semicolons; save it with commas)')
    """
    hint = " (parted by semicolons; save it with commas)" if len(names) == 1 and ";" in names[0] else ""
    return (some(list(names), 12) or "nothing") + hint


def as_text(column: np.ndarray) -> np.ndarray:
    """A column as (n,) str; whole numbers lose their decimal point, bytes are read as UTF-8, None is empty."""
    if column.dtype.kind == "S":
        return np.char.decode(column, "utf-8")
    if column.dtype.kind == "f" and np.array_equal(column, np.round(column)):
        column = column.astype(np.int64)
    return np.array(
        ["" if value is None or value != value else str(value).strip() for value in column], dtype=str
    )


def as_numbers(column: np.ndarray) -> np.ndarray:
    """A column as (n,) float64, NaN where a cell is no number."""
    if column.dtype.kind in "fiub":
        return column.astype(np.float64)
    pandas = require("pandas", wanted_by="tables")
    return np.asarray(
        pandas.to_numeric(pandas.Series(column, dtype=object), errors="coerce"), dtype=np.float64
    )


def find_column(table: Mapping[str, np.ndarray], names: Sequence[str]) -> str | None:
    """The first of ``names`` that the table has, whatever its case."""
    lowered = {column.lower(): column for column in table}
    return next((lowered[name] for name in names if name in lowered), None)


def id_column(table: Mapping[str, np.ndarray]) -> str | None:
    """Name of the column that holds the ids, where there is one."""
    found = find_column(table, _ID_COLUMNS)
    if found is None and "Unnamed: 0" in table:  # a data frame's index, written without a name
        counted = np.array_equal(
            as_text(table["Unnamed: 0"]), np.arange(len(table["Unnamed: 0"])).astype(str)
        )
        return None if counted else "Unnamed: 0"
    return found


def va_columns(table: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
    """Names of the valence and the arousal column, where the table has both."""
    valence, arousal = find_column(table, _VALENCE), find_column(table, _AROUSAL)
    return (valence, arousal) if valence and arousal else None


def class_columns(
    table: Mapping[str, np.ndarray], known: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns that hold classes, and the canonical names of these classes (empty where they are numbered).

    A column counts when its name, less a prefix such as ``p_`` or ``logit_``, is a word of the vocabulary, one of
    ``known``, or when the columns are numbered 0, 1, ....
    """
    words = set(CANONICAL.values()) | {canonical(name) for name in known}
    bare = {column: _PREFIX.sub("", column) for column in table}
    named = tuple(column for column in table if canonical(bare[column]) in words)
    if len(named) >= 2:
        return named, canonical_all([bare[column] for column in named])
    by_number = {bare[column]: column for column in table if bare[column].isdigit()}
    numbered = tuple(by_number[str(k)] for k in range(len(by_number)) if str(k) in by_number)
    if len(numbered) >= 2 and len(numbered) == len(by_number):
        return numbered, ()
    return (), ()
