"""Export of a store as a table for other programs: CSV, Parquet or npz, one row per sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import StoreError, UsageError, require
from ..atomic import replacing, write_arrays
from ..pose import ANGLES, store_degrees
from .reader import CodeStore

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".parquet", ".npz")
_ROWS = 2000  # rows of a CSV that are written at a time


def export_store(
    store: CodeStore,
    out: str | Path,
    *,
    blocks: Sequence[str] | None = None,
    rows: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write the samples and codes of a store (:meth:`CodeStore.frame`) to a file.

    With the block ``pose``, the head's yaw, pitch and roll in degrees (:func:`..pose.pose_degrees`) are written too.

    Parameters
    ----------
    store : CodeStore
    out : path that ends in .csv, .parquet or .npz
        A table has a column per code, ``expression:0`` ..., and columns ``yaw_degrees``, ``pitch_degrees`` and
        ``roll_degrees``; an npz has an array per column of the samples, one per block, ``expression`` (n, width), and
        ``pose_degrees`` (n, 3).
    blocks : names of blocks, optional
        All of them by default.
    rows : (m,) int, optional
        Rows to write, in this order; all by default.
    progress : function that is called with the number of rows written since its last call

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
    chosen = np.arange(len(store)) if rows is None else rows
    frame = store.frame(() if suffix == ".npz" else names).iloc[chosen]
    degrees = store_degrees(store) if "pose" in names else None
    try:
        with replacing(path) as temporary:
            if suffix == ".npz":
                codes = {name: store.codes(name)[chosen] for name in names}
                angles = {} if degrees is None else {"pose_degrees": degrees[chosen].astype(np.float32)}
                write_arrays(temporary, _arrays(frame) | codes | angles, compress=True)
            else:
                if degrees is not None:
                    columns = [f"{angle}_degrees" for angle in ANGLES]
                    frame = frame.assign(
                        **dict(zip(columns, degrees[chosen].astype(np.float32).T, strict=True))
                    )
                if suffix == ".parquet":
                    require("pyarrow", wanted_by="export to Parquet")
                    frame.to_parquet(temporary, index=False)
                else:
                    _write_csv(frame, temporary, progress)
    except OSError as exc:
        raise StoreError(f"{out}: cannot be written: {exc.strerror or exc}") from exc
    return len(chosen)


def _write_csv(frame: pd.DataFrame, path: Path, progress: Callable[[int], None] | None) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for start in range(0, max(len(frame), 1), _ROWS):
            rows = frame.iloc[start : start + _ROWS]
            # nine significant digits represent every float32 exactly
            rows.to_csv(file, index=False, header=start == 0, float_format="%.9g", lineterminator="\n")
            if progress is not None:
                progress(len(rows))


def _arrays(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns of the samples as arrays that need no pickle; missing texts are empty."""
    return {
        name: column.to_numpy()
        if column.dtype.kind == "f"
        else column.astype(object).fillna("").to_numpy().astype(str)
        for name, column in frame.items()
    }
