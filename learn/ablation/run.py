"""Run the cells of a study in parallel, each in a folder whose name is a hash of everything its result depends on.

A finished cell is not run again. An interrupted study therefore continues, and a study with a new value of a factor
runs only the new cells.
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
from ...workers import MAX_DEATHS, run_tasks, thread_variables
from ..evaluate.predictions import ReportedPredictions
from ..report.compare import predictions_of
from ..report.files import write_texts
from ..report.record import FILE, STUDY_FILE, Run, json_text, read_run
from ..versions import versions
from .runners import RUNNERS, AnyCell, content_of
from .study import Cell, Study

FORMAT = "ig3d-study"
Progress = Callable[[int], object]
_DIED = f"its worker died {MAX_DEATHS} times (out of memory? --jobs 1 runs one cell at a time)"


@dataclass(frozen=True, slots=True)
class CellResult:
    """Result of a cell.

    Attributes
    ----------
    cell : Cell
    folder : folder of its record and predictions
    run : Run or None
        Record and figures; None if the cell failed.
    error : str
        Reason of the failure; empty if the cell did not fail.
    """

    cell: Cell
    folder: Path
    run: Run | None
    error: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """Record of a cell that did not fail."""
        return self._finished_run().record

    def predictions(self) -> ReportedPredictions:
        """Reported rows of a cell that did not fail, with their predictions."""
        return predictions_of(self._finished_run())

    def _finished_run(self) -> Run:
        if self.run is None:
            raise RunError(f"{self.cell.name}: the run failed: {self.error}")
        return self.run


@dataclass(frozen=True, slots=True)
class StudyResult:
    """Results of all cells of a study.

    Attributes
    ----------
    study : Study
    cells : in the order of ``study.cells``
    kept : int
        Number of cells that were already finished by an earlier run.
    """

    study: Study
    cells: tuple[CellResult, ...]
    kept: int

    @property
    def failed(self) -> tuple[CellResult, ...]:
        """Cells whose run failed."""
        return tuple(result for result in self.cells if result.error)


def run_study(
    study: Study,
    out: str | Path,
    *,
    shared: str | Path | None = None,
    jobs: int = 0,
    progress: Progress | None = None,
) -> StudyResult:
    """Run the cells that are not finished.

    Parameters
    ----------
    study : Study
    out : folder of the study
    shared : folder of ``cells/`` and ``heads/``, by default ``out``
        Several studies can share this folder, so that equal cells and heads are computed once.
    jobs : int
        Number of cells at a time; 0 is one per core. Does not affect results. With 1, cells run in this process; else
        in worker processes, which are replaced if they die.
    progress : function ``(cells)``, optional
        Called first with the number of cells that were already finished, then with 1 for each further cell.

    Returns
    -------
    StudyResult
        A failed cell has its error. The other cells are run nevertheless.

    Raises
    ------
    UsageError : the options of a cell are invalid, or a file is missing; raised before any cell is run.
    RunError : the folder has other content, or cannot be written.
    """
    folder, cache = Path(out), Path(out if shared is None else shared)
    check_folder(folder)
    jobs = jobs or cpu_count()
    runners = [_runner_of(cell) for cell in study.cells]
    _check_rule(study, runners)
    files = dict.fromkeys(path for runner in runners for path in runner.files)
    contents = {path: content_of(path) for path in files}
    folders = [cache / "cells" / _folder_name(runner.key(contents)) for runner in runners]
    todo = {
        position: runner
        for position, (runner, cell_folder) in enumerate(zip(runners, folders, strict=True))
        if not _is_finished(cell_folder)
    }
    kept = len(runners) - len(todo)
    if progress:
        progress(kept)
    # From now on, this file marks the folder as that of a study. It is replaced by the complete record at the end.
    if not (folder / STUDY_FILE).exists():
        write_texts(folder, {STUDY_FILE: json_text({"format": FORMAT, "name": study.name})})
    errors: dict[int, str] = {}
    for wave in _waves(todo, folders):
        for position, error in _in_parallel(todo, wave, folders, cache / "heads", jobs):
            if error:
                errors[position] = error
            if progress:
                progress(1)
    # Cells with equal content share a folder, and so their error.
    error_of = {folders[position]: error for position, error in errors.items()}
    results = []
    for cell, cell_folder in zip(study.cells, folders, strict=True):
        error = error_of.get(cell_folder, "")
        results.append(CellResult(cell, cell_folder, None if error else read_run(cell_folder), error))
    return StudyResult(study, tuple(results), kept)


def check_folder(folder: Path) -> None:
    """Raise an error unless a folder is new, empty, or that of an earlier study.

    Raises
    ------
    RunError : the folder has other content, or is a file.
    """
    if folder.is_dir() and any(folder.iterdir()):
        try:
            is_study = json.loads((folder / STUDY_FILE).read_text(encoding="utf-8")).get("format") == FORMAT
        except Exception:
            is_study = False
        if not is_study:
            raise RunError(f"{folder}: has files that are not those of a study; choose another --out")
    elif folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: is a file, not a folder; choose another --out")


def _runner_of(cell: Cell) -> AnyCell:
    """The run of a cell, with checked options."""
    try:
        return RUNNERS[cell.run](cell.options)
    except Ig3dError as error:
        raise type(error)(f"{cell.name}: {error}" if cell.labels else str(error)) from error


def _check_rule(study: Study, runners: list[AnyCell]) -> None:
    """Raise an error if no cell has the rule of the study, before any cell is run."""
    for run in study.runs:
        rule = study.rule_of(run)
        of_run = [runner for cell, runner in zip(study.cells, runners, strict=True) if cell.run == run]
        names = dict.fromkeys(name for runner in of_run for name in runner.rules)
        if rule is not None and rule not in names and not rule.startswith("2d:"):
            raise UsageError(f"rule: no cell has the rule {rule!r}; choose among {', '.join(names)}")


def _folder_name(key: str) -> str:
    """Hash of the key of a cell and of the versions of the packages."""
    return hashlib.sha256(f"{key}\n{sorted(versions().items())}".encode()).hexdigest()[:16]


def _is_finished(folder: Path) -> bool:
    """Whether the record and predictions of a cell exist and are complete."""
    if not (folder / FILE).is_file():
        return False
    try:
        predictions_of(read_run(folder))
    except (RunError, OSError):
        return False
    return True


def _waves(todo: dict[int, AnyCell], folders: list[Path]) -> list[list[int]]:
    """Positions of the cells to run first, and of those to run afterwards; each folder once.

    Of the cells that fit the same heads, one is run first, so that the others find the scores in the cache.
    """
    first: dict[str, int] = {}
    others: list[int] = []
    started: set[Path] = set()
    for position, runner in todo.items():
        if folders[position] in started:
            continue
        started.add(folders[position])
        if first.setdefault(runner.shared, position) != position:
            others.append(position)
    return [wave for wave in (list(first.values()), others) if wave]


def _in_parallel(
    todo: dict[int, AnyCell], wave: list[int], folders: list[Path], heads: Path, jobs: int
) -> Iterator[tuple[int, str]]:
    """Position and error of each cell of a wave, in the order in which they finish."""
    workers = min(jobs, len(wave))
    threads = max(1, cpu_count() // workers)
    run = partial(_error_of, heads=heads, threads=threads)
    tasks = ((todo[position], folders[position]) for position in wave)
    if jobs == 1:
        yield from ((position, run(*task)) for position, task in zip(wave, tasks, strict=True))
        return
    # A single cell is run in a worker too, so that the study continues if the worker dies.
    for ended in run_tasks(run, tasks, environments=[thread_variables(threads)] * workers):
        yield wave[ended.task], _DIED if ended.given_up else ended.result


def _error_of(cell: AnyCell, folder: Path, *, heads: Path, threads: int) -> str:
    """Run a cell; returns the error as text, empty if the run succeeded."""
    try:
        cell.write(folder, heads, threads)
    except Ig3dError as error:
        return str(error)
    return ""
