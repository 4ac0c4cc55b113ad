"""Drawing: faces with their points, many on a sheet, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .raster import rasterise

_PAPER, _INK, _POINT, _BOX, _BAD = "white", "#1b1f24", "#00e0a4", "#ffb000", "#c62828"
# Dots are drawn this much larger and shrunk, which smooths them.
_OVERSAMPLE = 3
# A mesh lets this share of the picture through; light falls on it from the viewer's upper left.
_THROUGH, _LIGHT = 0.3, (-0.3, -0.5, -0.8)


@dataclass(frozen=True, slots=True)
class Mesh:
    """A surface over an image.

    Attributes
    ----------
    points : (v, 3) pixels of the image; z away from the camera
    triangles : (t, 3) int
        Counterclockwise as seen from outside, in the image.
    """

    points: np.ndarray
    triangles: np.ndarray


@dataclass(frozen=True, slots=True)
class Tile:
    """One face on a sheet.

    Attributes
    ----------
    image : (H, W, 3) uint8 RGB, or None where there is none to show
    caption : str
        Up to two lines.
    xyxy : (4,) pixels, or None
        Box of the face; the tile shows what is around it.
    points : (p, 2) pixels, or None
    mesh : Mesh, or None
    good : bool
        A tile that is not gets a red frame.
    """

    image: np.ndarray | None
    caption: str
    xyxy: np.ndarray | None = None
    points: np.ndarray | None = None
    mesh: Mesh | None = None
    good: bool = True


def sheet(tiles: Sequence[Tile], *, columns: int = 6, side: int = 200) -> np.ndarray:
    """Tiles in rows on white paper.

    Parameters
    ----------
    tiles : at least one Tile
    columns : int
    side : int
        Of a tile's picture, pixels.

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
    for place, tile in enumerate(tiles):
        x = gap + place % columns * (side + gap)
        y = gap + place // columns * (side + text + gap)
        paper.paste(_picture(tile, side), (x, y))
        if not tile.good:
            pen.rectangle((x, y, x + side - 1, y + side - 1), outline=_BAD, width=3)
        for line, words in enumerate(tile.caption.splitlines()[:2]):
            pen.text(
                (x, y + side + 3 + 15 * line), _fit(words, font, side), _INK if tile.good else _BAD, font
            )
    return np.asarray(paper)


def _picture(tile: Tile, side: int) -> Image.Image:
    """The part of the image around the face, with box and points."""
    large = side * _OVERSAMPLE
    if tile.image is None:
        return Image.new("RGB", (side, side), "#eeeeee")
    height, width = tile.image.shape[:2]
    centre, span = np.array([width, height]) / 2, float(max(width, height))
    if tile.xyxy is not None and np.isfinite(tile.xyxy).all():
        centre = (tile.xyxy[:2] + tile.xyxy[2:]) / 2
        span = 1.5 * float((tile.xyxy[2:] - tile.xyxy[:2]).max())
    corner = centre - span / 2
    picture = Image.fromarray(tile.image).transform(
        (large, large),
        Image.Transform.AFFINE,
        (span / large, 0, corner[0], 0, span / large, corner[1]),
        Image.Resampling.BICUBIC,
        fillcolor="#dddddd",
    )
    if tile.mesh is not None:
        places = (tile.mesh.points - (*corner, 0)) * large / span
        picture = Image.fromarray(shaded(np.asarray(picture), places, tile.mesh.triangles))
    pen = ImageDraw.Draw(picture)
    if tile.xyxy is not None and np.isfinite(tile.xyxy).all():
        box = ((tile.xyxy.reshape(2, 2) - corner) * large / span).ravel().tolist()
        pen.rectangle(box, outline=_BOX, width=_OVERSAMPLE)
    if tile.points is not None:
        radius = large / 300
        for px, py in (tile.points - corner) * large / span:
            pen.ellipse((px - radius, py - radius, px + radius, py + radius), fill=_POINT)
    return picture.resize((side, side), Image.Resampling.BOX)


def shaded(picture: np.ndarray, points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """A picture with a grey mesh over it.

    Parameters
    ----------
    picture : (H, W, 3) uint8
    points : (v, 3) pixels; z away from the camera
    triangles : (t, 3) int
        Counterclockwise as seen from outside.

    Returns
    -------
    (H, W, 3) uint8
    """
    corner = points[triangles]
    outward = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normals = np.zeros(points.shape)
    for place in range(3):  # a vertex's normal is the sum of its triangles', larger ones counting more
        np.add.at(normals, triangles[:, place], outward)
    light = np.array(_LIGHT) / np.linalg.norm(_LIGHT)
    bright = normals @ light / np.maximum(np.linalg.norm(normals, axis=1), 1e-12)
    grey = 70 + 175 * np.clip(bright, 0, 1)
    # the rasteriser shows triangles that run clockwise in the image
    seen = rasterise(points, triangles[:, ::-1], (picture.shape[1], picture.shape[0]))
    mixed = picture.reshape(-1, 3).copy()
    mixed[seen.pixel] = np.round(
        _THROUGH * mixed[seen.pixel] + (1 - _THROUGH) * seen.interpolate(grey)[:, None]
    )
    return mixed.reshape(picture.shape)


def _fit(words: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The end of a line, as much as fits: ids differ at their ends."""
    if font.getlength(words) <= width:
        return words
    while words and font.getlength("…" + words) > width:
        words = words[1:]
    return "…" + words
