"""Pictures of a record: what is added, reliability, gain per class, fitted weights.

Every picture is about 400 points wide, so that it can be read on a phone. Colours are those of Okabe and Ito, which
colour-blind readers can tell apart, and shapes differ as well. In a page they become variables of its style sheet, so
that the same picture suits a light and a dark screen.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...console import one_line
from ...errors import RunError, UsageError, require, short
from ...features.atomic import check_output, replacing
from ..result import Result
from .nested import difference_key
from .record import record_of
from .words import (
    PERCENT,
    TITLES,
    label_in_full,
    leading,
    names_of,
    number,
    ordered,
    shown_part,
)

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
    """Whether a picture can be drawn under this name, before any work.

    Raises
    ------
    UsageError : the name ends in something else than .png, .pdf or .svg.
    RunError : the path is an existing folder, device, FIFO or socket.
    MissingExtra : matplotlib is not installed.
    """
    if Path(out).suffix.lower() not in SUFFIXES:
        raise UsageError(f"plot: expected a name that ends in {', '.join(SUFFIXES)}, got {out}")
    check_output(Path(out))
    require("matplotlib", wanted_by="plot")


def plot_result(result: Result, out: str | Path) -> None:
    """Draw what every rule adds to the references over all reported rows, with 95 % intervals.

    Parameters
    ----------
    result : Result
    out : path that ends in .png, .pdf or .svg

    Raises
    ------
    UsageError : the name ends in something else.
    MissingExtra : matplotlib is not installed.
    RunError : the file cannot be written, or there is nothing that rules are compared with.
    """
    check_plot(out)
    record = record_of(result)
    if not record["references"]:
        raise RunError(f"{out}: expected predictions to compare rules with, got a run without 2D predictions")
    metrics = leading(record)
    with _drawing(11, _height(len(_compared(record))), panels=len(metrics)) as (figure, axes):
        for axis, metric in zip(axes, metrics, strict=True):
            _draw_gains(axis, record, metric, legend=metric == metrics[0])
        for axis in axes[1:]:
            axis.tick_params(labelleft=False)
        figure.suptitle(
            f"What each rule adds on {record['protocol']['rows_reported']} rows, 95 % intervals"
            + (
                "; ‡ on rows with 3D"
                if any("‡" in label_in_full(record, name) for name in _compared(record))
                else ""
            ),
            fontsize=11,
            x=0.01,
            ha="left",
        )
    _write(figure, Path(out))


def gain_svg(record: dict[str, Any], metric: str) -> str:
    """Forest plot: every rule's difference to the references in one metric."""
    with _drawing(5.6, _height(len(_compared(record)))) as (figure, (axis,)):
        _draw_gains(axis, record, metric, legend=True)
    return svg(figure)


def recall_svg(record: dict[str, Any], name: str) -> str:
    """Change of every class's recall by one rule, to every reference."""
    entries = record["results"][name]["all"]["per_class"]
    words = [f"{of}  (n {entry['support']})" for of, entry in zip(record["classes"], entries, strict=True)]
    return _changes_svg(record, name, words, [entry["recall"] for entry in entries], 100, "points of recall")


def dimensions_svg(record: dict[str, Any], name: str) -> list[str]:
    """Valence-arousal: change of every metric by one rule, to every reference; RMSE and CCC have no common scale."""
    figures = record["results"][name]["all"]
    pictures = []
    for kind, better in (("ccc", "more is better"), ("rmse", "less is better")):
        metrics = [metric for metric in TITLES if metric in figures and metric.startswith(kind)]
        words = [TITLES[metric] for metric in metrics]
        told = f"{kind.upper()}, {better}"
        pictures.append(_changes_svg(record, name, words, [figures[metric] for metric in metrics], 1, told))
    return pictures


def _changes_svg(
    record: dict[str, Any],
    name: str,
    words: Sequence[str],
    figures: Sequence[dict[str, Any]],
    scale: int,
    unit: str,
) -> str:
    with _drawing(5.6, _height(len(words)) + 0.2) as (figure, (axis,)):
        for place, of in enumerate(figures):
            _differences(axis, record, of, place, scale)
        _legend(axis, record)
        _settle(axis, words, f"difference of {name}, {unit}")
    return svg(figure)


