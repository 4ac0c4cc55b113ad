"""Chart of curves over the frames of an animation, and the cursor that moves over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_PAPER, _INK, _GRID, _ZERO, _BOUNDARY = "white", "#1b1f24", "#e3e7ec", "#9aa3ad", "#7a828c"
_CURSOR = "#c62828"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00")
_OVERSAMPLE = 2  # drawn at this multiple of the size and reduced, which smooths the lines


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves with one vertical axis.

    Attributes
    ----------
    title : str
    names : names of the curves, at most five
    values : (n, k) float array
        One row per frame; NaN leaves a gap.
    """

    title: str
    names: Sequence[str]
    values: np.ndarray


@dataclass(frozen=True, slots=True)
class Section:
    """Consecutive frames of one video, or consecutive images.

    Attributes
    ----------
    first : int
        First frame of the section.
    name : str
    joined : bool
        Whether the values are joined to curves, as those of a video; those of unrelated images are dots.
    """

    first: int
    name: str
    joined: bool


@dataclass(frozen=True, slots=True)
class Axis:
    """Horizontal axis of all panels.

    Attributes
    ----------
    label : str
    x : (n,) ascending floats
        Positions of the frames.
    values : (n,) floats
        Numbers at these positions: equal to ``x``, or restarting in each section.
    sections : sequence of Section
        In ascending order, from frame 0.
    """

    label: str
    x: np.ndarray
    values: np.ndarray
    sections: Sequence[Section]


@dataclass(frozen=True, slots=True)
class Chart:
    """Picture of panels below each other.

    Attributes
    ----------
    picture : the picture without a cursor
    columns : (n,) float
        Pixel column of each frame.
    rows : list of (n, k) float arrays, one for each panel
        Pixel rows of the values.
    spans : list of (top, bottom) pixel rows of the panels
    """

    picture: Image.Image
    columns: np.ndarray
    rows: list[np.ndarray]
    spans: list[tuple[float, float]]

    def at(self, frame: int) -> Image.Image:
        """Copy of the picture with a vertical line and dots at a frame, from 0."""
        copy = self.picture.copy()
        pen = ImageDraw.Draw(copy)
        x, radius = float(self.columns[frame]), max(self.picture.height / 180, 2)
        for rows, (top, bottom) in zip(self.rows, self.spans, strict=True):
            pen.line([(x, top), (x, bottom)], fill=_CURSOR, width=2)
            for y, colour in zip(rows[frame].tolist(), _COLOURS, strict=False):
                if np.isfinite(y):
                    pen.ellipse((x - radius, y - radius, x + radius, y + radius), colour, "white")
        return copy


