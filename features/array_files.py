"""Read arrays of ``.npy``, ``.npz`` and ``.pt`` files by name, without executing code of the files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PredictionsError, WeightsError, shorten
from .safe_pickle import read_arrays
from .table_columns import cell_text
from .table_reader import MAX_BYTES
from .values import sound_array

NUMPY_SUFFIXES, TORCH_SUFFIXES = (".npy", ".npz"), (".pt", ".pth")
SUFFIXES = (*NUMPY_SUFFIXES, *TORCH_SUFFIXES)
_OBJECTS = "holds Python objects, which are never executed"


def read_array_file(
    path: Path, *, only: Collection[str] | None = None, skip: Collection[str] = (), limit: int = MAX_BYTES
) -> dict[str, np.ndarray]:
    """Name -> array; the name is empty for the array of an ``.npy``, or for a torch file of one tensor.

    Parameters
    ----------
    path : file with a suffix of :data:`SUFFIXES`
        A torch file contains a tensor, or a dict of tensors, lists and numbers; other values of the dict are left out.
    only : names of the arrays of an ``.npz`` that are read; None for all
    skip : names of arrays of an ``.npz`` for which the result has an empty array
    limit : int
        Largest number of bytes of an array of an ``.npz``.

    Raises
    ------
    PredictionsError : the file cannot be read, is damaged or too large, or has objects other than text and numbers.
    """
    if not path.is_file():
        raise PredictionsError(
            f"{path}: is a device, a pipe or another special file; give the path of a regular file"
        )
    try:
        if path.suffix.lower() in TORCH_SUFFIXES:
            return _from_torch(path)
        _check_kind(path)
        return _from_numpy(path, only, skip, limit)
    except PredictionsError:
        raise
    except Exception as exc:  # zipfile, zlib and numpy have no common base
        reason = shorten(str(exc) or "an empty file", 200)
        raise PredictionsError(
            f"{path}: cannot be read as a NumPy file: {reason}; save it again with np.savez"
        ) from exc


def _from_numpy(
    path: Path, only: Collection[str] | None, skip: Collection[str], limit: int
) -> dict[str, np.ndarray]:
    with path.open("rb") as handle:  # NumPy would not close a damaged archive
        try:
            loaded = np.load(handle, allow_pickle=False)
        except ValueError as exc:
            if "pickle" in str(exc).lower() or "object array" in str(exc).lower():
                return {"": _object_array(path, "")}
            raise
        if isinstance(loaded, np.ndarray):
            return {"": sound_array(loaded)}
        arrays: dict[str, np.ndarray] = {}
        for name in loaded.files:
            if only is not None and name not in only:
                continue
            if name in skip:
                arrays[name] = np.empty(0)
                continue
            member = f"{name}.npy"
            size = loaded.zip.getinfo(member).file_size if member in loaded.zip.namelist() else 0
            if size > limit:
                raise PredictionsError(
                    f"{path}: the array {name} has {size} bytes, more than {limit >> 30} GiB; save only what is needed"
                )
            try:
                arrays[name] = sound_array(loaded[name])
            except ValueError as exc:
                if "object array" not in str(exc).lower():
                    raise
                arrays[name] = _object_array(path, name)
        return arrays


def _check_kind(path: Path) -> None:
    """Raise an error if the first bytes are not those of a NumPy file, which NumPy would read as a pickle."""
    with path.open("rb") as handle:
        head = handle.read(8)
    if head.startswith(b"\x80"):
        raise PredictionsError(
            f"{path}: is a Python pickle, which is never executed; save the arrays with np.savez"
        )
    if head and not head.startswith((b"\x93NUMPY", b"PK")):
        raise PredictionsError(
            f"{path}: is not a NumPy file (it begins with {head!r}); save a table as .csv, arrays with np.savez"
        )


def _object_array(path: Path, name: str) -> np.ndarray:
    """An object array as text or numbers; ``name`` is that of a member of an ``.npz``, or empty.

    Raises
    ------
    PredictionsError : the array contains other objects.
    """
    try:
        content = read_arrays(path)
        array = _plain_array(content[name] if name else content)
    except WeightsError:
        array = None
    if array is None:
        member = f" in the array {name}" if name else ""
        raise PredictionsError(f"{path}: {_OBJECTS},{member}; save numbers, and ids as text: ids.astype(str)")
    return array


def _from_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        content = read_arrays(path)
    except WeightsError as exc:
        raise PredictionsError(str(exc)) from exc
    values = content if isinstance(content, dict) else {"": content}
    arrays = {str(name): _plain_array(value) for name, value in values.items() if isinstance(name, str)}
    plain = {name: sound_array(array) for name, array in arrays.items() if array is not None}
    if not plain:
        raise PredictionsError(f"{path}: {_OBJECTS}; save a tensor, or a dict of logits and ids")
    return plain


def _plain_array(value: Any) -> np.ndarray | None:
    """Array of an array, a number, a text, or a list of these of equal lengths; None for other values."""
    if isinstance(value, np.ndarray):
        return value if value.dtype.kind in "fiubUS" else None
    if not isinstance(value, list | tuple):
        return np.array(value) if isinstance(value, str | int | float) else None
    if value and all(isinstance(row, np.ndarray) and row.shape == value[0].shape for row in value):
        return np.stack(value)
    rows = [list(row) if isinstance(row, list | tuple) else [row] for row in value]
    cells = [cell for row in rows for cell in row]
    if len({*map(len, rows)}) > 1 or not all(
        isinstance(cell, str | bytes | int | float | None) for cell in cells
    ):
        return None
    numbers = all(isinstance(cell, int | float) for cell in cells)
    array = np.array(cells if numbers else [cell_text(cell) for cell in cells])
    return array.reshape(len(rows), -1) if rows and isinstance(value[0], list | tuple) else array
