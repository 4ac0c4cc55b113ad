"""Draw contact sheets: images of faces with boxes, landmarks and meshes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .render import Mesh, shaded

_PAPER, _INK, _POINT, _BOX, _BAD = "white", "#1b1f24", "#00e0a4", "#ffb000", "#c62828"
# Tiles are drawn at this multiple of their size and reduced, which smooths dots and lines.
_OVERSAMPLE = 3


@dataclass(frozen=True, slots=True)
class Tile:
    """One face on a contact sheet.

    Attributes
    ----------
    image : (H, W, 3) uint8 RGB, or None if there is no image
    caption : str
        Up to two lines.
    xyxy : (4,) pixels, or None
        Box of the face; the tile shows the image around it.
    points : (p, 2) pixels, or None
    mesh : Mesh, or None
    good : bool
        If False, the tile has a red frame.
    """

    image: np.ndarray | None
    caption: str
    xyxy: np.ndarray | None = None
    points: np.ndarray | None = None
    mesh: Mesh | None = None
    good: bool = True


def sheet(
    tiles: Sequence[Tile], *, columns: int = 6, side: int = 200, renderer: str = "built-in"
) -> np.ndarray:
    """Arrange tiles in rows on a white sheet.

    Parameters
    ----------
    tiles : at least one Tile
    columns : int
    side : int
        Side of a tile's picture, pixels.
    renderer : name in :data:`~.render.RENDERERS`

    Returns
    -------
    (height, width, 3) uint8 RGB
    """
    columns = min(columns, len(tiles))
    gap, text = side // 20, 36
    rows = -(-len(tiles) // columns)
    paper = Image.new("RGB", (gap + columns * (side + gap), gap + rows * (side + text + gap)), _PAPER)
    pen = ImageDraw.Draw(paper)
    font = ImageFont.load_default(size=12)
    for index, tile in enumerate(tiles):
        x = gap + index % columns * (side + gap)
        y = gap + index // columns * (side + text + gap)
        paper.paste(picture_of(tile, side, renderer=renderer), (x, y))
        if not tile.good:
            pen.rectangle((x, y, x + side - 1, y + side - 1), outline=_BAD, width=3)
        for number, line in enumerate(tile.caption.splitlines()[:2]):
            text_of_line = _fit(line, font, side, end=number == 0)
            pen.text((x, y + side + 3 + 15 * number), text_of_line, _INK if tile.good else _BAD, font)
    return np.asarray(paper)


def picture_of(
    tile: Tile, side: int, *, window: np.ndarray | None = None, renderer: str = "built-in"
) -> Image.Image:
    """Square picture of a part of a tile's image, with mesh, box and landmarks.

    Parameters
    ----------
    tile : Tile
    side : side of the picture, pixels
    window : (4,) pixels of the image, optional
        The square part that is shown; by default the surroundings of the box, or the full image.
    renderer : name in :data:`~.render.RENDERERS`
    """
    large = side * _OVERSAMPLE
    if tile.image is None:
        return Image.new("RGB", (side, side), "#eeeeee")
    height, width = tile.image.shape[:2]
    centre, span = np.array([width, height]) / 2, float(max(width, height))
    if tile.xyxy is not None and np.isfinite(tile.xyxy).all():
        centre = (tile.xyxy[:2] + tile.xyxy[2:]) / 2
        span = 1.5 * float((tile.xyxy[2:] - tile.xyxy[:2]).max())
    if window is not None:
        centre, span = (window[:2] + window[2:]) / 2, float(window[2] - window[0])
    corner = centre - span / 2
    picture = Image.fromarray(tile.image).transform(
        (large, large),
        Image.Transform.AFFINE,
        (span / large, 0, corner[0], 0, span / large, corner[1]),
        Image.Resampling.BICUBIC,
        fillcolor="#dddddd",
    )
    if tile.mesh is not None:
        vertices = (tile.mesh.points - (*corner, 0)) * large / span
        drawn = shaded(np.asarray(picture), vertices, tile.mesh.triangles, renderer=renderer)
        picture = Image.fromarray(drawn)
    pen = ImageDraw.Draw(picture)
    if tile.xyxy is not None and np.isfinite(tile.xyxy).all():
        box = ((tile.xyxy.reshape(2, 2) - corner) * large / span).ravel().tolist()
        pen.rectangle(box, outline=_BOX, width=_OVERSAMPLE)
    if tile.points is not None:
        radius = large / 300
        for px, py in (tile.points - corner) * large / span:
            pen.ellipse((px - radius, py - radius, px + radius, py + radius), fill=_POINT)
    return picture.resize((side, side), Image.Resampling.BOX)


def _fit(
    line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, *, end: bool = False
) -> str:
    """Shorten a line to the width: its end is removed, or with ``end`` its beginning, as ids differ at their ends."""
    if font.getlength(line) <= width:
        return line
    while line and font.getlength("…" + line) > width:
        line = line[1:] if end else line[:-1]
    return "…" + line if end else line + "…"
