"""Predictions of one network: logits, probabilities or valence-arousal, with or without ids.

:mod:`.prediction_files` reads the files, :mod:`.align` finds the sample of each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import PredictionsError, listed, plural, reason_of
from .atomic import replacing, write_arrays
from .classes import canonical_all, parse_classes, preset_of
from .prediction_files import VA as VA  # the name is used with predictions
from .prediction_files import FileContent, load_ids, read_file
from .table_columns import as_text, id_column

KINDS = ("logits", "probabilities", "va")
# Smallest probability; smaller ones are rounding errors, and the logarithm of 0 is not finite.
PROBABILITY_FLOOR = 1e-12
_SUM_TOLERANCE = 5e-3  # of the sum of a row of probabilities
MAX_COLUMNS = 1000
# Differences of larger logits are lost in float64.
LOGIT_LIMIT = 1e9
# Networks may exceed [-1, 1] a little. Larger values of valence or arousal are on another scale.
VA_LIMIT = 1.5


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions of one network for n rows.

    Attributes
    ----------
    values : (n, k) float64
        Logits, probabilities (rows sum to 1), or valence and arousal (k = 2).
    kind : ``logits``, ``probabilities`` or ``va``
    columns : tuple of str
        Canonical class names or ``("valence", "arousal")``; empty if the file does not name its columns.
    ids : (n,) str, or None
        Ids in the spelling of the file.
    source : str
        The file, for messages.
    notes : tuple of str
        How the file was interpreted.
    out_of_fold : bool
        Whether rows of the train split were predicted by networks that were not trained on them.
    id_columns : name -> (n,) str
        Columns or arrays of the file that may contain the ids; ``ids`` is the first of them. The column that matches
        the samples is used (:func:`~.align.align_columns`).
    other_columns : name -> (n,) str
        Columns or arrays of numbers and of repeated text, for :func:`~.align.align_columns`.

    Raises
    ------
    PredictionsError : wrong shape or number of columns, values that are not finite, or missing or duplicate ids.
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
                f"{self.source}: {plural(values.shape[1], 'column')}, but {plural(len(self.columns), 'name')} "
                f"({', '.join(self.columns)}); name every column of the file"
                + (", valence and arousal among them" if values.shape[1] - len(self.columns) == 2 else "")
            )
        object.__setattr__(self, "values", values.astype(np.float64))
        self._check_ids()
        invalid = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(invalid):
            raise PredictionsError(
                f"{self.source}: NaN, infinity or text in {len(invalid)} of {plural(len(values), 'row')} "
                f"({listed([self._row_name(int(row)) for row in invalid])}); correct or remove them"
            )
        size = np.abs(self.values)
        too_large = np.flatnonzero((size > LOGIT_LIMIT).any(axis=1))
        if len(too_large):
            rows = (
                f"{plural(len(too_large), 'row')}: {listed([self._row_name(int(row)) for row in too_large])}"
            )
            raise PredictionsError(
                f"{self.source}: values up to {size.max():.4g} in size ({rows}) are not logits, which are within "
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
        """(n, k) float64: the logits, or the logarithms of the probabilities; their softmax is the probabilities.

        Raises
        ------
        PredictionsError : these are valence and arousal.
        """
        if self.kind == "va":
            raise PredictionsError(
                f"{self.source}: holds valence and arousal, not class predictions; use --task va"
            )
        if self.kind == "logits":
            return self.values
        return np.asarray(np.log(np.maximum(self.values, PROBABILITY_FLOOR)))

    def scores_of(self, classes: Sequence[str], spare: Sequence[str] = ()) -> tuple[np.ndarray, str]:
        """Scores (n, k) with columns in the order of ``classes``, and a note on how columns were assigned.

        Columns of classes in ``spare`` are left out if ``classes`` does not contain them. The softmax of the others is
        then the renormalised probabilities.

        Raises
        ------
        PredictionsError : the file has another number of classes, or other classes.
        """
        scores, names, source = self.scores(), self.columns, Path(self.source).name
        if not names:
            extra = scores.shape[1] - len(classes)
            if extra:
                more = ", valence and arousal included" if extra in (2, 3) else ""
                raise PredictionsError(
                    f"{source}: {plural(scores.shape[1], 'column')}, but {_wanted(classes)}; name all columns with "
                    f"--2d-classes{more}"
                )
            preset = preset_of(tuple(classes))
            order = f"{', '.join(classes)}" + (f" (preset {preset})" if preset else "")
            return scores, f"{source}: classes assumed in the order {order}; give another with --2d-classes"
        further = [name for name in names if name not in classes]
        if difference := class_difference(names, classes, spare):
            raise PredictionsError(f"{source}: {difference}")
        dropped = f"; {', '.join(further)} left out and the others renormalised" if further else ""
        positions = [names.index(name) for name in classes]
        return scores[:, positions], f"{source}: classes joined by name{dropped}"

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` file with ``ids``, ``logits`` (or ``probabilities``, ``va``) and ``classes``.

        An existing file is replaced only if writing succeeds.
        """
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
                f"{path}: the predictions cannot be written: {reason_of(exc)}; choose another path"
            ) from exc