def draw_chart(panels: Sequence[Panel], axis: Axis, size_wh: tuple[int, int], *, font_size: int) -> Chart:
    """Draw panels with round ticks, a zero line, names at the right and a common horizontal axis.

    Parameters
    ----------
    panels : sequence of Panel
    axis : Axis
    size_wh : width and height, pixels
    font_size : pixels
    """
    width, height = (side * _OVERSAMPLE for side in size_wh)
    em = font_size * _OVERSAMPLE
    font = ImageFont.load_default(size=em)
    picture = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(picture)
    names = [name for panel in panels for name in panel.names]
    left, right = 3.2 * em, width - 2.2 * em - max((font.getlength(name) for name in names), default=0)
    named = any(section.name for section in axis.sections)
    tall = (height - (4.3 if named else 3) * em) / max(len(panels), 1)
    extent = max(float(axis.x[-1] - axis.x[0]), 1e-9) if len(axis.x) > 1 else 1.0
    columns = left + (right - left) * (axis.x - axis.x[0]) / extent
    rows, spans = [], []
    for number, panel in enumerate(panels):
        top, bottom = number * tall + 1.9 * em, (number + 1) * tall - 0.3 * em
        pen.text((left, top - 1.7 * em), panel.title, _INK, font)
        low, high, step = _limits(panel.values)
        for tick in _ticks(low, high, step):
            y = float(_row_of(tick, low, high, top, bottom))
            colour, thick = (_ZERO, 2 * _OVERSAMPLE) if abs(tick) < step / 2 else (_GRID, _OVERSAMPLE)
            pen.line([(left, y), (right, y)], fill=colour, width=thick)
            pen.text((left - 0.4 * em, y), _number(tick, step), _INK, font, anchor="rm")
        at = _row_of(panel.values, low, high, top, bottom)
        _curves(pen, columns, at, axis.sections, em)
        spacing = min(1.3 * em, (bottom - top) / max(len(panel.names), 1))
        for k, (name, colour) in enumerate(zip(panel.names, _COLOURS, strict=False)):
            y = top + (k + 0.5) * spacing
            pen.line([(right + 0.5 * em, y), (right + 1.3 * em, y)], fill=colour, width=em // 5)
            pen.text((right + 1.7 * em, y), name, _INK, font, anchor="lm")
        rows.append(at / _OVERSAMPLE)
        spans.append((top / _OVERSAMPLE, bottom / _OVERSAMPLE))
    if panels:
        _sections(
            pen, columns, axis, [(top * _OVERSAMPLE, bottom * _OVERSAMPLE) for top, bottom in spans], font
        )
        pen.text(((left + right) / 2, height - 0.2 * em), axis.label, _INK, font, anchor="md")
    small = picture.resize(size_wh, Image.Resampling.BOX)
    return Chart(small, columns / _OVERSAMPLE, rows, spans)


def _curves(
    pen: ImageDraw.ImageDraw, columns: np.ndarray, rows: np.ndarray, sections: Sequence[Section], em: int
) -> None:
    """Lines within sections of a video; dots for images and for frames between two gaps."""
    ends = [section.first for section in sections[1:]] + [len(columns)]
    radius = em / 6
    for section, end in zip(sections, ends, strict=True):
        part = slice(section.first, end)
        for values, colour in zip(rows[part].T, _COLOURS, strict=False):
            for run in _runs(np.isfinite(values)):
                points = np.stack([columns[part][run], values[run]], axis=1)
                if section.joined and len(points) > 1:
                    pen.line(points.ravel().tolist(), fill=colour, width=em // 8, joint="curve")
                    continue
                for x, y in points.tolist():
                    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _sections(
    pen: ImageDraw.ImageDraw,
    columns: np.ndarray,
    axis: Axis,
    spans: Sequence[tuple[float, float]],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Ticks of the horizontal axis, boundaries between sections, and their names."""
    em, bottom = font.getbbox("0")[3] * 1.3, spans[-1][1]
    last_end = -np.inf  # right end of the label before
    ends = [section.first for section in axis.sections[1:]] + [len(columns)]
    for section, end in zip(axis.sections, ends, strict=True):
        part = slice(section.first, end)
        start, across = float(columns[section.first]), float(columns[end - 1] - columns[section.first])
        if section.first:
            x = float(columns[section.first - 1] + start) / 2
            for top, low in spans:
                pen.line([(x, top), (x, low)], fill=_BOUNDARY, width=_OVERSAMPLE)
        name = section.name
        while name and font.getlength(name) > across:
            name = name[:-1]
        pen.text((start + across / 2, bottom + 1.7 * em), name, _INK, font, anchor="ma")
        values = axis.values[part]
        extent = float(values[-1] - values[0])
        step = _step(extent, int(across / (4 * em))) if extent else 0.01
        if axis.label in ("image", "frame"):
            step = max(round(step), 1)
        for tick in _ticks(float(values[0]), float(values[-1]), step):
            x, text = float(np.interp(tick, values, columns[part])), _number(tick, step)
            half = font.getlength(text) / 2
            pen.line([(x, bottom), (x, bottom + 0.3 * em)], fill=_INK, width=_OVERSAMPLE)
            if x - half > last_end:
                pen.text((x, bottom + 0.4 * em), text, _INK, font, anchor="ma")
                last_end = x + half + 0.3 * em


def _limits(values: np.ndarray) -> tuple[float, float, float]:
    """Limits of a vertical axis that includes 0, and the step of its ticks."""
    finite = values[np.isfinite(values)]
    low, high = (min(float(finite.min()), 0.0), max(float(finite.max()), 0.0)) if finite.size else (0.0, 1.0)
    if high - low < 1e-9:
        high = low + 1
    step = _step(high - low, 4)
    return np.floor(low / step + 1e-9) * step, np.ceil(high / step - 1e-9) * step, step


def _step(extent: float, most: int) -> float:
    """1, 2 or 5 times a power of ten, of which an axis has at most ``most`` and at least one."""
    smallest = max(extent, 1e-9) / max(most, 1)
    power = 10.0 ** np.floor(np.log10(smallest))
    return float(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= smallest * (1 - 1e-9)))


def _ticks(low: float, high: float, step: float) -> list[float]:
    """Multiples of the step in [low, high]."""
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    return (np.arange(first, last + 1) * step).tolist()


def _number(value: float, step: float) -> str:
    decimals = max(0, -int(np.floor(np.log10(step) + 1e-9)))
    return f"{value + 0.0:.{decimals}f}"


def _row_of(values: np.ndarray | float, low: float, high: float, top: float, bottom: float) -> np.ndarray:
    """Pixel rows of values on an axis whose low end is at ``bottom``."""
    return bottom - (bottom - top) * (np.asarray(values, float) - low) / (high - low)


def _runs(good: np.ndarray) -> list[slice]:
    """Slices of consecutive true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good.astype(int), [0]])))
    return [slice(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