def reliability_svg(record: dict[str, Any], name: str, *, colour: str = FIRST) -> str:
    """Share of right rows over confidence, in bins; the area of a point is its number of rows."""
    figures = shown_part(record, name) or {}
    calibration = figures["calibration"]
    bins = calibration["bins"]
    with _drawing(3.6, 3.5) as (figure, (axis,)):
        axis.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for of in bins:
            axis.plot(
                [of["confidence"]] * 2,
                [of["confidence"], of["accuracy"]],
                color=colour,
                linewidth=1.2,
                alpha=0.5,
            )
        axis.scatter(
            [of["confidence"] for of in bins],
            [of["accuracy"] for of in bins],
            s=[12 + 260 * of["rows"] / figures["rows"] for of in bins],
            color=colour,
            alpha=0.85,
            linewidths=0,
            zorder=3,
        )
        axis.set(
            xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="share that is right", aspect="equal"
        )
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
        axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
        axis.grid()
        axis.set_axisbelow(True)
        axis.set_title(f"{as_label(name)}: ECE {100 * calibration['ece']:.1f} %", fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    return svg(figure)


def weights_svg(record: dict[str, Any]) -> str | None:
    """The 3D weights that rules were fitted, a point for each copy; None where no rule has one."""
    drawn: list[tuple[str, list[float]]] = []
    for name in names_of(record, "rule"):
        copies = [said["w"] for said in record["rules"][name]["fitted"] if "w" in said]
        if not copies:
            continue
        if isinstance(copies[0], list):
            columns = record["classes"] or ["valence", "arousal"]
            drawn += [(f"{name}: {of}", [copy[place] for copy in copies]) for place, of in enumerate(columns)]
        else:
            drawn.append((name, copies))
    if not drawn:
        return None
    with _drawing(5.6, _height(len(drawn))) as (figure, (axis,)):
        for place, (_, weights) in enumerate(drawn):
            axis.plot(
                weights, [place] * len(weights), "o", color=FIRST, alpha=0.6, markersize=7, markeredgewidth=0
            )
        _settle(axis, [words for words, _ in drawn], "weight of the 3D prediction, a point per fitted copy")
        axis.set_xlim(-0.03, 1.03)
    return svg(figure)


def svg(figure: Any) -> str:
    """A figure as inline SVG whose colours are variables of the page."""
    text = _bytes(figure, "svg").decode()
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


def _compared(record: dict[str, Any]) -> list[str]:
    first = record["references"][0] if record["references"] else ""
    return [name for name in ordered(record) if name != first and shown_part(record, name)]


def _draw_gains(axis: Any, record: dict[str, Any], metric: str, *, legend: bool) -> None:
    names = _compared(record)
    scale = 100 if metric in PERCENT else 1
    for place, name in enumerate(names):
        control = record["rules"][name]["kind"] == "control"
        _differences(axis, record, (shown_part(record, name) or {})[metric], place, scale, grey=control)
    if legend:
        _legend(axis, record)
    unit = ", points" if metric in PERCENT else ""
    better = " (less is better)" if metric.startswith("rmse") else ""
    # Marks for what was fitted on the reported rows stand beside the names, each panel's own figures at its right.
    _settle(
        axis, [label_in_full(record, name) for name in names], f"difference in {TITLES[metric]}{unit}{better}"
    )
    axis.set_title(TITLES[metric], loc="right", fontsize=8, color=MUTED)
    for place, name in enumerate(names):
        text = number((shown_part(record, name) or {})[metric]["value"], metric)
        axis.annotate(
            text,
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )


def _differences(
    axis: Any, record: dict[str, Any], figure: dict[str, Any], place: int, scale: int, *, grey: bool = False
) -> None:
    """One figure's difference to every reference, the first above the second."""
    both = len(record["references"]) > 1
    for row, reference in enumerate(record["references"]):
        colour = THIRD if grey else (FIRST, SECOND)[row > 0]
        shift = (-0.16, 0.16)[row > 0] if both else 0
        change = figure.get(difference_key(reference))
        _interval(axis, change, place + shift, scale, colour, ("o", "s")[row > 0], faint=row > 0)


def _legend(axis: Any, record: dict[str, Any]) -> None:
    if len(record["references"]) < 2:
        return
    for row, reference in enumerate(record["references"][:2]):
        axis.plot(
            [],
            [],
            ("o-", "s-")[row],
            color=(FIRST, SECOND)[row],
            label=as_label(f"to {reference}"),
            markersize=5,
        )
    axis.figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=8.5)


def _interval(
    axis: Any,
    figure: dict[str, Any] | None,
    place: float,
    scale: int,
    colour: str,
    mark: str,
    *,
    faint: bool = False,
) -> None:
    if not figure or figure["value"] is None:
        return
    if figure["low"] is not None and figure["high"] is not None:
        ends = [scale * figure["low"], scale * figure["high"]]
        axis.plot(ends, [place, place], color=colour, linewidth=1.2 if faint else 2.2, solid_capstyle="butt")
    axis.plot(
        scale * figure["value"], place, mark, color=colour, markersize=4 if faint else 6, markeredgewidth=0
    )


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
    """A name as pictures show it: on one line, without control characters, and not too long."""
    return short(one_line(text))


def _height(rows: int) -> float:
    return 1.0 + 0.3 * max(rows, 1)


@contextmanager
def _drawing(width: float, height: float, *, panels: int = 1) -> Iterator[tuple[Any, list[Any]]]:
    """A figure (inches) and its axes; the object API: no global state, no display."""
    matplotlib = require("matplotlib", wanted_by="report")
    require("matplotlib.figure", wanted_by="report")
    with matplotlib.rc_context(_STYLE):
        figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
        yield figure, list(axes)


def _bytes(figure: Any, kind: str) -> bytes:
    """Without a date in it: the same result gives the same file."""
    matplotlib = require("matplotlib", wanted_by="report")
    content = io.BytesIO()
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a name in another script shows as boxes
        warnings.filterwarnings("ignore", "constrained_layout not applied")
        figure.savefig(content, format=kind, dpi=150, metadata=metadata, transparent=kind == "svg")
    return content.getvalue()


def _write(figure: Any, out: Path) -> None:
    try:
        with replacing(out) as temporary:
            temporary.write_bytes(_bytes(figure, out.suffix.lower()[1:]))
    except OSError as exc:
        raise RunError(f"{out}: expected to write the picture, got {exc.strerror or exc}") from exc
