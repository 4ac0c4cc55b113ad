"""What a predictions file holds, as it stands there: an ``.npz`` or ``.npy``, or a table. Never a pickle.

:func:`~.predictions.load_predictions` makes sense of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ..errors import PredictionsError
from .classes import canonical_all
from .tables import (
    TABLE_SUFFIXES,
    as_numbers,
    as_text,
    class_columns,
    id_column,
    read_table,
    say_columns,
    va_columns,
)

VA = ("valence", "arousal")
_ID_KEYS = ("ids", "id", "names", "paths", "files")
_NAME_KEYS = ("classes", "class_names", "columns")
_ALSO = "its valence and arousal left out (--task va takes them)"
_VALUE_KEYS = ("logits", "probabilities", "probs", "va")


@dataclass(frozen=True, slots=True)
class Read:
    """What a file holds: values (n, k), column names, ids, the kind where the file says it, and what else it has."""

    values: np.ndarray
    columns: tuple[str, ...]
    ids: np.ndarray | None
    kind: str
    out_of_fold: bool = False
    also: str = ""


def read_file(source: Path, task: str | None, known: Sequence[str]) -> Read:
    """The values, names and ids of a file, by its suffix.

    Parameters
    ----------
    source : the file
    task : ``classes`` or ``va``; None takes what the file holds (classes, where it holds both)
    known : class names to look for among a table's columns, beside the vocabulary

    Raises
    ------
    PredictionsError : unreadable, without such columns or arrays, or with foreign objects inside.
    """
    if not source.is_file():
        raise PredictionsError(f"{source}: expected a file of predictions, found none")
    suffix = source.suffix.lower()
    if suffix in TABLE_SUFFIXES:
        return _from_table(source, task, known)
    if suffix in (".npy", ".npz"):
        return _from_numpy(source, task)
    raise PredictionsError(
        f"{source}: expected .npy, .npz, .csv, .tsv or .parquet, got {suffix or 'no suffix'!r}"
    )


def load_ids(path: str | Path) -> np.ndarray:
    """(n,) str ids from a text file (one per line), ``.npy``, ``.npz`` (``ids``) or a table (its id column)."""
    source = Path(path)
    if not source.is_file():
        raise PredictionsError(f"{path}: expected a file of ids, found none")
    suffix = source.suffix.lower()
    if suffix in TABLE_SUFFIXES:
        table = read_table(source)
        column = id_column(table) or (next(iter(table)) if len(table) == 1 else None)
        if column is None:
            raise PredictionsError(f"{path}: expected a column id, got {say_columns(list(table))}")
        return as_text(table[column])
    if suffix in (".npy", ".npz"):
        arrays = _arrays(source)
        key = next((key for key in ("", *_ID_KEYS) if key in arrays), None)
        if key is None or arrays[key].ndim != 1:
            raise PredictionsError(f"{path}: expected one array of ids, got {', '.join(arrays)}")
        return as_text(arrays[key])
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as exc:
        raise PredictionsError(f"{path}: expected ids as UTF-8 text, one per line, got other bytes") from exc
    while lines and not lines[-1].strip():
        lines.pop()
    return np.array([line.strip() for line in lines], dtype=str)


def _arrays(source: Path) -> dict[str, np.ndarray]:
    """Arrays of an .npz by name, or of an .npy under the empty name; never a pickle."""
    arrays: dict[str, np.ndarray] = {}
    name = ""
    _check_kind(source)
    try:
        with source.open("rb") as handle:  # numpy leaves a damaged archive open
            loaded = np.load(handle, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            for name in loaded.files:
                # those of ig3d logits --features are not predictions and may be larger than the memory
                arrays[name] = np.empty(0) if name == "features" else loaded[name]
            return arrays
    except ValueError as exc:
        if "pickle" in str(exc).lower() or "object array" in str(exc).lower():
            where = f" in the array {name}" if name else ""
            text = name in _ID_KEYS + _NAME_KEYS
            remedy = f"{name}.astype(str)" if text else "numbers, and ids as text: ids.astype(str)"
            raise PredictionsError(
                f"{source}: expected plain arrays, got Python objects, which are never executed,{where}; save {remedy}"
            ) from exc
        raise PredictionsError(f"{source}: expected a numpy file, got {exc}") from exc
    except (OSError, EOFError, BadZipFile, KeyError) as exc:
        raise PredictionsError(f"{source}: expected a numpy file, got {exc or 'an empty file'}") from exc


def _check_kind(source: Path) -> None:
    """Refuse what is no numpy file by its first bytes: numpy takes anything else for a pickle."""
    try:
        with source.open("rb") as handle:
            head = handle.read(8)
    except OSError as exc:
        raise PredictionsError(f"{source}: expected a numpy file, got {exc}") from exc
    if head.startswith(b"\x80"):
        raise PredictionsError(
            f"{source}: expected plain arrays, got a Python pickle, which is never executed; save them with np.savez"
        )
    if head and not head.startswith((b"\x93NUMPY", b"PK")):
        raise PredictionsError(
            f"{source}: expected a numpy file, got another kind (it opens with {head!r}); save a table as .csv, arrays "
            "with np.savez"
        )


def _says_out_of_fold(source: Path, arrays: Mapping[str, np.ndarray]) -> bool:
    said = arrays.get("out_of_fold", np.array(False))
    if said.size != 1 or said.dtype.kind not in "biu":
        raise PredictionsError(
            f"{source}: expected out_of_fold to be true or false, got {said.dtype} of shape {said.shape}"
        )
    return bool(said.reshape(())[()])


def _from_numpy(source: Path, task: str | None) -> Read:
    arrays = _arrays(source)
    if "" in arrays:
        return Read(arrays[""], (), None, "va" if task == "va" else "")
    out_of_fold = _says_out_of_fold(source, arrays)
    id_key = next((key for key in _ID_KEYS if key in arrays), None)
    ids = None if id_key is None else as_text(np.atleast_1d(arrays[id_key]))
    value_key = next((key for key in _VALUE_KEYS if key in arrays and (key == "va") == (task == "va")), None)
    if value_key is None and task is None:
        value_key = next((key for key in _VALUE_KEYS if key in arrays), None)
    if value_key is None and task != "classes" and {"valence", "arousal"} <= set(arrays):
        pair = [np.atleast_1d(arrays[name]).reshape(-1) for name in VA]
        if len(pair[0]) != len(pair[1]):
            raise PredictionsError(
                f"{source}: expected as many valence as arousal values, got {len(pair[0])} and {len(pair[1])}"
            )
        return Read(np.stack(pair, axis=1), VA, ids, "va", out_of_fold)
    if value_key is None and task == "va" and "logits" in arrays and arrays["logits"].shape[1:] == (2,):
        value_key = "logits"
    if value_key is None:
        wanted = "va, or valence and arousal" if task == "va" else "logits or probabilities"
        raise PredictionsError(
            f"{source}: expected the arrays ids and {wanted}, got {', '.join(arrays) or 'none'}"
        )
    # a file may hold classes and valence-arousal, each with names of its own
    name_keys = _NAME_KEYS[::-1] if value_key == "va" else _NAME_KEYS
    names_key = next((key for key in name_keys if key in arrays), None)
    names = () if names_key is None else tuple(as_text(np.atleast_1d(arrays[names_key])))
    if value_key == "va" or task == "va":
        values = arrays[value_key]
        if tuple(names) == VA[::-1]:
            values = values[:, ::-1]
        return Read(values, VA if set(names) == set(VA) else (), ids, "va", out_of_fold)
    kind = "probabilities" if value_key.startswith("prob") else ""
    return Read(
        arrays[value_key], canonical_all(names), ids, kind, out_of_fold, _ALSO if "va" in arrays else ""
    )


def _from_table(source: Path, task: str | None, known: Sequence[str]) -> Read:
    table = read_table(source)
    id_name = id_column(table)
    ids = None if id_name is None else as_text(table[id_name])
    rest = {name: column for name, column in table.items() if name != id_name}
    chosen, names = class_columns(rest, known)
    pair = va_columns(rest)
    if task != "va" and chosen:
        values = np.stack([as_numbers(rest[name]) for name in chosen], axis=1)
        return Read(values, names, ids, "", also=_ALSO if pair and not {*pair} & {*chosen} else "")
    if task != "classes" and pair:
        return Read(np.stack([as_numbers(rest[name]) for name in pair], axis=1), VA, ids, "va")
    wanted = "valence and arousal" if task == "va" else "a column per class, by name,"
    raise PredictionsError(
        f"{source}: expected {wanted} beside an id column, got the columns {say_columns(list(table))}"
    )
