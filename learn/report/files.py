"""The files of a run: record, tables, predictions, findings, LaTeX, model and the report page.

Every file is written under a temporary name and renamed; the same result gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...console import say
from ...errors import MissingExtra, RunError, reason_of
from ...features.atomic import check_output, replacing, temporary_name
from ...features.predictions import VA
from ..evaluate.predictions import ReportedPredictions, predictions_npz
from ..evaluate.tables import table_csv
from ..model import MODEL, save_model
from ..result import Result
from .compare import compare
from .findings import findings_of
from .latex import table_tex, tables_tex
from .page import GENERATOR, page_html
from .record import FIGURES, FILE, FINDINGS, FORMAT, PREDICTIONS, Run, json_text, run_of, table_name
from .view import View

_DIGITS = "%.9g"  # more than a prediction has
DIFFERENCES = "differences.csv"
FILES = (
    FILE, FIGURES, "confusion.csv", "reliability.csv", FINDINGS, PREDICTIONS, "predictions.csv", "table.tex",
    MODEL, "report.html",
)  # fmt: skip


def check_out(out: str | Path) -> None:
    """Check that results can be written to a folder, before any work.

    Raises
    ------
    RunError : the folder cannot be written, or has files of these names that ig3d did not write.
    """
    folder = Path(out)
    if folder.is_file():
        raise RunError(f"{out}: is a file, not a folder; name another --out")
    try:
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        probe = temporary_name(folder / FILE)
        probe.touch()
        probe.unlink()
        for path in new:  # an interrupted run leaves no empty folder
            path.rmdir()
        existing = [name for name in FILES if (folder / name).exists()]
        for name in existing:
            check_output(folder / name)
        ours = FILE in existing and f'"format": "{FORMAT}"' in (folder / FILE).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise RunError(
            f"{out}: results cannot be written to this folder ({reason_of(exc)}); name another --out"
        ) from exc
    if existing and not ours:
        raise RunError(
            f"{out}: has {', '.join(existing)} that ig3d did not write; name a new folder, or that of an earlier run, "
            "with --out"
        )


def write_result(result: Result, out: str | Path, *, command: str = "") -> list[Path]:
    """Write predictions, tables, findings, the report page and, if the result has one, the model into a folder.

    Parameters
    ----------
    result : Result
    out : folder
    command : the command line, for the record

    Returns
    -------
    list of the files
        Without ``report.html`` where matplotlib is not installed, with a note on stderr.

    Raises
    ------
    RunError : the folder cannot be written.
    """
    folder = Path(out)
    replaced = (folder / FILE).exists()
    run = run_of(result, name=folder.resolve().name, folder=folder, command=command)
    texts: dict[str, str | bytes] = {
        **run_files(run, result),
        FINDINGS: json_text(findings_of(View(run))),
        "table.tex": table_tex(run),
    }
    try:
        texts["report.html"] = page_html([run])
    except MissingExtra as missing:
        say(f"no report.html: {missing}")
    written = write_texts(folder, texts)
    if replaced:
        say(f"{out}: held an earlier run, which this one replaces")
    if result.model is not None:
        try:
            save_model(result.model, folder / MODEL)
        except OSError as exc:
            raise RunError(f"{out}: the model cannot be written ({reason_of(exc)})") from exc
        written.append(folder / MODEL)
    return sorted(written)


def run_files(run: Run, result: ReportedPredictions) -> dict[str, str | bytes]:
    """Name -> content of the files from which a run is read; the record is the last, so that it is written last."""
    record = run.record
    files: dict[str, str | bytes] = {name: table_csv(table) for name, table in run.tables.items()}
    files |= {PREDICTIONS: predictions_npz(result), "predictions.csv": predictions_csv(result)}
    files[FILE] = json_text(record)
    return {table_name(name, record): content for name, content in files.items()}


def write_report(runs: Sequence[Run], out: str | Path) -> list[Path]:
    """Write ``report.html``, ``figures.csv`` and ``table.tex`` into a folder, and ``differences.csv`` of paired runs.

    Raises
    ------
    MissingExtra : matplotlib is not installed.
    RunError : the folder cannot be written, is that of a run, or has files of these names that ig3d did not write; or
        runs cannot be compared.
    """
    folder = Path(out)
    if (folder / FILE).exists():
        raise RunError(
            f"{out}: is the folder of a run, whose files a report would replace; choose another --out"
        )
    comparison = compare(runs) if len(runs) > 1 else None
    texts: dict[str, str | bytes] = {
        "report.html": page_html(runs, comparison),
        FIGURES: table_csv(figures_of_runs(runs)),
        "table.tex": tables_tex(runs, comparison),
    }
    if comparison is not None and len(comparison.differences):
        texts[DIFFERENCES] = table_csv(comparison.differences)
    page = folder / "report.html"
    existing = [name for name in texts if (folder / name).exists()]
    for name in existing:
        check_output(folder / name)
    if existing and not (page.is_file() and GENERATOR in page.read_text("utf-8", errors="replace")[:1000]):
        raise RunError(
            f"{out}: has {', '.join(existing)} that ig3d did not write; name a new folder, or that of an earlier "
            "report, with --out"
        )
    if existing and DIFFERENCES not in texts:
        (folder / DIFFERENCES).unlink(missing_ok=True)  # of an earlier report
    return sorted(write_texts(folder, texts))


def write_texts(folder: Path, texts: Mapping[str, str | bytes]) -> list[Path]:
    """Write files into a folder, each by renaming, and return their paths.

    Raises
    ------
    RunError : the folder cannot be written.
    """
    written = []
    try:
        for name, text in texts.items():
            with replacing(folder / name) as temporary:
                temporary.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
            written.append(folder / name)
    except OSError as exc:
        raise RunError(f"{folder}: results cannot be written to this folder ({reason_of(exc)})") from exc
    return written


def figures_of_runs(runs: Sequence[Run]) -> pd.DataFrame:
    """The tables of several runs in one, with a first column ``run``."""
    tables = []
    for run in runs:
        table = run.figures.copy()
        table.insert(0, "run", run.name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def predictions_csv(result: ReportedPredictions) -> str:
    """Long table to read: ``id, predictor, condition, label, p_<class>..., truth``; maybe ``repeat`` and ``group``.

    ``label`` is the predicted class, ``truth`` that of the dataset; for valence and arousal ``valence, arousal,
    valence_truth, arousal_truth``. Of several cross-fittings only the first is written; of several trainings all are,
    with their numbers as ``repeat``. ``group`` is the person or video, empty for a row without one.
    """
    classes = result.task == "classes"
    trained = any(of.trained for of in result.predictors)
    truth = (
        {"truth": np.array(result.classes, object)[result.truth]}
        if classes
        else {f"{name}_truth": _text(result.truth[:, c]) for c, name in enumerate(VA)}
    )
    parts = []
    for of in result.predictors:
        rows = np.flatnonzero(of.present)
        for number, values in enumerate(of.every if of.trained else of.every[:1]):
            columns: dict[str, Any] = {
                "id": result.ids[rows],
                "predictor": of.name,
                "condition": of.condition,
            }
            if trained:
                columns["repeat"] = number
            shown = values[rows]
            if classes:
                labels = shown.argmax(axis=1)
                columns["label"] = np.array(result.classes, object)[labels]
                cells = _probabilities(np.exp(shown), labels)
                columns |= {f"p_{name}": cells[:, c] for c, name in enumerate(result.classes)}
            else:
                columns |= {name: _text(shown[:, c]) for c, name in enumerate(VA)}
            columns |= {name: cells[rows] for name, cells in truth.items()}
            if result.group_names is not None:
                columns["group"] = result.group_names[rows]
            parts.append(pd.DataFrame(columns))
    return table_csv(pd.concat(parts, ignore_index=True))


def _text(values: np.ndarray) -> np.ndarray:
    return np.char.mod(_DIGITS, values)


def _probabilities(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n, k) probabilities as text; with more digits where nine digits would tie the label with another class."""
    cells = np.char.mod(_DIGITS, values).reshape(values.shape).astype(object)
    tied = np.flatnonzero(cells.astype(float).argmax(axis=1) != labels)
    # equal probabilities may have different log-probabilities
    values[tied, labels[tied]] = values[tied].max(axis=1) * (
        1 + 1e-11
    )  # more than reading and a logarithm lose
    cells[tied] = np.char.mod("%.17g", values[tied]).reshape(values[tied].shape)
    return cells
