"""Triangles of FaceMesh's points, derived from the edges that MediaPipe publishes; used by build_face_model.py."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np

SKIN, EYE, MOUTH = 0, 1, 2


def triangles() -> tuple[np.ndarray, np.ndarray]:
    """The skin's triangles and those that fill eyes and mouth, with the part that each belongs to.

    Returns
    -------
    (898, 3) int16 indices and (898,) uint8: 0 skin, 1 eye, 2 inside of the mouth.
    """
    from mediapipe.python.solutions.face_mesh_connections import FACEMESH_TESSELATION

    edges = {(min(edge), max(edge)) for edge in FACEMESH_TESSELATION}
    near: dict[int, set[int]] = {}
    for a, b in edges:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    found = sorted({tuple(sorted((a, b, c))) for a, b in edges for c in near[a] & near[b]})
    sides = Counter(side for triangle in found for side in _sides(triangle))
    # Three edges around a smaller fan look like a triangle too; each of its sides is shared by three.
    skin = [triangle for triangle in found if any(sides[side] < 3 for side in _sides(triangle))]
    border = [side for side, n in Counter(s for t in skin for s in _sides(t)).items() if n == 1]
    loops = sorted(_loops(border), key=len)
    if [len(loop) for loop in loops] != [16, 16, 20, 36]:
        raise SystemExit("tesselation: expected two eyes, a mouth and a face oval, got other holes")
    fills = [(_fill(loop), part) for loop, part in zip(loops[:3], (EYE, EYE, MOUTH), strict=True)]
    every = _turn_alike([*skin, *(triangle for fill, _ in fills for triangle in fill)])
    parts = [SKIN] * len(skin) + [part for fill, part in fills for _ in fill]
    return np.array(every, np.int16), np.array(parts, np.uint8)


def _turn_alike(mesh: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Reorder the corners so that neighbours run through their common side in opposite directions."""
    owners: dict[tuple[int, int], list[int]] = {}
    for index, triangle in enumerate(mesh):
        for side in _sides(triangle):
            owners.setdefault(tuple(sorted(side)), []).append(index)
    turned, queue = {0: mesh[0]}, [0]
    while queue:
        a, b, c = turned[queue.pop()]
        for start, end in ((a, b), (b, c), (c, a)):
            for index in owners[min(start, end), max(start, end)]:
                if index not in turned:
                    third = next(point for point in mesh[index] if point not in (start, end))
                    turned[index] = (end, start, third)
                    queue.append(index)
    return [turned[index] for index in range(len(mesh))]


def _sides(triangle: tuple[int, ...]) -> list[tuple[int, int]]:
    a, b, c = triangle
    return [(a, b), (b, c), (a, c)]


def _loops(border: list[tuple[int, int]]) -> list[list[int]]:
    near: dict[int, list[int]] = {}
    for a, b in border:
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    loops, left = [], set(near)
    while left:
        loop = [min(left)]
        while step := [point for point in near[loop[-1]] if point in left and point not in loop]:
            loop.append(min(step))
        loops.append(loop)
        left -= set(loop)
    return loops


def _fill(loop: list[int]) -> list[tuple[int, int, int]]:
    """Zip the two lids (lips) of a loop together, from corner to corner."""
    corner = next(k for k, point in enumerate(loop) if point in _CORNERS)
    turned = loop[corner:] + loop[:corner]
    half = len(loop) // 2
    upper, lower = turned[: half + 1], [turned[0], *turned[: half - 1 : -1]]
    strips = []
    for (a, b), (c, d) in zip(pairwise(upper), pairwise(lower), strict=True):
        strips += [(a, b, d), (a, d, c)]
    return [triangle for triangle in strips if len(set(triangle)) == 3]


_CORNERS = {33, 263, 78}  # of the right eye, the left eye and the mouth
