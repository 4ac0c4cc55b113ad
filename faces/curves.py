"""Curves of numbers over the frames of an animation, drawn as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_PAPER, _INK, _GRID, _BOUNDARY, _CURSOR = "white", "#1b1f24", "#d8dde3", "#7a828c", "#c62828"
_COLOURS = ("#1f77b4", "#d55e00", "#009e73", "#cc79a7", "#8c6d00")
_OVERSAMPLE = 2  # drawn at this multiple of the size and reduced, which smooths the lines
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 22, 8


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves with one axis.

    Attributes
    ----------
    title : str
    names : names of the curves; at most five are drawn, and only those whose names fit
    values : (n, k) float array
        One row per frame; NaN leaves a gap.
    """

    title: str
    names: Sequence[str]
    values: np.ndarray


def draw_panels(
    panels: Sequence[Panel], size_wh: tuple[int, int], sections: Sequence[tuple[int, str]] = ()
) -> Image.Image:
    """Picture of panels below each other, without a cursor.

    Parameters
    ----------
    panels : sequence of Panel
    size_wh : width and height, pixels
    sections : (first frame, name) of each video, in ascending order and from frame 0; optional
        Curves have a gap between two sections, and a vertical line with the name of the next one.
    """
    width, height = size_wh
    tall = height // max(len(panels), 1)
    picture = Image.new("RGB", (width, height), _PAPER)
    for number, panel in enumerate(panels):
        picture.paste(_draw(panel, (width, tall), sections or [(0, "")]), (0, number * tall))
    return picture


def with_cursor(picture: Image.Image, frame: int, frames: int, panels: int) -> Image.Image:
    """Copy of :func:`draw_panels`'s picture with a vertical line at a frame, from 0."""
    copy = picture.copy()
    pen = ImageDraw.Draw(copy)
    tall = picture.height // max(panels, 1)
    x = _LEFT + (picture.width - _LEFT - _RIGHT) * frame / max(frames - 1, 1)
    for number in range(panels):
        pen.line([(x, number * tall + _TOP), (x, (number + 1) * tall - _BOTTOM)], fill=_CURSOR, width=2)
    return copy


def _draw(panel: Panel, size_wh: tuple[int, int], sections: Sequence[tuple[int, str]]) -> Image.Image:
    width, height = (side * _OVERSAMPLE for side in size_wh)
    left, right, top, bottom = (margin * _OVERSAMPLE for margin in (_LEFT, _RIGHT, _TOP, _BOTTOM))
    picture = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=11 * _OVERSAMPLE)
    finite = panel.values[np.isfinite(panel.values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    for value in (low, high):
        y = _row_of(value, low, high, top, height - bottom)
        pen.line([(left, y), (width - right, y)], fill=_GRID, width=_OVERSAMPLE)
        text = f"{value:.3g}" if high - low < 0.02 else f"{value:.2f}"
        pen.text((left - font.getlength(text) - 4 * _OVERSAMPLE, y - 7 * _OVERSAMPLE), text, _INK, font)
    x = float(left)
    pen.text((x, 3 * _OVERSAMPLE), panel.title, _INK, font)
    x += font.getlength(panel.title) + 10 * _OVERSAMPLE
    shown = []  # curves whose name fits
    for column, name, colour in zip(panel.values.T, panel.names, _COLOURS, strict=False):
        if x + font.getlength(name) > width:
            break
        pen.text((x, 3 * _OVERSAMPLE), name, colour, font)
        x += font.getlength(name) + 8 * _OVERSAMPLE
        shown.append((column, colour))
    frames = len(panel.values)
    xs = left + (width - left - right) * np.arange(frames) / max(frames - 1, 1)
    ends = [first for first, _ in sections[1:]] + [frames]
    for (first, name), end in zip(sections, ends, strict=True):
        for column, colour in shown:
            for run in _runs(np.isfinite(column[first:end])):
                ys = [_row_of(value, low, high, top, height - bottom) for value in column[first:end][run]]
                points = list(zip(xs[first:end][run].tolist(), ys, strict=True))
                if len(points) == 1:  # a line needs two points
                    points.append((points[0][0] + 2 * _OVERSAMPLE, points[0][1]))
                pen.line(points, fill=colour, width=2 * _OVERSAMPLE, joint="curve")
        start = float((xs[first - 1] + xs[first]) / 2) if first else float(left)
        if first:
            pen.line([(start, top), (start, height - bottom)], fill=_BOUNDARY, width=_OVERSAMPLE)
        space = (xs[end] if end < frames else width - right) - start - 6 * _OVERSAMPLE
        while name and font.getlength(name) > space:
            name = name[:-1]
        pen.text((start + 3 * _OVERSAMPLE, height - bottom - 14 * _OVERSAMPLE), name, _BOUNDARY, font)
    return picture.resize(size_wh, Image.Resampling.BOX)


def _row_of(value: float, low: float, high: float, top: float, bottom: float) -> float:
    """Pixel row of a value on an axis whose low end is at ``bottom``."""
    return bottom - (bottom - top) * (float(value) - low) / (high - low)


def _runs(good: np.ndarray) -> list[slice]:
    """Slices of consecutive true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good.astype(int), [0]])))
    return [slice(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
