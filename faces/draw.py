"""Draw contact sheets: images of faces with boxes, landmarks and meshes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .head import BROWS, LIPS_INNER, LIPS_OUTER, LOWER_LIDS, OVAL, UPPER_LIDS
from .render import Mesh, shaded

_PAPER, _INK, _LINE, _BOX, _BAD = "white", "#1b1f24", "#00e0a4", "#ffb000", "#c62828"
_CAPTION_LINES = 4
_NOSE = ((168, 6, 197, 195, 5, 4), (98, 97, 2, 326, 327))
_CLOSED = (OVAL, LIPS_OUTER, LIPS_INNER, *BROWS)
_CONTOURS = (*_NOSE, *UPPER_LIDS, *LOWER_LIDS, *((*outline, outline[0]) for outline in _CLOSED))


@dataclass(frozen=True, slots=True)
class Tile:
    """One face on a contact sheet.

    Attributes
    ----------
    image : (H, W, 3) uint8 RGB, or None if there is no image
    title, caption : str
        Lines below the picture. A long title loses its beginning, as ids differ at their ends; a long caption is
        wrapped.
    xyxy : (4,) pixels, or None
        Box of the face; the tile shows the image around it.
    points : (478, 2) pixels, or None
        Points of the face mesh; the contours of the face are drawn.
    mesh : Mesh, or None
    good : bool
        If False, the tile has a red frame.
    """

    image: np.ndarray | None
    title: str = ""
    caption: str = ""
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
    gap, font_size = max(side // 20, 4), min(max(side // 18, 12), 18)
    font = ImageFont.load_default(size=font_size)
    captions = [_lines(tile, font, side) for tile in tiles]
    line_height = round(1.3 * font_size)
    text = line_height * max(map(len, captions))
    rows = -(-len(tiles) // columns)
    paper = Image.new("RGB", (gap + columns * (side + gap), gap + rows * (side + text + gap)), _PAPER)
    pen = ImageDraw.Draw(paper)
    for index, (tile, lines) in enumerate(zip(tiles, captions, strict=True)):
        x = gap + index % columns * (side + gap)
        y = gap + index // columns * (side + text + gap)
        paper.paste(picture_of(tile, side, renderer=renderer), (x, y))
        if not tile.good:
            pen.rectangle((x, y, x + side - 1, y + side - 1), outline=_BAD, width=3)
        for number, line in enumerate(lines):
            pen.text((x, y + side + 3 + line_height * number), line, _INK if tile.good else _BAD, font)
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
    # drawn at a multiple of the size and reduced, which smooths lines
    oversample = 3 if side < 250 else 2
    large = side * oversample
    if tile.image is None:
        return Image.new("RGB", (side, side), "#eeeeee")
    height, width = tile.image.shape[:2]
    centre, span = np.array([width, height]) / 2, float(max(width, height))
    if tile.xyxy is not None and np.isfinite(tile.xyxy).all():
        centre = (tile.xyxy[:2] + tile.xyxy[2:]) / 2
        span = 1.4 * float((tile.xyxy[2:] - tile.xyxy[:2]).max())
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
        mesh = replace(tile.mesh, points=(tile.mesh.points - (*corner, 0)) * large / span)
        picture = Image.fromarray(shaded(np.asarray(picture), mesh, renderer=renderer))
    pen = ImageDraw.Draw(picture)
    if tile.xyxy is not None and np.isfinite(tile.xyxy).all():
        box = ((tile.xyxy.reshape(2, 2) - corner) * large / span).ravel().tolist()
        pen.rectangle(box, outline=_BOX, width=oversample)
    if tile.points is not None:
        points = (tile.points - corner) * large / span
        for contour in _CONTOURS:
            pen.line([tuple(point) for point in points[list(contour)].tolist()], _LINE, max(large // 250, 2))
    return picture.resize((side, side), Image.Resampling.BOX)


def _lines(tile: Tile, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Lines of a tile's text, of at most ``width`` pixels."""
    title = tile.title
    while len(title) > 1 and font.getlength(title) > width:
        title = "…" + title.removeprefix("…")[1:]
    letters = int(0.9 * width * max(len(tile.caption), 1) / max(font.getlength(tile.caption), 1))
    return [title, *textwrap.wrap(tile.caption, letters, max_lines=_CAPTION_LINES, placeholder=" …")]
