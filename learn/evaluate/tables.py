"""Tidy tables as CSV: numbers with all digits, empty cells for undefined values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

_NUMBERS = frozenset(
    {"value", "low", "high", "p", "p_adjusted", "repeat", "count", "confidence", "accuracy", "n"}
)


def table_csv(table: pd.DataFrame) -> str:
    """A table as the text of its file; the same table gives the same bytes."""
    return str(table.to_csv(index=False, lineterminator="\n"))


def read_table(path: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a table of these columns.

    Raises
    ------
    OSError : the file cannot be read.
    ValueError : the table has other columns, or text in place of numbers.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if tuple(table.columns) != tuple(columns):
        raise ValueError(f"the columns are {', '.join(map(str, table.columns))}, not {', '.join(columns)}")
    for name in _NUMBERS.intersection(columns):
        # by Python, which reads all digits in every version of pandas
        table[name] = np.array([float(text) if text else math.nan for text in table[name]], np.float64)
    return table.astype({"repeat": "Int64"}) if "repeat" in columns else table
