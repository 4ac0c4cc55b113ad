"""The files of a run: predictions, figures, table, model, and the page to read.

Every file is written beside its final name and renamed; the same result gives the same bytes.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...console import say
from ...errors import MissingExtra, RunError
from ..figures import difference_key
from ..model import save_model
from .latex import table_tex
from .record import FILE, FORMAT, Result, Run, json_text, record_of
from .words import metrics_of_record

FILES = ("predictions.csv", "table.csv", "table.tex", FILE, "model.skops", "report.html")


def check_out(out: str | Path) -> None:
    """Whether results can be written to a folder, before any work; results of an earlier run may be replaced.

    Raises
    ------
    RunError : it cannot be written, or holds files of these names that no run of ours wrote.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
        there = [name for name in FILES if (folder / name).exists()]
        ours = FILE in there and f'"format": "{FORMAT}"' in (folder / FILE).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise RunError(f"{out}: expected a folder that results can be written to, got {exc}") from exc
    if there and not ours:
        raise RunError(
            f"{out}: expected a new folder or one of an earlier run, got {', '.join(there)} of something else; name "
            "another --out"
        )


def write_result(result: Result, out: str | Path, *, command: str = "") -> list[Path]:
    """Write predictions, figures, tables, the page and, where there is one, the model into a folder.

    Parameters
    ----------
    result : Result
    out : folder
    command : the command line as it was typed, for the record

    Returns
    -------
    list of the files
        Without ``report.html`` where matplotlib or Jinja2 are not installed, which is said on stderr.

    Raises
    ------
    RunError : the folder cannot be written.
    """
    folder = Path(out)
    record = record_of(result, command=command)
    texts = {
        "predictions.csv": predictions_csv(result),
        "table.csv": table_csv(record),
        "table.tex": table_tex(record),
        FILE: json_text(record),
    }
    try:
        from .page import page_html

        texts["report.html"] = page_html([Run(folder.resolve().name, folder, record)])
    except MissingExtra as missing:
        say(f"no report.html: {missing}")
    written = write_texts(folder, texts)
    if result.model is not None:
        try:
            save_model(result.model, folder / "model.skops")
        except OSError as exc:
            raise RunError(f"{out}: expected to write results there, got {exc}") from exc
        written.append(folder / "model.skops")
    return sorted(written)


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write files of a folder by renaming; their paths.

    Raises
    ------
    RunError : the folder cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            temporary = folder / f".{name}.{os.getpid()}.tmp"
            try:
                temporary.write_text(text, encoding="utf-8", newline="")
                temporary.replace(folder / name)
            finally:
                temporary.unlink(missing_ok=True)
            written.append(folder / name)
    except OSError as exc:
        raise RunError(f"{folder}: expected to write results there, got {exc}") from exc
    return written


def predictions_csv(result: Result) -> str:
    """Long table: ``id, rule, label, p_<class>..., truth`` or ``id, rule, valence, arousal, *_truth``.

    ``label`` is the predicted class, ``truth`` that of the dataset.
    """
    classes = result.task == "classes"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["id", "rule", "label", *(f"p_{name}" for name in result.classes), "truth"]
        if classes
        else ["id", "rule", "valence", "arousal", "valence_truth", "arousal_truth"]
    )
    for rule in result.rules:
        rows = np.flatnonzero(rule.present)
        values = np.exp(rule.values[rows]) if classes else rule.values[rows]
        # Seven significant digits are more than a prediction has.
        cells = np.char.mod("%.7g", values).tolist()
        said = [[result.classes[index]] for index in values.argmax(axis=1)] if classes else [[]] * len(rows)
        ids = result.ids[rows].tolist()
        truth = (
            [[result.classes[index]] for index in result.truth[rows]]
            if classes
            else np.char.mod("%.7g", result.truth[rows]).tolist()
        )
        writer.writerows(
            [name, rule.name, *label, *line, *true]
            for name, label, line, true in zip(ids, said, cells, truth, strict=True)
        )
    return text.getvalue()


def table_csv(record: dict[str, Any], *, run: str | None = None, header: bool = True) -> str:
    """One line per rule, part and metric, with interval and differences; with the run's name in front, if given."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = ["value", "low", "high"]
    tested = [*keys, "p", "p_holm"]
    differences = [difference_key(reference) for reference in record["references"]]
    head = ["rule", "kind", "fitted_on_reported", "rows", "n", "metric", *keys]
    if header:
        columns = [*head, *(f"{name}_{key}" for name in differences for key in tested)]
        writer.writerow(columns if run is None else ["run", *columns])
    for name, rule in record["rules"].items():
        for part, figures in record["results"][name].items():
            if figures is None:
                continue
            for metric in metrics_of_record(record):
                figure = figures[metric]
                line = [name, rule["kind"], int(rule["fitted_on_reported"]), part, figures["rows"], metric]
                line += [figure[key] for key in keys]
                line += [figure.get(other, {}).get(key) for other in differences for key in tested]
                cells = ["" if cell is None else cell for cell in line]
                writer.writerow(cells if run is None else [run, *cells])
    return text.getvalue()
