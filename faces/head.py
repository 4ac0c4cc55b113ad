"""Mesh and texture masks of the synthetic head: the face model and a shell of hair and skin around it.

Everything in this module belongs to the mean face and is computed once in each process: the mesh (the model's triangles
and rings of points behind the face's outline), the positions of the vertices on the *canvas* (the texture image: the
mean face from the front with the shell around it), and soft masks on the canvas for lips, brows, folds and hair.
:mod:`ig3d.faces.paint` uses them to paint a face.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import require
from .model import POINTS, FaceModel, load
from .raster import rasterise

CANVAS = 224
# Canvas pixels per unit of the model, and position of the model's origin on the canvas.
CANVAS_SCALE = 950.0
CANVAS_ORIGIN = np.array([112.0, 120.0])

# Outlines in FaceMesh's points, in order.
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
UPPER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
UPPER_LIDS = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (263, 466, 388, 387, 386, 385, 384, 398, 362))
LOWER_LIDS = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (263, 249, 390, 373, 374, 380, 381, 382, 362))
IRISES = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))
BROWS = ((46, 53, 52, 65, 55, 107, 66, 105, 63, 70), (276, 283, 282, 295, 285, 336, 296, 334, 293, 300))
# Folds of the skin, with the action units of FACS (Ekman, Friesen and Hager 2002) that cause them: raised brows
# (1 + 2), raised and knit brows (1 + 4), knit brows (4), raised cheeks (6), raised cheeks with lip corners or upper lip
# (6 + 12, 9, 10), wrinkled nose (9), lowered lip corners (15), raised cheeks or tight lids (6, 7), raised chin (17).
FOLDS = ("forehead", "grief", "frown", "crow", "cheek", "nose", "corner", "bag", "chin")
# Width of the valley of a fold, canvas pixels; narrower for folds with several parallel lines.
_VALLEY = {"forehead": 2.0, "grief": 2.0, "frown": 2.0, "crow": 1.6, "nose": 1.8}

# The shell behind the outline: for each ring, its distance from the outline (top, side, bottom) and its depth.
_RINGS = np.array(
    [
        [0.014, 0.005, -0.003, 0.010],
        [0.030, 0.009, -0.010, 0.030],
        [0.041, 0.010, -0.024, 0.058],
        [0.040, 0.004, -0.040, 0.095],
        [0.010, -0.020, -0.045, 0.125],
    ]
)
_RING_STEP = 0.010  # between rings on the canvas


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Mesh and texture masks of the head; the first 478 of the v vertices are the points of the model.

    Attributes
    ----------
    model : FaceModel
    triangles, part : (t, 3) int, (t,) int
        As in the model; the triangles of the shell are skin.
    canvas_xy : (v, 2) float32
        Positions of the vertices on the canvas, canvas pixels.
    texels : (c * c, 478) scipy sparse matrix
        Maps grey values of the points to a canvas of half size (c = CANVAS / 2).
    masks : name -> (CANVAS, CANVAS) float32 in [0, 1]
    folds : (len(FOLDS), CANVAS * CANVAS) float32
        Relief of each fold: 1 at the darkest point of its valley, below 0 on the ridges beside it.
    neighbours : (v, t) scipy sparse matrix
        Sums values of triangles at each vertex.
    """

    model: FaceModel
    triangles: np.ndarray
    part: np.ndarray
    canvas_xy: np.ndarray
    texels: Any
    masks: dict[str, np.ndarray]
    folds: np.ndarray
    neighbours: Any

    def shell(self, faces: np.ndarray, hair: np.ndarray) -> np.ndarray:
        """(n, v, 3) vertices: faces (n, 478, 3) and the rings behind them; ``hair`` (n,) is the volume of the hair."""
        rim = faces[:, OVAL]
        out = rim - faces.mean(1, keepdims=True)
        out = out[..., :2] / np.linalg.norm(out[..., :2], axis=-1, keepdims=True)
        up, down = np.clip(-out[..., 1], 0, 1) ** 1.5, np.clip(1.5 * out[..., 1], 0, 1)
        side = np.clip(1 - up - down, 0, 1)
        bulk = (0.7 + 0.3 * hair)[:, None]  # 0.7 is the skull without hair
        rings = []
        for top, beside, below, back in _RINGS:
            grow = (up * top + side * beside) * bulk + down * below
            xy = rim[..., :2] + out * grow[..., None]
            z = 0.35 * rim[..., 2] + 0.65 * rim[..., 2].mean(1, keepdims=True) + back
            rings.append(np.concatenate([xy, z[..., None]], axis=-1))
        return np.concatenate([faces, *rings], axis=1)


def opencv() -> ModuleType:
    """OpenCV; raises MissingExtra if it is not installed."""
    return require("cv2", wanted_by="synthetic faces")


