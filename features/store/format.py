"""The format of a store: names, columns and attributes, their checks, and the hash of the content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import h5py
import numpy as np

from ... import __version__
from ...errors import plural
from ..samples import Split
from ..values import Block, Status

FORMAT = "ig3d-codes"
FORMAT_VERSION = 2
# Number of rows that are read at a time.
STEP = 4096
# Attributes that are not part of the content hash.
_UNHASHED = frozenset({"created", "root", "content_sha256"})
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
_NOT_IN_NAMES = frozenset(",+:/")  # separate block names in options and columns


@dataclass(frozen=True, slots=True)
class Column:
    """Specification of a dataset: type, shape of a row, and range of its values; floats may be NaN."""

    dtype: str  # "S" is UTF-8 text of any width
    row: tuple[int, ...] = ()
    low: float = -np.inf
    high: float = np.inf

    @property
    def is_box(self) -> bool:
        return self.row == (4,)


COLUMNS = {
    **{f"sample/{name}": Column("S") for name in ("id", "path", "group", "message")},
    "sample/split": Column("i1", low=min(Split), high=max(Split)),
    "sample/label": Column("i2", low=-1),
    "sample/valence": Column("f4", low=-1, high=1),
    "sample/arousal": Column("f4", low=-1, high=1),
    "sample/status": Column("i1", low=min(Status), high=max(Status)),
    "sample/width": Column("i4", low=0),
    "sample/height": Column("i4", low=0),
    "sample/digest": Column("u1", (16,)),
    "face/box": Column("f4", (4,)),
    "face/score": Column("f4", low=0, high=1),
    "face/count": Column("i2", low=0),
    "face/landmark_box": Column("f4", (4,)),
    "face/crop_box": Column("f4", (4,)),
}
# Columns of the samples that a store may have.
OPTIONAL_COLUMNS = {"sample/time": Column("f8", low=0)}


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """Attributes of a store: dataset, regressor, detector, crop and configuration of the extraction.

    Attributes
    ----------
    dataset : str
        Name of the adapter.
    root : str
        Folder of the dataset at the time of the extraction.
    classes : tuple of str
    regressor, detector, crop, config : dict
        JSON values: names, versions, runtimes, SHA-256 of the weights, options.
    ig3d_version : str
    created : str
        ISO 8601, UTC.
    """

    dataset: str
    root: str
    classes: tuple[str, ...]
    regressor: dict[str, Any] = field(default_factory=dict)
    detector: dict[str, Any] = field(default_factory=dict)
    crop: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    ig3d_version: str = __version__
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def content_hash(file: h5py.File) -> str:
    """SHA-256 of the names, types and bytes of all datasets and attributes, without the folder and the date."""
    total = hashlib.sha256()

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        for key in sorted(item.attrs):
            if key not in _UNHASHED:
                total.update(f"{name}@{key}={item.attrs[key]!s}\n".encode())
        if isinstance(item, h5py.Dataset):
            total.update(f"{name}:{item.dtype.str}:{item.shape}\n".encode())
            for span in spans_of(item):
                total.update(np.ascontiguousarray(item[span]).data)

    add("/", file)
    names: list[str] = []
    file.visit(names.append)
    for name in sorted(names):
        add(name, file[name])
    return total.hexdigest()


def spans_of(column: h5py.Dataset) -> Iterator[slice]:
    """Slices that cover all rows, of about 4096 rows each and in whole chunks, so that each chunk is read once."""
    chunk = column.chunks[0] if column.chunks else 1
    step = max(1, STEP // chunk) * chunk
    return (slice(start, start + step) for start in range(0, len(column), step))


def check_columns(file: h5py.File) -> int:
    """Check type, shape and range of all datasets, and return the number of rows.

    Raises
    ------
    ValueError : a dataset is missing or does not follow the format, or rows are pending.
    """
    classes = read_info(file).classes
    missing = [name for name in (*COLUMNS, "codes") if name not in file]
    if missing:
        raise ValueError(f"the dataset {missing[0]} is missing")
    if not isinstance(file["codes"], h5py.Group):
        raise ValueError("codes is not a group")
    fixed = COLUMNS | {name: column for name, column in OPTIONAL_COLUMNS.items() if name in file}
    columns = fixed | {f"codes/{name}": Column("f4", (-1,)) for name in file["codes"]}
    rows = {name: _rows(file, name, column) for name, column in columns.items()}
    if len({*rows.values()}) != 1:
        raise ValueError(f"datasets differ in their number of rows: {rows}")
    if not rows["sample/id"]:
        raise ValueError("the store has no rows")
    for name, column in fixed.items():
        if column.dtype != "S":
            values = file[name][()]
            high = len(classes) - 1 if name == "sample/label" else column.high
            _check_range(name, values, column.low, high)
            if column.is_box:
                _check_boxes(name, values)
    pending = int(np.sum(file["sample/status"][()] == Status.pending))
    if pending:
        raise ValueError(f"status pending in {pending} of {plural(rows['sample/id'], 'row')}")
    _check_ids(file["sample/id"][()])
    read_blocks(file)
    return rows["sample/id"]


def _rows(file: h5py.File, name: str, column: Column) -> int:
    """Number of rows of a dataset, after checking its type and shape."""
    item = file[name]
    if not isinstance(item, h5py.Dataset) or item.shape is None:
        raise ValueError(f"{name} is not a dataset")
    fits = item.dtype.kind == "S" if column.dtype == "S" else item.dtype == np.dtype(f"<{column.dtype}")
    if not fits:
        wanted = "text" if column.dtype == "S" else np.dtype(column.dtype).name
        raise ValueError(f"{name} has type {item.dtype}, not {wanted}")
    any_width = column.row == (-1,) and item.ndim == 2 and item.shape[1] > 0
    if (item.shape[1:] != column.row and not any_width) or item.ndim == 0:
        row = ", ".join("width" if side < 0 else str(side) for side in column.row)
        raise ValueError(f"{name} has shape {item.shape}, not (rows{', ' if row else ''}{row})")
    return int(item.shape[0])


def _check_range(name: str, values: np.ndarray, low: float, high: float) -> None:
    """Raise an error for values that are infinite or outside of a range; NaN is allowed."""
    least, most = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    if np.isnan(least) or (max(low, -_MAX_FLOAT32) <= least and most <= min(high, _MAX_FLOAT32)):
        return
    numbers = values[~np.isnan(values)]
    outside = numbers[~((numbers >= low) & (numbers <= high) & np.isfinite(numbers))]
    raise ValueError(
        f"{name} has {plural(outside.size, 'value')} outside [{low:g}, {high:g}], such as {outside.flat[0]}"
    )


def _check_boxes(name: str, boxes: np.ndarray) -> None:
    """Raise an error for (n, 4) boxes that are NaN in part, or whose corners are exchanged."""
    x0, y0, x1, y1 = boxes.T
    missing = np.isnan(x0) & np.isnan(y0) & np.isnan(x1) & np.isnan(y1)
    invalid = ~((x0 <= x1) & (y0 <= y1) | missing)
    if invalid.any():
        raise ValueError(
            f"{name} has {plural(int(invalid.sum()), 'row')} without a box with x0 <= x1 and y0 <= y1, such as "
            f"{boxes[invalid][0].tolist()}"
        )


def _check_ids(ids: np.ndarray) -> None:
    """Raise an error for (n,) ids that are empty or repeated."""
    if (ids[1:] > ids[:-1]).all() and ids[0]:
        return
    unique, counts = np.unique(ids, return_counts=True)
    if not unique[0]:
        raise ValueError("sample/id has an empty id")
    if (counts > 1).any():
        twice = unique[counts > 1][0].decode(errors="replace")
        raise ValueError(
            f"sample/id has {plural(int((counts > 1).sum()), 'id')} more than once, such as {twice!r}"
        )


def read_info(file: h5py.File) -> StoreInfo:
    """The attributes of a store.

    Raises
    ------
    ValueError, KeyError : an attribute is missing or does not follow the format.
    """
    texts: dict[str, Any] = {
        name: _text(file, "the file", name) for name in ("dataset", "root", "ig3d_version", "created")
    }
    classes = _json(file, "the file", "classes")
    if not _distinct_texts(classes):
        raise ValueError("the attribute classes is not a list of distinct names")
    described = {name: _json(file, "the file", name) for name in ("regressor", "detector", "crop", "config")}
    for name, value in described.items():
        if not isinstance(value, dict):
            raise ValueError(f"the attribute {name} is not a JSON object")
    return StoreInfo(classes=tuple(classes), **texts, **described)


def read_blocks(file: h5py.File) -> dict[str, Block]:
    """Name -> description of each block, from its attributes, in the order in which the regressor writes them.

    Raises
    ------
    ValueError, KeyError : an attribute is missing or does not follow the format.
    """
    group, blocks = file["codes"], {}
    for name in sorted(group, key=lambda block: int(group[block].attrs.get("position", 0))):
        item, where = group[name], f"codes/{name}"
        columns = _json(item, where, "columns") if "columns" in item.attrs else []
        if not _distinct_texts(columns):
            raise ValueError(f"the attribute columns of {where} is not a list of distinct names")
        blocks[name] = Block(
            width=item.shape[1],
            columns=tuple(columns),
            **{key: _text(item, where, key) for key in ("unit", "basis", "description")},
        )
    check_blocks(blocks)
    return blocks


def check_blocks(blocks: dict[str, Block]) -> None:
    """Raise an error if there are no blocks, or if a name cannot be written in an option.

    Raises
    ------
    ValueError
    """
    if not blocks:
        raise ValueError("the store has no codes")
    for name in blocks:
        if not name.isprintable() or name != name.strip() or not name or _NOT_IN_NAMES & {*name}:
            raise ValueError(
                f"{name!r} is not a name of a block: no comma, plus, colon, slash or control character"
            )


def _text(item: h5py.Group | h5py.Dataset, where: str, name: str) -> str:
    if name not in item.attrs:
        raise ValueError(f"the attribute {name} of {where} is missing")
    value = item.attrs[name]
    if not isinstance(value, str):
        raise ValueError(f"the attribute {name} of {where} is not text")
    return value


def _json(item: h5py.Group | h5py.Dataset, where: str, name: str) -> Any:
    try:
        return json.loads(_text(item, where, name))
    except (json.JSONDecodeError, RecursionError) as exc:
        raise ValueError(f"the attribute {name} of {where} is not JSON") from exc


def _distinct_texts(names: Any) -> bool:
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        return False
    return len({*names}) == len(names)


def invalid_rows(codes: np.ndarray, ok: np.ndarray) -> dict[str, np.ndarray]:
    """Problem -> indices of the rows of (n, width) codes that have it; ``ok`` (n,) bool are the rows with codes."""
    finite = np.isfinite(codes)
    rows_of = {
        "NaN or infinity where the status is ok": np.flatnonzero(ok & ~finite.all(axis=1)),
        "numbers where the status is not ok": np.flatnonzero(~ok & ~np.isnan(codes).all(axis=1)),
    }
    return {problem: rows for problem, rows in rows_of.items() if len(rows)}
