r"""Tables for a paper: booktabs, best in bold, marks of significance after Holm, the protocol in the caption.

What a run is called and what its classes are called comes from files, so every text is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..measures.metrics import LOWER_IS_BETTER
from .compare import Comparison
from .record import Run
from .words import (
    PERCENT,
    TITLES,
    difference,
    has_2d,
    metrics_of_record,
    names_of,
    number,
    stars,
    to_reference,
)

_HEADS = {
    "accuracy": "Acc.",
    "balanced_accuracy": "Bal.\\ acc.",
    "macro_f1": "Macro-F1",
    "log_loss": "Log loss",
    "brier": "Brier",
    "rmse_valence": "V",
    "rmse_arousal": "A",
    "rmse_joint": "V+A",
    "ccc_valence": "V",
    "ccc_arousal": "A",
    "ccc_joint": "V+A",
}
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
    "–": "--",
    "—": "---",
    "−": "$-$",
    "×": r"$\times$",
    "…": r"\dots{}",
    "†": r"\textsuperscript{\dag}",
}
_BODY = {"all": "all reported rows", "covered": "the rows with 3D codes"}


def escape(text: str) -> str:
    """A text as LaTeX prints it, on one line; characters that pdfLaTeX has no glyph for become a question mark."""
    plain = "".join(_SPECIAL.get(letter, letter) for letter in re.sub(r"\s+", " ", text))
    return "".join(letter if letter.isprintable() and ord(letter) < 0x250 else "?" for letter in plain)


def table_tex(record: dict[str, Any]) -> str:
    """One run as a ``table*`` for ``\\usepackage{booktabs}``, with the difference to every reference."""
    metrics = _metrics(record)
    leading = _leading(record)
    references = record["references"]
    head, rule = _head(record, metrics, leading)
    lines: list[str] = []
    kinds = [names_of(record, "reference"), names_of(record, "rule", "head"), names_of(record, "control")]
    # Bold marks the best of what can be used: neither a control nor what was fitted on the reported rows.
    best = _best(record, [name for name in (*kinds[0], *kinds[1]) if _usable(record, name)], metrics)
    for names in kinds:
        if not names:
            continue
        if lines:
            lines.append(r"\midrule")
        lines += [_line(record, name, metrics, leading, best) for name in names]
    return _table(
        columns=f"l{'r' * len(metrics)}{'l' * (len(leading) * len(references))}",
        head=[head, *rule],
        lines=lines,
        caption=_caption(record),
        label="tab:ig3d",
    )


def tables_tex(runs: Sequence[Run], comparison: Comparison | None) -> str:
    """Several runs side by side in one table, the leading metric of every rule; then a table of each run."""
    tables = [] if comparison is None else [_side_by_side(comparison)]
    for place, run in enumerate(runs, 1):
        text = table_tex(run.record)
        if len(runs) > 1:
            text = text.replace(r"\label{tab:ig3d}", f"\\label{{tab:ig3d-{place}}}", 1)
            text = text.replace(r"\caption{", f"\\caption{{\\textbf{{{escape(run.name)}}}. ", 1)
        tables.append(text)
    return "\n".join(tables)


def _side_by_side(comparison: Comparison) -> str:
    """Rules by runs, with marks where a run differs from the first on the same rows."""
    metric = comparison.metrics[0]
    marks = {(of.run, of.rule): stars(of.figures[metric]) for of in comparison.differences}
    lines = []
    for rule, by_run in comparison.table.items():
        cells = [f"\\texttt{{{escape(rule)}}}"]
        for run in comparison.runs:
            part = by_run[run]
            found = marks.get((run, rule), "")
            text = number(part[metric]["value"], metric) if part else "--"
            cells.append(text + (f"\\textsuperscript{{{found}}}" if found else ""))
        lines.append(" & ".join(cells) + r" \\")
    head = " & ".join(["Rule", *(escape(run) for run in comparison.runs)]) + r" \\"
    what = TITLES[metric] + (", \\%" if metric in PERCENT else "")
    caption = (
        f"{what[0].upper()}{what[1:]}, of several runs. \\textsuperscript{{*}}, \\textsuperscript{{**}}, "
        f"\\textsuperscript{{***}}: $p < .05$, $.01$, $.001$ against {escape(comparison.first)} on the same rows "
        "(paired; Holm's correction over the rules of a run)."
    )
    caption += "".join(f" {escape(remark)}" for remark in comparison.remarks)
    return _table(
        columns="l" + "l" * len(comparison.runs),
        head=[head],
        lines=lines,
        caption=caption,
        label="tab:ig3d-runs",
    )


def _metrics(record: dict[str, Any]) -> list[str]:
    return [name for name in metrics_of_record(record) if name != "brier"]


def _leading(record: dict[str, Any]) -> list[str]:
    return ["accuracy"] if record["task"] == "classes" else ["ccc_joint"]


def _head(record: dict[str, Any], metrics: list[str], leading: list[str]) -> tuple[str, list[str]]:
    cells = [
        "Rule",
        *(_HEADS[metric] + (r" $\downarrow$" if metric in LOWER_IS_BETTER else "") for metric in metrics),
    ]
    spans = []
    if record["task"] == "va":
        spans = [
            r" & \multicolumn{3}{c}{RMSE} & \multicolumn{3}{c}{CCC} \\ \cmidrule(lr){2-4} \cmidrule(lr){5-7}"
        ]
        cells = ["Rule", *(_HEADS[metric] for metric in metrics)]
    for reference in record["references"]:
        for metric in leading:
            unit = "Acc." if metric in PERCENT else "CCC"
            cells.append(f"$\\Delta$ {unit} to \\texttt{{{escape(reference)}}}")
    last = " & ".join(cells) + r" \\"
    return (spans[0], [last]) if spans else (last, [])


def _best(record: dict[str, Any], names: list[str], metrics: list[str]) -> dict[str, str]:
    """metric -> the best printed number, so that equal numbers are all bold."""
    best = {}
    for metric in metrics:
        found = [record["results"][name]["all"] for name in names]
        values = [part[metric]["value"] for part in found if part and part[metric]["value"] is not None]
        if values:
            best[metric] = number((min if metric in LOWER_IS_BETTER else max)(values), metric)
    return best


def _usable(record: dict[str, Any], name: str) -> bool:
    rule = record["rules"][name]
    return rule["kind"] != "control" and not rule["fitted_on_reported"]


def _line(
    record: dict[str, Any], name: str, metrics: list[str], leading: list[str], best: dict[str, str]
) -> str:
    whole = record["results"][name]["all"]
    figures = whole or record["results"][name]["covered"]
    marked = r"\textsuperscript{\dag}" if record["rules"][name]["fitted_on_reported"] else ""
    partial = r"\textsuperscript{\ddag}" if not whole and figures else ""
    cells = [f"\\texttt{{{escape(name)}}}{marked}{partial}"]
    usable = whole and _usable(record, name)
    for metric in metrics:
        text = number(figures[metric]["value"] if figures else None, metric)
        cells.append(f"\\textbf{{{text}}}" if usable and text == best.get(metric) else _minus(text))
    for reference in record["references"]:
        cells += [_difference(figures, metric, reference) for metric in leading]
    return " & ".join(cells) + r" \\"


def _difference(figures: dict[str, Any] | None, metric: str, reference: str) -> str:
    figure = to_reference(figures, metric, reference)
    if not figure or figure["value"] is None:
        return "--"
    value, low, high = (_minus(difference(figure[key], metric)) for key in ("value", "low", "high"))
    marks = stars(figure)
    return f"{value} [{low}, {high}]" + (f"\\textsuperscript{{{marks}}}" if marks else "")


def _minus(text: str) -> str:
    return re.sub(r"^([+-])", r"$\1$", text).replace("–", "--")


def _caption(record: dict[str, Any]) -> str:
    protocol = record["protocol"]
    what = "classification in \\%" if record["task"] == "classes" else "valence and arousal"
    text = (
        f"Late fusion of 2D predictions with 3D face codes, {what}: {protocol['rows_reported']} rows "
        f"({escape(protocol['reported'])}), {protocol['rows_covered']} with 3D codes; rules are fitted on "
        f"{escape(protocol['fitted_on'])}. Differences with 95\\,\\% intervals of the paired bootstrap "
        f"({record['config'].get('draws')} draws), conditional on the trained networks; \\textsuperscript{{*}}, "
        "\\textsuperscript{**}, \\textsuperscript{***}: $p < .05$, $.01$, $.001$ (Holm's correction over the rules)."
    )
    if not has_2d(record):
        text = text.replace(
            "Late fusion of 2D predictions with 3D face codes", "Predictions from 3D face codes alone"
        )
    if protocol["fitted_on_reported"]:
        text += " \\textsuperscript{\\dag}~Fitted on the reported rows themselves."
    if any(parts["all"] is None and parts["covered"] for parts in record["results"].values()):
        text += f" \\textsuperscript{{\\ddag}}~On {_BODY['covered']} only."
    return text + " The best of each column is bold."


def _table(*, columns: str, head: list[str], lines: list[str], caption: str, label: str) -> str:
    body = "\n".join(["\\toprule", *head, "\\midrule", *lines, "\\bottomrule"])
    return (
        "% needs \\usepackage{booktabs,graphicx}\n"
        "\\begin{table*}[t]\n\\centering\n"
        f"\\caption{{{caption}}}\n\\label{{{label}}}\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}}}\n\\end{{table*}}\n"
    )
