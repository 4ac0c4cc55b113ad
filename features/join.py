"""Join files to one table: samples, codes and aligned predictions with one order of classes.

Samples come from stores (:mod:`.codes`) or from a table of labels (:mod:`.labels`). Predictions are read
(:mod:`.predictions`), aligned to the samples (:mod:`.align`), and their order is checked (:mod:`.order`). The result is
a :class:`~.fusion_table.FusionTable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import PredictionsError, UsageError, plural
from .align import align_columns, align_in_order
from .classes import OPTIONAL
from .codes import Codes, read_codes
from .fusion_table import FusionTable
from .inputs import Inputs
from .labels import has_va, is_numbered, names_of, overlay, read_labels, with_classes
from .network_features import network_of, training_rows_of
from .order import GIVE_IDS, GIVE_ORDER, class_problem, va_problem
from .predictions import Predictions, load_predictions
from .quality import QUALITY_COLUMNS
from .samples import classes_of

if TYPE_CHECKING:
    import pandas as pd

# Advice for files of 3D predictions, for which the --2d options do not apply.
_ADVICE_3D = {GIVE_IDS: "save its ids in the file", GIVE_ORDER: "name its columns in that order"}


@dataclass(frozen=True, slots=True)
class SampleData:
    """Samples to which predictions are aligned, with their codes if they come from a store.

    Attributes
    ----------
    samples : sample table of n rows
    source : str
        Names of the files of the samples, for messages.
    classes : tuple of str
        Classes of the labels in order; empty if labels are numbers, or names without an order.
    codes : Codes or None
    spare : classes that not all datasets have; predictions may have columns for them
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
        """(n, 2) float64 valence and arousal, NaN if missing."""
        return self.samples[["valence", "arousal"]].to_numpy(np.float64)

    @property
    def splits(self) -> np.ndarray:
        """(n,) int8 codes of :class:`~.samples.Split`."""
        return self.samples["split"].cat.codes.to_numpy(np.int8)


