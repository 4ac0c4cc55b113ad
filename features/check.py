"""Check of predictions files against samples, without fusing: ``ig3d predictions check``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import PredictionsError, UsageError
from .inputs import Inputs
from .join import AlignedPredictions, JoinedFiles, SampleData, join_files, missing_reported, read_samples
from .order import MIN_SPLIT_ROWS, at_chance, best_permutation, correlation, va_at_chance
from .predictions import log_softmax
from .samples import Split

if TYPE_CHECKING:
    from rich.console import Console


_CHANCE_ERRORS = 2.0  # standard errors above chance up to which a warning is printed


@dataclass(frozen=True, slots=True)
class PartCheck:
    """Counts and accuracy of the rows of one split, or of all rows.

    Attributes
    ----------
    name : split, ``no split`` or ``all``
    rows, labelled, coded, predicted : number of rows, and of rows with a label, with codes and with a prediction
    codes_only : number of rows with a label and codes but no prediction, for which a fusion raises an error
    figures : two float
        Accuracy with the classes as declared, and with their best permutation; or correlations of valence and of
        arousal with the labels. NaN if no row has both a label and a prediction.
    at_chance : tuple of str
        Which of these figures are at most 2 standard errors above those with shuffled labels: ``accuracy``, or
        ``valence`` and ``arousal``. Empty for a split with fewer than 50 rows to compare.
    """

    name: str
    rows: int
    labelled: int
    coded: int
    predicted: int
    codes_only: int
    figures: tuple[float, ...]
    at_chance: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileCheck:
    """Result of the check of one file.

    Attributes
    ----------
    source : str
        Name of the file.
    notes : tuple of str
        How the file was read and joined.
    parts : tuple of PartCheck
        One for each split, then one for all rows.
    spread : str
        Description of the range of the predictions.
    problems : tuple of str
        Errors of a fusion with this file, and probable mistakes; empty if there are none.
    task : ``classes`` or ``va``; empty if the file cannot be joined
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
    """Join each file to the samples, one at a time, and collect its problems.

    Parameters
    ----------
    inputs : Inputs
    blocks : code blocks; a row has codes if it has all of these blocks
    allow_missing : bool
        Accept rows of a file that match no sample, and rows with codes but no prediction, as ``ig3d fuse`` does.
    force : bool
        Report a probable error in the order as a warning, as ``ig3d fuse --force`` does.

    Returns
    -------
    notes : notes on the samples
    checks : one for each 2D file, then one for the file of 3D predictions

    Raises
    ------
    UsageError, StoreError, PredictionsError : the stores or the table of labels cannot be read.
    """
    data = read_samples(inputs, blocks=blocks)
    checks = []
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
            joined = join_files(alone, data, allow_missing=allow_missing, need_labels=False)
        except (PredictionsError, UsageError) as error:
            checks.append(FileCheck(source.name, problems=(str(error),)))
            continue
        (file,) = joined.two_d.values()
        checks.append(_check_of(file, joined, data, allow_missing=allow_missing, force=force))
        if joined.three_d is not None and number == len(inputs.two_d) - 1:
            checks.append(_check_of(joined.three_d, joined, data, allow_missing=True, force=force))
    return data.notes, tuple(checks)


def _check_of(
    file: AlignedPredictions, joined: JoinedFiles, data: SampleData, *, allow_missing: bool, force: bool
) -> FileCheck:
    parts = tuple(_parts(file, joined, data))
    if force:
        file = replace(file.accepted(force=True), problem="")
    problems = [f"{file.problem}; {file.advice}"] if file.problem else []
    if problem := missing_reported(data, joined, file):
        problems.append(problem)
    # Train rows need no 2D prediction. With several datasets, rows without a split are not used.
    unused = ("train", "no split") if data.codes is not None and data.codes.reported else ("train",)
    incomplete = [
        part for part in parts[:-1] if part.codes_only and part.predicted and part.name not in unused
    ]
    if incomplete and not allow_missing:
        counts = ", ".join(f"{part.name} {part.codes_only}" for part in incomplete)
        problems.append(
            f"some labelled rows with codes have no prediction ({counts}); add them (ig3d logits --like STORE), or "
            "leave these rows out with --allow-missing"
        )
    values = file.values[file.present]
    if joined.task == "va":
        spread = ", ".join(
            f"{name} {column.min():.2f} to {column.max():.2f}"
            for name, column in zip(("valence", "arousal"), values.T, strict=True)
        )
    else:
        top = np.exp(log_softmax(values)).max(axis=1)
        spread = f"largest probability of each row: {top.min():.2f} to {top.max():.2f}, median {np.median(top):.2f}"
    if len(values) > 1 and (np.ptp(values, axis=0) < 1e-9).all():
        problems.append("the predictions are the same in every row; check how they were saved")
    return FileCheck(file.source, (*joined.notes, *file.notes), parts, spread, tuple(problems), joined.task)


