"""From files to one table: samples and codes, 2D predictions placed beside them, classes settled between them.

Stores (:mod:`.codes`) or a table of labels (:mod:`.labels`) say which samples there are; predictions are read
(:mod:`.predictions`), matched (:mod:`.match`) and placed (:mod:`.place`); a :class:`~.table.FusionTable` goes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import PredictionsError, UsageError, number
from .codes import Codes, read_codes
from .inputs import Inputs
from .labels import SampleColumns, number_labels, of_file
from .merge import overlay
from .network_features import network_of
from .place import Placed, place
from .predictions import Predictions, load_predictions
from .quality import QUALITY_COLUMNS
from .samples import Split
from .table import FusionTable

# The class that half of the field's datasets and networks have and the other half has not.
_OPTIONAL = "contempt"


@dataclass(frozen=True, slots=True)
class Given:
    """What predictions are joined to: samples with their truth, and their codes where there is a store."""

    samples: SampleColumns
    codes: Codes | None
    notes: tuple[str, ...]


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
    two_d: Mapping[str, Placed]
    three_d: Placed | None
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
    samples, codes = given.samples, given.codes
    two_d = {name: placed.accepted(force=force) for name, placed in joined.two_d.items()}
    three_d = None if joined.three_d is None else joined.three_d.accepted(force=force)
    if need_labels and (lacking := lacks_reported(given, joined, next(iter(joined.two_d.values())))):
        raise PredictionsError(lacking)
    (_, base), *others = two_d.items()
    trained = base.there & (samples.split == Split.train)
    sources = {"2d": base.source, **{f"2d:{name}": other.source for name, other in others}}
    if three_d is not None:
        sources |= {"3d": three_d.source, "labels": samples.source}
    notes = [*given.notes, *joined.notes]
    for placed in (*two_d.values(), *(() if three_d is None else (three_d,))):
        notes += placed.notes
    return FusionTable(
        task=joined.task,
        classes=joined.classes,
        id=samples.id,
        group=samples.group,
        split=samples.split,
        labels=joined.labels,
        targets=samples.targets,
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
    """The samples that predictions are joined to: those of the stores, or of the table of labels."""
    if inputs.stores:
        samples, codes = read_codes(inputs.stores, blocks=blocks)
        notes = codes.notes
        if inputs.labels is not None:
            samples, said = overlay(samples, of_file(inputs.labels, beside=samples))
            notes = (*notes, said)
        return Given(samples, codes, notes)
    if inputs.labels is None:
        raise UsageError("inputs: expected --labels TABLE where there is no --3d-store, got none")
    return Given(of_file(inputs.labels), None, ())


def join_files(
    inputs: Inputs,
    given: Given,
    *,
    allow_missing: bool = False,
    need_labels: bool = True,
    classes: tuple[str, ...] = (),
) -> Joined:
    """Read all predictions, settle the classes, and put each file in its place; nothing is refused for its order yet.

    Parameters are those of :func:`load_table`.
    """
    samples = given.samples
    known = classes or samples.classes or tuple(sorted({*samples.names.tolist()} - {""}))

    def read(file: int, task: str | None) -> Predictions:
        return load_predictions(
            inputs.two_d[file],
            ids_file=inputs.ids_of(file),
            classes=inputs.classes_of(file),
            known=known,
            task=task,
        )

    base = read(0, inputs.task)
    task = choose_task(samples, base, "classes" if classes else inputs.task, need_labels=need_labels)
    if task == "va" and base.kind != "va":
        base = read(0, task)  # two columns without names turned out to be these
    files = [base, *(read(file, task) for file in range(1, len(inputs.two_d)))]
    ready = None if inputs.three_d is None else load_predictions(inputs.three_d, known=known, task=task)
    notes: tuple[str, ...] = ()
    labels = samples.label
    if task == "classes":
        settled = _settle(samples, [*files, *(() if ready is None else (ready,))], classes)
        classes, labels, notes = settled.classes, settled.labels, settled.notes
    else:
        classes = ()
    spare = (*samples.spare, _OPTIONAL)
    placed = {
        name: place(file, samples, classes=classes, labels=labels, spare=spare, allow_missing=allow_missing)
        for name, file in zip(_names_of(inputs.two_d), files, strict=True)
    }
    three_d = (
        None
        if ready is None
        else place(
            ready,
            samples,
            classes=classes,
            labels=labels,
            spare=spare,
            allow_missing=allow_missing,
            two_d=False,
        )
    )
    return Joined(task, classes, labels, placed, three_d, notes)


def lacks_reported(given: Given, joined: Joined, placed: Placed) -> str:
    """What is wrong where several datasets were given and a file has none of the rows that are reported; or nothing.

    Other rows would be reported in their place, which were said to be unused.
    """
    reported = "" if given.codes is None else given.codes.reported
    samples = given.samples
    known = np.isfinite(samples.targets).all(axis=1) if joined.task == "va" else joined.labels >= 0
    wanted = (samples.split == Split.test) & known
    if not reported or (wanted & placed.there).any():
        return ""
    return (
        f"{placed.source}: expected 2D predictions for the test rows of {reported}, which are reported, got none for "
        f"its {number(int(wanted.sum()), 'labelled row')}; give a file with those rows, or leave the store out"
    )


def choose_task(
    samples: SampleColumns, two_d: Predictions, task: str | None, *, need_labels: bool = True
) -> str:
    """``classes`` or ``va``: what was asked for, else what both the samples and the predictions have.

    Raises
    ------
    PredictionsError : no sample has a label of the task, and labels are needed.
    """
    has = {"classes": samples.has_classes, "va": samples.has_va}
    if task is None:
        pair = two_d.values.shape[1] == 2 and not two_d.columns and len(samples.classes) != 2
        task = "va" if two_d.kind == "va" or (has["va"] and (pair or not has["classes"])) else "classes"
    if not has[task] and need_labels:
        other = next((name for name, there in has.items() if there), None)
        wanted = "valence and arousal" if task == "va" else "classes"
        raise PredictionsError(
            f"{samples.source}: expected labels to measure by ({wanted}), found none"
            + (f"; it has those of --task {other}" if other else "; give them with --labels TABLE")
        )
    return task


@dataclass(frozen=True, slots=True)
class _Settled:
    classes: tuple[str, ...]
    labels: np.ndarray
    notes: tuple[str, ...]


def _settle(samples: SampleColumns, files: Sequence[Predictions], asked: tuple[str, ...]) -> _Settled:
    """The classes that labels and columns are put in; contempt is dropped where one side has none of it."""
    names = samples.names
    labelled = set(names.tolist()) - {""}
    if asked:
        others = sorted(labelled - set(asked))
        lost = int(np.isin(names, others).sum())
        note = f"{samples.source}: {number(lost, 'row')} labelled {', '.join(others)} left out: not asked for"
        return _Settled(asked, number_labels(samples, asked, spare=others), (note,) if lost else ())
    columns = [file.columns for file in files if file.columns]
    notes: list[str] = []
    classes = samples.classes
    if not classes and columns:
        classes = columns[0]
        source = next(Path(file.source).name for file in files if file.columns)
        notes.append(f"classes: {', '.join(classes)}, as {source} has them")
    if not classes and samples.label_names is not None:
        raise PredictionsError(
            f"{samples.source}: expected class names in a predictions file beside labels given by name, got none; say "
            "what the columns are with --2d-classes"
        )
    if not classes:
        classes = tuple(str(column) for column in range(files[0].values.shape[1]))
        said = f"numbered 0 to {len(classes) - 1} as the columns and labels are"
        return _Settled(classes, number_labels(samples, classes), (f"classes: no file names them; {said}",))
    by_name = bool(samples.classes) or samples.label_names is not None
    sides = [*columns, *([samples.classes or tuple(sorted(labelled))] if by_name else [])]
    if _OPTIONAL in classes and any(_OPTIONAL not in side for side in sides):
        classes = tuple(name for name in classes if name != _OPTIONAL)
    labels = number_labels(samples, classes, spare=(_OPTIONAL,))
    lost = 0 if _OPTIONAL in classes else int((names == _OPTIONAL).sum())
    if lost:
        notes.append(
            f"classes: {len(classes)} without {_OPTIONAL}, which is not in every file; "
            f"{number(lost, 'row')} labelled {_OPTIONAL} left out"
        )
    return _Settled(classes, labels, tuple(notes))


def _names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each 2D file, as short as tells them apart."""
    for names in ([path.stem for path in paths], [f"{path.parent.name}/{path.stem}" for path in paths]):
        if len(set(names)) == len(names):
            return names
    names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise UsageError("--2d-logits: expected different files, got one twice")
    return names
