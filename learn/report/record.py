"""The record of a run, ``record.json``, and its tables of figures.

Runs of ``ig3d fuse``, ``ig3d train`` and intermediate fusion write the same files. The record has the plan, options,
sources and versions, and what was fitted; the tables have the figures. The same command on the same files gives the
same bytes; those of ``model.skops`` differ, but its fitted parameters have the same hash.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...errors import Ig3dError, RunError, listed, plural, shorten
from ..config import PRIMARY_METRICS, FuseConfig
from ..evaluate.counts import CONFUSION, RELIABILITY, confusion_table, reliability_table
from ..evaluate.figures import COLUMNS, KEYS
from ..evaluate.metrics import LEADING, METRICS, metric_names
from ..evaluate.tables import read_table
from ..model import parameters_hash
from ..result import Result
from ..versions import versions

FORMAT = "ig3d-run"
# A separate name, so that a late fusion does not replace the folder of an intermediate fusion.
INTERMEDIATE = "ig3d-intermediate-run"
FORMAT_VERSION = 4
FILE, FINDINGS, PREDICTIONS = "record.json", "findings.json", "predictions.npz"
STUDY_FILE = "study.json"  # ig3d ablate
FIGURES = "figures.csv"
_TABLES = {FIGURES: COLUMNS, "confusion.csv": CONFUSION, "reliability.csv": RELIABILITY}
_RECORD = frozenset(
    {
        "task",
        "classes",
        "primary",
        "references",
        "predictors",
        "tables",
        "protocol",
        "assumptions",
        "diagnostics",
        "sources",
        "config",
    }
    | {"command", "versions"}
)
_KEYS = {
    "config": set[str](),
    "versions": set[str](),
    "protocol": {
        "head_fitting",
        "reported",
        "fitted_on",
        "rows_reported",
        "rows_covered",
        "rows_calibration",
        "rows_left_out",
        "groups_reported",
        "fits",
        "sentences",
    },
}
# Options that change no figure are not part of the record.
_LEFT_OUT = ("jobs", "model")


@dataclass(frozen=True, slots=True)
class Run:
    """The record and the tables of a run.

    Attributes
    ----------
    name, folder : name in reports, and path
    record : content of ``record.json``: plan, options, assumptions, diagnostics, versions, fitted parameters
    tables : ``figures.csv`` and, for classes, ``confusion.csv`` and ``reliability.csv``, by file name
    """

    name: str
    folder: Path
    record: dict[str, Any]
    tables: dict[str, pd.DataFrame]

    @property
    def figures(self) -> pd.DataFrame:
        """The table of figures (:func:`~..evaluate.figures.figures_of`)."""
        return self.tables[FIGURES]


def run_of(result: Result, *, name: str = "run", folder: str | Path = ".", command: str = "") -> Run:
    """Record and tables of a result, as they are written."""
    tables = tables_of(result)
    record = _record_of(result, command) | {"tables": {file: len(table) for file, table in tables.items()}}
    return Run(name, Path(folder), record, tables)


def tables_of(result: Result) -> dict[str, pd.DataFrame]:
    """File name -> tidy table."""
    tables = {FIGURES: result.figures}
    if result.task == "classes":
        rows = (result.predictors, result.truth, result.covered)
        tables["confusion.csv"] = confusion_table(*rows, result.classes)
        tables["reliability.csv"] = reliability_table(*rows)
    return tables


def _record_of(result: Result, command: str) -> dict[str, Any]:
    protocol = result.plan
    config = {name: value for name, value in asdict(result.config).items() if name not in _LEFT_OUT}
    record = {
        "format": INTERMEDIATE if protocol.head_fitting == "intermediate" else FORMAT,
        "format_version": FORMAT_VERSION,
        "task": result.task,
        "classes": list(result.classes),
        "references": _references(result),
        "primary": _primary(result),
        "predictors": [
            {
                "name": of.name,
                "role": of.role,
                "condition": of.condition,
                "fits": of.fits,
                "repeats": len(of.every),
                "fitted": list(of.fitted),
            }
            for of in result.predictors
        ],
        "protocol": {
            "head_fitting": protocol.head_fitting,
            "reported": protocol.report_name,
            "fitted_on": protocol.fit_name,
            "rows_reported": len(result.ids),
            "rows_covered": int(result.covered.sum()),
            "groups_reported": None if result.groups is None else len(np.unique(result.groups)),
            "rows_calibration": len(protocol.calibration),
            "rows_left_out": protocol.left_out,
            "sentences": list(protocol.sentences),
            "fits": protocol.record(),
        },
        "intervals": "95 %, paired bootstrap; BCa for metric values, percentile for differences, expanded percentile "
        "for both below 50 rows or groups; with all fitted models held fixed"
        + ("; of the mean over seeds" if len(config.get("seeds", ())) > 1 else ""),
        "assumptions": list(result.notes),
        "diagnostics": list(result.diagnostics),
        "sources": dict(result.sources),
        # of the head and rules in model.skops
        "parameters_sha1": None if result.model is None else parameters_hash(result.model),
        "config": config,
        "command": command,
        "versions": versions(),
    }
    return dict(json.loads(json_text(record)))


def _references(result: Result) -> list[str]:
    """Names of the references, the first one of the effect size first."""
    figures = result.figures
    metric = metric_names(result.task)[0]
    versus = set(figures["versus"][(figures["metric"] == metric) & (figures["versus"] != "")])
    # the 3D alone is no reference of a fusion
    names = [
        of.name
        for of in result.predictors
        if of.role in ("reference", "head") and of.name != "3d" and of.name in versus
    ]
    return sorted(names, key=lambda name: name != "2d-recalibrated")


def _primary(result: Result) -> dict[str, str] | None:
    """Rule and metric of the primary comparison of a late fusion."""
    if not isinstance(result.config, FuseConfig) or all(of.name != "2d" for of in result.predictors):
        return None
    objective = result.config.objective_for(result.task)
    return {"rule": result.config.primary_rule(), "metric": PRIMARY_METRICS[objective]}


def table_name(name: str, record: dict[str, Any]) -> str:
    """File of a table, in the same folder; ``-va`` for valence and arousal of a training for both tasks."""
    return _beside(name, record)


def predictions_name(record: dict[str, Any]) -> str:
    """File of the predictions, in the same folder."""
    return _beside(PREDICTIONS, record)


def findings_name(record: dict[str, Any]) -> str:
    """File of the findings, in the same folder."""
    return _beside(FINDINGS, record)


def seed_of(record: dict[str, Any]) -> int:
    """The seed of a run's draws: the first, where there are several."""
    config = record["config"]
    return int(config.get("seed", (config.get("seeds") or [0])[0]))


