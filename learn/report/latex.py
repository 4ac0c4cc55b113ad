r"""Tables for a paper: booktabs, the best value of a column in bold, stars, the evaluation plan in the caption.

Names of runs and classes come from files, so every text is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from ..evaluate.metrics import METRICS
from .columns import LATEX, VS_CONTROL, Cell, columns_of, rows_of
from .compare import Comparison, by_predictor
from .format import ON_COVERED, interval, stars
from .page import fitted_on
from .record import Run
from .render import Tex, capital, flat, leak, tex_environment
from .view import Entry, View

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after the end of a line it would open an option
    "]": "{]}",
    "*": "{*}",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "…": r"\dots{}",
}


def escape(text: str) -> str:
    """A text escaped for LaTeX, on one line; characters without a glyph in pdfLaTeX become a question mark."""
    parts = re.split("-(?=-)", re.sub(r"\s+", " ", text))  # of an option, not a dash
    plain = "-{}".join("".join(_SPECIAL.get(letter, letter) for letter in part) for part in parts)
    return "".join(letter if letter.isprintable() and ord(letter) < 0x250 else "?" for letter in plain)


def table_tex(run: Run, *, label: str = "", title: str = "") -> str:
    """One run as a ``table*`` for ``\\usepackage{booktabs}``.

    Parameters
    ----------
    run : Run
    label : label of the table, after ``tab:ig3d-``; by default the name of the run
    title : start of the caption
    """
    view = View(run)
    columns = columns_of(view, LATEX)
    groups = [(text, len(list(of))) for text, of in groupby(columns, key=lambda column: column.group)]
    first_column, spans = 2, []
    for text, count in groups:
        if text:
            spans.append((first_column, first_column + count - 1, text))
        first_column += count
    blocks = [rows_of(view, columns, *roles) for roles in (("reference",), ("rule", "head"), ("control",))]
    return _render(
        view=view,
        label=label or slug(run.name),
        title=title,
        fitted=fitted_on(view),
        leaks=[leak(line) for line in view.leaks],
        groups=groups,
        spans=spans,
        columns=columns,
        blocks=[[_line(*row) for row in rows] for rows in blocks if rows],
        controlled=any(column.head == VS_CONTROL for column in columns),
        covered=any(of.rows == "covered" for of in view.entries),
    )


def tables_tex(runs: Sequence[Run], comparison: Comparison | None) -> str:
    """Several runs side by side, then their paired differences, then a table of each run."""
    tables = [] if comparison is None else _comparison_tex(comparison)
    labels = [slug(run.name) for run in runs]
    for position, run in enumerate(runs):
        label = (
            labels[position] if labels.count(labels[position]) == 1 else f"{labels[position]}-{position + 1}"
        )
        tables.append(table_tex(run, label=label, title=f"{run.name}. " if len(runs) > 1 else ""))
    return "\n".join(tables)


def slug(name: str) -> str:
    """A name as part of a label."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "run"


def _render(**values: Any) -> str:
    environment = tex_environment(escape)
    environment.globals |= {"flat": flat, "metrics": METRICS}
    return str(environment.get_template("tables.tex.j2").render(**values))


def _line(entry: Entry, cells: Sequence[Cell]) -> Tex:
    """A row of the table."""
    marks = r"\textsuperscript{\ddag}" if ON_COVERED in entry.label else ""
    condition = "" if entry.condition == "real" else f" ({escape(entry.condition)})"
    return Tex(
        " & ".join([rf"\texttt{{{escape(entry.name)}}}{condition}{marks}", *map(_cell, cells)]) + r" \\"
    )


def _cell(cell: Cell) -> str:
    text = _signed(cell.text)
    if cell.best:
        text = rf"\textbf{{{text}}}"
    if cell.interval.startswith("["):
        text += f" {_signed(cell.interval)}"
    return text + (rf"\textsuperscript{{{cell.marks}}}" if cell.marks else "")


def _signed(text: str) -> str:
    """Numbers with signs as LaTeX sets them; differences without the 0 before the point."""
    short = re.sub(r"(?<=[+-])0\.(?=\d{4})", ".", text)
    return re.sub(r"([+-])(?=[\d.])", r"$\1$", short).replace("–", "--")


def _comparison_tex(comparison: Comparison) -> list[str]:
    """The leading metric of every predictor by runs, and the paired differences with intervals."""
    metric = METRICS[comparison.metrics[0]]
    leading = [
        (name, [cell for position, cell in enumerate(cells) if position % len(comparison.metrics) == 0])
        for name, cells in comparison.rows()
    ]
    lines = [
        " & ".join([rf"\texttt{{{escape(name)}}}", *map(_signed, cells)]) + r" \\" for name, cells in leading
    ]
    heads = ["Predictor", *(escape(run) for run in comparison.runs)]
    unit = r", \%" if metric.percent else ""
    remarks = "".join(f" {escape(remark)}" for remark in comparison.remarks)
    caption = f"{capital(metric.title)}{unit}, of several runs.{remarks}"
    tables = [table(heads, lines, caption, "runs")]
    paired = by_predictor(comparison)
    if paired:
        lines = []
        for run, name, figures in paired:
            cells = [
                _signed(interval(figures[metric], metric))
                + (rf"\textsuperscript{{{marks}}}" if (marks := stars(figures[metric], metric)) else "")
                for metric in comparison.metrics
            ]
            lines.append(" & ".join([escape(run), rf"\texttt{{{escape(name)}}}", *cells]) + r" \\")
        heads = ["Run", "Predictor", *(escape(METRICS[metric].title) for metric in comparison.metrics)]
        caption = (
            f"Differences relative to the run {escape(comparison.first)} on the same rows (paired){comparison.unit}, "
            "with 95\\,\\% "
            r"intervals; \textsuperscript{*}, \textsuperscript{**}, \textsuperscript{***}: a gain with $p < .05$, "
            "$.01$, $.001$ (Holm's correction over the predictors of a run)."
        )
        tables.append(table(heads, lines, caption, "differences"))
    return tables


def table(heads: Sequence[str], lines: Sequence[str], caption: str, label: str) -> str:
    """A ``table*`` of escaped cells."""
    body = "\n".join([r"\toprule", " & ".join(heads) + r" \\", r"\midrule", *lines, r"\bottomrule"])
    return (
        "% needs \\usepackage{booktabs,graphicx}\n"
        "\\begin{table*}[t]\n\\centering\n"
        f"\\caption{{{caption}}}\n\\label{{tab:ig3d-{label}}}\n"
        "\\small\\setlength{\\tabcolsep}{4pt}%\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{{{'l' * len(heads)}}}\n{body}\n\\end{{tabular}}}}\n\\end{{table*}}\n"
    )
