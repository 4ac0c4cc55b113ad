"""Predictions of one network: logits, probabilities or valence-arousal, with or without ids.

:mod:`.prediction_files` reads the files, :mod:`.align` finds the sample of each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import PredictionsError, listed, plural
from .atomic import replacing, write_arrays
from .classes import canonical_all, parse_classes, preset_of
from .prediction_files import VA as VA  # the name is used with predictions
from .prediction_files import Read, load_ids, read_file
from .table_columns import as_text, id_column

KINDS = ("logits", "probabilities", "va")
# Below it a probability is rounding; its logarithm stays finite.
PROBABILITY_FLOOR = 1e-12
_SUM_TOLERANCE = 5e-3
# More columns are no classes.
MAX_COLUMNS = 1000
# Beyond it differences of logits are lost in float64, and their softmax overflows.
LOGIT_LIMIT = 1e9
# How far from 0 a network's valence or arousal may overshoot; beyond it the numbers are on another scale.
VA_LIMIT = 1.5


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
    id_columns : name -> (n,) str
        Columns or arrays of the file that may hold the ids, ``ids`` the first of them; the one that matches the
        samples does (:func:`~.align.align_columns`).
    other_columns : name -> (n,) str
        Columns or arrays of numbers and of repeated text, which are compared with the samples if no others match.

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
    id_columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    other_columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.ndim != 2 or values.dtype.kind not in "fiu" or values.shape[1] < 2 or not len(values):
            raise PredictionsError(
                f"{self.source}: predictions must be numbers of shape (rows, classes) with at least 2 columns; the "
                f"file holds {values.dtype} of shape {values.shape}"
            )
        if values.shape[1] > MAX_COLUMNS:
            raise PredictionsError(
                f"{self.source}: {values.shape[1]} columns, more than the {MAX_COLUMNS} classes that ig3d supports; "
                "save one column per class"
            )
        if self.kind not in KINDS:
            raise PredictionsError(
                f"{self.source}: unknown kind {self.kind!r}; choose one of {', '.join(KINDS)}"
            )
        if self.columns and len(self.columns) != values.shape[1]:
            raise PredictionsError(
                f"{self.source}: {values.shape[1]} columns, but {len(self.columns)} names "
                f"({', '.join(self.columns)}); name every column of the file"
                + (", valence and arousal among them" if values.shape[1] - len(self.columns) == 2 else "")
            )
        object.__setattr__(self, "values", values.astype(np.float64))
        self._check_ids()
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise PredictionsError(
                f"{self.source}: NaN, infinity or text in {len(bad)} of {len(values)} rows "
                f"({listed([self._row_name(int(row)) for row in bad])}); correct or remove them"
            )
        size = np.abs(self.values)
        far = np.flatnonzero((size > LOGIT_LIMIT).any(axis=1))
        if len(far):
            rows = f"{plural(len(far), 'row')}: {listed([self._row_name(int(row)) for row in far])}"
            raise PredictionsError(
                f"{self.source}: values up to {size.max():.4g} in size ({rows}) are no logits, which lie within "
                f"{LOGIT_LIMIT:g}; check which array or columns were saved"
            )

    def _row_name(self, row: int) -> str:
        return f"row {row}" if self.ids is None else str(self.ids[row])

    def _check_ids(self) -> None:
        if self.ids is None:
            return
        ids = as_text(np.atleast_1d(np.asarray(self.ids)))
        if len(ids) != len(self.values):
            raise PredictionsError(
                f"{self.source}: {plural(len(ids), 'id')} for {plural(len(self.values), 'row')} of predictions; give "
                "one id per row"
            )
        names, counts = np.unique(ids, return_counts=True)
        if counts.max() > 1:
            twice = names[counts > 1]
            raise PredictionsError(
                f"{self.source}: {plural(len(twice), 'duplicate id')} ({listed(list(twice))}); keep one row per id"
            )
        if names[0] == "":
            raise PredictionsError(f"{self.source}: a row has an empty id; give every row an id")
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
            raise PredictionsError(
                f"{self.source}: holds valence and arousal, not class predictions; use --task va"
            )
        if self.kind == "logits":
            return self.values
        return np.asarray(np.log(np.maximum(self.values, PROBABILITY_FLOOR)))

    def scores_of(self, classes: Sequence[str], spare: Sequence[str] = ()) -> tuple[np.ndarray, str]:
        """Scores (n, k) with columns in the order of ``classes``, and a line on how they were assigned.

        A softmax over the k columns gives the probabilities, renormalised where ``spare`` columns were left out.

        Raises
        ------
        PredictionsError : another number of classes, or other classes.
        """
        scores, names, source = self.scores(), self.columns, Path(self.source).name
        wanted = f"the store or labels have {len(classes)} classes ({', '.join(classes)})"
        if not names:
            extra = scores.shape[1] - len(classes)
            if extra:
                more = ", valence and arousal included" if extra in (2, 3) else ""
                raise PredictionsError(
                    f"{source}: {scores.shape[1]} columns, but {wanted}; name all columns with --2d-classes{more}"
                )
            preset = preset_of(tuple(classes))
            order = f"{', '.join(classes)}" + (f" (preset {preset})" if preset else "")
            return scores, f"{source}: classes assumed in the order {order}; give another with --2d-classes"
        odd = [name for name in names if name not in classes]
        missing = [name for name in classes if name not in names]
        if missing or not set(odd) <= set(spare):
            columns = (
                f"has {', '.join(odd)} instead of {', '.join(missing)}"
                if len(odd) == len(missing)
                else f"has {len(names)} columns ({', '.join(names)})"
            )
            advice = "use predictions of the same classes"
            if not missing:
                numbers = ",".join(str(names.index(name)) for name in classes)
                advice = f"leave out the other columns, with ig3d logits --columns {numbers} or in the file"
            raise PredictionsError(f"{source}: {columns}, but {wanted}; {advice}")
        dropped = f"; {', '.join(odd)} left out and the others renormalised" if odd else ""
        return scores[
            :, [names.index(name) for name in classes]
        ], f"{source}: classes joined by name{dropped}"

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` with ``ids``, ``logits`` (or ``probabilities``, ``va``) and ``classes``, all or nothing."""
        arrays = {self.kind: self.values}
        if self.ids is not None:
            arrays["ids"] = self.ids
        if self.out_of_fold:
            arrays["out_of_fold"] = np.array(True)
        if self.columns:
            arrays["columns" if self.kind == "va" else "classes"] = np.array(self.columns)
        try:
            with replacing(path) as temporary:
                write_arrays(temporary, arrays)
        except OSError as exc:
            raise PredictionsError(
                f"{path}: the predictions cannot be written: {exc}; choose another place"
            ) from exc


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """(n, k) scores to log-probabilities over the last axis."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def log_probabilities(scores: np.ndarray) -> np.ndarray:
    """:func:`log_softmax` of scores (n, k) with the argmax of every row kept, also where rounding makes a tie."""
    logs, top = log_softmax(scores), scores.argmax(axis=1)
    tied = np.flatnonzero(logs.argmax(axis=1) != top)
    logs[tied, top[tied]] = np.nextafter(logs[tied].max(axis=1), np.inf)
    return logs


def load_predictions(
    path: str | Path,
    *,
    ids_file: str | Path | None = None,
    classes: str | Sequence[str] | None = None,
    known: Sequence[str] = (),
    task: str | None = None,
) -> Predictions:
    """Read predictions from ``.npy``, ``.npz``, ``.csv``, ``.tsv``, ``.parquet`` or ``.pt``.

    Parameters
    ----------
    path : the file
    ids_file : file of ids, one per row, for a file that has none (``.txt``, ``.npy``, ``.npz``, ``.csv``, ``.pt``)
    classes : names of the columns in order, or the text of :func:`~.classes.parse_classes`
        Goes before the file's own names, with a note. Valence and arousal may be among them.
    known : further class names to look for among a table's columns (such as those of the store)
    task : ``classes`` or ``va``; None takes what the file holds (classes, where it holds both)

    Raises
    ------
    PredictionsError : unreadable, of another shape, not finite, ids twice, or foreign objects inside.
    MissingExtra : Parquet needs pyarrow.
    """
    source = Path(path)
    words = parse_classes(classes) if isinstance(classes, str) else tuple(classes or ())
    side_by_side = {*VA} <= {name.lower() for name in words}  # some networks give both
    read = read_file(source, "classes" if side_by_side else task, (*known, *words))
    if ids_file is not None:
        read = _with_ids(read, source, Path(ids_file))
    if classes is not None and read.values.ndim == 2:
        if isinstance(classes, str):
            words = parse_classes(classes, columns=read.values.shape[1])
        if side_by_side and len(words) == read.values.shape[1]:
            read, words = _one_task(read, source, words, task)
    columns, kind, notes = read.columns, read.kind, list(read.notes)
    if kind == "va":
        values = read.values
        if values.ndim == 2 and values.shape[1] == 2 and not columns:
            notes.append(
                f"{source.name}: columns taken as valence, arousal in this order (the file has no names)"
            )
        columns = VA
    else:
        if classes is not None:
            asked = canonical_all(words)
            if columns and columns != asked:
                notes.append(
                    f"{source.name}: columns read as {', '.join(asked)}, as given, instead of the file's own names "
                    f"({', '.join(columns)})"
                )
            columns = asked
        values, kind, note = _recognise_kind(read.values, source, kind)
        notes.append(note)
    ids = next(iter(read.ids.values()), None)
    return in_va_range(
        Predictions(
            values, kind, columns, ids, str(source), tuple(notes), read.out_of_fold, read.ids, read.others
        )
    )


def _with_ids(read: Read, source: Path, ids_file: Path) -> Read:
    """The contents of a file with the ids of another."""
    columns = load_ids(ids_file)
    columns = {name: column for name, column in columns.items() if len(column) == len(read.values)} or columns
    ids = next(iter(columns.values()))
    own = id_column(read.ids)
    if own is not None and not np.array_equal(read.ids[own], ids):
        raise PredictionsError(
            f"{source}: its own ids ({listed(read.ids[own][:2].tolist())}) differ from those of {ids_file} "
            f"({listed(ids[:2].tolist())}); omit --2d-ids, or remove the ids from the predictions"
        )
    return replace(read, ids=columns, others={})


def _one_task(
    read: Read, source: Path, words: tuple[str, ...], task: str | None
) -> tuple[Read, tuple[str, ...]]:
    """The columns of one task out of classes beside valence and arousal, and their names."""
    at = [position for position, name in enumerate(words) if name.lower() in VA]
    if task == "va":
        at = sorted(at, key=lambda position: words[position].lower() != VA[0])
        return replace(read, values=read.values[:, at], columns=VA, kind="va"), words
    note = f"{source.name}: valence and arousal left out (--task va takes them)"
    values = np.delete(read.values, at, axis=1)
    return replace(read, values=values, columns=(), notes=(*read.notes, note)), tuple(
        name for name in words if name.lower() not in VA
    )


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
            f"{predictions.source}: valence and arousal range from {low:.4g} to {high:.4g}; rescale them to [-1, 1]"
        )
    outside = int(np.sum((np.abs(predictions.values) > 1).any(axis=1)))
    note = (
        f"{Path(predictions.source).name}: valence and arousal from {low:.4g} to {high:.4g}, "
        f"{plural(outside, 'row')} outside [-1, 1]; taken as they are"
    )
    return replace(predictions, notes=(*predictions.notes, note))


def scores_of_outputs(values: np.ndarray, source: Path) -> np.ndarray:
    """(n, k) scores of a network's outputs: logits, probabilities or per cent; a softmax makes probabilities."""
    values, kind, _ = _recognise_kind(values, source, "")
    return Predictions(values, kind, source=str(source)).scores()


