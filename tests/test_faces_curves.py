"""Charts of curves: ticks, names, the zero line, gaps, and the cursor."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import ImageDraw

from ig3d.faces.curves import Axis, Panel, Section, draw_chart

BLUE, ZERO = (0, 114, 178), (154, 163, 173)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts that are drawn."""
    drawn: list[str] = []
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, xy, text, *args, **options: drawn.append(text)
    )
    return drawn


def axis(count: int, *, joined: bool = True, label: str = "image") -> Axis:
    numbers = np.arange(1.0, count + 1)
    return Axis(label, numbers, numbers, [Section(0, "", joined)])


def close_to(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.abs(picture - np.array(colour)).max(-1) < 50


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ((-28.82, 23.59), ["-40", "-20", "0", "20", "40"]),
        ((0.12, 0.83), ["0.0", "0.5", "1.0"]),
        ((3.1, 3.2), ["0", "1", "2", "3", "4"]),
        ((0.0, 0.0), ["0.0", "0.5", "1.0"]),
        ((-0.004, -0.001), ["-0.004", "-0.003", "-0.002", "-0.001", "0.000"]),
        ((np.nan, np.nan), ["0.0", "0.5", "1.0"]),
    ],
)
def test_ticks_are_round_and_include_zero(
    texts: list[str], values: tuple[float, float], ticks: list[str]
) -> None:
    draw_chart([Panel("pose", ["yaw"], np.array(values)[:, None])], axis(2), (400, 200), font_size=12)
    assert texts[0] == "pose" and "image" in texts and "yaw" in texts
    assert texts[1 : texts.index("yaw")] == ticks


def test_curves_have_gaps_and_images_are_dots() -> None:
    values = np.array([1.0, 1, np.nan, 1, 1])[:, None]
    filled = {}
    for joined in (True, False):
        chart = draw_chart([Panel("", ["yaw"], values)], axis(5, joined=joined), (400, 200), font_size=12)
        blue = close_to(np.asarray(chart.picture).astype(int), BLUE).any(0)
        xs = chart.columns.round().astype(int)
        filled[joined] = [blue[a + 4 : b - 4].mean() for a, b in pairwise(xs)]
        assert blue[xs[0]] and blue[xs[4] - 1]
    assert filled[True] == [1, 0, 0, 1] and filled[False] == [0, 0, 0, 0]


def test_the_cursor_is_at_the_frame_and_the_zero_line_at_zero() -> None:
    chart = draw_chart(
        [Panel("", ["yaw"], np.linspace(-2, 2, 9)[:, None])], axis(9), (400, 200), font_size=12
    )
    picture = np.asarray(chart.picture).astype(int)
    rows = np.flatnonzero(close_to(picture, ZERO).mean(1) > 0.5)
    assert len(rows) and abs(rows.mean() - chart.rows[0][4, 0]) < 1.5  # the value of frame 4 is 0
    for frame in (0, 4, 8):
        changed = (np.asarray(chart.at(frame)).astype(int) != picture).any(-1)
        assert abs(np.flatnonzero(changed.any(0)).mean() - chart.columns[frame]) < 1.5


def test_sections_have_boundaries_names_and_their_own_ticks(texts: list[str]) -> None:
    seconds = np.tile(np.arange(50) / 25, 2)
    two = Axis(
        "time (s)", np.arange(100) / 25, seconds, [Section(0, "first", True), Section(50, "second", True)]
    )
    chart = draw_chart([Panel("", ["yaw"], np.zeros((100, 1)))], two, (800, 200), font_size=12)
    assert [texts.count(text) for text in ("first", "second", "time (s)")] == [1, 1, 1]
    assert texts.count("1.0") == 3  # of both sections, and of the vertical axis
    line = close_to(np.asarray(chart.picture).astype(int), (122, 130, 140))
    top, bottom = (int(row) for row in chart.spans[0])
    columns = np.flatnonzero(line[top:bottom].mean(0) > 0.9)
    assert len(columns) and abs(columns.mean() - chart.columns[49:51].mean()) < 1.5
