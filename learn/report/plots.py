"""Plots of a run: differences, reliability, gain per class, fitted weights.

Every plot is about 400 points wide, so that it can be read on a phone. Colours are those of Okabe and Ito, which
colour-blind readers can distinguish, and shapes differ as well. On the page, colours become variables of its style
sheet, so that a plot suits a light and a dark screen.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...console import one_line
from ...errors import RunError, UsageError, plural, require, shorten
from ...features.atomic import check_output, replacing
from ..evaluate.figures import Figure
from ..evaluate.metrics import METRICS, metric_names
from ..evaluate.predictors import REAL
from ..result import Result
from .format import NOTHING, number
from .record import run_of
from .view import Entry, View

SUFFIXES = (".png", ".pdf", ".svg")
# Colour -> variable of the page's style sheet.
INK, MUTED, GRID, FIRST, SECOND, THIRD = "#1f2328", "#6b7280", "#dcdfe4", "#0072b2", "#d55e00", "#8a8f98"
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", FIRST: "first", SECOND: "second", THIRD: "third"}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ig3d",
    "font.family": "DejaVu Sans",
    "text.parse_math": False,  # names are data: a dollar is no formula
    "font.size": 9.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
}


def check_plot(out: str | Path) -> None:
    """Check that a plot can be written under this name, before any work.

    Raises
    ------
    UsageError : the name ends in something else than .png, .pdf or .svg.
    RunError : the path is an existing folder, device, FIFO or socket.
    MissingExtra : matplotlib is not installed.
    """
    if Path(out).suffix.lower() not in SUFFIXES:
        raise UsageError(f"plot: {out} does not end in {', '.join(SUFFIXES)}; rename it")
    check_output(Path(out))
    require("matplotlib", wanted_by="plot")


def plot_result(result: Result, out: str | Path) -> None:
    """Draw the difference of each rule relative to the references over all reported rows, with 95 % intervals.

    Controls have separate panels below, because permuted codes lose more than real codes gain.

    Parameters
    ----------
    result : Result
    out : path that ends in .png, .pdf or .svg

    Raises
    ------
    UsageError : the name ends in something else.
    MissingExtra : matplotlib is not installed.
    RunError : the file cannot be written, or the run has no references.
    """
    check_plot(out)
    view = View(run_of(result))
    if not view.references:
        raise RunError(
            f"{out}: a run without 2D predictions has no references and therefore no differences to plot"
        )
    parts = [controls for controls in (False, True) if _compared(view, controls=controls)]
    heights = [_height(len(_compared(view, controls=controls))) for controls in parts]
    with _drawing(11, sum(heights), panels=len(view.leading), rows=heights) as (figure, axes):
        for row, controls in enumerate(parts):
            for column, metric in enumerate(view.leading):
                axis = axes[row * len(view.leading) + column]
                _draw_gains(axis, view, metric, controls=controls, legend=not row and not column)
                axis.tick_params(labelleft=not column)
        figure.suptitle(
            f"Differences to the references on {plural(view.protocol['rows_reported'], 'row')}, 95 % intervals"
            + ("; ‡ on rows with 3D codes" if view.partial else "")
            + ("; below: 3D codes alone, and controls" if len(parts) > 1 else ""),
            fontsize=11,
            x=0.01,
            ha="left",
        )
    _write(figure, Path(out))


def gains_svg(view: View, metric: str, *, controls: bool = False) -> str:
    """Forest plot: the difference of every predictor, or of every control, to the references in one metric."""
    with _drawing(5.6, _height(len(_compared(view, controls=controls)))) as (figure, (axis,)):
        _draw_gains(axis, view, metric, controls=controls, legend=True)
    return svg(figure)


def changes_svg(view: View, name: str) -> list[str]:
    """Change of the recall of every class by one rule, to every reference; of CCC and RMSE for valence-arousal."""
    if view.task == "classes":
        counts = view.run.tables["confusion.csv"]
        support = counts[
            (counts["predictor"] == name) & (counts["condition"] == REAL) & (counts["rows"] == "all")
        ]
        support = support.groupby("truth", sort=False)["count"].sum()
        lines = [(f"{of}  (n = {round(support.get(of, 0))})", "recall", of) for of in view.record["classes"]]
        return [_changes_svg(view, name, lines, "points of recall")]
    pictures = []
    for kind, better in (("ccc", "higher is better"), ("rmse", "lower is better")):
        metrics = [metric for metric in metric_names("va") if metric.startswith(kind)]
        lines = [(METRICS[metric].title, metric, "") for metric in metrics]
        pictures.append(_changes_svg(view, name, lines, f"{kind.upper()}, {better}"))
    return pictures


def _changes_svg(view: View, name: str, lines: Sequence[tuple[str, str, str]], unit: str) -> str:
    """Differences of one rule to the references; a line for each (text, metric, label)."""
    with _drawing(5.6, _height(len(lines)) + 0.2) as (figure, (axis,)):
        for row, (_, metric, label) in enumerate(lines):
            changes = [view.figure(name, metric, label=label, versus=of) for of in view.references]
            _differences(axis, changes, row, 100 if METRICS[metric].percent else 1)
        _legend(axis, view)
        _settle(axis, [text for text, _, _ in lines], f"difference of {name}, {unit}")
    return svg(figure)


def reliability_svg(view: View, name: str, *, colour: str = FIRST) -> str:
    """Accuracy by confidence, in bins; the area of a point is its number of rows."""
    entry = view.entry(name)
    rows = "all" if entry is None else entry.rows
    bins = view.run.tables["reliability.csv"]
    bins = bins[(bins["predictor"] == name) & (bins["condition"] == REAL) & (bins["rows"] == rows)]
    ece = view.figure(name, "ece", rows=rows)
    with _drawing(3.6, 3.5) as (figure, (axis,)):
        axis.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for confidence, accuracy in zip(bins["confidence"], bins["accuracy"], strict=True):
            axis.plot([confidence] * 2, [confidence, accuracy], color=colour, linewidth=1.2, alpha=0.5)
        axis.scatter(
            bins["confidence"],
            bins["accuracy"],
            s=12 + 260 * bins["count"] / max(bins["count"].sum(), 1),
            color=colour,
            alpha=0.85,
            linewidths=0,
            zorder=3,
            clip_on=False,  # points at 0 and 1 are whole
        )
        axis.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy", aspect="equal")
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
        axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
        axis.grid()
        axis.set_axisbelow(True)
        axis.set_title(
            f"{as_label(name)}: ECE {100 * (ece.value if ece else float('nan')):.1f} %",
            fontsize=10,
            loc="left",
        )
        axis.spines[["top", "right"]].set_visible(False)
    return svg(figure)


def weights_svg(view: View) -> str | None:
    """The fitted weights of the 3D, a point for each fold model; None where no rule has one."""
    drawn: list[tuple[str, list[float]]] = []
    for of in view.of_role("rule"):
        models = [model["w"] for model in of.fitted if "w" in model]
        if not models:
            continue
        if isinstance(models[0], list):
            columns = view.record["classes"] or ["valence", "arousal"]
            drawn += [
                (f"{of.name}: {column}", [model[row] for model in models])
                for row, column in enumerate(columns)
            ]
        else:
            drawn.append((of.name, models))
    if not drawn:
        return None
    with _drawing(5.6, _height(len(drawn))) as (figure, (axis,)):
        for row, (_, weights) in enumerate(drawn):
            axis.plot(
                weights, [row] * len(weights), "o", color=FIRST, alpha=0.6, markersize=7, markeredgewidth=0
            )
        _settle(
            axis,
            [text for text, _ in drawn],
            "weight of the 3D, a point per fold model (darker: several)",
        )
        axis.set_xlim(-0.03, 1.03)
    return svg(figure)


def svg(figure: Any) -> str:
    """A figure as inline SVG whose colours are variables of the page."""
    require("matplotlib", wanted_by="report")
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    figure.set(facecolor="none", edgecolor="none")
    for axis in figure.axes:
        axis.patch.set(facecolor="none", edgecolor="none")
    content = io.StringIO()
    with _saving():
        FigureCanvasSVG(figure).print_svg(content, metadata={"Date": None})  # draws once, savefig twice
    text = content.getvalue()
    text = text[text.index("<svg") :]
    # Sizes come from the page; ids of groups would repeat from picture to picture.
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1
    )
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[A-Za-z]+_\d+">', "<g>", text)
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    return text


def _compared(view: View, *, controls: bool) -> list[Entry]:
    """Predictors of a panel: references, rules and heads; or controls and the 3D alone, whose scale differs."""
    first = view.references[0] if view.references else ""
    apart = [of for of in view.entries if of.role == "control" or of.name == "3d"]
    chosen = apart if controls else [of for of in view.entries if of not in apart]
    return [of for of in chosen if of.key != (first, REAL) and of.rows]


def _draw_gains(axis: Any, view: View, metric: str, *, controls: bool, legend: bool) -> None:
    entries = _compared(view, controls=controls)
    scale = 100 if METRICS[metric].percent else 1
    for row, of in enumerate(entries):
        changes = [view.figure(of.key, metric, rows=of.rows, versus=name) for name in view.references]
        _differences(axis, changes, row, scale)
    if legend:
        _legend(axis, view)
    unit = ", points" if METRICS[metric].percent else ""
    better = " (lower is better)" if METRICS[metric].lower else ""
    _settle(axis, [of.label for of in entries], f"difference in {METRICS[metric].title}{unit}{better}")
    percent = ", %" if METRICS[metric].percent else ""
    axis.set_title(f"{METRICS[metric].title}{percent}", loc="right", fontsize=8, color=MUTED)
    for row, of in enumerate(entries):
        own = view.figure(of.key, metric, rows=of.rows)
        axis.annotate(
            NOTHING if own is None else number(own.value, metric),
            (1, row),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )


def _differences(axis: Any, changes: Sequence[Figure | None], line: int, scale: int) -> None:
    """Differences to every reference, the first above the second."""
    for row, change in enumerate(changes):
        shift = (-0.16, 0.16)[row > 0] if len(changes) > 1 else 0
        _interval(
            axis, change, line + shift, scale, (FIRST, SECOND)[row > 0], ("o", "s")[row > 0], faint=row > 0
        )


def _legend(axis: Any, view: View) -> None:
    if len(view.references) < 2:
        return
    for row, reference in enumerate(view.references[:2]):
        axis.plot(
            [],
            [],
            ("o-", "s-")[row],
            color=(FIRST, SECOND)[row],
            label=as_label(f"vs. {reference}"),
            markersize=5,
        )
    axis.figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=8.5)


def _interval(
    axis: Any,
    figure: Figure | None,
    row: float,
    scale: int,
    colour: str,
    mark: str,
    *,
    faint: bool = False,
) -> None:
    if figure is None or not math.isfinite(figure.value):
        return
    if math.isfinite(figure.low) and math.isfinite(figure.high):
        ends = [scale * figure.low, scale * figure.high]
        axis.plot(ends, [row, row], color=colour, linewidth=1.2 if faint else 2.2, solid_capstyle="butt")
    axis.plot(scale * figure.value, row, mark, color=colour, markersize=4 if faint else 6, markeredgewidth=0)


def _settle(axis: Any, names: Sequence[str], words: str) -> None:
    """Rows from top to bottom, a line at 0, no frame."""
    axis.axvline(0, color=MUTED, linewidth=1, zorder=0)
    axis.set_yticks(range(len(names)), [as_label(name) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlabel(as_label(words))
    axis.locator_params(axis="x", nbins=6)
    axis.grid(axis="x")
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)


def as_label(text: str) -> str:
    """A name as plots show it: on one line, without control characters, and not too long."""
    return shorten(one_line(text))


def _height(rows: int) -> float:
    return 1.0 + 0.3 * max(rows, 1)


@contextmanager
def _drawing(
    width: float, height: float, *, panels: int = 1, rows: Sequence[float] = (1,)
) -> Iterator[tuple[Any, list[Any]]]:
    """A figure (inches) and its axes, row by row; the object API: no global state, no display."""
    matplotlib = require("matplotlib", wanted_by="report")
    require("matplotlib.figure", wanted_by="report")
    with matplotlib.rc_context(_STYLE):
        figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(len(rows), panels, squeeze=False, height_ratios=list(rows))
        yield figure, list(axes.ravel())


def _bytes(figure: Any, kind: str) -> bytes:
    """Without a date in it: the same result gives the same file."""
    content = io.BytesIO()
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    with _saving():
        figure.savefig(content, format=kind, dpi=150, metadata=metadata, transparent=kind == "svg")
    return content.getvalue()


@contextmanager
def _saving() -> Iterator[None]:
    matplotlib = require("matplotlib", wanted_by="report")
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a name in another script shows as boxes
        warnings.filterwarnings("ignore", "constrained_layout not applied")
        yield


def _write(figure: Any, out: Path) -> None:
    try:
        with replacing(out) as temporary:
            temporary.write_bytes(_bytes(figure, out.suffix.lower()[1:]))
    except OSError as exc:
        raise RunError(f"{out}: the plot cannot be written: {exc.strerror or exc}") from exc
