"""The cells of a study run in parallel, each kept in a folder named by what it depends on.

A cell that is there is not run again, so an interrupted study goes on, and a study with a new value of a factor runs
only the new cells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from joblib import cpu_count

from ...errors import Ig3dError, RunError, UsageError
from ...workers import MAX_DEATHS, limit_threads, run_tasks
from ..evaluate.predictions import ReportedPredictions
from ..report.compare import predictions_of
from ..report.files import write_texts
from ..report.record import FILE, Run, json_text, read_run
from ..versions import versions
from .runners import RUNNERS, AnyCell, content_of
from .study import Cell, Study

FORMAT = "ig3d-study"
STUDY_FILE = "study.json"
Progress = Callable[[int], object]
_DIED = f"its worker died {MAX_DEATHS} times (out of memory? --jobs 1 runs one cell at a time)"


@dataclass(frozen=True, slots=True)
class CellResult:
    """A cell that was run.

    Attributes
    ----------
    cell : Cell
    folder : where its record and predictions are
    run : Run or None
        Its record and figures; None where the cell failed.
    error : str
        Why it failed; empty where it did not.
    """

    cell: Cell
    folder: Path
    run: Run | None
    error: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """The record of a cell that was run."""
        if self.run is None:
            raise RunError(f"{self.cell.name}: was not run: {self.error}")
        return self.run.record

    def predictions(self) -> ReportedPredictions:
        """The reported rows with their predictions."""
        if self.run is None:
            raise RunError(f"{self.cell.name}: was not run: {self.error}")
        return predictions_of(self.run)


@dataclass(frozen=True, slots=True)
class StudyResult:
    """A study with all its cells.

    Attributes
    ----------
    study : Study
    cells : in the order of ``study.cells``
    kept : int
        Cells that an earlier run had done.
    """

    study: Study
    cells: tuple[CellResult, ...]
    kept: int

    @property
    def failed(self) -> tuple[CellResult, ...]:
        """Cells that could not be run."""
        return tuple(of for of in self.cells if of.error)


def run_study(
    study: Study,
    out: str | Path,
    *,
    shared: str | Path | None = None,
    jobs: int = 0,
    progress: Progress | None = None,
) -> StudyResult:
    """Run the cells that are not there yet.

    Parameters
    ----------
    study : Study
    out : folder of the study
    shared : folder of ``cells/`` and ``heads/``, where several studies are to share them; ``out`` by default
    jobs : int
        Cells at a time; 0 is as many as there are cores. Changes no figure. More than one run in workers, and a worker
        that dies is replaced; one runs here.
    progress : function of a number of cells that were finished, optional
        The first call reports how many were done before.

    Returns
    -------
    StudyResult
        A cell that could not be run has its reason, and keeps no other from running.

    Raises
    ------
    UsageError : a cell's options are wrong, or a file is missing; before anything is run.
    RunError : the folder is of something else, or cannot be written.
    """
    folder, kept_in = Path(out), Path(out if shared is None else shared)
    check_folder(folder)
    jobs = jobs or cpu_count()
    made = [_made(study, cell) for cell in study.cells]
    _check_rule(study, made)
    contents = {
        path: content_of(path) for path in dict.fromkeys(path for cell in made for path in cell.files)
    }
    folders = [kept_in / "cells" / _name(cell.key(contents)) for cell in made]
    todo = {place: cell for place, (cell, at) in enumerate(zip(made, folders, strict=True)) if not _done(at)}
    kept = len(made) - len(todo)
    if progress:
        progress(kept)
    # Marks the folder as ours from the first cell on; the whole file comes with the table.
    if not (folder / STUDY_FILE).exists():
        write_texts(folder, {STUDY_FILE: json_text({"format": FORMAT, "name": study.name})})
    errors: dict[int, str] = {}
    for wave in _waves(todo, folders):
        for place, error in _in_parallel(todo, wave, folders, kept_in / "heads", jobs):
            if error:
                errors[place] = error
            if progress:
                progress(1)
    failed = {folders[place]: error for place, error in errors.items()}  # cells of one content share a folder
    results = []
    for cell, at in zip(study.cells, folders, strict=True):
        error = failed.get(at, "")
        results.append(CellResult(cell, at, None if error else read_run(at), error))
    return StudyResult(study, tuple(results), kept)


def check_folder(folder: Path) -> None:
    """Whether a folder is new, empty, or one of an earlier study.

    Raises
    ------
    RunError : it holds something else.
    """
    if folder.is_dir() and any(folder.iterdir()):
        try:
            ours = json.loads((folder / STUDY_FILE).read_text(encoding="utf-8")).get("format") == FORMAT
        except Exception:
            ours = False
        if not ours:
            raise RunError(
                f"{folder}: expected a new folder or one of an earlier study, got another; name another --out"
            )
    elif folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: expected a folder for the study, got a file; name another --out")


def _made(study: Study, cell: Cell) -> AnyCell:
    try:
        return RUNNERS[cell.run](cell.options)
    except Ig3dError as error:
        raise type(error)(f"{cell.name}: {error}" if cell.labels else str(error)) from error


def _check_rule(study: Study, made: list[AnyCell]) -> None:
    """Refuse a rule that no cell can have: after the runs it would be too late."""
    for run in study.runs:
        rule = study.rule_of(run)
        cells = [made[place] for place, cell in enumerate(study.cells) if cell.run == run]
        names = dict.fromkeys(name for cell in cells for name in cell.rules)
        if rule is not None and rule not in names and not rule.startswith("2d:"):
            raise UsageError(f"rule: expected one of {', '.join(names)}, got {rule!r}")


def _name(key: str) -> str:
    return hashlib.sha256(f"{key}\n{sorted(versions().items())}".encode()).hexdigest()[:16]


def _done(folder: Path) -> bool:
    """Whether a cell's record and predictions are there and whole; what was cut short is run again."""
    if not (folder / FILE).is_file():
        return False
    try:
        predictions_of(read_run(folder))
    except (RunError, OSError):
        return False
    return True


def _waves(todo: dict[int, AnyCell], folders: list[Path]) -> list[list[int]]:
    """First one cell of each that share their heads, so that the others find the scores; no folder twice."""
    first: dict[str, int] = {}
    others: list[int] = []
    seen: set[Path] = set()
    for place, cell in todo.items():
        if folders[place] in seen:
            continue
        seen.add(folders[place])
        if first.setdefault(cell.shared, place) != place:
            others.append(place)
    return [wave for wave in (list(first.values()), others) if wave]


def _in_parallel(
    todo: dict[int, AnyCell], wave: list[int], folders: list[Path], heads: Path, jobs: int
) -> Iterator[tuple[int, str]]:
    """Place and error of each cell of a wave, as they are done."""
    workers = min(jobs, len(wave))
    threads = max(1, cpu_count() // workers)
    run = partial(_error_of, heads=heads, threads=threads)
    tasks = ((todo[place], folders[place]) for place in wave)
    if jobs == 1:
        yield from ((place, run(*task)) for place, task in zip(wave, tasks, strict=True))
        return
    # in a worker for a single cell too: if it dies, the study goes on
    for ended in run_tasks(run, tasks, environments=[limit_threads(threads)] * workers):
        yield wave[ended.task], _DIED if ended.given_up else ended.result


def _error_of(cell: AnyCell, folder: Path, *, heads: Path, threads: int) -> str:
    """Run a cell; why it could not be run, or nothing."""
    try:
        cell.write(folder, heads, threads)
    except Ig3dError as error:
        return str(error)
    return ""
