"""Writer of triangle meshes: Wavefront OBJ (text) and PLY (binary)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UsageError, one_of
from ..features.atomic import replacing

SUFFIXES = (".obj", ".ply")


def write_mesh(
    path: str | Path, vertices: np.ndarray, triangles: np.ndarray, *, comments: Sequence[str] = ()
) -> None:
    """Write a mesh to a file.

    Parameters
    ----------
    path : path that ends in .obj or .ply
    vertices : (v, 3) float array
        Written as float32: OBJ has nine significant digits, PLY the bytes.
    triangles : (t, 3) int array
        Indices from 0, counterclockwise, seen from outside.
    comments : lines for the head of the file
        Characters other than printable ASCII are escaped.

    Raises
    ------
    UsageError : the name ends in something else.
    OSError : the file cannot be written.
    """
    path = Path(path)
    vertices, triangles = np.asarray(vertices, np.float32), np.asarray(triangles, np.int32)
    lines = [ascii(line)[1:-1] for line in comments]
    if path.suffix.lower() == ".obj":
        content = _obj(vertices, triangles, lines)
    elif path.suffix.lower() == ".ply":
        content = _ply(vertices, triangles, lines)
    else:
        raise UsageError(f"{path}: a mesh is written as {one_of(SUFFIXES)}; use such a name")
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _obj(vertices: np.ndarray, triangles: np.ndarray, comments: Sequence[str]) -> bytes:
    lines = [f"# {line}" for line in comments]
    lines += [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (triangles + 1).tolist()]
    return ("\n".join(lines) + "\n").encode("ascii")


def _ply(vertices: np.ndarray, triangles: np.ndarray, comments: Sequence[str]) -> bytes:
    header = [
        "ply",
        "format binary_little_endian 1.0",
        *(f"comment {line}" for line in comments),
        f"element vertex {len(vertices)}",
        *(f"property float {axis}" for axis in "xyz"),
        f"element face {len(triangles)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    faces = np.empty(len(triangles), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, triangles
    return ("\n".join(header) + "\n").encode("ascii") + vertices.astype("<f4").tobytes() + faces.tobytes()