def class_difference(
    names: Sequence[str],
    classes: Sequence[str],
    spare: Sequence[str] = (),
    *,
    numbers: Sequence[int] | None = None,
) -> str:
    """Reason why predictions cannot be joined to samples by their classes, and advice; empty if they can.

    Parameters
    ----------
    names : classes of the columns of the predictions
    classes : classes of the samples
    spare : classes that are left out if only the predictions have them
    numbers : number of each column in the output of the network; by default as in the file
    """
    further = [name for name in names if name not in classes]
    missing = [name for name in classes if name not in names]
    if not missing and set(further) <= set(spare):
        return ""
    parts = [f"columns of {', '.join(further)}"] if further else []
    if missing and len(missing) < len(classes):
        parts.append(f"{'none' if further else 'no column'} of {', '.join(missing)}")
    advice = "use predictions of the same classes"
    if not missing:
        kept = ",".join(str((numbers or range(len(names)))[names.index(name)]) for name in classes)
        advice = f"leave out the other columns, with ig3d logits --columns {kept} or in the file"
    return f"has {' and '.join(parts)}, but {_wanted(classes)}; {advice}"


def _wanted(classes: Sequence[str]) -> str:
    return f"the store or labels have {plural(len(classes), 'class')} ({', '.join(classes)})"


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """(n, k) log-probabilities from (n, k) scores."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def log_probabilities(scores: np.ndarray) -> np.ndarray:
    """(n, k) log-probabilities from (n, k) scores; rounding does not change the class of the largest score."""
    logs, top = log_softmax(scores), scores.argmax(axis=1)
    tied = np.flatnonzero(logs.argmax(axis=1) != top)
    logs[tied, top[tied]] = np.nextafter(logs[tied].max(axis=1), np.inf)
    return logs


def load_predictions(
    path: str | Path,
    *,
    ids_file: str | Path | None = None,
    classes: str | Sequence[str] | None = None,
    more_classes: Sequence[str] = (),
    task: str | None = None,
) -> Predictions:
    """Read predictions from ``.npy``, ``.npz``, ``.csv``, ``.tsv``, ``.parquet`` or ``.pt``.

    Parameters
    ----------
    path : file of predictions
    ids_file : file of ids, one per row, for predictions without ids (``.txt``, ``.npy``, ``.npz``, ``.csv``, ``.pt``)
    classes : names of the columns in order, or a text for :func:`~.classes.parse_classes`
        They replace the names in the file, with a note. Valence and arousal may be among them.
    more_classes : further class names that columns of a table may have, such as the classes of the store
    task : ``classes`` or ``va``; None is the task of the file, or classes if it has both

    Raises
    ------
    PredictionsError : the file cannot be read, or its values or ids are invalid.
    MissingExtra : Parquet needs pyarrow.
    """
    source = Path(path)
    names = parse_classes(classes) if isinstance(classes, str) else tuple(classes or ())
    both_tasks = {*VA} <= {name.lower() for name in names}  # columns of classes, valence and arousal
    content = read_file(source, "classes" if both_tasks else task, (*more_classes, *names))
    if ids_file is not None:
        content = _with_ids(content, source, Path(ids_file))
    if classes is not None and content.values.ndim == 2:
        if isinstance(classes, str):
            names = parse_classes(classes, columns=content.values.shape[1])
        if both_tasks and len(names) == content.values.shape[1]:
            content, names = _one_task(content, source, names, task)
    columns, kind, notes = content.columns, content.kind, list(content.notes)
    if kind == "va":
        values = content.values
        if values.ndim == 2 and values.shape[1] == 2 and not columns:
            notes.append(
                f"{source.name}: columns taken as valence, arousal in this order (the file has no names)"
            )
        columns = VA
    else:
        if classes is not None:
            requested = canonical_all(names)
            if columns and columns != requested:
                notes.append(
                    f"{source.name}: columns read as {', '.join(requested)}, as requested, instead of the names in the "
                    f"file ({', '.join(columns)})"
                )
            columns = requested
        values, kind, note = _recognise_kind(content.values, source, kind)
        notes.append(note)
    predictions = Predictions(
        values,
        kind,
        columns,
        ids=next(iter(content.ids.values()), None),
        source=str(source),
        notes=tuple(notes),
        out_of_fold=content.out_of_fold,
        id_columns=content.ids,
        other_columns=content.others,
    )
    return in_va_range(predictions)


def _with_ids(content: FileContent, source: Path, ids_file: Path) -> FileContent:
    """Content of a file of predictions, with the ids of another file."""
    columns = load_ids(ids_file)
    n = len(content.values)
    columns = {name: column for name, column in columns.items() if len(column) == n} or columns
    ids = next(iter(columns.values()))
    name = id_column(content.ids)
    if name is not None and not np.array_equal(content.ids[name], ids):
        raise PredictionsError(
            f"{source}: its ids ({listed(content.ids[name][:2].tolist())}) differ from those of {ids_file} "
            f"({listed(ids[:2].tolist())}); omit --2d-ids, or remove the ids from the predictions"
        )
    return replace(content, ids=columns, others={})


def _one_task(
    content: FileContent, source: Path, names: tuple[str, ...], task: str | None
) -> tuple[FileContent, tuple[str, ...]]:
    """Content and names reduced to one task, for a file with columns of classes and of valence and arousal."""
    va = [column for column, name in enumerate(names) if name.lower() in VA]
    if task == "va":
        va = sorted(va, key=lambda column: names[column].lower() != VA[0])  # valence first
        return replace(content, values=content.values[:, va], columns=VA, kind="va"), names
    note = f"{source.name}: valence and arousal left out (--task va takes them)"
    values = np.delete(content.values, va, axis=1)
    classes = tuple(name for name in names if name.lower() not in VA)
    return replace(content, values=values, columns=(), notes=(*content.notes, note)), classes


def in_va_range(predictions: Predictions) -> Predictions:
    """The same predictions; with a note if valence or arousal exceed [-1, 1] a little.

    Raises
    ------
    PredictionsError : a value exceeds ``VA_LIMIT`` and so is on another scale.
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
        f"{plural(outside, 'row')} outside [-1, 1]; used unchanged"
    )
    return replace(predictions, notes=(*predictions.notes, note))