def _beside(name: str, record: dict[str, Any]) -> str:
    second = record["task"] == "va" and record["config"].get("task") == "both"
    return name.replace(".", "-va.") if second else name


def json_text(record: dict[str, Any]) -> str:
    """A record as the text of its file."""
    return json.dumps(_plain(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read several runs; those with equal names are named by their paths, equal paths also by a number.

    Raises
    ------
    RunError : a folder has no record of this version.
    """
    runs = [read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    names = [
        str(folder) if names.count(name) > 1 else name for name, folder in zip(names, folders, strict=True)
    ]
    times = [names[: position + 1].count(name) for position, name in enumerate(names)]
    return [
        replace(run, name=name if time == 1 else f"{name} ({time})")
        for run, name, time in zip(runs, names, times, strict=True)
    ]


@contextmanager
def sound_records(runs: Sequence[Run]) -> Iterator[None]:
    """Turn errors caused by a record that was changed by hand into a message of one line.

    Raises
    ------
    RunError : a value is not one that :func:`run_of` writes.
    """
    try:
        yield
    except (Ig3dError, ImportError, OSError, MemoryError):
        raise
    except Exception as exc:  # of arithmetic, templates and pictures
        files = ", ".join(str(run.folder / FILE) for run in runs)
        why = f"{type(exc).__name__}: {shorten(' '.join(str(exc).split()), 120)}"
        raise RunError(
            f"{files}: the figures are damaged or were changed ({why}); run the command again"
        ) from exc


def read_run(folder: str | Path) -> Run:
    """The record of a folder that ``ig3d fuse``, ``train``, ``fuse-features`` or ``train-joint`` wrote to ``--out``.

    Parameters
    ----------
    folder : folder, or the record in it
        Training for both tasks at once writes two records: ``record.json`` and ``record-va.json``.

    Raises
    ------
    RunError : the folder has no record, or the record is damaged or of another version.
    """
    path = Path(folder) / FILE if Path(folder).is_dir() else Path(folder)
    try:
        if path.exists() and not path.is_file():  # a FIFO would be waited for
            raise RunError(f"{path}: is not a file; name the folder of a run")
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise RunError(f"{folder}: {_without_record(Path(folder))}") from exc
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as exc:
        raise RunError(
            f"{path}: is damaged, or not the record of a run; name the folder of a run, or run the command again"
        ) from exc
    if not isinstance(record, dict) or not str(record.get("format", "")).startswith("ig3d-"):
        raise RunError(f"{path}: is not the record of a run; name the folder of a run")
    version = record.get("format_version")
    if record["format"] not in (FORMAT, INTERMEDIATE) or version != FORMAT_VERSION:
        kept = "; finished trainings are kept" if record["format"] == INTERMEDIATE else ""
        raise RunError(
            f"{path}: has the format {record['format']} version {version}, which this ig3d cannot read (it reads "
            f"version {FORMAT_VERSION}); run the command again{kept}"
        )
    missing = _RECORD - record.keys()
    if missing:
        raise RunError(f"{path}: the record has no {', '.join(sorted(missing))}; run the command again")
    folder_of_run = path.parent.resolve()
    name = _names_of_cells(folder_of_run.parent.parent).get(folder_of_run, folder_of_run.name)
    bare = Run(name, path.parent, record, {})
    with sound_records([bare]):
        wrong = next(_wrong_in(record), None)
        if wrong:
            raise RunError(f"{path}: {wrong}; run the command again")
    tables = {
        name: _read_table(path.parent / table_name(name, record), columns)
        for name, columns in _TABLES.items()
        if name == FIGURES or record["task"] == "classes"
    }
    for name, table in tables.items():
        lines = record["tables"].get(name) if isinstance(record["tables"], dict) else None
        if len(table) != lines:
            file = path.parent / table_name(name, record)
            raise RunError(
                f"{file}: has {plural(len(table), 'line')}, {FILE} states {lines}; run the command again"
            )
    with sound_records([bare]):
        wrong = next(_wrong_figures(record, tables[FIGURES]), None)
        if wrong:
            raise RunError(f"{path.parent / table_name(FIGURES, record)}: {wrong}; run the command again")
        return replace(bare, tables=tables)


def _without_record(folder: Path) -> str:
    """End of the error for a folder that has no record, with the runs below it."""
    runs = [path.parent for pattern in ("*", "*/*") for path in sorted(folder.glob(f"{pattern}/{FILE}"))]
    if not runs:
        return f"is not the folder of a run: it has no {FILE}; ig3d fuse --out writes one"
    cells = _names_of_cells(folder)
    named = [f"{run} ({cells[run.resolve()]})" if cells.get(run.resolve()) else str(run) for run in runs]
    results = [name for name in (FIGURES, "table.tex", "heatmap.png") if (folder / name).is_file()]
    files = f"; {', '.join(results)} compare them" if results else ""
    return f"is not a run, but contains {plural(len(runs), 'run')}: pass {listed(named, 3)}{files}"


def _names_of_cells(study: Path) -> dict[Path, str]:
    """Values of the factors of each cell, by its folder; empty if the folder is not that of a study."""
    try:
        cells = json.loads((study / STUDY_FILE).read_text(encoding="utf-8"))["cells"]
        return {
            (study / cell["folder"]).resolve(): ", ".join(map(str, cell["labels"].values()))
            for cell in reversed(cells)  # cells of equal content have one folder: its first cell counts
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        if path.exists() and not path.is_file():
            raise RunError(f"{path}: is not a file; run the command again")
        return read_table(path, columns)
    except FileNotFoundError as exc:
        raise RunError(f"{path}: does not exist; run the command again") from exc
    except (OSError, ValueError, UnicodeDecodeError) as exc:
        why = shorten(" ".join(str(exc).split()), 120)
        raise RunError(f"{path}: the table is damaged ({why}); run the command again") from exc


def _wrong_in(record: dict[str, Any]) -> Iterator[str]:
    """Errors in a record, as parts of messages; empty if it is one that :func:`run_of` writes."""
    if record["task"] not in ("classes", "va"):
        yield f"the task {record['task']!r} does not exist"
    for name, keys in _KEYS.items():
        if not isinstance(record[name], dict) or not keys <= record[name].keys():
            yield f"{name!r} is not complete"
    primary = record["primary"]
    if primary is not None and (
        not isinstance(primary, dict)
        or not isinstance(primary.get("rule"), str)
        or primary.get("metric") not in metric_names(record["task"])
    ):
        yield f"the primary comparison {primary!r} is not a rule and a metric"
    needed = {"name", "role", "condition", "fits", "fitted", "repeats"}
    predictors = record["predictors"]
    if not isinstance(predictors, list) or not all(
        isinstance(of, dict) and needed <= of.keys() for of in predictors
    ):
        yield "'predictors' is not complete"
    names = {of["name"] for of in predictors}
    if not isinstance(record["references"], list) or not set(record["references"]) <= names:
        yield "the references are not predictors of the run"


def _wrong_figures(record: dict[str, Any], figures: pd.DataFrame) -> Iterator[str]:
    """Errors in the table of figures of a record, as parts of messages."""
    predictors = {(of["name"], of["condition"]) for of in record["predictors"]}
    for columns in (["predictor", "condition"], ["versus", "versus_condition"]):
        pairs = set(figures[columns].itertuples(index=False, name=None)) - {("", "")}
        if pairs - predictors:
            yield f"has figures of predictors that {FILE} does not have: {sorted(pairs - predictors)[:3]}"
    whole = figures[figures["repeat"].isna()]
    if whole.duplicated(list(KEYS)).any():
        yield "has two lines for one figure"
    own = whole[(whole["versus"] == "") & whole["metric"].isin(METRICS)]
    has = set(own[["predictor", "condition", "rows", "metric"]].itertuples(index=False, name=None))
    # runs of earlier versions have no lines of metrics that were added later
    task, present = record["task"], set(own["metric"])
    needed = [metric for metric in metric_names(task) if metric in present or metric in LEADING[task]]
    for name, condition in predictors:
        parts = {part for of, under, part, _ in has if (of, under) == (name, condition)}
        for part in parts:
            missing = [metric for metric in needed if (name, condition, part, metric) not in has]
            if missing:
                yield f"has no {', '.join(missing)} of {name} ({condition}), {part} rows"


def _plain(value: Any) -> Any:
    """Plain values for JSON; None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float):
        return float(f"{value:.12g}") if math.isfinite(value) else None
    return value
