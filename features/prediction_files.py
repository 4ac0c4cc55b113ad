"""Read the content of a predictions file: arrays, or a table.

:func:`~.predictions.load_predictions` interprets the content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import PredictionsError, listed
from .array_files import SUFFIXES, read_array_file
from .classes import canonical_all
from .table_columns import (
    as_numbers,
    as_text,
    class_columns,
    id_candidates,
    id_column,
    list_columns,
    normalised,
    other_candidates,
    va_columns,
)
from .table_reader import is_table, read_table, read_text

VA = ("valence", "arousal")
_NAME_KEYS = ("classes", "class_names", "columns")
_ALSO = "its valence and arousal left out (--task va takes them)"
_VALUE_KEYS = ("logits", "probabilities", "probs", "va")


@dataclass(frozen=True, slots=True)
class FileContent:
    """Content of a predictions file.

    Attributes
    ----------
    values : (n, k)
    columns : canonical names of the k columns; empty if the file does not name them
    ids : name of a column or array -> (n,) str
        Columns that may contain the ids, the likeliest first; :func:`~.align.align_columns` chooses among them.
    others : name of a column or array -> (n,) str
        Columns of numbers and of repeated text (:func:`~.table_columns.other_candidates`).
    kind : ``probabilities`` or ``va`` if the file names the kind, else empty
    out_of_fold : whether the file states that its predictions are out of fold
    notes : tuple of str
    """

    values: np.ndarray
    columns: tuple[str, ...]
    ids: Mapping[str, np.ndarray]
    others: Mapping[str, np.ndarray]
    kind: str
    out_of_fold: bool = False
    notes: tuple[str, ...] = ()


def read_file(source: Path, task: str | None, more_classes: Sequence[str]) -> FileContent:
    """Read a file of predictions; its suffix determines the format.

    Parameters
    ----------
    source : the file
    task : ``classes`` or ``va``; None is the task of the file, or classes if it has both
    more_classes : class names that columns of a table may have, in addition to the known expressions

    Raises
    ------
    PredictionsError : the file cannot be read, has no predictions of the task, or contains objects.
    """
    if not source.exists() or source.is_dir():
        raise PredictionsError(f"{source}: no such file of predictions; check the path")
    if is_table(source):
        return _from_table(source, task, more_classes)
    suffix = source.suffix.lower()
    if suffix in SUFFIXES:
        return _from_arrays(source, task)
    raise PredictionsError(
        f"{source}: predictions cannot be read from a file with {f'the suffix {suffix}' if suffix else 'no suffix'}; "
        "save them as .npz, .npy, .csv, .tsv, .parquet or .pt"
    )


def load_ids(path: str | Path) -> dict[str, np.ndarray]:
    """Read ids from a text file (one per line), ``.npy``, ``.npz`` or a table: name of a column or array -> (n,) str.

    If several columns may contain the ids, the likeliest is first.

    Raises
    ------
    PredictionsError : the file cannot be read, or no column may contain ids.
    """
    source = Path(path)
    if not source.exists() or source.is_dir():
        raise PredictionsError(f"{path}: no such file of ids; check the path")
    if is_table(source):
        table, _ = read_table(source)
        single = {name: as_text(table[name]) for name in table} if len(table.columns) == 1 else {}
        if not (candidates := id_candidates(table) or single):
            raise PredictionsError(f"{path}: no column of ids among {list_columns(list(table))}; name it id")
        return candidates
    if source.suffix.lower() in SUFFIXES:
        arrays = read_array_file(source)
        flat = {name: array.reshape(-1) for name, array in arrays.items() if np.squeeze(array).ndim < 2}
        candidates = {"ids": as_text(flat[""])} if "" in flat else id_candidates(flat)
        if not candidates:
            raise PredictionsError(f"{path}: no array of ids among {', '.join(arrays)}; name it ids")
        return candidates
    lines = read_text(source).splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return {"ids": np.array([line.strip() for line in lines], dtype=str)}


def _out_of_fold(source: Path, arrays: Mapping[str, np.ndarray]) -> bool:
    value = arrays.get("out_of_fold", np.array(False))
    if value.size != 1 or value.dtype.kind not in "biu":
        raise PredictionsError(
            f"{source}: out_of_fold is {value.dtype} of shape {value.shape}; save it as true or false"
        )
    return bool(value.reshape(())[()])


def _from_arrays(source: Path, task: str | None) -> FileContent:
    # Features of ig3d logits are not predictions, and may not fit into memory.
    arrays = read_array_file(source, skip=("features",))
    if "" in arrays:
        return FileContent(arrays[""], (), {}, {}, "va" if task == "va" else "")
    out_of_fold = _out_of_fold(source, arrays)
    value_key = next((key for key in _VALUE_KEYS if key in arrays and (key == "va") == (task == "va")), None)
    if value_key is None and task is None:
        value_key = next((key for key in _VALUE_KEYS if key in arrays), None)
    if value_key is None and task != "classes" and {"valence", "arousal"} <= set(arrays):
        pair = [np.atleast_1d(arrays[name]).reshape(-1) for name in VA]
        if len(pair[0]) != len(pair[1]):
            raise PredictionsError(
                f"{source}: {len(pair[0])} values of valence, but {len(pair[1])} of arousal; save one of each per row"
            )
        values = np.stack(pair, axis=1)
        return FileContent(values, VA, *_id_arrays(arrays, len(values)), "va", out_of_fold)
    if value_key is None and task == "va" and "logits" in arrays and arrays["logits"].shape[1:] == (2,):
        value_key = "logits"
    if value_key is None:
        wanted = "va, or valence and arousal" if task == "va" else "logits or probabilities"
        raise PredictionsError(
            f"{source}: no array named {wanted}; the file has {listed([*arrays], 12) or 'none'}; save the arrays ids "
            f"and {wanted}"
        )
    values = arrays[value_key]
    ids, others = _id_arrays(arrays, len(np.atleast_1d(values)))
    # The names of classes and of valence and arousal are different arrays of a file.
    name_keys = _NAME_KEYS[::-1] if value_key == "va" else _NAME_KEYS
    names_key = next((key for key in name_keys if key in arrays), None)
    names = () if names_key is None else tuple(as_text(np.atleast_1d(arrays[names_key])))
    if value_key == "va" or task == "va":
        if tuple(names) == VA[::-1]:
            values = values[:, ::-1]
        return FileContent(values, VA if set(names) == set(VA) else (), ids, others, "va", out_of_fold)
    kind = "probabilities" if value_key.startswith("prob") else ""
    notes = (f"{source.name}: {_ALSO}",) if "va" in arrays else ()
    return FileContent(values, canonical_all(names), ids, others, kind, out_of_fold, notes)


def _id_arrays(
    arrays: Mapping[str, np.ndarray], n: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Arrays that may contain the ids of ``n`` rows: :attr:`FileContent.ids` and :attr:`FileContent.others`.

    Columns of a two-dimensional array of text are separate arrays. An array named ids is included for any length.
    """
    flat: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if name in (*_NAME_KEYS, *_VALUE_KEYS, *VA, "out_of_fold") or array.ndim > 2:
            continue
        if array.size == n or (normalised(name) in ("id", "ids") and array.ndim == 1):
            flat[name] = array.reshape(-1)
        elif array.ndim == 2 and len(array) == n and array.dtype.kind in "OUS":
            flat |= {f"{name}[{column}]": array[:, column] for column in range(min(array.shape[1], 20))}
    # Arrays of floating-point numbers are not ids.
    ids = id_candidates({name: array for name, array in flat.items() if array.dtype.kind in "OUSiu"})
    return ids, other_candidates(flat)


def _from_table(source: Path, task: str | None, more_classes: Sequence[str]) -> FileContent:
    table, notes = read_table(source)
    names = list(table.columns)
    usual = id_column(names)
    rest = [name for name in names if name != usual]
    try:
        chosen, classes = class_columns(rest, more_classes)
    except PredictionsError as exc:
        raise PredictionsError(f"{source}: {exc}") from exc
    pair = va_columns(rest)
    spare = table[[name for name in names if name not in {*chosen, *(pair or ())}]]
    ids, others = id_candidates(spare), other_candidates(spare)
    if task != "va" and chosen:
        values = np.stack([as_numbers(table[name]) for name in chosen], axis=1)
        also = (f"{source.name}: {_ALSO}",) if pair and not {*pair} & {*chosen} else ()
        return FileContent(values, classes, ids, others, "", notes=(*notes, *also))
    if task != "classes" and pair:
        values = np.stack([as_numbers(table[name]) for name in pair], axis=1)
        return FileContent(values, VA, ids, others, "va", notes=notes)
    wanted = "valence and arousal" if task == "va" else "a column per class, by name,"
    raise PredictionsError(
        f"{source}: no predictions among the columns {list_columns(names)}; give {wanted} beside an id column"
    )
