"""Check of predictions files against samples, without fusing: ``ig3d predictions check``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import PredictionsError, UsageError
from .inputs import Inputs
from .join import Aligned, Given, Joined, join_files, missing_reported, read_samples
from .order import best_permutation, correlation
from .predictions import log_softmax
from .samples import Split

if TYPE_CHECKING:
    from rich.console import Console


_LEGEND = (
    "codes only: rows with a label and codes but no prediction (normal for train rows); right: accuracy; best order: "
    "accuracy with the best permutation of the classes (if it is higher than right, the class order is suspect); r: "
    "correlation with the labels"
)


@dataclass(frozen=True, slots=True)
class PartCheck:
    """Rows of one split, or of all: how many there are, have a label, codes, a prediction; and how right it is.

    ``bare`` counts rows with a label and codes and no prediction, which a fusion refuses. ``figures`` are shares of
    rows that are right, as declared and under the best permutation of the classes, or correlations of valence and
    arousal; NaN where no row has both a label and a prediction.
    """

    name: str
    rows: int
    labelled: int
    coded: int
    predicted: int
    bare: int
    figures: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FileCheck:
    """The outcome for one file.

    Attributes
    ----------
    source : str
    notes : tuple of str
        How it was read and joined.
    parts : tuple of PartCheck
        A split each, then all rows.
    spread : str
        The range of what it predicts, in words.
    problems : tuple of str
        What keeps it from being fused, or is likely wrong; empty where it is sound.
    task : ``classes`` or ``va``; empty where it could not be joined
    """

    source: str
    notes: tuple[str, ...] = ()
    parts: tuple[PartCheck, ...] = ()
    spread: str = ""
    problems: tuple[str, ...] = ()
    task: str = ""


def check_predictions(
    inputs: Inputs, *, blocks: str = "full", allow_missing: bool = False, force: bool = False
) -> tuple[tuple[str, ...], tuple[FileCheck, ...]]:
    """Join each file to the samples, one at a time, and say what came of it.

    Parameters
    ----------
    inputs : Inputs
    blocks : which code blocks; a row has codes where it has all of them
    allow_missing : bool
        Rows of a file that no sample has the id of, and rows with codes and no prediction, are no problem.

    force : bool
        An order that is likely wrong is a warning, as a fusion takes it with ``--force``.

    Returns
    -------
    What is known of the samples, in words; and the outcome for each 2D file, then for ready 3D predictions.

    Raises
    ------
    UsageError, StoreError, PredictionsError : the stores or the table of labels cannot be read.
    """
    given = read_samples(inputs, blocks=blocks)
    outcomes = []
    for number, source in enumerate(inputs.two_d):
        alone = Inputs(
            source,
            inputs.stores,
            three_d=inputs.three_d,
            labels=inputs.labels,
            ids=inputs.ids_of(number),
            classes=inputs.classes[number] if len(inputs.classes) > 1 else inputs.classes,
            task=inputs.task,
        )
        try:
            joined = join_files(alone, given, allow_missing=allow_missing, need_labels=False)
        except (PredictionsError, UsageError) as refusal:
            outcomes.append(FileCheck(source.name, problems=(str(refusal),)))
            continue
        (file,) = joined.two_d.values()
        outcomes.append(_outcome(file, joined, given, allow_missing=allow_missing, force=force))
        if joined.three_d is not None and number == len(inputs.two_d) - 1:
            outcomes.append(_outcome(joined.three_d, joined, given, allow_missing=True, force=force))
    return given.notes, tuple(outcomes)


def _outcome(file: Aligned, joined: Joined, given: Given, *, allow_missing: bool, force: bool) -> FileCheck:
    parts = tuple(_parts(file, joined, given))
    if force:
        file = replace(file.accepted(force=True), problem="")
    problems = [f"{file.problem}; {file.advice}"] if file.problem else []
    if gone := missing_reported(given, joined, file):
        problems.append(gone)
    # of several datasets the rows without a role are used for nothing
    unused = ("train", "no split") if given.codes is not None and given.codes.reported else ("train",)
    bare_parts = [part for part in parts[:-1] if part.bare and part.predicted and part.name not in unused]
    if bare_parts and not allow_missing:
        bare = ", ".join(f"{part.name} {part.bare}" for part in bare_parts)
        problems.append(
            f"some labelled rows with codes have no prediction ({bare}); give them, or omit these rows with "
            "--allow-missing"
        )
    values = file.values[file.present]
    if joined.task == "va":
        spread = ", ".join(
            f"{name} {column.min():.2f} to {column.max():.2f}"
            for name, column in zip(("valence", "arousal"), values.T, strict=True)
        )
    else:
        top = np.exp(log_softmax(values)).max(axis=1)
        spread = (
            f"highest probability of a row {top.min():.2f} to {top.max():.2f}, median {np.median(top):.2f}"
        )
    if len(values) > 1 and (np.ptp(values, axis=0) < 1e-9).all():
        problems.append("the predictions are the same in every row; check how they were saved")
    return FileCheck(file.source, (*joined.notes, *file.notes), parts, spread, tuple(problems), joined.task)


def _parts(file: Aligned, joined: Joined, given: Given) -> Iterator[PartCheck]:
    present, splits = file.present, given.splits
    truth = given.targets if joined.task == "va" else joined.labels.astype(np.int64)
    known = np.isfinite(truth).all(axis=1) if joined.task == "va" else truth >= 0
    coded = np.zeros(len(splits), bool)
    if given.codes is not None:
        coded = given.codes.covered
    elif joined.three_d is not None:
        coded = joined.three_d.present
    masks = {split.name: splits == split for split in Split}
    named = {"no split" if name == "none" else name: mask for name, mask in masks.items() if mask.any()}
    for name, mask in (named | {"all": np.ones(len(splits), bool)}).items():
        measured = mask & known & present
        yield PartCheck(
            name=name,
            rows=int(mask.sum()),
            labelled=int((mask & known).sum()),
            coded=int((mask & coded).sum()),
            predicted=int((mask & present).sum()),
            bare=int((mask & known & coded & ~present).sum()),
            figures=_figures(file.values[measured], truth[measured], joined.task),
        )


def _figures(values: np.ndarray, truth: np.ndarray, task: str) -> tuple[float, ...]:
    if not len(values):
        return (float("nan"),) * 2
    if task == "va":
        return tuple(correlation(values[:, column], truth[:, column]) for column in (0, 1))
    predicted = values.argmax(axis=1)
    meaning = best_permutation(predicted, truth, values.shape[1])
    return float(np.mean(predicted == truth)), float(np.mean(meaning[predicted] == truth))


def print_check(notes: tuple[str, ...], outcomes: tuple[FileCheck, ...], console: Console) -> None:
    """The outcome for a reader: what was understood, a line for each split, then what is wrong."""
    from rich.table import Table

    for note in notes:
        console.print(note, markup=False, soft_wrap=True)
    for outcome in outcomes:
        console.print(f"\n{outcome.source}", style="bold", markup=False, soft_wrap=True)
        for note in outcome.notes:
            console.print(f"  {note.removeprefix(f'{outcome.source}: ')}", markup=False, soft_wrap=True)
        if outcome.parts:
            heads = ("valence r", "arousal r") if outcome.task == "va" else ("right", "best order")
            table = Table(box=None, header_style="bold", padding=(0, 0, 0, 2))
            for head in (
                "split",
                "rows",
                "labels",
                "2D" if outcome.task else "",
                "codes",
                "codes only",
                *heads,
            ):
                table.add_column(head, justify="left" if head == "split" else "right", no_wrap=True)
            for part in outcome.parts:
                figures = [_shown(value, outcome.task) for value in part.figures]
                counts = (part.rows, part.labelled, part.predicted, part.coded, part.bare)
                table.add_row(part.name, *(str(count) for count in counts), *figures)
            console.print(table)
            console.print(f"  {outcome.spread}", markup=False, soft_wrap=True)
        for problem in outcome.problems:
            console.print(
                f"  PROBLEM {problem.removeprefix(f'{outcome.source}: ')}", style="bold", markup=False
            )
        if not outcome.problems:
            console.print(
                "  ok: rows and classes match the samples and agree with the labels",
                markup=False,
                soft_wrap=True,
            )
    if any(outcome.parts for outcome in outcomes):
        console.print(f"\n{_LEGEND}", soft_wrap=True)


def _shown(value: float, task: str) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.2f}" if task == "va" else f"{100 * value:.1f} %"