@dataclass(frozen=True, slots=True)
class AlignedPredictions:
    """One predictions file, aligned to the samples.

    Attributes
    ----------
    source : str
        Name of the file.
    kind : ``logits``, ``probabilities`` or ``va``
    values : (n, k) float64
        Scores or values, with rows in the order of the samples and columns in that of the task; NaN in samples without
        a prediction.
    problem : str
        Probable error in the order of the rows or columns; empty if there is none.
    advice : str
        Advice on the problem.
    notes : tuple of str
        How the file was read and aligned.
    out_of_fold : bool
        Whether the file states that its predictions are out of fold.
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
        """(n,) bool: samples with a prediction."""
        return np.asarray(np.isfinite(self.values).all(axis=1))

    def accepted(self, *, force: bool) -> AlignedPredictions:
        """The same predictions, with a warning among the notes if there is a problem and ``force`` is set.

        Raises
        ------
        PredictionsError : there is a problem, and ``force`` is not set.
        """
        if not self.problem:
            return self
        if not force:
            raise PredictionsError(f"{self.source}: {self.problem}; {self.advice}, or continue with --force")
        return replace(
            self, notes=(*self.notes, f"WARNING {self.source}: {self.problem}; continued because of --force")
        )


@dataclass(frozen=True, slots=True)
class JoinedFiles:
    """All predictions, aligned to the samples and with one order of classes.

    Attributes
    ----------
    task : ``classes`` or ``va``
    classes : tuple of str, empty for valence and arousal
    labels : (n,) int16, indices into ``classes``, -1 if missing
    two_d : name -> 2D predictions; the first is the network that is fused
    three_d : 3D predictions from a file, or None
    notes : tuple of str
    """

    task: str
    classes: tuple[str, ...]
    labels: np.ndarray
    two_d: Mapping[str, AlignedPredictions]
    three_d: AlignedPredictions | None
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
    """Fusion table of files: 2D predictions, and stores of codes or a file of 3D predictions.

    Parameters
    ----------
    inputs : Inputs
    blocks : code blocks (:func:`~.codes.read_codes`)
    allow_missing : bool
        Leave out rows of a 2D file that match no sample, instead of raising an error.
    force : bool
        If the order of a file is probably wrong, add a warning to the notes instead of raising an error.
    need_labels : bool
        Raise an error if no sample has a label. A fitted model can also predict samples without labels.
    classes : tuple of str
        Classes of the table, such as those of a fitted model; other labels are removed. By default the classes of the
        samples, or of the predictions.

    Raises
    ------
    UsageError : a block does not exist.
    PredictionsError : a file is malformed or cannot be aligned, or its order is probably wrong.
    StoreError : a store cannot be read, was changed, or does not fit the others.
    """
    data = read_samples(inputs, blocks=blocks)
    joined = join_files(
        inputs, data, allow_missing=allow_missing, need_labels=need_labels, classes=tuple(classes)
    )
    codes = data.codes
    two_d = {name: file.accepted(force=force) for name, file in joined.two_d.items()}
    three_d = None if joined.three_d is None else joined.three_d.accepted(force=force)
    if need_labels and (missing := missing_reported(data, joined, next(iter(joined.two_d.values())))):
        raise PredictionsError(missing)
    (_, first), *others = two_d.items()
    train_rows = first.present & (data.samples["split"] == "train").to_numpy(bool)
    sources = {"2d": first.source, **{f"2d:{name}": other.source for name, other in others}}
    if three_d is not None:
        sources |= {"3d": three_d.source, "labels": data.source}
    notes = [*data.notes, *joined.notes]
    for file in (*two_d.values(), *(() if three_d is None else (three_d,))):
        notes += file.notes
    return FusionTable(
        task=joined.task,
        classes=joined.classes,
        id=data.samples["id"].to_numpy(str),
        group=data.samples["group"].to_numpy(str),
        split=data.splits,
        labels=joined.labels,
        targets=data.targets,
        two_d=first.values,
        codes=None if codes is None else codes.values,
        code_columns=() if codes is None else codes.columns,
        blocks=() if codes is None else codes.blocks,
        three_d=None if three_d is None else three_d.values,
        notes=tuple(dict.fromkeys(notes)),
        sources=sources if codes is None else sources | dict(codes.sources),
        others={name: other.values for name, other in others},
        quality=None if codes is None else codes.quality,
        quality_columns=() if codes is None else QUALITY_COLUMNS,
        two_d_out_of_fold=first.out_of_fold and bool(train_rows.any()),
        two_d_training_rows=training_rows_of(inputs.two_d[0]),
        two_d_network=network_of(inputs.two_d[0]),
        image_hash=None if codes is None else codes.image_hash,
    )


def read_samples(inputs: Inputs, *, blocks: str = "full") -> SampleData:
    """Samples of the stores, or of the table of labels."""
    if inputs.stores:
        samples, codes = read_codes(inputs.stores, blocks=blocks)
        classes, notes = classes_of(samples), codes.notes
        if inputs.labels is not None:
            table = read_labels(inputs.labels, samples=samples)
            samples, note = overlay(samples, table, source=inputs.labels.name, to=codes.source)
            classes = classes if classes_of(samples) == classes else ()
            notes = (*notes, note)
        return SampleData(samples, codes.source, classes, codes, codes.spare, notes)
    if inputs.labels is None:
        raise UsageError("inputs: no labels; give --3d-store STORE or --labels TABLE")
    return SampleData(read_labels(inputs.labels), inputs.labels.name, ())


def join_files(
    inputs: Inputs,
    data: SampleData,
    *,
    allow_missing: bool = False,
    need_labels: bool = True,
    classes: tuple[str, ...] = (),
) -> JoinedFiles:
    """Read all predictions, choose the classes, and align each file.

    A probable error in the order of a file is stored in its ``problem``. Parameters are those of :func:`load_table`.
    """
    class_names = classes or data.classes or tuple(sorted(names_of(data.samples["label"])))

    def read(file: int, task: str | None) -> Predictions:
        return load_predictions(
            inputs.two_d[file],
            ids_file=inputs.ids_of(file),
            classes=inputs.classes_of(file),
            more_classes=class_names,
            task=task,
        )

    first = read(0, inputs.task)
    task = _choose_task(data, first, "classes" if classes else inputs.task, need_labels=need_labels)
    if task == "va" and first.kind != "va":
        first = read(0, task)  # two columns without names, which were read as classes
    files = [first, *(read(file, task) for file in range(1, len(inputs.two_d)))]
    files_3d = (
        []
        if inputs.three_d is None
        else [load_predictions(inputs.three_d, more_classes=class_names, task=task)]
    )
    notes: tuple[str, ...] = ()
    labels = np.full(len(data.samples), -1, np.int16)
    if task == "classes":
        categories, notes = _choose_classes(data, [*files, *files_3d], classes)
        classes, labels = tuple(categories.cat.categories), categories.cat.codes.to_numpy(np.int16)
    else:
        classes = ()
    aligned = [align_predictions(file, data, classes, labels, allow_missing=allow_missing) for file in files]
    three_d = [
        align_predictions(file, data, classes, labels, allow_missing=allow_missing, two_d=False)
        for file in files_3d
    ]
    two_d = dict(zip(_names_of(inputs.two_d), aligned, strict=True))
    return JoinedFiles(task, classes, labels, two_d, three_d[0] if three_d else None, notes)


def align_predictions(
    predictions: Predictions,
    data: SampleData,
    classes: tuple[str, ...],
    labels: np.ndarray,
    *,
    allow_missing: bool = False,
    two_d: bool = True,
) -> AlignedPredictions:
    """Align a file to the samples, and check its order against the labels.

    The order of the classes, of rows without ids, and of valence and arousal is checked.

    Parameters
    ----------
    predictions : m rows
    data : n samples
    classes : the k classes of the table; empty for valence and arousal
    labels : (n,) int16, indices into ``classes``
    allow_missing : bool
        Leave out rows that match no sample.
    two_d : bool
        Whether these are 2D predictions, for which messages name options.

    Raises
    ------
    PredictionsError : rows or columns do not fit the samples.
    """
    predictions = replace(predictions, source=Path(predictions.source).name)
    source, samples, targets = predictions.source, data.samples, data.targets
    ids = predictions.id_columns or ({} if predictions.ids is None else {"ids": predictions.ids})
    aligned = align_columns(
        ids,
        predictions.other_columns,
        samples,
        source=source,
        to=data.source,
        allow_missing=allow_missing,
    )
    rows, note = aligned or align_in_order(
        len(predictions),
        data.splits,
        labelled=labels >= 0 if classes else np.isfinite(targets).all(axis=1),
        source=source,
        to=data.source,
        remedy=GIVE_IDS if two_d else _ADVICE_3D[GIVE_IDS],
    )
    notes = [*predictions.notes, note]
    matched = rows >= 0  # rows of the file that match a sample
    sample_rows = rows[matched]
    has_ids = aligned is not None
    paths, splits = samples["path"].to_numpy()[sample_rows].tolist(), data.splits[sample_rows]
    if classes:
        values, note = predictions.scores_of(classes, (*data.spare, OPTIONAL))
        notes.append(note)
        columns = predictions.columns or classes
        # Column of the file for each label; the last entry is for rows without a label (-1).
        column_of = np.array([*map(columns.index, classes), -1])
        problem, advice = class_problem(
            predictions.scores()[matched].argmax(axis=1),
            column_of[labels[sample_rows]],
            columns,
            paths=paths,
            splits=splits,
            has_ids=has_ids,
            numbered=not data.classes and is_numbered(samples["label"]),
        )
    elif predictions.kind != "va":
        raise PredictionsError(
            f"{source}: holds {predictions.kind}, not valence and arousal; use --task classes"
        )
    else:
        values = predictions.values
        problem, advice = va_problem(
            values[matched], targets[sample_rows], paths=paths, splits=splits, has_ids=has_ids
        )
    if not two_d:
        for advice_2d, advice_3d in _ADVICE_3D.items():
            advice = advice.replace(advice_2d, advice_3d)
    of_samples = np.full((len(samples), values.shape[1]), np.nan)
    of_samples[sample_rows] = values[matched]
    return AlignedPredictions(
        source,
        predictions.kind,
        of_samples,
        problem,
        advice,
        tuple(filter(None, notes)),
        predictions.out_of_fold,
    )


def missing_reported(data: SampleData, joined: JoinedFiles, file: AlignedPredictions) -> str:
    """Message if a file has no prediction for the reported dataset, of several datasets; else empty.

    Without this error, rows of other datasets would be reported instead.
    """
    reported = "" if data.codes is None else data.codes.reported
    labelled = np.isfinite(data.targets).all(axis=1) if joined.task == "va" else joined.labels >= 0
    needed = (data.samples["split"] == "test").to_numpy(bool) & labelled
    if not reported or (needed & file.present).any():
        return ""
    return (
        f"{file.source}: no 2D predictions for the {plural(int(needed.sum()), 'labelled test row')} of {reported}, "
        "which are to be reported; give a file with those rows, or omit that store"
    )


def _choose_task(data: SampleData, two_d: Predictions, task: str | None, *, need_labels: bool = True) -> str:
    """``classes`` or ``va``: the requested task, else one that both samples and predictions have.

    Raises
    ------
    PredictionsError : no sample has a label of the task, and labels are needed.
    """
    requested = task
    has = {"classes": bool(data.samples["label"].notna().any()), "va": has_va(data.samples)}
    if task is None:
        may_be_va = two_d.values.shape[1] == 2 and not two_d.columns and len(data.classes) != 2
        task = "va" if two_d.kind == "va" or (has["va"] and (may_be_va or not has["classes"])) else "classes"
    if not has[task] and need_labels:
        other = next((name for name, present in has.items() if present), None)
        wanted = "valence and arousal" if task == "va" else "classes"
        advice = "give them with --labels TABLE (ig3d fuse), or extract with a dataset that has labels"
        if other and requested is None and two_d.kind == "va":
            raise PredictionsError(
                f"{Path(two_d.source).name}: has valence and arousal, but the labels of {data.source} are classes; "
                "give predictions of classes, or give valence and arousal of the samples with --labels TABLE"
            )
        if other:
            advice = f"use --task {other}, whose labels it has"
        raise PredictionsError(
            f"{data.source}: has no labels ({wanted}), so nothing can be measured; {advice}"
        )
    return task


def _choose_classes(
    data: SampleData, files: Sequence[Predictions], requested: tuple[str, ...]
) -> tuple[pd.Series, tuple[str, ...]]:
    """Labels as a Categorical of the classes of the table, and notes.

    The class contempt is left out if the samples or a file do not have it.
    """
    labels, source = data.samples["label"], data.source
    names = names_of(labels)
    numbered = not data.classes and is_numbered(labels)
    if requested:
        others = [] if numbered else sorted(names - set(requested))
        lost = int(labels.isin(others).sum())
        note = f"{source}: {plural(lost, 'row')} labelled {', '.join(others)} left out: no class of the model"
        return with_classes(labels, requested, source=source, spare=others), (note,) if lost else ()
    columns = [file.columns for file in files if file.columns]
    notes: list[str] = []
    classes = data.classes
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
    class_lists = [*columns, *([] if numbered else [data.classes or tuple(sorted(names))])]
    if numbered:
        labels = with_classes(labels, classes, source=source)
    if OPTIONAL in classes and any(OPTIONAL not in class_list for class_list in class_lists):
        classes = tuple(name for name in classes if name != OPTIONAL)
        lost = int((labels == OPTIONAL).sum())
        if lost:
            notes.append(
                f"classes: {len(classes)} without {OPTIONAL}, which is not in every file; "
                f"{plural(lost, 'row')} labelled {OPTIONAL} left out"
            )
    return with_classes(labels, classes, source=source, spare=(OPTIONAL,)), tuple(notes)


def _names_of(paths: Sequence[Path]) -> list[str]:
    """A distinct name for each 2D file: its stem, with its folder, or its path."""
    for names in ([path.stem for path in paths], [f"{path.parent.name}/{path.stem}" for path in paths]):
        if len(set(names)) == len(names):
            return names
    names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise UsageError("--2d-logits: the same file is given twice; give each file once")
    return names
