"""From files to one table: samples and codes, aligned 2D predictions, and one order of classes.

Samples come from stores (:mod:`.codes`) or a table of labels (:mod:`.labels`). Predictions are read
(:mod:`.predictions`), aligned to them (:mod:`.align`) and checked for their order (:mod:`.order`); the result is a
:class:`~.fusion_table.FusionTable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import PredictionsError, UsageError, plural
from .align import align_columns, align_in_order
from .codes import Codes, read_codes
from .fusion_table import FusionTable
from .inputs import Inputs
from .labels import has_va, is_numbered, names_of, overlay, read_labels, with_classes
from .network_features import network_of
from .order import GIVE_IDS, GIVE_ORDER, class_problem, va_problem
from .predictions import Predictions, load_predictions
from .quality import QUALITY_COLUMNS
from .samples import classes_of

if TYPE_CHECKING:
    import pandas as pd

# The class that half of the field's datasets and networks have and the other half has not.
_OPTIONAL = "contempt"
# The --2d options are for the 2D files alone; advice for ready 3D predictions names the file's contents.
_INSIDE = {GIVE_IDS: "save its ids with it", GIVE_ORDER: "name its columns in that order"}


@dataclass(frozen=True, slots=True)
class Given:
    """Samples that predictions are aligned to, and their codes where there is a store.

    Attributes
    ----------
    samples : pandas.DataFrame
        Sample table.
    source : str
        The files of the samples, for messages.
    classes : tuple of str
        Empty where labels are numbers, or names whose order is open.
    codes : Codes or None
    spare : classes that not all datasets have; predictions may have columns of them
    notes : tuple of str
    """

    samples: pd.DataFrame
    source: str
    classes: tuple[str, ...]
    codes: Codes | None = None
    spare: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def targets(self) -> np.ndarray:
        """(n, 2) float64 valence and arousal, NaN where there is none."""
        return self.samples[["valence", "arousal"]].to_numpy(np.float64)

    @property
    def splits(self) -> np.ndarray:
        """(n,) int8 codes of :class:`~.samples.Split`."""
        return self.samples["split"].cat.codes.to_numpy(np.int8)


@dataclass(frozen=True, slots=True)
class Aligned:
    """One predictions file, aligned to the samples.

    Attributes
    ----------
    source : str
        The file's name.
    kind : of :class:`~.predictions.Predictions`
    values : (n, k) float64
        Scores or values in the samples' order and the task's columns; NaN where the file has no such row.
    problem : str
        Likely fault in the order of its rows or columns; empty where nothing shows.
    advice : str
        Remedy of the problem.
    notes : tuple of str
        How it was read and aligned.
    out_of_fold : bool
        The file states it.
    """

    source: str
    kind: str
    values: np.ndarray
    problem: str
    advice: str
    notes: tuple[str, ...]
    out_of_fold: bool = False

    @property
    def present(self) -> np.ndarray:
        """(n,) bool: samples that the file has a row for."""
        return np.asarray(np.isfinite(self.values).all(axis=1))

    def accepted(self, *, force: bool) -> Aligned:
        """The same, where no order looks wrong; else with a warning where that is to be ignored.

        Raises
        ------
        PredictionsError : an order is likely wrong, and not forced.
        """
        if not self.problem:
            return self
        if not force:
            raise PredictionsError(f"{self.source}: {self.problem}; {self.advice}, or continue with --force")
        return replace(
            self, notes=(*self.notes, f"WARNING {self.source}: {self.problem}; continued because of --force")
        )


@dataclass(frozen=True, slots=True)
class Joined:
    """All predictions in the samples' rows and one order of classes.

    Attributes
    ----------
    task : ``classes`` or ``va``
    classes : tuple of str, empty for valence and arousal
    labels : (n,) int16, indices into ``classes``, -1 where there is none
    two_d : the 2D predictions by name; the first is the base
    three_d : ready 3D predictions, or None
    notes : tuple of str
    """

    task: str
    classes: tuple[str, ...]
    labels: np.ndarray
    two_d: Mapping[str, Aligned]
    three_d: Aligned | None
    notes: tuple[str, ...]


def load_table(
    inputs: Inputs,
    *,
    blocks: str = "full",
    allow_missing: bool = False,
    force: bool = False,
    need_labels: bool = True,
    classes: Sequence[str] = (),
) -> FusionTable:
    """The joined table from files: 2D predictions, and stores of codes or ready 3D predictions.

    Parameters
    ----------
    inputs : Inputs
    blocks : which code blocks (:func:`~.codes.read_codes`)
    allow_missing : bool
        Rows of a 2D file that no sample has the id of are left out instead of refused.
    force : bool
        Go on, with a warning among the notes, where an order is likely wrong.
    need_labels : bool
        Refuse samples of which none has a label; a fitted model predicts those as well.
    classes : tuple of str
        The classes that the table is to have, such as a fitted model's; a label that is none of them becomes none.
        Empty takes those of the samples, or of the predictions.

    Raises
    ------
    UsageError : an unknown block.
    PredictionsError : a file is malformed or does not join, or its order is likely wrong.
    StoreError : a store cannot be read, was changed, or does not fit the others.
    """
    given = read_samples(inputs, blocks=blocks)
    joined = join_files(
        inputs, given, allow_missing=allow_missing, need_labels=need_labels, classes=tuple(classes)
    )
    codes = given.codes
    two_d = {name: file.accepted(force=force) for name, file in joined.two_d.items()}
    three_d = None if joined.three_d is None else joined.three_d.accepted(force=force)
    if need_labels and (missing := missing_reported(given, joined, next(iter(joined.two_d.values())))):
        raise PredictionsError(missing)
    (_, base), *others = two_d.items()
    trained = base.present & (given.samples["split"] == "train").to_numpy(bool)
    sources = {"2d": base.source, **{f"2d:{name}": other.source for name, other in others}}
    if three_d is not None:
        sources |= {"3d": three_d.source, "labels": given.source}
    notes = [*given.notes, *joined.notes]
    for file in (*two_d.values(), *(() if three_d is None else (three_d,))):
        notes += file.notes
    return FusionTable(
        task=joined.task,
        classes=joined.classes,
        id=given.samples["id"].to_numpy(str),
        group=given.samples["group"].to_numpy(str),
        split=given.splits,
        labels=joined.labels,
        targets=given.targets,
        two_d=base.values,
        codes=None if codes is None else codes.values,
        code_columns=() if codes is None else codes.columns,
        blocks=() if codes is None else codes.blocks,
        three_d=None if three_d is None else three_d.values,
        notes=tuple(dict.fromkeys(notes)),
        sources=sources if codes is None else sources | dict(codes.sources),
        others={name: other.values for name, other in others},
        quality=None if codes is None else codes.quality,
        quality_columns=() if codes is None else QUALITY_COLUMNS,
        two_d_out_of_fold=base.out_of_fold and bool(trained.any()),
        two_d_network=network_of(inputs.two_d[0]),
    )


def read_samples(inputs: Inputs, *, blocks: str = "full") -> Given:
    """Samples that predictions are aligned to: those of the stores, or of the table of labels."""
    if inputs.stores:
        samples, codes = read_codes(inputs.stores, blocks=blocks)
        classes, notes = classes_of(samples), codes.notes
        if inputs.labels is not None:
            table = read_labels(inputs.labels, beside=samples)
            samples, note = overlay(samples, table, source=inputs.labels.name, to=codes.source)
            classes = classes if classes_of(samples) == classes else ()
            notes = (*notes, note)
        return Given(samples, codes.source, classes, codes, codes.spare, notes)
    if inputs.labels is None:
        raise UsageError("inputs: no labels; give --3d-store STORE or --labels TABLE")
    return Given(read_labels(inputs.labels), inputs.labels.name, ())


def join_files(
    inputs: Inputs,
    given: Given,
    *,
    allow_missing: bool = False,
    need_labels: bool = True,
    classes: tuple[str, ...] = (),
) -> Joined:
    """Read all predictions, choose the classes, and align each file; nothing is refused for its order yet.

    Parameters are those of :func:`load_table`.
    """
    known = classes or given.classes or tuple(sorted(names_of(given.samples["label"])))

    def read(file: int, task: str | None) -> Predictions:
        return load_predictions(
            inputs.two_d[file],
            ids_file=inputs.ids_of(file),
            classes=inputs.classes_of(file),
            known=known,
            task=task,
        )

    base = read(0, inputs.task)
    task = _choose_task(given, base, "classes" if classes else inputs.task, need_labels=need_labels)
    if task == "va" and base.kind != "va":
        base = read(0, task)  # two columns without names turned out to be these
    files = [base, *(read(file, task) for file in range(1, len(inputs.two_d)))]
    ready = [] if inputs.three_d is None else [load_predictions(inputs.three_d, known=known, task=task)]
    notes: tuple[str, ...] = ()
    labels = np.full(len(given.samples), -1, np.int16)
    if task == "classes":
        categories, notes = _choose_classes(given, [*files, *ready], classes)
        classes, labels = tuple(categories.cat.categories), categories.cat.codes.to_numpy(np.int16)
    else:
        classes = ()
    aligned = [align_predictions(file, given, classes, labels, allow_missing=allow_missing) for file in files]
    three_d = [
        align_predictions(file, given, classes, labels, allow_missing=allow_missing, two_d=False)
        for file in ready
    ]
    two_d = dict(zip(_names_of(inputs.two_d), aligned, strict=True))
    return Joined(task, classes, labels, two_d, three_d[0] if three_d else None, notes)


def align_predictions(
    predictions: Predictions,
    given: Given,
    classes: tuple[str, ...],
    labels: np.ndarray,
    *,
    allow_missing: bool = False,
    two_d: bool = True,
) -> Aligned:
    """Put a file's rows where their samples are; where there are labels, check the orders it was read in.

    Checked are the order of the classes, of rows without ids, and of valence and arousal.

    Parameters
    ----------
    predictions : m rows
    given : n samples
    classes : the k classes of the table; empty for valence and arousal
    labels : (n,) int16, indices into ``classes``
    allow_missing : bool
        Leave out rows that no sample has the id of.
    two_d : bool
        Whether the options for the 2D files apply to these predictions.

    Raises
    ------
    PredictionsError : rows or columns do not fit.
    """
    predictions = replace(predictions, source=Path(predictions.source).name)
    source, samples, targets = predictions.source, given.samples, given.targets
    ids = predictions.id_columns or ({} if predictions.ids is None else {"ids": predictions.ids})
    aligned = align_columns(
        ids,
        predictions.other_columns,
        samples,
        source=source,
        to=given.source,
        allow_missing=allow_missing,
    )
    rows, note = aligned or align_in_order(
        len(predictions),
        given.splits,
        labelled=labels >= 0 if classes else np.isfinite(targets).all(axis=1),
        source=source,
        to=given.source,
        remedy=GIVE_IDS if two_d else _INSIDE[GIVE_IDS],
    )
    notes = [*predictions.notes, note]
    taken = rows >= 0
    to = rows[taken]
    has_ids, paths, splits = aligned is not None, samples["path"].to_numpy()[to].tolist(), given.splits[to]
    if classes:
        values, note = predictions.scores_of(classes, (*given.spare, _OPTIONAL))
        notes.append(note)
        columns = predictions.columns or classes
        # Labels as numbers of the file's own columns, of which some may be spare.
        number_of = np.array([*map(columns.index, classes), -1])
        problem, advice = class_problem(
            predictions.scores()[taken].argmax(axis=1),
            number_of[labels[to]],
            columns,
            paths=paths,
            splits=splits,
            has_ids=has_ids,
            numbered=not given.classes and is_numbered(samples["label"]),
        )
    elif predictions.kind != "va":
        raise PredictionsError(
            f"{source}: holds {predictions.kind}, not valence and arousal; use --task classes"
        )
    else:
        values = predictions.values
        problem, advice = va_problem(values[taken], targets[to], paths=paths, splits=splits, has_ids=has_ids)
    if not two_d:
        for option, words in _INSIDE.items():
            advice = advice.replace(option, words)
    everywhere = np.full((len(samples), values.shape[1]), np.nan)
    everywhere[to] = values[taken]
    return Aligned(
        source,
        predictions.kind,
        everywhere,
        problem,
        advice,
        tuple(filter(None, notes)),
        predictions.out_of_fold,
    )


def missing_reported(given: Given, joined: Joined, file: Aligned) -> str:
    """Fault of a file that has none of the reported rows of several datasets; empty where it has some.

    Other rows would be reported in their place, which the notes call unused.
    """
    reported = "" if given.codes is None else given.codes.reported
    known = np.isfinite(given.targets).all(axis=1) if joined.task == "va" else joined.labels >= 0
    wanted = (given.samples["split"] == "test").to_numpy(bool) & known
    if not reported or (wanted & file.present).any():
        return ""
    return (
        f"{file.source}: no 2D predictions for the {plural(int(wanted.sum()), 'labelled test row')} of {reported}, "
        "which are to be reported; give a file with those rows, or omit that store"
    )


def _choose_task(given: Given, two_d: Predictions, task: str | None, *, need_labels: bool = True) -> str:
    """``classes`` or ``va``: the task that was asked for, else one that both samples and predictions have.

    Raises
    ------
    PredictionsError : no sample has a label of the task, and labels are needed.
    """
    has = {"classes": bool(given.samples["label"].notna().any()), "va": has_va(given.samples)}
    if task is None:
        pair = two_d.values.shape[1] == 2 and not two_d.columns and len(given.classes) != 2
        task = "va" if two_d.kind == "va" or (has["va"] and (pair or not has["classes"])) else "classes"
    if not has[task] and need_labels:
        other = next((name for name, present in has.items() if present), None)
        wanted = "valence and arousal" if task == "va" else "classes"
        raise PredictionsError(
            f"{given.source}: has no labels ({wanted}), so nothing can be measured"
            + (f"; use --task {other}, whose labels it has" if other else "; give them with --labels TABLE")
        )
    return task


def _choose_classes(
    given: Given, files: Sequence[Predictions], asked: tuple[str, ...]
) -> tuple[pd.Series, tuple[str, ...]]:
    """Labels as a Categorical of the table's classes, and notes; contempt is dropped where one side has none of it."""
    labels, source = given.samples["label"], given.source
    names = names_of(labels)
    numbered = not given.classes and is_numbered(labels)
    if asked:
        others = [] if numbered else sorted(names - set(asked))
        lost = int(labels.isin(others).sum())
        note = f"{source}: {plural(lost, 'row')} labelled {', '.join(others)} left out: not asked for"
        return with_classes(labels, asked, source=source, spare=others), (note,) if lost else ()
    columns = [file.columns for file in files if file.columns]
    notes: list[str] = []
    classes = given.classes
    if not classes and columns:
        classes = columns[0]
        first = next(Path(file.source).name for file in files if file.columns)
        notes.append(f"classes: {', '.join(classes)}, as {first} has them")
    if not classes and names and not numbered:
        raise PredictionsError(
            f"{source}: the labels are class names, but no file of predictions names its columns; name them with "
            "--2d-classes"
        )
    if not classes:
        classes = tuple(str(column) for column in range(files[0].values.shape[1]))
        note = f"classes: no file names them; numbered 0 to {len(classes) - 1} as the columns and labels are"
        return with_classes(labels, classes, source=source), (note,)
    sides = [*columns, *([] if numbered else [given.classes or tuple(sorted(names))])]
    if numbered:
        labels = with_classes(labels, classes, source=source)
    if _OPTIONAL in classes and any(_OPTIONAL not in side for side in sides):
        classes = tuple(name for name in classes if name != _OPTIONAL)
        lost = int((labels == _OPTIONAL).sum())
        if lost:
            notes.append(
                f"classes: {len(classes)} without {_OPTIONAL}, which is not in every file; "
                f"{plural(lost, 'row')} labelled {_OPTIONAL} left out"
            )
    return with_classes(labels, classes, source=source, spare=(_OPTIONAL,)), tuple(notes)


def _names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each 2D file, as short as distinguishes them."""
    for names in ([path.stem for path in paths], [f"{path.parent.name}/{path.stem}" for path in paths]):
        if len(set(names)) == len(names):
            return names
    names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise UsageError("--2d-logits: the same file is given twice; give each file once")
    return names
