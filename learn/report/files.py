"""The files of a run: predictions, figures, table, model, and the page to read.

Every file is written beside its final name and renamed; the same result gives the same bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ...console import say
from ...errors import MissingExtra, RunError
from ...features.atomic import check_output, replacing, temporary_name
from ..measures.results import difference_key
from ..model import save_model
from ..result import Result
from .compare import Comparison, compare
from .findings import findings_of
from .latex import table_tex, tables_tex
from .page import GENERATOR, page_html
from .record import FILE, FINDINGS, FORMAT, Run, json_text, record_of
from .words import OPPONENTS, metrics_of_record

_DIGITS = "%.9g"  # more than a prediction has
FILES = ("predictions.csv", "table.csv", "table.tex", FILE, FINDINGS, "model.skops", "report.html")


def check_out(out: str | Path) -> None:
    """Whether results can be written to a folder, before any work; that an earlier run's are replaced is said.

    Raises
    ------
    RunError : it cannot be written, or holds files of these names that no run of ours wrote.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = temporary_name(folder / FILE)
        probe.touch()
        probe.unlink()
        there = [name for name in FILES if (folder / name).exists()]
        for name in there:
            check_output(folder / name)
        ours = FILE in there and f'"format": "{FORMAT}"' in (folder / FILE).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise RunError(f"{out}: expected a folder that results can be written to, got {exc}") from exc
    if there and not ours:
        raise RunError(
            f"{out}: expected a new folder or one of an earlier run, got {', '.join(there)} of something else; name "
            "another --out"
        )
    if there:
        say(f"{out}: holds an earlier run, which this one replaces")


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
    run = Run(folder.resolve().name, folder, record)
    texts = {
        "predictions.csv": predictions_csv(result),
        "table.csv": table_csv([run]),
        "table.tex": table_tex(record),
        FILE: json_text(record),
        FINDINGS: json_text(findings_of(record)),
    }
    try:
        texts["report.html"] = page_html([run])
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


def write_report(runs: Sequence[Run], out: str | Path) -> list[Path]:
    """Write ``report.html``, ``table.csv``, ``table.tex`` and, of several runs, ``differences.csv`` into a folder.

    Raises
    ------
    MissingExtra : matplotlib or Jinja2 is not installed.
    RunError : the folder cannot be written, or holds files of these names that are not ours; runs cannot be compared.
    """
    folder = Path(out)
    comparison = compare(runs) if len(runs) > 1 else None
    texts = {
        "report.html": page_html(runs, comparison),
        "table.csv": table_csv(runs),
        "table.tex": tables_tex(runs, comparison),
    }
    if comparison is not None:
        texts["differences.csv"] = differences_csv(comparison)
    page = folder / "report.html"
    there = [name for name in texts if (folder / name).exists()]
    for name in there:
        check_output(folder / name)
    if there and not (page.is_file() and GENERATOR in page.read_text("utf-8", errors="replace")[:1000]):
        raise RunError(
            f"{out}: expected a new folder or one of an earlier report, got {', '.join(there)} of something else; name "
            "another --out"
        )
    return sorted(write_texts(folder, texts))


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write files of a folder by renaming; their paths.

    Raises
    ------
    RunError : the folder cannot be written.
    """
    written = []
    try:
        for name, text in texts.items():
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="")
            written.append(folder / name)
    except OSError as exc:
        raise RunError(f"{folder}: expected to write results there, got {exc}") from exc
    return written


def predictions_csv(result: Result) -> str:
    """Long table: ``id, rule, label, p_<class>..., truth`` or ``id, rule, valence, arousal, *_truth``; maybe ``group``.

    ``label`` is the predicted class, ``truth`` that of the dataset; rows of one ``group`` belong together, one
    without a group stands for itself.
    """
    classes = result.task == "classes"
    groups = result.group_names
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = (
        ["id", "rule", "label", *(f"p_{name}" for name in result.classes), "truth"]
        if classes
        else ["id", "rule", "valence", "arousal", "valence_truth", "arousal_truth"]
    )
    writer.writerow(head if groups is None else [*head, "group"])
    for rule in result.rules:
        rows = np.flatnonzero(rule.present)
        values = rule.values[rows]
        labels = values.argmax(axis=1)
        cells = _probabilities(np.exp(values), labels) if classes else np.char.mod(_DIGITS, values)
        said = [[result.classes[index]] for index in labels] if classes else [[]] * len(rows)
        ids = result.ids[rows].tolist()
        truth = (
            [[result.classes[index]] for index in result.truth[rows]]
            if classes
            else np.char.mod(_DIGITS, result.truth[rows]).tolist()
        )
        together = [[]] * len(rows) if groups is None else [[name] for name in groups[rows].tolist()]
        writer.writerows(
            [name, rule.name, *label, *line, *true, *group]
            for name, label, line, true, group in zip(ids, said, cells.tolist(), truth, together, strict=True)
        )
    return text.getvalue()


def _probabilities(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n, k) probabilities as text, the greatest that of the label: with more digits where nine make a tie."""
    cells = np.char.mod(_DIGITS, values).reshape(values.shape).astype(object)
    tied = np.flatnonzero(cells.astype(float).argmax(axis=1) != labels)
    # Log-probabilities may differ where these are one number.
    values[tied, labels[tied]] = values[tied].max(axis=1) * (
        1 + 1e-11
    )  # more than reading and a logarithm lose
    cells[tied] = np.char.mod("%.17g", values[tied]).reshape(values[tied].shape)
    return cells


def table_csv(runs: Sequence[Run]) -> str:
    """One line per run, rule, part and metric, with interval and differences to every reference."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = ["value", "low", "high"]
    tested = [*keys, "p", "p_adjusted"]
    references = dict.fromkeys(name for run in runs for name in run.record["references"])
    differences = [difference_key(reference) for reference in references] + [
        key for key in OPPONENTS if any(key in named for run in runs for named in _differences_in(run))
    ]
    head = ["run", "rule", "kind", "fitted_on_reported", "rows", "n", "metric", *keys]
    writer.writerow([*head, *(f"{name}_{key}" for name in differences for key in tested)])
    for run in runs:
        for name, rule in run.record["rules"].items():
            for part, figures in run.record["results"][name].items():
                if figures is None:
                    continue
                start = [run.name, name, rule["kind"], int(rule["fitted_on_reported"]), part, figures["rows"]]
                for metric in metrics_of_record(run.record):
                    figure = figures[metric]
                    line = [*start, metric, *(figure[key] for key in keys)]
                    line += [figure.get(other, {}).get(key) for other in differences for key in tested]
                    writer.writerow(["" if cell is None else cell for cell in line])
    return text.getvalue()


def _differences_in(run: Run) -> Iterator[dict[str, object]]:
    """The leading metric's figure of every rule and part."""
    metric = metrics_of_record(run.record)[0]
    for parts in run.record["results"].values():
        yield from (part[metric] for part in parts.values() if part)


def differences_csv(comparison: Comparison) -> str:
    """One line per paired difference between runs: run, rule, metric, value, low, high, p, p_adjusted, test."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = ("value", "low", "high", "p", "p_adjusted", "test")
    writer.writerow(["run", "compared_with", "rule", "metric", *keys])
    for of in comparison.differences:
        for metric, figure in of.figures.items():
            cells = [figure.get(key) for key in keys]
            line = [of.run, comparison.first, of.rule, metric, *cells]
            writer.writerow(["" if cell is None else cell for cell in line])
    return text.getvalue()
