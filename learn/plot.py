"""A picture of a fusion result: what each rule adds to the recalibrated 2D network, with its interval."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ..errors import RunError, UsageError, require
from .fuse import FuseResult

_PANELS = {
    "classes": (("accuracy", "accuracy, points"), ("macro_f1", "macro-F1, points")),
    "va": (
        ("ccc_joint", "CCC, valence and arousal"),
        ("rmse_joint", "RMSE, valence and arousal (less is better)"),
    ),
}
_RULE, _CONTROL, _REFERENCE, _LINE = "#00795c", "#9aa0a6", "#b06000", "#5f6368"
SUFFIXES = (".png", ".pdf", ".svg")


def check_plot(out: str | Path) -> None:
    """Whether a picture can be drawn under this name, before any work.

    Raises
    ------
    UsageError : the name ends in something else than .png, .pdf or .svg.
    MissingExtra : matplotlib is not installed.
    """
    if Path(out).suffix.lower() not in SUFFIXES:
        raise UsageError(f"plot: expected a name that ends in {', '.join(SUFFIXES)}, got {out}")
    require("matplotlib", wanted_by="plot")


def plot_result(result: FuseResult, out: str | Path) -> None:
    """Draw differences to ``2d-recalibrated`` over all reported rows, rules and their permuted controls.

    Parameters
    ----------
    result : FuseResult
    out : path that ends in .png, .pdf or .svg

    Raises
    ------
    UsageError : the name ends in something else.
    MissingExtra : matplotlib is not installed.
    RunError : the file cannot be written.
    """
    check_plot(out)
    from matplotlib.figure import Figure  # the object API: no global state, no display

    panels = _PANELS[result.task]
    shown = [
        rule for rule in result.rules if rule.name != "2d-recalibrated" and result.figures[rule.name]["all"]
    ]
    figure = Figure(figsize=(11, 1.5 + 0.36 * len(shown)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (metric, words) in zip(axes, panels, strict=True):
        scale = 100 if result.task == "classes" else 1
        axis.axvline(0, color=_LINE, linewidth=1, zorder=0)
        for place, rule in enumerate(shown):
            gain = result.figures[rule.name]["all"][metric]["minus_2d_recalibrated"]
            _interval(axis, gain, place, scale, colour=_colour(rule.kind))
        axis.set_xlabel(f"difference in {words}")
        axis.grid(axis="x", color="#e0e0e0", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(shown)), [_name(result, rule.name, metric=panels[0][0]) for rule in shown])
    axes[0].set_ylim(len(shown) - 0.5, -0.5)
    base = _value(result, "2d-recalibrated", panels[0][0])
    figure.suptitle(
        f"What each rule adds to 2d-recalibrated ({base}) on {len(result.ids)} rows, 95 % intervals",
        fontsize=11,
        x=0.01,
        ha="left",
    )
    _write(figure, Path(out))


def _interval(axis: Any, gain: dict[str, float | None], place: int, scale: int, *, colour: str) -> None:
    if gain["value"] is None or gain["low"] is None or gain["high"] is None:
        return
    axis.plot([scale * gain["low"], scale * gain["high"]], [place, place], color=colour, linewidth=2.2)
    axis.plot(scale * gain["value"], place, "o", color=colour, markersize=6)


def _colour(kind: str) -> str:
    return {"rule": _RULE, "control": _CONTROL}.get(kind, _REFERENCE)


def _value(result: FuseResult, name: str, metric: str) -> str:
    value = result.figures[name]["all"][metric]["value"]
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if result.task == "classes" else f"{value:.3f}"


def _name(result: FuseResult, name: str, *, metric: str) -> str:
    return f"{name}   {_value(result, name, metric)}"


def _write(figure: Any, out: Path) -> None:
    """Without a date in it: the same result gives the same file."""
    content = io.BytesIO()
    kind = out.suffix.lower()[1:]
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    figure.savefig(content, format=kind, dpi=150, metadata=metadata)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(content.getvalue())
    except OSError as exc:
        raise RunError(f"{out}: expected to write the picture, got {exc.strerror or exc}") from exc
