"""The heat map of a study: what each rule adds to the recalibrated 2D network, cell by cell."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np

from ...errors import require
from ...features.atomic import replacing
from ..measures.metrics import LOWER_IS_BETTER
from ..measures.results import difference_key
from ..report.plots import as_label
from ..report.words import PERCENT, TITLES, difference, number, stars
from .run import StudyResult
from .table import StudyTable


def draw_heatmap(result: StudyResult, table: StudyTable, out: Path) -> list[Path]:
    """Draw cells by rules: colour and number are the difference to the first reference, or the figure itself.

    Blue is better, red is worse, whatever the metric's direction; white is no difference.

    Raises
    ------
    MissingExtra : matplotlib is not installed.
    """
    matplotlib = require("matplotlib", wanted_by="heat map")
    with matplotlib.rc_context({"text.parse_math": False}):  # names are data: a dollar is no formula
        return _draw(result, table, out)


def _draw(result: StudyResult, table: StudyTable, out: Path) -> list[Path]:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize, TwoSlopeNorm
    from matplotlib.figure import Figure

    lead = table.references[0] if table.references else ""
    key = difference_key(lead)
    compared = any(key in of.figure for of in table.entries)
    controls = [table.control] if table.control else []
    rules = [name for name in table.rules if not compared or name not in table.references] + controls
    if not table.entries or not rules:
        return []
    sign = -1 if table.metric in LOWER_IS_BETTER else 1
    found = [
        [
            (cell.get(key) if compared else cell) if (cell := table.find(place, rule)) else None
            for rule in rules
        ]
        for place in range(len(result.cells))
    ]
    values = np.array([[_number(figure) for figure in line] for line in found], float) * (
        sign if compared else 1
    )
    known = values[np.isfinite(values)]
    if not len(known):
        return []
    most = max(float(np.abs(known).max()), 1e-9)
    scale = TwoSlopeNorm(0, -most, most) if compared else Normalize(known.min(), known.max() + 1e-9)
    colours = colormaps["RdBu" if compared else "Blues"].with_extremes(bad="#e4e4e4")
    names = [as_label(of.cell.name) for of in result.cells]
    longest = max(len(name) for name in names)
    figure = Figure(
        figsize=(1.6 + 0.085 * longest + 1.15 * len(rules), 1.7 + 0.42 * len(names)), layout="constrained"
    )
    axis = figure.subplots()
    shown = axis.imshow(np.ma.masked_invalid(values), cmap=colours, norm=scale, aspect="auto")
    for row, line in enumerate(found):
        for column, entry in enumerate(line):
            text = (
                "–"
                if entry is None or entry["value"] is None
                else (
                    difference(entry["value"], table.metric)
                    + stars(table.claim(row, rules[column]), table.metric)
                    if compared
                    else number(entry["value"], table.metric)
                )
            )
            red, green, blue, _ = (
                colours(scale(values[row, column])) if np.isfinite(values[row, column]) else (1,) * 4
            )
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            marked = table.entry(row, rules[column])
            text += marked.marks if marked else ""
            axis.text(
                column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else "#202124"
            )
    axis.set_xticks(
        range(len(rules)), [as_label(rule) for rule in rules], rotation=35, ha="right", rotation_mode="anchor"
    )
    axis.set_yticks(range(len(names)), names)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.set_xticks(np.arange(len(rules) + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=2)
    axis.tick_params(which="minor", length=0)
    points = ", points" if table.metric in PERCENT else ""
    what = f"difference to {lead} in {TITLES[table.metric]}{points}" if compared else TITLES[table.metric]
    # Above the cells there is room for a long line; beside the bar of a study of few cells there is none.
    figure.suptitle(as_label(result.study.name), x=0.01, ha="left", fontsize=12, fontweight="bold")
    axis.set_title(as_label(what) + (" (blue is better)" if compared else ""), loc="left", fontsize=9)
    bar = figure.colorbar(shown, ax=axis, fraction=0.05, pad=0.02)
    if compared:
        ticks = np.linspace(-most, most, 5)
        bar.set_ticks(ticks.tolist(), labels=[difference(sign * tick, table.metric) for tick in ticks])
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a name in another script shows as boxes
        figure.savefig(picture, format="png", dpi=150, metadata={"Software": None})
    with replacing(out) as temporary:
        temporary.write_bytes(picture.getvalue())
    return [out]


def _number(figure: dict[str, float | None] | None) -> float:
    value = figure.get("value") if figure else None
    return float("nan") if value is None else value
