r"""Tables for a paper: booktabs, best in bold, marks of significance after Holm, the protocol in the caption.

What a run is called and what its classes are called comes from files, so every text is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..evaluate.metrics import LOWER_IS_BETTER
from .compare import Comparison
from .nested import difference_key, difference_list
from .record import Run
from .words import (
    PERCENT,
    TITLES,
    difference,
    fitted_here,
    grouped,
    has_2d,
    is_intermediate,
    leading,
    leaks_in_words,
    metrics_of_record,
    names_of,
    number,
    stars,
    to_control,
    trainings,
    units,
    warnings_of,
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
    "[": "{[}",  # after the end of a line it would open an option
    "]": "{]}",
    "*": "{*}",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "×": r"$\times$",
    "…": r"\dots{}",
    "†": r"\textsuperscript{\dag}",
}
_CONTROL = "minus_control"
_BODY = {"all": "all reported rows", "covered": "the rows with 3D codes"}


def escape(text: str) -> str:
    """A text as LaTeX prints it, on one line; characters that pdfLaTeX has no glyph for become a question mark."""
    parts = re.split("-(?=-)", re.sub(r"\s+", " ", text))  # of an option, not a dash
    plain = "-{}".join("".join(_SPECIAL.get(letter, letter) for letter in part) for part in parts)
    return "".join(letter if letter.isprintable() and ord(letter) < 0x250 else "?" for letter in plain)


def table_tex(record: dict[str, Any]) -> str:
    """One run as a ``table*`` for ``\\usepackage{booktabs}``, with the differences that a claim rests on.

    These are to every reference and, where controls were run, to the rule's own (:func:`~.words.gains`).
    """
    metrics = _metrics(record)
    opponents = _opponents(record)
    lines: list[str] = []
    kinds = [names_of(record, "reference"), names_of(record, "rule", "head"), names_of(record, "control")]
    # Bold marks the best of what can be used: neither a control nor what was fitted on the reported rows.
    best = _best(record, [name for name in (*kinds[0], *kinds[1]) if _usable(record, name)], metrics)
    for names in kinds:
        if not names:
            continue
        if lines:
            lines.append(r"\midrule")
        lines += [_line(record, name, metrics, opponents, best) for name in names]
    return _table(
        columns=f"l{'r' * len(metrics)}{'l' * len(opponents)}",
        head=_head(record, metrics, opponents),
        lines=lines,
        caption=_caption(record),
        label="tab:ig3d",
        remarks=warnings_of(record),
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
    marks = {
        (of.run, of.rule): stars(of.figures[metric], metric) for of in difference_list(comparison.differences)
    }
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
    caption = f"{what[0].upper()}{what[1:]}, of several runs."
    if len(comparison.differences):
        caption += (
            " \\textsuperscript{*}, \\textsuperscript{**}, \\textsuperscript{***}: $p < .05$, $.01$, $.001$ against "
            f"{escape(comparison.first)} on the same rows (paired; Holm's correction over the rules of a run)."
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


def _opponents(record: dict[str, Any]) -> dict[str, str]:
    """Name of a difference -> what its column is called: to every reference, then to a rule's own control."""
    found = {difference_key(name): rf"\texttt{{{escape(name)}}}" for name in record["references"]}
    metric = leading(record)[0]
    controlled = any(to_control(record, name, metric) for name in names_of(record, "rule"))
    return found | ({_CONTROL: "control"} if controlled else {})


def _head(record: dict[str, Any], metrics: list[str], opponents: dict[str, str]) -> list[str]:
    """What a column is of; above it what several are of."""
    last, classes = 1 + len(metrics), record["task"] == "classes"
    arrow = r" $\downarrow$"
    cells = [_HEADS[name] + (arrow if classes and name in LOWER_IS_BETTER else "") for name in metrics]
    spans = [] if classes else [(2, 4, "RMSE" + arrow), (5, 7, "CCC")]
    above = "&" * len(metrics) if classes else " & ".join(["", *(_spanning(*span) for span in spans)])
    if opponents:
        spans.append((last + 1, last + len(opponents), rf"$\Delta$ {'Acc.' if classes else 'CCC V+A'} to"))
        above += f" & {_spanning(*spans[-1])}"
    rules = " ".join(rf"\cmidrule(lr){{{first}-{end}}}" for first, end, _ in spans)
    lines = [rf"{above} \\ {rules}"] if spans else []
    return [*lines, " & ".join(["Rule", *cells, *opponents.values()]) + r" \\"]