@lru_cache(maxsize=1)
def head() -> Head:
    """Head of the embedded model; built once in each process."""
    from scipy.sparse import csr_matrix

    model = load()
    ring = np.array(OVAL)
    rings = [ring, *(POINTS + len(ring) * k + np.arange(len(ring)) for k in range(len(_RINGS)))]
    shell = [
        triangle
        for inner, outer in pairwise(rings)
        for a, b, c, d in zip(inner, np.roll(inner, -1), outer, np.roll(outer, -1), strict=True)
        for triangle in ((a, c, b), (b, c, d))
    ]
    triangles = _clockwise(model, np.concatenate([model.triangles, np.array(shell)]))
    part = np.concatenate([model.part, np.zeros(len(shell), np.intp)])
    flat = model.mean[:, :2]
    out = flat[ring] / np.linalg.norm(flat[ring], axis=1, keepdims=True)
    outside = [flat[ring] + out * _RING_STEP * (k + 1) for k in range(len(_RINGS))]
    canvas_xy = (np.concatenate([flat, *outside]) * CANVAS_SCALE + CANVAS_ORIGIN).astype(np.float32)
    corners, weights = _texels(canvas_xy, triangles)
    texels = csr_matrix(
        (weights.ravel(), corners.ravel(), np.arange(len(corners) + 1) * 3), shape=(len(corners), POINTS)
    )
    rows = triangles.ravel()
    columns = np.repeat(np.arange(len(triangles)), 3)
    neighbours = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)))
    masks, folds = _masks(canvas_xy)
    return Head(model, triangles, part, canvas_xy, texels, masks, folds, neighbours)