def scores_of_outputs(values: np.ndarray, source: Path) -> np.ndarray:
    """(n, k) scores of outputs of a network (logits, probabilities or per cent); their softmax is the probabilities."""
    values, kind, _ = _recognise_kind(values, source, "")
    return Predictions(values, kind, source=str(source)).scores()


def _recognise_kind(values: np.ndarray, source: Path, named: str) -> tuple[np.ndarray, str, str]:
    """Values, their kind and a note: probabilities, log-probabilities or logits, by the sums of the rows.

    Per cent become probabilities. ``named`` is the kind that the file names, or empty.
    """
    name = source.name
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not len(values) or not np.isfinite(values).all():
        return values, "logits", ""  # Predictions raises the error
    values = values.astype(np.float64)
    with np.errstate(over="ignore"):  # Predictions raises an error for such logits
        positive, sums = (values >= 0).all(axis=1), values.sum(axis=1)
    fitting = {total: positive & (np.abs(sums - total) <= _SUM_TOLERANCE * total) for total in (1.0, 100.0)}
    for total, kind in ((1.0, "probabilities"), (100.0, "per cent")):
        if fitting[total].all():
            note = f"{name}: read as {kind} (rows sum to {total:g})"
            return values / sums[:, None], "probabilities", note
    if named == "probabilities":
        bad = int(np.sum(~fitting[1.0]))
        raise PredictionsError(
            f"{source}: in {bad} of {plural(len(values), 'row')} the probabilities do not sum to 1 or 100; name the "
            "array logits if it holds logits"
        )
    if (values <= 0).all() and (np.abs(np.exp(values).sum(axis=1) - 1) <= _SUM_TOLERANCE).all():
        return values, "logits", f"{name}: read as log-probabilities (their exponentials sum to 1)"
    if values.min() >= 0 and values.max() <= 1:
        return (
            values,
            "logits",
            (
                f"WARNING {name}: all values are in [0, 1], but {plural(int(np.sum(~fitting[1.0])), 'row')} of "
                f"{len(values)} do not sum to 1; read as logits, which gives nearly equal probabilities"
            ),
        )
    most = max(fitting.values(), key=np.sum)
    if 2 * most.sum() > len(values):
        return (
            values,
            "logits",
            (
                f"WARNING {name}: read as logits, although {most.sum()} of {len(values)} rows look like "
                "probabilities; check that all rows are of one kind"
            ),
        )
    return values, "logits", f"{name}: read as logits (rows do not sum to 1)"