def _spanning(first: int, last: int, text: str) -> str:
    return rf"\multicolumn{{{last - first + 1}}}{{c}}{{{text}}}"


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
    record: dict[str, Any],
    name: str,
    metrics: list[str],
    opponents: dict[str, str],
    best: dict[str, str],
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
    cells += [_difference(figures, leading(record)[0], key) for key in opponents]
    return " & ".join(cells) + r" \\"


def _difference(figures: dict[str, Any] | None, metric: str, key: str) -> str:
    figure = figures[metric].get(key) if figures else None
    if not figure or figure["value"] is None:
        return "--"
    value, low, high = (_minus(_short(difference(figure[key], metric))) for key in ("value", "low", "high"))
    marks = stars(figure, metric)
    return f"{value} [{f'{low}, {high}' if figure['low'] is not None else '--'}]" + (
        f"\\textsuperscript{{{marks}}}" if marks else ""
    )


def _short(text: str) -> str:
    """Without the 0 before the point: three columns of valence and arousal are wide as it is."""
    return re.sub(r"^([+-])0\.(?=\d{4})", r"\1.", text)


def _minus(text: str) -> str:
    return re.sub(r"^([+-])", r"$\1$", text).replace("–", "--")


def _caption(record: dict[str, Any]) -> str:
    protocol = record["protocol"]
    what = "classification in \\%" if record["task"] == "classes" else "valence and arousal"
    differences = "Differences" if record["references"] else "Figures"
    rows, covered, reported = (
        escape(str(protocol[name])) for name in ("rows_reported", "rows_covered", "reported")
    )
    text = (
        f"{_what(record)}, {what}: {rows} rows ({reported}), {covered} with 3D codes; {_fitted(record)}."
        f"{escape(leaks_in_words(record))} "
    )
    several = units(record) > 1
    text += (
        f"{differences} with 95\\,\\% intervals of the paired bootstrap "
        f"({escape(str(record['config'].get('draws')))} draws), conditional on the trained networks"
        if several
        else f"Of one {'group' if grouped(record) else 'row'} there are no intervals and no tests"
    )
    if record["references"] and several:
        adjusted = (
            "" if is_intermediate(record) else " of gains, adjusted by the bootstrap maximum over all of them"
        )
        text += (
            "; \\textsuperscript{*}, \\textsuperscript{**}, \\textsuperscript{***}: $p < .05$, $.01$, $.001$"
            + adjusted
        )
    text += "."
    if _CONTROL in _opponents(record) and several:
        text += (
            " \\emph{Control}: the same rule with the rows of the codes permuted, that of the primary comparison among "
            "rows with similar 2D predictions."
        )
    if protocol["fitted_on_reported"]:
        text += " \\textsuperscript{\\dag}~Fitted on the reported rows themselves."
    if any(parts["all"] is None and parts["covered"] for parts in record["results"].values()):
        text += f" \\textsuperscript{{\\ddag}}~On {_BODY['covered']} only."
    return text + " The best of each column is bold."


def _what(record: dict[str, Any]) -> str:
    if is_intermediate(record):
        module = escape(str(record["config"]["module"]))
        return f"Intermediate fusion of a 2D network with 3D face codes (module \\texttt{{{module}}})"
    return (
        "Late fusion of 2D predictions with 3D face codes"
        if has_2d(record)
        else "Predictions from 3D face codes alone"
    )


def _fitted(record: dict[str, Any]) -> str:
    if not is_intermediate(record):
        return escape(fitted_here(record))
    seeds = trainings(record)
    return f"the module is fitted on {escape(str(record['protocol']['fits']['train']))} train rows" + (
        f", figures are means over {seeds} trainings" if seeds > 1 else ""
    )


def _table(
    *, columns: str, head: list[str], lines: list[str], caption: str, label: str, remarks: Sequence[str] = ()
) -> str:
    body = "\n".join(["\\toprule", *head, "\\midrule", *lines, "\\bottomrule"])
    return (
        "% needs \\usepackage{booktabs,graphicx}\n"
        + "".join(f"% {escape(line)}\n" for line in remarks)
        + "\\begin{table*}[t]\n\\centering\n"
        f"\\caption{{{caption}}}\n\\label{{{label}}}\n"
        "\\small\\setlength{\\tabcolsep}{4pt}%\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}}}\n\\end{{table*}}\n"
    )
