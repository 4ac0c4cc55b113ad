"""Export a store as a table for other programs: CSV, Parquet or npz, one row per sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import StoreError, UsageError, one_of, require
from ..atomic import replacing, write_arrays
from ..pose import ANGLES, pose_degrees, store_degrees
from ..smoothing import frames_of, smooth
from .reader import CodeStore, code_columns

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
    smoothing: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write the samples and codes of a store (:meth:`CodeStore.frame`) to a file.

    With the block ``pose``, yaw, pitch and roll of the head in degrees (:func:`..pose.pose_degrees`) are added.

    Parameters
    ----------
    store : CodeStore
    out : path that ends in .csv, .parquet or .npz
        A table has a column for each code, such as ``expression:0``, and columns ``yaw_degrees``, ``pitch_degrees`` and
        ``roll_degrees``. An npz has an array for each column of the samples and for each block, such as ``expression``
        (n, width), and ``pose_degrees`` (n, 3).
    blocks : names of blocks, optional
        All of them by default.
    rows : (m,) int, optional
        Rows to write, in this order; all by default.
    smoothing : float, optional
        Standard deviation of a Gaussian, seconds: codes are smoothed over time within each video
        (:func:`..smoothing.smooth`).
    progress : function ``(rows)``, called with the number of rows written since its last call, optional

    Returns
    -------
    int, number of rows written. Codes of rows without a face are empty in CSV, NaN in other formats.

    Raises
    ------
    UsageError : the suffix is not supported, or smoothing is requested for images or for frames with several faces.
    StoreError : a block does not exist, or the file cannot be written.
    MissingExtra : pyarrow, which Parquet needs, is not installed.
    """
    import pandas as pd

    path = Path(out)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"export: {out} has no known suffix; choose a name that ends in {one_of(SUFFIXES)}")
    names = list(store.blocks if blocks is None else blocks)
    chosen = np.arange(len(store)) if rows is None else rows
    frame = store.frame(())
    codes = {name: store.codes(name) for name in names}
    degrees = store_degrees(store) if "pose" in names else None
    if smoothing is not None:
        seconds, video = frames_of(store)
        codes = {
            name: smooth(values, seconds, video, smoothing).astype(np.float32)
            for name, values in codes.items()
        }
        degrees = None if degrees is None else pose_degrees(codes["pose"])
    try:
        with replacing(path) as temporary:
            if suffix == ".npz":
                if degrees is not None:
                    codes["pose_degrees"] = degrees.astype(np.float32)
                arrays = {name: values[chosen] for name, values in codes.items()}
                write_arrays(temporary, _arrays(frame.iloc[chosen]) | arrays, compress=True)
            else:
                frame = pd.concat(
                    [frame, *(code_columns(name, values) for name, values in codes.items())], axis=1
                )
                if degrees is not None:
                    columns = [f"{angle}_degrees" for angle in ANGLES]
                    frame = frame.assign(**dict(zip(columns, degrees.astype(np.float32).T, strict=True)))
                frame = frame.iloc[chosen]
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
    """Name -> array of each column of the samples, without objects; missing texts are empty."""
    return {
        name: column.to_numpy()
        if column.dtype.kind == "f"
        else column.astype(object).fillna("").to_numpy().astype(str)
        for name, column in frame.items()
    }