def _parts(file: AlignedPredictions, joined: JoinedFiles, data: SampleData) -> Iterator[PartCheck]:
    present, splits = file.present, data.splits
    truth = data.targets if joined.task == "va" else joined.labels.astype(np.int64)
    labelled = np.isfinite(truth).all(axis=1) if joined.task == "va" else truth >= 0
    coded = np.zeros(len(splits), bool)
    if data.codes is not None:
        coded = data.codes.covered
    elif joined.three_d is not None:
        coded = joined.three_d.present
    masks = {split.name: splits == split for split in Split}
    parts = {"no split" if name == "none" else name: mask for name, mask in masks.items() if mask.any()}
    for name, mask in (parts | {"all": np.ones(len(splits), bool)}).items():
        measured = mask & labelled & present
        yield PartCheck(
            name=name,
            rows=int(mask.sum()),
            labelled=int((mask & labelled).sum()),
            coded=int((mask & coded).sum()),
            predicted=int((mask & present).sum()),
            codes_only=int((mask & labelled & coded & ~present).sum()),
            figures=_figures(file.values[measured], truth[measured], joined.task),
            at_chance=_at_chance(file.values[measured], truth[measured], joined.task)
            if name == "all" or measured.sum() >= MIN_SPLIT_ROWS
            else (),
        )


def _figures(values: np.ndarray, truth: np.ndarray, task: str) -> tuple[float, ...]:
    if not len(values):
        return (float("nan"),) * 2
    if task == "va":
        return tuple(correlation(values[:, column], truth[:, column]) for column in (0, 1))
    predicted = values.argmax(axis=1)
    meaning = best_permutation(predicted, truth, values.shape[1])
    return float(np.mean(predicted == truth)), float(np.mean(meaning[predicted] == truth))


def _at_chance(values: np.ndarray, truth: np.ndarray, task: str) -> tuple[str, ...]:
    """Names of the figures of (n, k) predictions that are not better than with shuffled labels."""
    if not len(values):
        return ()
    if task == "va":
        names = ("valence", "arousal")
        return tuple(
            name
            for at, name in enumerate(names)
            if va_at_chance(values[:, at], truth[:, at], errors=_CHANCE_ERRORS)
        )
    return (
        ("accuracy",)
        if at_chance(values.argmax(axis=1), truth, values.shape[1], errors=_CHANCE_ERRORS)
        else ()
    )


def _chance_warnings(check: FileCheck) -> list[str]:
    """Lines on the figures that are at chance: in all rows, else in single splits."""
    *splits, every = check.parts
    lines = []
    for position, name in enumerate(("valence", "arousal") if check.task == "va" else ("accuracy",)):
        for part in [every] if name in every.at_chance else splits:
            if name not in part.at_chance:
                continue
            rows = "all rows" if part is every else f"the {part.name} rows"
            value, best = (_shown(figure, check.task) for figure in part.figures)
            if check.task == "va":
                value = _shown(part.figures[position], check.task)
                lines.append(f"WARNING: {name} of {rows} is not clearly above chance (r = {value})")
            else:
                lines.append(
                    f"WARNING: the accuracy of {rows} is not clearly above chance ({value} are right; {best} in the "
                    "best order of the classes)"
                )
    return lines


def print_check(notes: tuple[str, ...], checks: tuple[FileCheck, ...], console: Console) -> None:
    """Print the notes, and for each file its notes, a table of its splits and its problems."""
    from rich.table import Table

    for note in notes:
        console.print(note, markup=False, soft_wrap=True)
    for check in checks:
        console.print(f"\n{check.source}", style="bold", markup=False, soft_wrap=True)
        for note in check.notes:
            console.print(f"  {note.removeprefix(f'{check.source}: ')}", markup=False, soft_wrap=True)
        if check.parts:
            heads = ("valence r", "arousal r") if check.task == "va" else ("accuracy", "in best order")
            table = Table(box=None, header_style="bold", padding=(0, 0, 0, 2))
            for head in (
                "split",
                "rows",
                "labels",
                "2D" if check.task else "",
                "codes",
                "codes only",
                *heads,
            ):
                table.add_column(head, justify="left" if head == "split" else "right", no_wrap=True)
            for part in check.parts:
                figures = [_shown(value, check.task) for value in part.figures]
                counts = (part.rows, part.labelled, part.predicted, part.coded, part.codes_only)
                table.add_row(part.name, *(str(count) for count in counts), *figures)
            console.print(table)
            console.print(f"  {check.spread}", markup=False, soft_wrap=True)
        for problem in check.problems:
            line = f"  PROBLEM {problem.removeprefix(f'{check.source}: ')}"
            console.print(line, style="bold", markup=False, soft_wrap=True)
        if not check.problems:
            warnings = _chance_warnings(check)
            for line in warnings:
                console.print(f"  {line}", markup=False, soft_wrap=True)
            compared = np.isfinite(check.parts[-1].figures).any()
            labels = " and agree with the labels" if compared else "; no labels to compare them with"
            labels = "" if warnings else labels
            console.print(f"  ok: rows and classes match the samples{labels}", markup=False, soft_wrap=True)


def _shown(value: float, task: str) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.2f}" if task == "va" else f"{100 * value:.1f} %"
