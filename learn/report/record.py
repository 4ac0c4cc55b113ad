"""The record of a run, ``metrics.json``: everything a report needs, as plain values.

Runs of ``ig3d fuse``, ``ig3d train`` and intermediate fusion make the same record; where there are no 2D predictions
there are no references and no differences in it. The same command on the same files gives the same bytes.
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

from ...errors import Ig3dError, RunError, short
from ..config import PRIMARY_METRICS, FuseConfig
from ..measures.metrics import metric_names
from ..measures.results import difference_key
from ..result import Result
from ..versions import versions

FORMAT = "ig3d-metrics"
# Same in all but what writes the folder: what replaces a run of one kind must not replace one of the other.
INTERMEDIATE = "ig3d-intermediate-metrics"
FORMAT_VERSION = 3
FILE, FINDINGS, PREDICTIONS = "metrics.json", "findings.json", "predictions.csv"
_RECORD = frozenset(
    {
        "task",
        "classes",
        "primary",
        "references",
        "results",
        "rules",
        "protocol",
        "assumptions",
        "sources",
        "config",
    }
    | {"command", "versions"}
)
_KEYS = {
    "rules": set[str](),
    "config": set[str](),
    "versions": set[str](),
    "protocol": {
        "case",
        "reported",
        "fitted_on",
        "fitted_on_reported",
        "rows_reported",
        "rows_covered",
        "rows_calibration",
        "rows_left_out",
        "groups_reported",
        "fits",
        "sentences",
    },
}
# What changes no figure is no part of the record.
_LEFT_OUT = ("jobs", "model")


@dataclass(frozen=True, slots=True)
class Run:
    """A folder that a run was written to, and its record."""

    name: str
    folder: Path
    record: dict[str, Any]


def record_of(result: Result, *, command: str = "") -> dict[str, Any]:
    """All that ``metrics.json`` says: figures under ``results``, protocol, choices, assumptions, versions.

    Parameters
    ----------
    result : Result
    command : the command line as it was typed, where there was one
    """
    protocol, figures = result.protocol, result.figures
    metric = metric_names(result.task)[0]
    config = {name: value for name, value in asdict(result.config).items() if name not in _LEFT_OUT}

    def compared(name: str) -> bool:
        key = difference_key(name)
        return any(part and key in part[metric] for parts in figures.values() for part in parts.values())

    # The 3D alone is no reference: what it is worth is no part of what it adds.
    references = [
        rule.name
        for rule in result.rules
        if rule.kind in ("reference", "head") and rule.name != "3d" and compared(rule.name)
    ]
    record = {
        "format": INTERMEDIATE if protocol.case == "intermediate" else FORMAT,
        "format_version": FORMAT_VERSION,
        "task": result.task,
        "classes": list(result.classes),
        # The one that a difference is first measured against leads.
        "references": sorted(references, key=lambda name: name != "2d-recalibrated"),
        "primary": _primary(result),
        "results": {rule.name: figures[rule.name] for rule in result.rules},
        "rules": {
            rule.name: {
                "kind": rule.kind,
                "fits": rule.fits,
                "fitted_on_reported": protocol.marked and rule.fits,
                "fitted": list(rule.fitted),
            }
            for rule in result.rules
        },
        "protocol": {
            "case": protocol.case,
            "reported": protocol.report_name,
            "fitted_on": protocol.fit_name,
            "fitted_on_reported": protocol.marked,
            "rows_reported": len(result.ids),
            "rows_covered": int(result.covered.sum()),
            "groups_reported": None if result.groups is None else len(np.unique(result.groups)),
            "rows_calibration": len(protocol.calibration),
            "rows_left_out": protocol.left_out,
            "sentences": list(protocol.sentences),
            "fits": protocol.record(),
        },
        "intervals": "95 %, paired bootstrap; BCa for figures, percentile for differences, expanded percentile for "
        "both below 50 rows or groups; conditional on the trained networks"
        + ("; of the mean over seeds" if len(config.get("seeds", ())) > 1 else ""),
        "assumptions": list(result.notes),
        "sources": dict(result.sources),
        "config": config,
        "command": command,
        "versions": versions(),
    }
    return json.loads(json_text(record))


def _primary(result: Result) -> dict[str, str] | None:
    """Rule and metric of the primary comparison of a late fusion."""
    if not isinstance(result.config, FuseConfig) or all(rule.name != "2d" for rule in result.rules):
        return None
    objective = result.config.objective_for(result.task)
    return {"rule": result.config.primary_rule(), "metric": PRIMARY_METRICS[objective]}


def figures_name(record: dict[str, Any]) -> str:
    """The record's file: ``metrics-va.json`` for the valence and arousal of a training for both tasks."""
    return _beside(FILE, record)


def predictions_name(record: dict[str, Any]) -> str:
    """The file of the run's predictions, beside :func:`figures_name`."""
    return _beside(PREDICTIONS, record)


