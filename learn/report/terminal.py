"""A run on the terminal: primary comparison, effect size, one table; whole at 80 columns. The page has the rest."""

from __future__ import annotations

import pandas as pd
from rich.console import Console

from ..evaluate.metrics import METRICS
from ..result import Result
from ..rules import RECALIBRATED
from .columns import TERMINAL, columns_of, rows_of
from .compare import Comparison, by_predictor
from .findings import findings_of
from .format import ON_COVERED, interval, stars
from .page import fitted_on
from .record import Run, run_of
from .render import OBJECTIVES, text_environment
from .tables import print_lines
from .view import View

MAX_WARNINGS = 3


def print_result(result: Result, console: Console) -> None:
    """Print a result (:func:`print_run`)."""
    print_run(run_of(result), console)


def print_run(run: Run, console: Console) -> None:
    """Print the primary comparison, the effect size, and the exploratory table; everything else is in the files."""
    view = View(run)
    text = (
        text_environment()
        .get_template("terminal.txt.j2")
        .render(
            view=view,
            findings=findings_of(view),
            fitted=fitted_on(view),
            most=MAX_WARNINGS,
            table=table_text(view),
            legend=_legend(view),
        )
    )
    print_lines(text.rstrip().splitlines(), console)


def table_text(view: View) -> str:
    """The table of predictors without controls, as text."""
    columns = columns_of(view, TERMINAL)
    rows = rows_of(view, columns, "reference", "rule", "head")
    if not rows:
        return ""
    # only the first difference has its interval: a second one would not fit
    wide = next((position for position, column in enumerate(columns) if column.group), None)
    texts = [
        [
            of.label,
            *(
                cell.text + cell.marks + (f" {cell.interval}" if position == wide and cell.interval else "")
                for position, cell in enumerate(cells)
            ),
        ]
        for of, cells in rows
    ]
    return _aligned(pd.DataFrame(texts, columns=["", *(column.head for column in columns)]))


def _aligned(table: pd.DataFrame) -> str:
    """A table of texts in columns: names and intervals at the left, numbers at the right."""
    lines = [list(table.columns), *table.astype(str).to_numpy().tolist()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    left = [column == 0 or any("[" in line[column] for line in lines[1:]) for column in range(len(widths))]

    def padded(line: list[str]) -> str:
        cells = (
            text.ljust(width) if at_left else text.rjust(width)
            for text, width, at_left in zip(line, widths, left, strict=True)
        )
        return "  ".join(cells).rstrip()

    return "\n".join(map(padded, lines))


def _legend(view: View) -> str:
    """Abbreviations and marks of the lines above, as one line."""
    leading = METRICS[view.leading[0]].title
    parts = []
    if view.references:
        points = ", points" if METRICS[view.leading[0]].percent else ""
        more = "; other intervals: report.html" if len(view.references) > 1 else ""
        parts.append(f"vs.: difference in {leading}{points} [95 % interval, not adjusted{more}]")
        adjusted = "" if view.intermediate else "adjusted "
        late = view.of_role("rule") and not view.intermediate
        own = " (the effect size above has its own criterion)" if late else ""
        parts.append(f"* ** *** gain with {adjusted}p < .05, .01, .001{own}")
    if RECALIBRATED in view.references:
        parts.append("2d-recalibrated: 2d, recalibrated on the rows on which rules are fitted")
    if view.effect_rule == "selected":
        each = "in each fold, " if view.in_folds else ""
        parts.append(f"selected: {each}the rule with the best {OBJECTIVES[view.objective]} in inner folds")
    if once := view.cross_fitted_once if view.repeated else []:
        times = max(number for _, number in view.repeated)
        parts.append(
            f"cross-fitted once: {', '.join(once)}; {times} times: the other fitted rules and 2d-recalibrated"
        )
    if view.partial and any(of.rows == "covered" for of in view.entries):
        parts.append(f"{ON_COVERED} on rows with 3D codes only")
    return "; ".join(parts)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print several runs side by side, and their paired differences relative to the first."""
    metric, count = METRICS[comparison.metrics[0]], len(comparison.metrics)
    table = pd.DataFrame(
        [[name, *cells[::count]] for name, cells in comparison.rows()], columns=["", *comparison.runs]
    )
    lines = [
        "",
        f"{metric.title}{', %' if metric.percent else ''}, all reported rows of each run",
        _aligned(table),
    ]
    paired = by_predictor(comparison)
    if paired:
        shown = (comparison.metrics[0], comparison.metrics[-1])  # the page has all of them
        heads = ["predictor", "run", *(METRICS[name].head for name in shown)]
        cells = [
            [name, run, *(interval(figures[of], of) + stars(figures[of], of) for of in shown)]
            for run, name, figures in paired
        ]
        lines += [
            "",
            f"Paired differences relative to the run {comparison.first}{comparison.unit}",
            _aligned(pd.DataFrame(cells, columns=heads)),
        ]
        lines.append(
            "In brackets: 95 % intervals of the paired bootstrap; * ** *** gain with p < .05, .01, .001 after Holm's "
            "correction over the predictors of a run."
        )
    print_lines([*lines, *comparison.remarks], console)
