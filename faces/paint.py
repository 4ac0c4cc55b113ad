"""Paint a synthetic face: an image from a posed mesh and a look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .head import CANVAS, IRISES, LOWER_LIDS, LOWER_LIP, UPPER_LIDS, UPPER_LIP, Head, opencv
from .model import POINTS
from .raster import Fragments, rasterise

EYE, MOUTH = 1, 2


@dataclass(frozen=True, slots=True)
class Look:
    """Appearance of a face apart from its geometry; colours are RGB in 0..1.

    Attributes
    ----------
    skin, hair, lips, iris, shirt : (3,) colours
    hair_volume : float
        Volume of the hair: 1 is normal, 0.3 a shaved head.
    hairline : (3,)
        Hairline on the forehead: level, tilt and curvature, in units of the model.
    beard : float in [0, 1]
    grey : (kg,) codes of the model's grey basis
    folds : (9,)
        Depth of each fold in ``head.FOLDS``: the fraction of light that is lost in its valley.
    blush : float
    light : (3,)
        Direction towards the light.
    ambient, shine : float
    background : (k, k, 3) colours, interpolated over the image
    teeth : float in [0, 1]
        Whiteness.
    monochrome : float in [0, 1]
        1 is a grey photograph.
    blur : float, pixels
    contrast, brightness, noise : float
    long_hair : bool
    """

    skin: np.ndarray
    hair: np.ndarray
    lips: np.ndarray
    iris: np.ndarray
    shirt: np.ndarray
    hair_volume: float
    hairline: np.ndarray
    beard: float
    grey: np.ndarray
    folds: np.ndarray
    blush: float
    light: np.ndarray
    ambient: float
    shine: float
    background: np.ndarray
    teeth: float
    monochrome: float
    blur: float
    contrast: float
    brightness: float
    noise: float
    long_hair: bool


def paint(head: Head, points: np.ndarray, look: Look, *, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a head.

    Parameters
    ----------
    points : (v, 3) float array, pixels
        Vertices of :meth:`Head.shell`, posed and projected; x right, y down, z away from the camera.
    look : Look
    size : int
        Side of the square image, pixels.
    rng : generator for the sensor noise

    Returns
    -------
    (size, size, 3) uint8 RGB.
    """
    cv2 = opencv()
    image = cv2.resize(look.background, (size, size), interpolation=cv2.INTER_CUBIC)
    _body(image, points, look)
    normals = _normals(head, points)
    shade, gloss = _light(normals, look)
    visible = rasterise(points, head.triangles, (size, size))
    values = visible.interpolate(np.column_stack([head.canvas_xy, shade, gloss]))
    colour = _sample(canvas(head, look), values[:, :2])
    part = head.part[visible.triangle]
    eye, mouth = np.flatnonzero(part == EYE), np.flatnonzero(part == MOUTH)
    colour[eye] = _eyes(visible[eye], points, look, size)
    colour[mouth] = _mouth(visible[mouth], points, look)
    colour *= values[:, 2:3]
    colour += values[:, 3:]
    image.reshape(-1, 3)[visible.pixel] = colour
    _lines(image, points, look, shade)
    return _photograph(image, look, rng)


def canvas(head: Head, look: Look) -> np.ndarray:
    """(CANVAS, CANVAS, 3) float32: texture of the face, without light."""
    cv2 = opencv()
    masks = head.masks
    values = (head.model.grey_mean + look.grey @ head.model.grey_basis).astype(np.float32)
    grey = (head.texels @ values).reshape(CANVAS // 2, CANVAS // 2)
    grey = cv2.resize(cv2.GaussianBlur(grey, (0, 0), 1.0), (CANVAS, CANVAS), interpolation=cv2.INTER_LINEAR)
    level = np.clip(grey / 150.0, 0.25, 1.35)
    # Grey values of photographs contain brows, lids and lips, which the masks below draw too: use about half of them.
    tone = 0.45 + 0.55 * level + 0.03 * masks["pores"]
    relief = (look.folds.astype(np.float32) @ head.folds).reshape(CANVAS, CANVAS)
    tone *= 1 - np.clip(relief, -0.2, 0.75)
    tone *= 1 - 0.12 * masks["sockets"] - 0.6 * masks["nostrils"]
    paint = tone[..., None] * look.skin.astype(np.float32)
    _mix(paint, masks["cheeks"] * look.blush, np.array([0.80, 0.35, 0.32]), keep=tone)
    _mix(paint, masks["lips"] * 0.75, look.lips, keep=tone)
    strands = 1 + 0.12 * masks["strands"]
    _mix(paint, masks["chin"] * look.beard * (1 - 0.7 * masks["lips"]), look.hair, keep=strands)
    _mix(paint, masks["brows"] * 0.8, look.hair * 0.8, keep=strands)
    _mix(paint, masks["lids"] * 0.35, look.skin * 0.45, keep=tone)
    hair = _hair(head, look)
    _mix(paint, hair, look.hair, keep=strands)
    return paint


def _hair(head: Head, look: Look) -> np.ndarray:
    """(CANVAS, CANVAS) mask of the hair: above the hairline, and beside the face down to its length."""
    level, tilt, curve = (np.float32(value) for value in look.hairline)
    down, across, ragged = (head.masks[name] for name in ("down", "across", "strands"))
    above = np.clip((level + tilt * across + curve * across**2 + 0.004 * ragged - down) * 220, 0, 1)
    length, soft = (0.09, 60) if look.long_hair else (-0.004, 90)
    beside = np.clip((length + 0.006 * ragged - down) * soft, 0, 1)
    beside *= np.clip((1 - head.masks["face"]) * 1.2, 0, 1)
    if not look.long_hair:
        beside *= 1 - head.masks["ears"]
    return np.maximum(above, beside) * np.float32(min(1.0, look.hair_volume / 0.5))


def _mix(paint: np.ndarray, mask: np.ndarray, colour: np.ndarray, *, keep: np.ndarray) -> None:
    """Blend a colour, shaded by ``keep``, into the paint where the mask is not zero; in place."""
    rows, columns = np.flatnonzero(mask.max(1) > 0.004), np.flatnonzero(mask.max(0) > 0.004)
    if not len(rows):
        return
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    alpha = mask[window][..., None]
    paint[window] += alpha * (keep[window][..., None] * colour.astype(np.float32) - paint[window])


def _normals(head: Head, points: np.ndarray) -> np.ndarray:
    """(v, 3) unit normals of the vertices, pointing outwards."""
    a, b, c = (points[head.triangles[:, k]] for k in range(3))
    normals = head.neighbours @ np.cross(c - a, b - a)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)