def findings_name(record: dict[str, Any]) -> str:
    """The file of the run's findings, beside :func:`figures_name`."""
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
    """Several runs; folders of one name are called by their path as it was given, a folder given twice by a number.

    Raises
    ------
    RunError : one of them has no record of this version.
    """
    runs = [read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    names = [
        str(folder) if names.count(name) > 1 else name for name, folder in zip(names, folders, strict=True)
    ]
    times = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [
        replace(run, name=name if time == 1 else f"{name} ({time})")
        for run, name, time in zip(runs, names, times, strict=True)
    ]


@contextmanager
def sound_records(runs: Sequence[Run]) -> Iterator[None]:
    """Errors of showing records that were changed since they were written, as one line.

    Raises
    ------
    RunError : a value is not what :func:`record_of` writes.
    """
    try:
        yield
    except (Ig3dError, ImportError, OSError, MemoryError):
        raise
    except Exception as exc:  # of arithmetic, templates and pictures
        files = ", ".join(str(run.folder / FILE) for run in runs)
        why = f"{type(exc).__name__}: {short(' '.join(str(exc).split()), 120)}"
        raise RunError(f"{files}: figures that ig3d does not write ({why}); make the run again") from exc


def read_run(folder: str | Path) -> Run:
    """The record of a folder that ``ig3d fuse``, ``train``, ``fuse-features`` or ``train-joint`` wrote to ``--out``.

    Parameters
    ----------
    folder : folder, or the record in it
        Training for classes and for valence-arousal at once leaves a record of each (:func:`figures_name`).

    Raises
    ------
    RunError : there is none, or it is not one of this version.
    """
    path = Path(folder) / FILE if Path(folder).is_dir() else Path(folder)
    try:
        if path.exists() and not path.is_file():  # a FIFO would be waited for
            raise RunError(f"{path}: expected the figures of a run, got a folder, a device or a pipe")
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise RunError(
            f"{folder}: expected the folder of a run with {FILE} in it, found none; ig3d fuse --out makes one"
        ) from exc
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as exc:
        raise RunError(f"{path}: expected the figures of a run, got a file that is none or damaged") from exc
    if not isinstance(record, dict) or not str(record.get("format", "")).startswith("ig3d-"):
        raise RunError(f"{path}: expected the figures of a run, got another file")
    version = record.get("format_version")
    if record["format"] not in (FORMAT, INTERMEDIATE) or version != FORMAT_VERSION:
        kept = "; finished trainings are kept" if record["format"] == INTERMEDIATE else ""
        raise RunError(
            f"{path}: expected {INTERMEDIATE if kept else FORMAT} version {FORMAT_VERSION}, got {record['format']} "
            f"version {version}; run the command again with this ig3d{kept}"
        )
    missing = _RECORD - record.keys()
    if missing:
        raise RunError(f"{path}: expected the figures of a run, got none of {', '.join(sorted(missing))}")
    with sound_records([Run(path.parent.resolve().name, path.parent, record)]):
        wrong = next(_wrong_in(record), None)
    if wrong:
        raise RunError(f"{path}: expected {wrong}; make the run again")
    return Run(path.parent.resolve().name, path.parent, record)


def _wrong_in(record: dict[str, Any]) -> Iterator[str]:
    """What is not as :func:`record_of` makes it, after ``expected``: what a hand may have changed or taken out."""
    if record["task"] not in ("classes", "va"):
        yield f"a task classes or va, got {record['task']!r}"
    for name, keys in _KEYS.items():
        if not isinstance(record[name], dict) or not keys <= record[name].keys():
            yield f"{name} with {', '.join(sorted(keys)) or 'what it is of'}, got others"
    primary = record["primary"]
    if primary is not None and (
        not isinstance(primary, dict)
        or not isinstance(primary.get("rule"), str)
        or primary.get("metric") not in metric_names(record["task"])
    ):
        yield f"rule and metric of the primary comparison, got {primary!r}"
    results, rules = record["results"], record["rules"]
    if not isinstance(results, dict) or list(results) != list(rules):
        yield "results of the very rules that are named under rules, got others"
    if not isinstance(record["references"], list) or not set(record["references"]) <= results.keys():
        yield "references that are among the rules, got others"
    for name, parts in results.items():
        if not isinstance(parts, dict) or not {"all", "covered"} <= parts.keys():
            yield f"figures of all and of covered rows of {name}, got others"
        if (
            not isinstance(rules[name], dict)
            or not {"kind", "fits", "fitted", "fitted_on_reported"} <= rules[name].keys()
        ):
            yield f"what {name} is under rules, got others"
        for part in ("all", "covered"):
            if parts[part] is not None:
                yield from _wrong_of(parts[part], record["task"], f"{name}, {part}")


def _wrong_of(figures: Any, task: str, where: str) -> Iterator[str]:
    """What is wrong with the figures of one rule on one part of the rows."""
    needed = {"rows", *metric_names(task)} | (
        {"per_class", "confusion", "calibration"} if task == "classes" else set()
    )
    if not isinstance(figures, dict) or not needed <= figures.keys():
        yield f"figures of {where} with {', '.join(sorted(needed))}, got others"
    for metric in metric_names(task):
        if not isinstance(figures[metric], dict) or not {"value", "low", "high"} <= figures[metric].keys():
            yield f"value, low and high as {metric} of {where}, got others"
    todo: list[tuple[str, Any]] = list(figures.items())
    while todo:
        key, found = todo.pop()
        if isinstance(found, dict):
            todo += [(f"{key}, {name}", value) for name, value in found.items() if name != "test"]
        elif isinstance(found, list):
            todo += [(key, value) for value in found]
        elif not isinstance(found, int | float | None):
            yield f"a number as {key} of {where}, got {found!r}"


def _plain(value: Any) -> Any:
    """Plain values for JSON; None for what is no number."""
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
