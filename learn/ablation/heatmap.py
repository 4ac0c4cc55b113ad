"""Heat map of a study: difference of each rule relative to the recalibrated 2D network, for each cell."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path

import numpy as np

from ...errors import require
from ...features.atomic import replacing
from ..evaluate.figures import Figure
from ..evaluate.metrics import METRICS
from ..evaluate.predictors import REAL, label_of
from ..report.format import difference, number, stars
from ..report.plots import as_label
from ..report.render import MINUS
from .run import StudyResult
from .table import StudyTable


def draw_heatmap(result: StudyResult, table: StudyTable, out: Path) -> list[Path]:
    """Draw a map of cells (rows) by rules (columns), and return the path of the picture.

    Colour and number are the difference relative to the first reference. If no rule is compared with it, they are the
    metric itself. Blue is better and red is worse, also for metrics of which lower is better; white is no difference.

    Raises
    ------
    MissingExtra : matplotlib is not installed.
    """
    matplotlib = require("matplotlib", wanted_by="heat map")
    with matplotlib.rc_context({"text.parse_math": False}):  # names may contain a dollar sign
        return _draw(result, table, out)


def _draw(result: StudyResult, table: StudyTable, out: Path) -> list[Path]:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize, TwoSlopeNorm
    from matplotlib.figure import Figure

    lead = table.references[0] if table.references else ""
    compared = bool(lead) and bool((table.figures["versus"] == lead).any())
    # name and condition of the predictor of each column
    keys = [(name, REAL) for name in table.rules if not compared or name not in table.references]
    keys += [table.control] if table.control else []
    if not len(table.figures) or not keys:
        return []
    sign = -1 if METRICS[table.metric].lower else 1
    versus = lead if compared else ""
    figures = [
        [table.find(position, name, condition=condition, versus=versus) for name, condition in keys]
        for position in range(len(result.cells))
    ]
    values = np.array([[_number(figure) for figure in line] for line in figures], float) * (
        sign if compared else 1
    )
    finite = values[np.isfinite(values)]
    if not len(finite):
        return []
    # The colour scale is that of the rules; the difference of 3d alone may be much larger.
    rules = values[:, [name != "3d" for name, _ in keys]]
    rules = rules[np.isfinite(rules)]
    most = max(float(np.abs(rules if len(rules) else finite).max()), 1e-9)
    scale = TwoSlopeNorm(0, -most, most) if compared else Normalize(finite.min(), finite.max() + 1e-9)
    colours = colormaps["RdBu" if compared else "Blues"].with_extremes(bad="#e4e4e4")
    names = [as_label(cell_result.cell.name) for cell_result in result.cells]
    longest = max(len(name) for name in names)
    figure = Figure(
        figsize=(1.6 + 0.085 * longest + 1.15 * len(keys), 1.7 + 0.42 * len(names)), layout="constrained"
    )
    axis = figure.subplots()
    shown = axis.imshow(np.ma.masked_invalid(values), cmap=colours, norm=scale, aspect="auto")
    starred = False
    for row, line in enumerate(figures):
        for column, entry in enumerate(line):
            name, condition = keys[column]
            if entry is None or not math.isfinite(entry.value):
                text = "–"
            elif compared:
                marks = stars(table.claim(row, name), table.metric) if condition == REAL else ""
                text = difference(entry.value, table.metric).replace("-", MINUS) + marks
                starred = starred or bool(marks)
            else:
                text = number(entry.value, table.metric)
            red, green, blue, _ = (
                colours(scale(values[row, column])) if np.isfinite(values[row, column]) else (1,) * 4
            )
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text += table.marks(row, name, condition)
            axis.text(
                column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else "#202124"
            )
    axis.set_xticks(
        range(len(keys)),
        [as_label(label_of(*key)) for key in keys],
        rotation=35,
        ha="right",
        rotation_mode="anchor",
    )
    axis.set_yticks(range(len(names)), names)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.set_xticks(np.arange(len(keys) + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=2)
    axis.tick_params(which="minor", length=0)
    points = ", points" if METRICS[table.metric].percent else ""
    title = (
        f"difference relative to {lead} in {METRICS[table.metric].title}{points}"
        if compared
        else METRICS[table.metric].title
    )
    # The title is above the cells, where a long line fits, and not at the colour bar.
    figure.suptitle(as_label(result.study.name), x=0.01, ha="left", fontsize=12, fontweight="bold")
    legend = " (blue is better)" if compared else ""
    legend += "; * ** *** p < .05, .01, .001, Holm" if starred else ""
    axis.set_title(as_label(title) + legend, loc="left", fontsize=9)
    below, above = (bool(compared and outside.any()) for outside in (finite < -most, finite > most))
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")
    bar = figure.colorbar(shown, ax=axis, fraction=0.05, pad=0.02, extend=extend)
    if compared:
        ticks = np.linspace(-most, most, 5)
        labels = [difference(sign * tick, table.metric).replace("-", MINUS) for tick in ticks]
        bar.set_ticks(ticks.tolist(), labels=labels)
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a name in another script shows as boxes
        figure.savefig(picture, format="png", dpi=150, metadata={"Software": None})
    with replacing(out) as temporary:
        temporary.write_bytes(picture.getvalue())
    return [out]


def _number(figure: Figure | None) -> float:
    return float("nan") if figure is None else figure.value
