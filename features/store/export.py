"""A store as a table that other programs read: CSV, Parquet or npz, a row per sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import StoreError, UsageError, require
from ..atomic import replacing, write_arrays
from ..samples import Split
from ..values import Status
from .reader import CodeStore

SUFFIXES = (".csv", ".parquet", ".npz")


def export_store(store: CodeStore, out: str | Path, *, blocks: tuple[str, ...] | None = None) -> int:
    """Write a store's samples and codes as one table.

    Parameters
    ----------
    store : CodeStore
    out : path that ends in .csv, .parquet or .npz
        Tables have a column per code, ``expression:0`` ...; an npz has an array per block, ``expression`` (n, width).
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
    names = tuple(store.blocks) if blocks is None else blocks
    columns = _sample_columns(store)
    codes = {name: store.codes(name) for name in names}
    try:
        with replacing(path) as temporary:
            if suffix == ".npz":
                write_arrays(temporary, columns | codes, compress=True)
            else:
                _write_table(temporary, suffix, columns, codes)
    except OSError as exc:
        raise StoreError(f"{out}: cannot be written: {exc.strerror or exc}") from exc
    return len(store)


def _sample_columns(store: CodeStore) -> dict[str, np.ndarray]:
    """Ids, labels and statuses in words; ids and labels under the names that the ``manifest`` adapter reads."""
    samples = store.samples
    names = np.array([*store.info.classes, ""])
    return {
        "id": samples.id,
        "path": samples.path,
        "group": samples.group,
        "split": np.array([split.name for split in Split])[np.searchsorted([*Split], samples.split)],
        "label": names[samples.label],
        "valence": samples.valence,
        "arousal": samples.arousal,
        "status": np.array([status.name for status in Status])[samples.status],
        "message": samples.message,
    }


def _write_table(
    path: Path, suffix: str, columns: dict[str, np.ndarray], codes: dict[str, np.ndarray]
) -> None:
    pandas = require("pandas", wanted_by="export")
    parts = [pandas.DataFrame(columns)]
    parts += [
        pandas.DataFrame(values, columns=[f"{name}:{column}" for column in range(values.shape[1])])
        for name, values in codes.items()
    ]
    frame = pandas.concat(parts, axis=1)
    if suffix == ".parquet":
        require("pyarrow", wanted_by="export to Parquet")
        frame.to_parquet(path, index=False)
    else:
        # nine significant digits give every float32 back
        frame.to_csv(path, index=False, float_format="%.9g")
