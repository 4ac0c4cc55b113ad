"""Predictions of one network as files hold them: logits, probabilities or valence-arousal, with or without ids.

Reading only; :mod:`ig3d.features.join` says which sample each row belongs to.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ..errors import PredictionsError, some
from .classes import canonical_all
from .tables import TABLE_SUFFIXES, as_numbers, as_text, class_columns, id_column, read_table, va_columns

VA = ("valence", "arousal")
KINDS = ("logits", "probabilities", "va")
# Below it a probability is rounding; its logarithm stays finite.
PROBABILITY_FLOOR = 1e-12
_SUM_TOLERANCE = 5e-3
# How far from 0 a network's valence or arousal may overshoot; beyond it the numbers are on another scale.
VA_LIMIT = 1.5
_ID_KEYS = ("ids", "id", "names", "paths", "files")
_NAME_KEYS = ("classes", "class_names", "columns")
_VALUE_KEYS = ("logits", "probabilities", "probs", "va")


@dataclass(frozen=True, slots=True)
class Predictions:
    """n rows of one predictor.

    Attributes
    ----------
    values : (n, k) float64
        Logits, probabilities (rows sum to 1), or valence and arousal (k = 2).
    kind : ``logits``, ``probabilities`` or ``va``
    columns : tuple of str
        Canonical class names or ``("valence", "arousal")``; empty where the file does not say.
    ids : (n,) str, or None
        As the file spells them.
    source : str
        The file, for messages.
    notes : tuple of str
        What was understood or assumed in reading.
    out_of_fold : bool
        Rows of the train split were predicted by networks that had not seen them.

    Raises
    ------
    PredictionsError : wrong shape or width, numbers that are not finite, ids missing or twice.
    """

    values: np.ndarray
    kind: str
    columns: tuple[str, ...] = ()
    ids: np.ndarray | None = None
    source: str = "predictions"
    notes: tuple[str, ...] = ()
    out_of_fold: bool = False

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.ndim != 2 or values.dtype.kind not in "fiu" or values.shape[1] < 2 or not len(values):
            raise PredictionsError(
                f"{self.source}: expected numbers of shape (rows, classes) with at least 2 columns, got "
                f"{values.dtype} {values.shape}"
            )
        if self.kind not in KINDS:
            raise PredictionsError(f"{self.source}: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.columns and len(self.columns) != values.shape[1]:
            raise PredictionsError(
                f"{self.source}: expected {len(self.columns)} columns ({', '.join(self.columns)}), got "
                f"{values.shape[1]}; name the file's own columns"
            )
        object.__setattr__(self, "values", values.astype(np.float64))
        self._check_ids()
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise PredictionsError(
                f"{self.source}: expected finite numbers, got NaN, infinity or text in {len(bad)} of {len(values)} "
                f"rows ({some([self._row_name(int(row)) for row in bad])})"
            )

    def _row_name(self, row: int) -> str:
        return f"row {row}" if self.ids is None else str(self.ids[row])

    def _check_ids(self) -> None:
        if self.ids is None:
            return
        ids = as_text(np.atleast_1d(np.asarray(self.ids)))
        if len(ids) != len(self.values):
            raise PredictionsError(
                f"{self.source}: expected one id per row, got {len(ids)} ids for {len(self.values)} rows"
            )
        names, counts = np.unique(ids, return_counts=True)
        if counts.max() > 1:
            twice = names[counts > 1]
            raise PredictionsError(
                f"{self.source}: expected every id once, got {len(twice)} ids more than once ({some(list(twice))})"
            )
        if names[0] == "":
            raise PredictionsError(f"{self.source}: expected an id in every row, got an empty one")
        object.__setattr__(self, "ids", ids)

    def __len__(self) -> int:
        return len(self.values)

    def scores(self) -> np.ndarray:
        """(n, k) float64: logits as given, or the logarithm of the probabilities; a softmax makes probabilities.

        Raises
        ------
        PredictionsError : valence and arousal have no such scores.
        """
        if self.kind == "va":
            raise PredictionsError(f"{self.source}: expected class predictions, got valence and arousal")
        if self.kind == "logits":
            return self.values
        return np.asarray(np.log(np.maximum(self.values, PROBABILITY_FLOOR)))

    def log_probabilities(self) -> np.ndarray:
        """(n, k) float64 natural logarithms of the probabilities."""
        return log_softmax(self.scores())

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` with ``ids``, ``logits`` (or ``probabilities``, ``va``) and ``classes``, all or nothing."""
        final = Path(path)
        arrays = {self.kind: self.values}
        if self.ids is not None:
            arrays["ids"] = self.ids
        if self.out_of_fold:
            arrays["out_of_fold"] = np.array(True)
        if self.columns:
            arrays["columns" if self.kind == "va" else "classes"] = np.array(self.columns)
        temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as handle:
                np.savez(handle, **arrays)
            temporary.replace(final)
        except OSError as exc:
            temporary.unlink(missing_ok=True)
            raise PredictionsError(f"{path}: expected to write predictions, got {exc}") from exc


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """(n, k) scores to log-probabilities over the last axis."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def load_predictions(
    path: str | Path,
    *,
    ids_file: str | Path | None = None,
    classes: Sequence[str] | None = None,
    known: Sequence[str] = (),
    task: str | None = None,
) -> Predictions:
    """Read predictions from ``.npy``, ``.npz``, ``.csv``, ``.tsv`` or ``.parquet``.

    Parameters
    ----------
    path : the file
    ids_file : file of ids, one per row, for a file that has none (``.txt``, ``.npy``, ``.npz``, ``.csv``)
    classes : what the columns are, in order; goes before the file's own names, with a note
    known : further class names to look for among a table's columns (such as those of the store)
    task : ``classes`` or ``va``; None takes what the file holds (classes, where it holds both)

    Raises
    ------
    PredictionsError : unreadable, of another shape, not finite, ids twice, or foreign objects inside.
    MissingExtra : a table file needs pandas, Parquet needs pyarrow.
    """
    source = Path(path)
    if not source.is_file():
        raise PredictionsError(f"{path}: expected a file of predictions, found none")
    suffix = source.suffix.lower()
    if suffix in TABLE_SUFFIXES:
        read = _from_table(source, task, (*known, *(classes or ())))
    elif suffix in (".npy", ".npz"):
        read = _from_numpy(source, task)
    else:
        raise PredictionsError(
            f"{path}: expected .npy, .npz, .csv, .tsv or .parquet, got {suffix or 'no suffix'!r}"
        )
    values, columns, ids, kind = read.values, read.columns, read.ids, read.kind
    if ids_file is not None:
        said = load_ids(ids_file)
        if ids is not None and not np.array_equal(ids, said):
            raise PredictionsError(
                f"{path}: expected ids from one place, got its own ({some(ids[:2].tolist())}) and others from "
                f"{ids_file} ({some(said[:2].tolist())}); leave --2d-ids out, or take the ids out of the predictions"
            )
        ids = said
    notes: list[str] = []
    if kind == "va":
        if values.ndim == 2 and values.shape[1] == 2 and not columns:
            notes.append(
                f"{source.name}: columns taken as valence, arousal in this order (the file does not say)"
            )
        columns = VA
    else:
        if classes is not None:
            given = canonical_all(tuple(classes))
            if columns and columns != given:
                notes.append(
                    f"{source.name}: columns read as {', '.join(given)}, as given, instead of the file's own names "
                    f"({', '.join(columns)})"
                )
            columns = given
        values, kind, note = _tell_kind(values, source, kind)
        notes.append(note)
    return in_va_range(Predictions(values, kind, columns, ids, str(source), tuple(notes), read.out_of_fold))


def in_va_range(predictions: Predictions) -> Predictions:
    """The same predictions; valence and arousal above 1 with a note, as a network may overshoot a little.

    Raises
    ------
    PredictionsError : a value beyond ``VA_LIMIT``, which is another scale.
    """
    low, high = float(predictions.values.min()), float(predictions.values.max())
    if predictions.kind != "va" or max(-low, high) <= 1:
        return predictions
    if max(-low, high) > VA_LIMIT:
        raise PredictionsError(
            f"{predictions.source}: expected valence and arousal in [-1, 1], got {low:.4g} to {high:.4g}; bring them "
            "to this scale"
        )
    outside = int(np.sum((np.abs(predictions.values) > 1).any(axis=1)))
    note = (
        f"{Path(predictions.source).name}: valence and arousal from {low:.4g} to {high:.4g}, {outside} rows outside "
        "[-1, 1]; taken as they are"
    )
    return replace(predictions, notes=(*predictions.notes, note))


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
            raise PredictionsError(f"{path}: expected a column id, got {', '.join(table)}")
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
    try:
        with source.open("rb") as handle:  # numpy leaves a damaged archive open
            loaded = np.load(handle, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            for name in loaded.files:
                arrays[name] = loaded[name]
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


def _says_out_of_fold(source: Path, arrays: Mapping[str, np.ndarray]) -> bool:
    said = arrays.get("out_of_fold", np.array(False))
    if said.size != 1 or said.dtype.kind not in "biu":
        raise PredictionsError(
            f"{source}: expected out_of_fold to be true or false, got {said.dtype} of shape {said.shape}"
        )
    return bool(said.reshape(())[()])


@dataclass(frozen=True, slots=True)
class _Read:
    """What a file holds: values (n, k), column names, ids, and the kind where the file says it."""

    values: np.ndarray
    columns: tuple[str, ...]
    ids: np.ndarray | None
    kind: str
    out_of_fold: bool = False


def _from_numpy(source: Path, task: str | None) -> _Read:
    arrays = _arrays(source)
    if "" in arrays:
        return _Read(arrays[""], (), None, "va" if task == "va" else "")
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
        return _Read(np.stack(pair, axis=1), VA, ids, "va", out_of_fold)
    if value_key is None and task == "va" and "logits" in arrays and arrays["logits"].shape[1:] == (2,):
        value_key = "logits"
    if value_key is None:
        wanted = "va, or valence and arousal" if task == "va" else "logits or probabilities"
        raise PredictionsError(
            f"{source}: expected the arrays ids and {wanted}, got {', '.join(arrays) or 'none'}"
        )
    names_key = next((key for key in _NAME_KEYS if key in arrays), None)
    names = () if names_key is None else tuple(as_text(np.atleast_1d(arrays[names_key])))
    if value_key == "va" or task == "va":
        values = arrays[value_key]
        if tuple(names) == VA[::-1]:
            values = values[:, ::-1]
        return _Read(values, VA if set(names) == set(VA) else (), ids, "va", out_of_fold)
    kind = "probabilities" if value_key.startswith("prob") else ""
    return _Read(arrays[value_key], canonical_all(names), ids, kind, out_of_fold)


def _from_table(source: Path, task: str | None, known: Sequence[str]) -> _Read:
    table = read_table(source)
    id_name = id_column(table)
    ids = None if id_name is None else as_text(table[id_name])
    rest = {name: column for name, column in table.items() if name != id_name}
    chosen, names = class_columns(rest, known)
    pair = va_columns(rest)
    if task != "va" and chosen:
        return _Read(np.stack([as_numbers(rest[name]) for name in chosen], axis=1), names, ids, "")
    if task != "classes" and pair:
        return _Read(np.stack([as_numbers(rest[name]) for name in pair], axis=1), VA, ids, "va")
    wanted = "valence and arousal" if task == "va" else "a column per class, by name,"
    raise PredictionsError(
        f"{source}: expected {wanted} beside an id column, got the columns {some(list(table), 12)}"
    )


def _tell_kind(values: np.ndarray, source: Path, said: str) -> tuple[np.ndarray, str, str]:
    """Probabilities, per cent or logits, by the sums of the rows."""
    name = source.name
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        return values, "logits", ""  # Predictions refuses these with the counts
    values = values.astype(np.float64)
    sums = values.sum(axis=1)
    if (values >= 0).all():
        for total, what in ((1.0, "probabilities"), (100.0, "per cent")):
            if (np.abs(sums - total) <= _SUM_TOLERANCE * total).all():
                return (
                    values / sums[:, None],
                    "probabilities",
                    f"{name}: read as {what} (rows sum to {total:g})",
                )
    if said == "probabilities":
        bad = int(np.sum((values < 0).any(axis=1) | (np.abs(sums - 1) > _SUM_TOLERANCE)))
        raise PredictionsError(
            f"{source}: expected probabilities whose rows sum to 1 or 100, got {bad} of {len(values)} rows that do "
            "not; name the array logits if it holds logits"
        )
    return values, "logits", f"{name}: read as logits (rows are no probabilities)"
