"""A store as a table for other programs: CSV, Parquet or npz, one row per sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import StoreError, UsageError, require
from ..atomic import replacing, write_arrays
from .reader import FRAME_COLUMNS, CodeStore

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".parquet", ".npz")


def export_store(store: CodeStore, out: str | Path, *, blocks: Sequence[str] | None = None) -> int:
    """Write the samples and codes of a store (:meth:`CodeStore.frame`) to a file.

    Parameters
    ----------
    store : CodeStore
    out : path that ends in .csv, .parquet or .npz
        A table has a column per code, ``expression:0`` ...; an npz has an array per column of the samples, and one per
        block, ``expression`` (n, width).
    blocks : names of blocks, optional
        All of them by default.

    Returns
    -------
    int : rows written. Codes of rows without a face are empty in CSV, NaN elsewhere.

    Raises
    ------
    UsageError : the name ends in something else.
    StoreError : there is no such block, or the file cannot be written.
    MissingExtra : Parquet without pyarrow.
    """
    path = Path(out)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"export: expected a name that ends in {', '.join(SUFFIXES)}, got {out}")
    names = list(store.blocks if blocks is None else blocks)
    frame = store.frame(() if suffix == ".npz" else names)
    try:
        with replacing(path) as temporary:
            if suffix == ".npz":
                codes = {name: store.codes(name) for name in names}
                write_arrays(temporary, _arrays(frame) | codes, compress=True)
            elif suffix == ".parquet":
                require("pyarrow", wanted_by="export to Parquet")
                frame.to_parquet(temporary, index=False)
            else:
                # nine significant digits represent every float32 exactly
                frame.to_csv(temporary, index=False, float_format="%.9g")
    except OSError as exc:
        raise StoreError(f"{out}: cannot be written: {exc.strerror or exc}") from exc
    return len(store)


def _arrays(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns of the samples as arrays that are read without pickle; texts are empty where there is none."""
    return {
        name: column.to_numpy()
        if column.dtype.kind == "f"
        else column.astype(object).fillna("").to_numpy().astype(str)
        for name, column in frame[[*FRAME_COLUMNS]].items()
    }