def _recognise_kind(values: np.ndarray, source: Path, named: str) -> tuple[np.ndarray, str, str]:
    """Probabilities, per cent, log-probabilities or logits, by the sums of the rows."""
    name = source.name
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not len(values) or not np.isfinite(values).all():
        return values, "logits", ""  # Predictions refuses these with the counts
    values = values.astype(np.float64)
    with np.errstate(over="ignore"):  # sums of logits that are refused below
        positive, sums = (values >= 0).all(axis=1), values.sum(axis=1)
    fitting = {total: positive & (np.abs(sums - total) <= _SUM_TOLERANCE * total) for total in (1.0, 100.0)}
    for total, what in ((1.0, "probabilities"), (100.0, "per cent")):
        if fitting[total].all():
            note = f"{name}: read as {what} (rows sum to {total:g})"
            return values / sums[:, None], "probabilities", note
    if named == "probabilities":
        bad = int(np.sum(~fitting[1.0]))
        raise PredictionsError(
            f"{source}: {bad} of {len(values)} rows of probabilities do not sum to 1 or 100; name the array logits if "
            "it holds logits"
        )
    if (values <= 0).all() and (np.abs(np.exp(values).sum(axis=1) - 1) <= _SUM_TOLERANCE).all():
        return values, "logits", f"{name}: read as log-probabilities (their exponentials sum to 1)"
    if values.min() >= 0 and values.max() <= 1:
        return (
            values,
            "logits",
            (
                f"WARNING {name}: all values lie in [0, 1] and {plural(int(np.sum(~fitting[1.0])), 'row')} of "
                f"{len(values)} do not sum to 1: no probabilities over these classes; read as logits, which makes them "
                "hardly sure of anything"
            ),
        )
    most = max(fitting.values(), key=np.sum)
    if 2 * most.sum() > len(values):
        return (
            values,
            "logits",
            (
                f"WARNING {name}: read as logits, though {most.sum()} of {len(values)} rows look like probabilities; "
                "do the rows come from different places?"
            ),
        )
    return values, "logits", f"{name}: read as logits (rows do not sum to 1)"
