"""Predictions in the samples' rows and the task's columns, with what looks wrong about their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import PredictionsError, some
from .align import Alignment, align, align_all, align_in_order, name_files
from .classes import preset_of
from .labels import SampleColumns
from .order import (
    chance_problem,
    changes_along_rows,
    class_order_problem,
    find_class_order,
    row_order_problem,
    va_row_problem,
    va_swap_problem,
)
from .predictions import Predictions
from .tables import increases, plain

# Names of columns and arrays by which there is no doubt about the ids.
_USUAL = ("id", "ids", "sample_id", "sample_ids")
_GIVE_IDS, _SAY_ORDER = "give the ids with --2d-ids", "say the order with --2d-classes"
# The --2d options speak of the 2D files alone; ready 3D predictions say it inside of them.
_INSIDE = {_GIVE_IDS: "save its ids with it", _SAY_ORDER: "name its columns in that order"}


@dataclass(frozen=True, slots=True)
class Placed:
    """One predictions file, joined.

    Attributes
    ----------
    source : str
        The file's name.
    kind : of :class:`~.predictions.Predictions`
    values : (n, k) float64
        Scores or values in the samples' order and the task's columns; NaN where the file has no such row.
    problem : str
        What is likely wrong with the order of its rows or columns; empty where nothing shows.
    remedy : str
        What to do about it.
    notes : tuple of str
        How it was read and joined.
    out_of_fold : bool
        The file says so.
    """

    source: str
    kind: str
    values: np.ndarray
    problem: str
    remedy: str
    notes: tuple[str, ...]
    out_of_fold: bool = False

    @property
    def there(self) -> np.ndarray:
        """(n,) bool: samples that the file has a row for."""
        return np.asarray(np.isfinite(self.values).all(axis=1))

    def accepted(self, *, force: bool) -> Placed:
        """This, where no order looks wrong; else with a warning where that is to be ignored.

        Raises
        ------
        PredictionsError : an order is likely wrong, and not forced.
        """
        if not self.problem:
            return self
        if not force:
            raise PredictionsError(f"{self.source}: {self.problem}; {self.remedy}, or go on with --force")
        return replace(self, notes=(*self.notes, f"WARNING {self.source}: {self.problem}; went on as forced"))


def place(
    predictions: Predictions,
    samples: SampleColumns,
    *,
    classes: tuple[str, ...],
    labels: np.ndarray,
    spare: Sequence[str] = (),
    allow_missing: bool = False,
    two_d: bool = True,
) -> Placed:
    """Put a file's rows where their samples are; where there are labels, check the orders it was read in.

    Checked are the order of the classes, of rows without ids, and of valence and arousal.

    Parameters
    ----------
    predictions : m rows
    samples : n samples
    classes : the k classes of the table; empty for valence and arousal
    labels : (n,) int16, indices into ``classes``
    spare : classes that the file may have and the table has not; their columns are left out
    allow_missing : bool
        Leave out rows that no sample has the id of.
    two_d : bool
        Whether the options for the 2D files mend these predictions.

    Raises
    ------
    PredictionsError : rows or columns do not join.
    """
    source = Path(predictions.source).name
    predictions = replace(predictions, source=source)
    found = _match(predictions, samples, allow_missing=allow_missing)
    without_ids = found is None
    if found is not None:
        rows, how = found
    else:
        remedy = _GIVE_IDS if two_d else _INSIDE[_GIVE_IDS]
        labelled = labels >= 0 if classes else np.isfinite(samples.targets).all(axis=1)
        rows, how = align_in_order(
            len(predictions),
            samples,
            samples.split,
            labelled=labelled,
            source=source,
            to=samples.source,
            remedy=remedy,
        )
    notes = [*predictions.notes, how]
    joined = rows >= 0
    if classes:
        values, said = align_columns(predictions, classes, spare)
        notes.append(said)
        read_as, truth = predictions.columns or classes, labels[rows[joined]].astype(np.int64)
        # Labels as numbers of the file's own columns, of which some may be spare.
        truth = np.where(truth >= 0, np.array([read_as.index(name) for name in classes])[truth], -1)
        problem, remedy = _class_problem(
            predictions.scores()[joined].argmax(axis=1), truth, rows[joined], samples, read_as, without_ids
        )
    elif predictions.kind != "va":
        raise PredictionsError(f"{source}: expected valence and arousal, got {predictions.kind}")
    else:
        values = predictions.values
        problem, remedy = _va_problem(values[joined], rows[joined], samples, without_ids)
    placed = np.full((len(samples), values.shape[1]), np.nan)
    placed[rows[joined]] = values[joined]
    return Placed(
        source=source,
        kind=predictions.kind,
        values=placed,
        problem=problem,
        remedy=remedy if two_d else _inside(remedy),
        notes=tuple(note for note in notes if note),
        out_of_fold=predictions.out_of_fold,
    )


def _inside(remedy: str) -> str:
    """A remedy for ready 3D predictions, to which the options for 2D files do not apply."""
    for option, words in _INSIDE.items():
        remedy = remedy.replace(option, words)
    return remedy


def _match(
    predictions: Predictions, samples: SampleColumns, *, allow_missing: bool
) -> tuple[np.ndarray, str] | None:
    """Rows of the samples by the column of the file that matches them, and a note on it; None without ids.

    Raises
    ------
    PredictionsError : no column of text matches, or two do and name different samples.
    """
    source, to = predictions.source, samples.source
    if predictions.ids is None:
        return _match_others(predictions, samples)
    columns = predictions.id_columns or {"ids": predictions.ids}
    matching: dict[str, Alignment] = {}
    refusals: list[PredictionsError] = []
    for name, ids in columns.items():
        try:
            matching[name] = align_all(ids, samples, source=source, to=to, allow_missing=allow_missing)
        except PredictionsError as exc:
            refusals.append(exc)
    if not matching:
        if (found := _match_others(predictions, samples)) is not None:
            return found
        if len(columns) == 1:
            raise refusals[0]
        raise PredictionsError(
            f"{refusals[0]}; none of the columns with text matches the samples ({some([*columns], 12)})"
        )
    name, best = max(matching.items(), key=lambda item: int(item[1].aligned.sum()))
    others = [
        other
        for other, its in matching.items()
        if its.aligned.sum() == best.aligned.sum() and not np.array_equal(its.rows, best.rows)
    ]
    if others and name not in _USUAL:
        raise PredictionsError(
            f"{source}: expected one column of ids, got {name} and {', '.join(others)}, which match different samples; "
            "call the right one id"
        )
    return best.rows, best.report(source, to, "" if name in _USUAL else name)


def _match_others(predictions: Predictions, samples: SampleColumns) -> tuple[np.ndarray, str] | None:
    """Rows of the samples by a column of numbers all of which name samples; None where there is none.

    Raises
    ------
    PredictionsError : numbers that count the rows name samples in another order, or names of files are repeated.
    """
    source = predictions.source
    for name, cells in predictions.other_columns.items():
        unique = np.unique(cells)
        if len(unique) < len(cells):
            if name_files(unique, samples):
                raise PredictionsError(
                    f"{source}: expected every id once, got names of several samples in {name} "
                    f"({some(unique.tolist(), 3)}); write whole paths into one column"
                )
            continue
        alignment = align(cells, samples)
        if not alignment.complete:
            continue
        if increases(cells) and (np.diff(alignment.rows) < 0).any() and not plain(name).endswith("id"):
            raise PredictionsError(
                f"{source}: expected ids, got none but the numbers in {name}, which match the samples in another order "
                "than that of the rows; call the column id if it names the images, remove it if it counts the rows"
            )
        return alignment.rows, alignment.report(source, samples.source, name)
    return None


def align_columns(
    predictions: Predictions, classes: Sequence[str], spare: Sequence[str] = ()
) -> tuple[np.ndarray, str]:
    """Scores (n, k) with columns in the order of ``classes``, and in words how they were taken.

    A softmax over the k columns gives the probabilities, renormalised where spare columns were left out.

    Raises
    ------
    PredictionsError : another number of classes, or other classes.
    """
    scores, names = predictions.scores(), predictions.columns
    source = predictions.source
    wanted = f"{source}: expected {len(classes)} classes ({', '.join(classes)})"
    if not names:
        extra = scores.shape[1] - len(classes)
        if extra:
            more = ", and valence and arousal in their places" if extra in (2, 3) else ""
            raise PredictionsError(
                f"{wanted}, got {scores.shape[1]} columns; say what they are with --2d-classes{more}"
            )
        preset = preset_of(tuple(classes))
        order = f"{', '.join(classes)}" + (f" (preset {preset})" if preset else "")
        return scores, f"{source}: classes assumed in the order {order}; say otherwise with --2d-classes"
    odd = [name for name in names if name not in classes]
    lacking = [name for name in classes if name not in names]
    if lacking or not set(odd) <= set(spare):
        got = (
            f"{', '.join(odd)} instead of {', '.join(lacking)}"
            if len(odd) == len(lacking)
            else f"{len(names)} columns ({', '.join(names)}); use predictions of the same classes"
        )
        raise PredictionsError(f"{wanted}, got {got}")
    dropped = f"; {', '.join(odd)} left out and the others renormalised" if odd else ""
    return scores[:, [names.index(name) for name in classes]], f"{source}: classes joined by name{dropped}"


def _class_problem(
    predicted: np.ndarray,
    truth: np.ndarray,
    rows: np.ndarray,
    samples: SampleColumns,
    columns: Sequence[str],
    without_ids: bool,
) -> tuple[str, str]:
    """What is likely wrong and what to do about it; ``predicted`` and ``truth`` (m,) are numbers of ``columns``."""
    known, k = truth >= 0, len(columns)
    # Numbers mean whatever the file's columns are called: another name for a column moves them along.
    numbers = not samples.classes and samples.label_names is None
    say_order = "give the labels as class names" if numbers else _SAY_ORDER
    if not without_ids:
        problem = class_order_problem(predicted[known], truth[known], columns)
        return problem or "", say_order
    # Rows in another order look like classes in another order where a class has its rows side by side.
    splits = samples.split[rows]
    problem = row_order_problem(predicted, truth, samples.path[rows].tolist(), k, splits=splits)
    if problem is not None:
        return problem, _GIVE_IDS
    order = find_class_order(predicted[known], truth[known], columns)
    if order is not None and order.preset and not changes_along_rows(predicted[known], truth[known]):
        return order.words(columns), say_order
    if order is not None:
        return (
            f"expected rows in the order of the samples, got {order.read:.1%} right, and no usual order of files or "
            "classes fits them"
        ), f"{_GIVE_IDS}; if the rows are in order, {say_order}"
    return chance_problem(predicted, truth, k, splits=splits) or "", _GIVE_IDS


def _va_problem(
    values: np.ndarray, rows: np.ndarray, samples: SampleColumns, without_ids: bool
) -> tuple[str, str]:
    targets = samples.targets[rows]
    known = np.isfinite(targets).all(axis=1)
    if without_ids:
        problem = va_row_problem(values, targets, samples.path[rows].tolist(), splits=samples.split[rows])
        if problem is not None:
            return problem, _GIVE_IDS
    return va_swap_problem(values[known], targets[known]) or "", "swap or rename them"
