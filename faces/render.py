"""Renderers of meshes: pixels that a mesh covers, and a shaded mesh over a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UsageError, one_of, require
from .raster import Fragments, rasterise

RENDERERS = ("built-in", "pytorch3d")
# Direction towards the light (upper left, in front of the face), and the darkest shade of the skin. A light from above
# would make the lower lip, which faces up, much brighter than the chin below it.
_LIGHT, _AMBIENT = (-0.3, -0.25, -0.9), 0.25
SKIN, EYE, MOUTH = range(3)  # parts of a mesh
_COLOURS = np.array([(90, 178, 245), (190, 220, 242), (28, 45, 72)], float)
_OPACITY = np.array([0.5, 0.0, 0.0])  # over a photograph, whose eyes and mouth remain visible


@dataclass(frozen=True, slots=True)
class Mesh:
    """Triangle mesh in the pixels of an image.

    Attributes
    ----------
    points : (v, 3) pixels of the image; z points away from the camera
    triangles : (t, 3) int
        Counterclockwise in the image, seen from outside.
    part : (t,) int
        Part of the face of each triangle: :data:`SKIN`, :data:`EYE` or :data:`MOUTH` (its inside).
    """

    points: np.ndarray
    triangles: np.ndarray
    part: np.ndarray


def check_renderer(name: str) -> None:
    """Refuse a renderer that does not exist or is not installed.

    Raises
    ------
    UsageError : the name is not in :data:`RENDERERS`.
    MissingExtra : pytorch3d is not installed.
    """
    if name not in RENDERERS:
        raise UsageError(f"renderer: {name!r} does not exist; choose {one_of(RENDERERS)}")
    if name == "pytorch3d":
        for package in ("torch", "pytorch3d"):
            require(package, wanted_by="--renderer pytorch3d")


def visible_pixels(
    points: np.ndarray, triangles: np.ndarray, size_wh: tuple[int, int], *, renderer: str = "built-in"
) -> Fragments:
    """Find the pixels that a mesh covers; nearer triangles hide farther ones.

    Parameters
    ----------
    points : (v, 3) float array, pixels
        x right, y down, z away from the camera; the pixel (i, j) covers [i, i + 1) x [j, j + 1).
    triangles : (t, 3) int array
        Triangles that are clockwise in the image face the camera; the others are left out.
    size_wh : width and height of the image
    renderer : ``built-in`` or ``pytorch3d``
        Both cover the same pixels, except that pixels whose centre lies on an edge may differ.

    Raises
    ------
    UsageError, MissingExtra : as :func:`check_renderer`.
    """
    check_renderer(renderer)
    if renderer == "pytorch3d":
        return _pytorch3d(points, triangles, size_wh)
    return rasterise(points, triangles, size_wh)


def _pytorch3d(points: np.ndarray, triangles: np.ndarray, size_wh: tuple[int, int]) -> Fragments:
    """The same by pytorch3d's rasteriser, on the CPU."""
    import torch

    structures = require("pytorch3d.structures", wanted_by="--renderer pytorch3d")
    mesh = require("pytorch3d.renderer.mesh", wanted_by="--renderer pytorch3d")
    width, height = size_wh
    x, y = points[triangles, 0], points[triangles, 1]
    double_area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    front = np.flatnonzero(double_area > 1e-6)
    empty = np.zeros(0, np.int64)
    if not len(front):
        return Fragments(empty, np.zeros((0, 3), np.int64), np.zeros((0, 3), np.float32), empty)
    # pytorch3d's axes: x to the left and y up, the shorter side of the image spans [-1, 1], and z is positive
    middle = np.array([width / 2, height / 2, points[:, 2].min() - 1])
    scale = np.array([-2 / min(size_wh), -2 / min(size_wh), 1.0])
    vertices = torch.as_tensor((points - middle) * scale, dtype=torch.float32)
    faces = torch.as_tensor(triangles[front].astype(np.int64))
    face, _, weights, _ = mesh.rasterize_meshes(
        structures.Meshes(verts=[vertices], faces=[faces]),
        image_size=(height, width),
        blur_radius=0.0,
        faces_per_pixel=1,
        bin_size=0,
        perspective_correct=False,
    )
    nearest = face[0, ..., 0].numpy().ravel()
    pixel = np.flatnonzero(nearest >= 0)
    triangle = front[nearest[pixel]]
    return Fragments(pixel, triangles[triangle], weights[0, :, :, 0].numpy().reshape(-1, 3)[pixel], triangle)


def shaded(
    picture: np.ndarray, mesh: Mesh, *, renderer: str = "built-in", opaque: bool = False
) -> np.ndarray:
    """Draw a mesh in blue, with shading, over a picture.

    Parameters
    ----------
    picture : (H, W, 3) uint8
    mesh : Mesh
        In pixels of the picture.
    renderer : name in :data:`RENDERERS`
    opaque : bool
        Hide the picture. By default the skin is transparent, and eyes and mouth are left open.

    Returns
    -------
    (H, W, 3) uint8
    """
    skin = mesh.triangles[mesh.part == SKIN]
    corner = mesh.points[skin]
    outward = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normals = np.zeros(mesh.points.shape)
    for k in range(3):  # a vertex's normal is the sum of those of its triangles, weighted by area
        np.add.at(normals, skin[:, k], outward)
    light = np.array(_LIGHT) / np.linalg.norm(_LIGHT)
    cosine = normals @ light / np.maximum(np.linalg.norm(normals, axis=1), 1e-12)
    shade = _AMBIENT + (1 - _AMBIENT) * np.clip(cosine, 0, 1)
    size_wh = (picture.shape[1], picture.shape[0])
    # the rasteriser draws triangles that are clockwise in the image
    visible = visible_pixels(mesh.points, mesh.triangles[:, ::-1], size_wh, renderer=renderer)
    part = mesh.part[visible.triangle]
    bright = np.where(part == SKIN, visible.interpolate(shade), 1.0)[:, None]
    opacity = 1.0 if opaque else _OPACITY[part, None]
    mixed = picture.reshape(-1, 3).copy()
    mixed[visible.pixel] = np.round((1 - opacity) * mixed[visible.pixel] + opacity * bright * _COLOURS[part])
    return mixed.reshape(picture.shape)