def _light(normals: np.ndarray, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """(v,) diffuse shading, a factor on the paint, and (v,) gloss, which is added."""
    towards = look.light / np.linalg.norm(look.light)
    facing = normals @ towards
    shade = look.ambient + (1 - look.ambient) * np.clip(0.25 + 0.75 * facing, 0, None)
    half = towards + np.array([0.0, 0.0, -1.0])
    gloss = look.shine * np.clip(normals @ (half / np.linalg.norm(half)), 0, 1) ** 16
    return shade.astype(np.float32), gloss.astype(np.float32)


def _sample(paint: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(m, 3) paint at positions (m, 2) on the canvas, bilinear."""
    cv2 = opencv()
    # remap accepts at most 32,767 pixels in a row, so the pixels are arranged in rows of 256
    rows = -(-len(xy) // 256)
    padded = np.zeros((rows * 256, 2), np.float32)
    padded[: len(xy)] = xy - 0.5
    colour = cv2.remap(
        paint, padded.reshape(rows, 256, 2), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return colour.reshape(-1, 3)[: len(xy)]


def _eyes(visible: Fragments, points: np.ndarray, look: Look, size: int) -> np.ndarray:
    """(m, 3) colour of the pixels in the eyes: white, iris, pupil, highlight and shadow of the lid."""
    y, x = np.divmod(visible.pixel, size)
    centres = np.stack([x, y], axis=1) + 0.5
    middles = np.stack([points[iris[0], :2] for iris in IRISES])
    radii = [
        np.linalg.norm(points[list(iris[1:]), :2] - points[iris[0], :2], axis=1).mean() for iris in IRISES
    ]
    distance = np.linalg.norm(centres[:, None] - middles[None], axis=2)
    nearest = distance.argmin(1)
    radius = np.array(radii)[nearest]
    ratio = distance[np.arange(len(nearest)), nearest] / radius
    soft = 1.2 / radius
    lid = np.zeros(len(points), np.float32)
    for lower in LOWER_LIDS:
        lid[list(lower[1:-1])] = 1
    shadow = 0.72 + 0.28 * np.clip(visible.interpolate(lid) * 2.2, 0, 1)[:, None]
    colour = np.array([0.90, 0.87, 0.85]) * shadow
    iris = np.clip((1 - ratio) / soft + 0.5, 0, 1)[:, None]
    ring = np.clip(1.15 - 0.55 * ratio**3, 0.3, 1.2)[:, None]
    colour += iris * (look.iris * ring * shadow - colour)
    pupil = np.clip((0.42 - ratio) / soft + 0.5, 0, 1)[:, None]
    colour += pupil * (0.04 - colour)
    spot = (
        centres
        - middles[nearest]
        - radius[:, None] * np.sign(look.light[0]) * np.array([0.3, 0])
        + radius[:, None] * [0, 0.35]
    )
    glint = np.clip((0.24 - np.linalg.norm(spot, axis=1) / radius) / soft + 0.5, 0, 1)[:, None]
    return colour + glint * (0.95 - colour)


def _mouth(visible: Fragments, points: np.ndarray, look: Look) -> np.ndarray:
    """(m, 3) colour inside the mouth: dark, with teeth below the upper lip and the tongue above the lower one."""
    unit = np.linalg.norm(points[10, :2] - points[152, :2]) / 0.142
    down = np.zeros(len(points), np.float32)
    down[list(LOWER_LIP[1:-1])] = 1
    gap = np.zeros(len(points), np.float32)
    opening = np.linalg.norm(points[list(UPPER_LIP)] - points[list(LOWER_LIP)], axis=1) / unit
    gap[list(UPPER_LIP)] = gap[list(LOWER_LIP)] = opening
    share, height = visible.interpolate(np.stack([down, gap], axis=1)).T
    below = share * height
    soft = 0.0012
    teeth = (
        np.clip((0.0075 - below) / soft + 0.5, 0, 1) * np.clip((height - 0.002) / 0.003, 0, 1) * look.teeth
    )
    tongue = np.clip((0.007 - (height - below)) / 0.004 + 0.5, 0, 1) * np.clip((height - 0.014) / 0.006, 0, 1)
    colour = np.tile(np.array([0.16, 0.06, 0.06]), (len(share), 1))
    colour += tongue[:, None] * (look.lips * 0.75 - colour)
    return colour + teeth[:, None] * (np.array([0.93, 0.90, 0.85]) - colour)


def _body(image: np.ndarray, points: np.ndarray, look: Look) -> None:
    """Draw neck, shoulders and long hair, which are behind the head; in place."""
    size = len(image)
    face = points[:POINTS]
    unit = float(np.linalg.norm(face[10] - face[152]))
    down = np.array([0.0, unit])
    middle, chin = face[:, :2].mean(0), face[152, :2]
    nape = 0.55 * middle + 0.45 * chin
    foot = np.array([nape[0] + 0.25 * (size / 2 - nape[0]), chin[1] + 0.30 * unit])
    if look.long_hair:
        reach = 0.52 * look.hair_volume**0.5
        half = [(0.5, -0.5), (0.9, -0.3), (1.02, -0.05), (1.1, 0.3), (1.16, 0.55), (1.0, 0.75), (0.6, 0.8)]
        _fill(
            image, _both_sides(nape, half, unit * np.array([reach, 1.0])), look.hair * 0.8 * look.ambient**0.5
        )
    neck = [(0.25, -0.25), (0.245, 0.15), (0.26, 0.28), (0.40, 0.40), (0.3, 1.5)]
    _fill(image, _both_sides(0.5 * (nape + foot) + [0, -0.05 * unit], neck, unit), look.skin * 0.72)
    for share in (0.66, 0.60, 0.54, 0.48):  # soft shadow of the head
        below = (0.8 - share) * unit * 0.55
        shadow = _ellipse(chin - down * 0.1, 0.21 * unit, 0.32 * unit - below)
        _fill(image, shadow, look.skin * share)
    coat = [(0.20, 0.0), (0.36, -0.10), (0.62, 0.0), (0.95, 0.12), (1.15, 0.34), (1.25, 0.8), (1.3, 3)]
    _fill(image, _both_sides(foot, coat, unit), look.shirt * 0.9)
    _fill(image, _ellipse(foot - down * 0.03, 0.26 * unit, 0.12 * unit), look.skin * 0.72)


def _both_sides(origin: np.ndarray, half: list[tuple[float, float]], unit: np.ndarray | float) -> np.ndarray:
    """(2 k, 2) symmetric outline from its right half, given downwards; x is the distance from the axis."""
    right = np.array(half)
    return origin + np.concatenate([right, right[::-1] * [-1, 1]]) * unit


def _ellipse(middle: np.ndarray, wide: float, high: float) -> np.ndarray:
    around = np.linspace(0, 2 * np.pi, 32)
    return middle + np.stack([wide * np.cos(around), high * np.sin(around)], axis=1)


def _fill(image: np.ndarray, outline: np.ndarray, colour: np.ndarray) -> None:
    cv2 = opencv()
    fixed = np.round(outline * 16).astype(np.int32)
    cv2.fillPoly(image, [fixed], color=tuple(map(float, colour)), lineType=cv2.LINE_8, shift=4)


def _lines(image: np.ndarray, points: np.ndarray, look: Look, shade: np.ndarray) -> None:
    """Draw lashes along the upper lids and the line between the lips; in place."""
    cv2 = opencv()
    unit = np.linalg.norm(points[10, :2] - points[152, :2])
    thin = max(1, round(unit / 90))
    lash = tuple(float(value) for value in 0.35 * look.hair * look.ambient)
    lids = [np.round(points[list(lid), :2] * 16).astype(np.int32) for lid in UPPER_LIDS]
    cv2.polylines(image, lids, False, lash, thin, cv2.LINE_8, 4)
    red = tuple(float(value) for value in look.lips * 0.42 * shade[13])
    cv2.polylines(
        image, [np.round(points[list(UPPER_LIP), :2] * 16).astype(np.int32)], False, red, thin, cv2.LINE_8, 4
    )


def _photograph(image: np.ndarray, look: Look, rng: np.random.Generator) -> np.ndarray:
    """Camera model: blur, desaturation, contrast, noise and rounding to eight bits."""
    cv2 = opencv()
    image = cv2.GaussianBlur(image, (0, 0), look.blur)
    if look.monochrome:
        grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
        image += look.monochrome * (grey[..., None] - image)
    image *= 255 * look.contrast
    image += 255 * look.brightness
    image += look.noise * rng.standard_normal(image.shape[:2], dtype=np.float32)[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)