def _clockwise(model: FaceModel, triangles: np.ndarray) -> np.ndarray:
    """Triangles, reordered so that those that face the camera are clockwise in the image."""
    points = np.concatenate([model.mean[:, :2], np.zeros((len(_RINGS) * len(OVAL), 2))])
    inside = triangles[: len(model.triangles)]
    a, b, c = (points[inside[:, k]] for k in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    clockwise = triangles.copy()
    if area.sum() < 0:
        clockwise[: len(inside)] = inside[:, ::-1]
    return clockwise


def _texels(canvas_xy: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights that give each texel its grey value; outside of the face, the nearest point of its outline."""
    side = CANVAS // 2
    face = triangles[(triangles < POINTS).all(1)]
    flat = np.concatenate([canvas_xy[:POINTS] / 2, np.zeros((POINTS, 1))], axis=1)
    fragments = rasterise(flat, face, (side, side))
    y, x = np.divmod(np.arange(side * side), side)
    rim = np.array(OVAL)
    distance = (x[:, None] - flat[rim, 0]) ** 2 + (y[:, None] - flat[rim, 1]) ** 2
    corners = np.repeat(rim[distance.argmin(1)][:, None], 3, axis=1)
    weights = np.full((side * side, 3), 1 / 3, np.float32)
    corners[fragments.pixel], weights[fragments.pixel] = fragments.corners, fragments.weights
    return corners, weights


def _masks(canvas_xy: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Soft masks and folds on the canvas."""
    cv2 = opencv()
    points = canvas_xy[:POINTS]
    masks = {
        "lips": _soft([_polygon(points[list(LIPS_OUTER)])], 1.2)
        - _soft([_polygon(points[list(LIPS_INNER)])], 0.8),
        "brows": _soft([_polygon(_thicker(points[list(brow)])) for brow in BROWS], 1.3),
        "sockets": _soft([_polygon(_thicker(points[[*up, *low[::-1]]], 1.9)) for up, low in _LIDS], 5),
        "lids": _soft([_polygon(_thicker(points[[*up, *low[::-1]]], 1.25)) for up, low in _LIDS], 1.5),
        "nostrils": _soft([_line(points[[98, 97]], 2), _line(points[[327, 326]], 2)], 1.4) * 2,
        "cheeks": _soft([_dot(points[50], 17), _dot(points[280], 17)], 9),
        "chin": _soft([_polygon(points[[58, 172, 150, 176, 152, 400, 379, 397, 288, 291, 2, 61]])], 8),
    }
    masks = {name: np.clip(mask, 0, 1).astype(np.float32) for name, mask in masks.items()}
    y, x = np.mgrid[:CANVAS, :CANVAS].astype(np.float32)
    masks["down"] = (y - CANVAS_ORIGIN[1]) / CANVAS_SCALE
    masks["across"] = (x - CANVAS_ORIGIN[0]) / CANVAS_SCALE
    grain = np.random.default_rng(7).standard_normal((CANVAS, CANVAS)).astype(np.float32)
    masks["strands"] = cv2.GaussianBlur(grain, (0, 0), sigmaX=0.7, sigmaY=6) * 4
    masks["pores"] = cv2.GaussianBlur(grain, (0, 0), 0.8) * 2
    oval = _soft([_polygon(points[list(OVAL)])], 0.6)
    masks["face"] = np.clip(oval, 0, 1).astype(np.float32)
    masks["ears"] = np.clip(_soft([_dot(2 * canvas_xy[k] - canvas_xy[o], 9) for k, o in _EARS], 1.5), 0, 1)
    return masks, np.stack([_fold(name, points).ravel() for name in FOLDS])


_LIDS = tuple(zip(UPPER_LIDS, LOWER_LIDS, strict=True))
_EARS = ((234, 227), (454, 447))


def _fold(name: str, points: np.ndarray) -> np.ndarray:
    """(CANVAS, CANVAS) relief of a fold: up to 1 in the valleys, below 0 on the ridges beside them."""
    lines = [_line(np.asarray(line), 1) for line in _fold_lines(name, points)]
    width = _VALLEY.get(name, 3.0)
    relief = 0.25 * _soft(lines, 1.0) + width * (_soft(lines, width) - 0.9 * _soft(lines, 2.6 * width))
    return (relief / relief.max()).astype(np.float32)


def _fold_lines(name: str, points: np.ndarray) -> list[np.ndarray]:
    """Lines of the valleys of a fold on the mean face."""
    unit = CANVAS_SCALE * 0.001
    brow, sides = points[9], (-1, 1)
    if name == "forehead":
        arc = np.linspace(-28, 28, 9)[:, None] * [unit, 0]
        return [brow + arc + [0, (-9 - 7 * k) * unit] - (arc**2)[:, ::-1] * 0.004 for k in range(3)]
    if name == "grief":
        arc = np.linspace(-12, 12, 7)[:, None] * [unit, 0]
        return [brow + arc + [0, (-8 - 6 * k) * unit] + (arc**2)[:, ::-1] * 0.03 for k in range(2)]
    if name == "frown":
        return [brow + np.array([[s * 6, -5], [s * 4, 4], [s * 5, 12]]) * unit for s in sides]
    if name == "crow":
        fan = np.array([[[5, -2.5], [17, -9]], [[6, 1], [19, 1.5]], [[5, 4.5], [16, 11]]]) * unit
        return [points[k] + ray * [s, 1] for k, s in zip((33, 263), sides, strict=True) for ray in fan]
    if name == "cheek":
        return [points[list(path)] for path in ((129, 203, 206, 216, 212), (358, 423, 426, 436, 432))]
    if name == "nose":
        steps = np.array([[[-4, -2 + 6 * k], [6, 4 + 6 * k]] for k in range(3)]) * unit
        return [points[k] + step * [s, 1] for k, s in zip((193, 417), sides, strict=True) for step in steps]
    if name == "corner":
        down = np.array([[3, 3], [6, 9], [6, 17]]) * unit
        return [points[k] + down * [s, 1] for k, s in zip((61, 291), sides, strict=True)]
    if name == "chin":
        arc = np.linspace(-15, 15, 9)[:, None] * [unit, 0]
        return [0.6 * points[17] + 0.4 * points[199] + arc + (arc**2)[:, ::-1] * 0.02]
    return [points[list(path)] + [0, 2 * unit] for path in ((226, 31, 228, 229, 230, 231, 232), _LEFT_BAG)]


_LEFT_BAG = (446, 261, 448, 449, 450, 451, 452)


def _thicker(outline: np.ndarray, factor: float = 1.15) -> np.ndarray:
    middle = outline.mean(0)
    return middle + (outline - middle) * [factor**0.5, factor]


def _polygon(outline: np.ndarray) -> np.ndarray:
    return _drawn("fillPoly", outline)


def _line(path: np.ndarray, thickness: int) -> np.ndarray:
    return _drawn("polylines", path, isClosed=False, thickness=thickness)


def _dot(middle: np.ndarray, radius: int) -> np.ndarray:
    around = np.linspace(0, 2 * np.pi, 40)[:, None]
    return _polygon(middle + radius * np.concatenate([np.cos(around), np.sin(around)], axis=1))


def _drawn(method: str, path: np.ndarray, **options: object) -> np.ndarray:
    """(CANVAS, CANVAS) float32 image of a shape, 1 inside; anti-aliased, with sub-pixel positions."""
    cv2 = opencv()
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    fixed = np.round(path * 16).astype(np.int32)
    draw = getattr(cv2, method)
    draw(canvas, [fixed], color=255, lineType=cv2.LINE_AA, shift=4, **options)
    return canvas.astype(np.float32) / 255


def _soft(layers: list[np.ndarray], sigma: float) -> np.ndarray:
    return opencv().GaussianBlur(np.maximum.reduce(layers), (0, 0), sigma)
