"""Meshes of a store's faces, from its codes: the embedded face model, or FLAME if its model file is installed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import StoreError, UsageError, require
from ..faces import model
from ..faces.mesh_files import write_mesh
from ..faces.render import SKIN, Mesh
from ..features.store import CodeStore
from .regressors.facemesh import project, to_flame_axes
from .weights import find_weights, locate

if TYPE_CHECKING:
    from ..faces.flame import Flame

log = logging.getLogger("ig3d")

# Releases of FLAME, in order of preference; the codes have the basis of the first.
FLAME_RELEASES = ("flame2020", "flame2023", "flame2017", "flame2023_open")
_FLAME_BLOCKS = ("shape", "expression", "pose", "jaw", "camera")
_MESH_BLOCKS = ("shape", "expression", "pose", "jaw", "eyelid")
_ROWS = 64  # rows whose meshes are in memory at the same time
_AXES = "x to the image's right, y up, z towards the camera"


@dataclass(frozen=True, slots=True)
class Meshes:
    """Meshes of n faces, which have the same triangles.

    Attributes
    ----------
    rows : (n,) int
        Rows of the store.
    vertices : (n, v, 3)
        x to the image's right, y up, z towards the camera.
    triangles : (t, 3) int
        Counterclockwise, seen from outside.
    model : str
        Name of the face model.
    unit : str
        Unit of the vertices.
    """

    rows: np.ndarray
    vertices: np.ndarray
    triangles: np.ndarray
    model: str
    unit: str


def face_model_of(store: CodeStore) -> str | None:
    """Face model of a store's codes: ``ig3d``, ``flame``, or None if ig3d has no mesh for them."""
    bases = {name: store.blocks[name].basis for name in ("shape", "expression") if name in store.blocks}
    if len(bases) < 2:
        return None
    if set(bases.values()) == {model.load().basis}:
        return "ig3d"
    return "flame" if all(basis.startswith("flame-") for basis in bases.values()) else None


def meshes(store: CodeStore, rows: np.ndarray, *, frontal: bool = False) -> Meshes:
    """Meshes of the faces of some rows; rows without codes are left out.

    Parameters
    ----------
    store : CodeStore
    rows : (m,) int
    frontal : bool
        Leave out the rotation of the head, so that the face looks into the camera.

    Returns
    -------
    Meshes
        Of the embedded face model, in units of the mean face (its pupils are 0.0555 apart), with the origin in the
        middle of the mean face; or of FLAME, in metres, with FLAME's origin.

    Raises
    ------
    UsageError : the codes belong to no face model that ig3d has.
    WeightsError : FLAME's model file is missing or is another file.
    MissingExtra : torch, which FLAME needs, is not installed.
    """
    rows = rows[store.ok[rows]]
    kind = face_model_of(store)
    if kind is None:
        raise UsageError(
            f"{store.path}: a mesh needs the blocks shape and expression of this ig3d's face model or of FLAME; "
            f"the store has {', '.join(f'{name} ({block.basis})' for name, block in store.blocks.items())}"
        )
    blocks = {name: store.codes(name)[rows] for name in store.blocks if name in _MESH_BLOCKS}
    if frontal:
        blocks.pop("pose", None)
    if kind == "flame":
        layer = _flame(wanted_by="a mesh of FLAME codes", lids="eyelid" in blocks)
        vertices = layer.vertices(_flame_codes(layer, blocks)).numpy()
        return Meshes(rows, vertices, layer.triangles.numpy(), "FLAME", "metres")
    face = model.load()
    vertices = to_flame_axes(face.decode(blocks["shape"], blocks["expression"]))
    if "pose" in blocks:
        from scipy.spatial.transform import Rotation

        turn = Rotation.from_rotvec(blocks["pose"]).as_matrix()
        vertices = np.einsum("nij,nvj->nvi", turn, vertices)
    # the model's triangles are clockwise, seen from outside
    return Meshes(rows, vertices, face.triangles[:, ::-1], face.basis, "units of the mean face")


def write_meshes(
    store: CodeStore,
    folder: str | Path,
    *,
    suffix: str,
    rows: np.ndarray | None = None,
    frontal: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write a mesh file per row to a folder: ``FOLDER/<id>.obj`` or ``.ply``.

    Parameters
    ----------
    store : CodeStore
    folder : folder to write to; it is created, and files of the same name are replaced
    suffix : ``.obj`` or ``.ply``
    rows : (m,) int, optional
        All rows by default; those without codes are left out.
    frontal : as in :func:`meshes`
    progress : function that is called with the number of rows since its last call

    Returns
    -------
    int : number of files

    Raises
    ------
    UsageError : no row has codes, or as :func:`meshes`.
    StoreError : a sample id leads out of the folder, or a file cannot be written.
    """
    chosen = np.arange(len(store)) if rows is None else rows
    chosen = chosen[store.ok[chosen]]
    if not len(chosen):
        raise UsageError(
            f"{store.path}: none of the chosen rows has codes; ig3d inspect counts them by status"
        )
    ids = store.samples["id"].to_numpy(str)[chosen].tolist()
    paths = _paths(Path(folder), ids, suffix)
    for start in range(0, len(chosen), _ROWS):
        part = meshes(store, chosen[start : start + _ROWS], frontal=frontal)
        pose = "head towards the camera" if frontal else "head as in the image"
        for k, vertices in enumerate(part.vertices, start):
            comments = (f"sample {ids[k]}", f"face model {part.model}", f"{part.unit}; {_AXES}; {pose}")
            try:
                write_mesh(paths[k], vertices, part.triangles, comments=comments)
            except OSError as exc:
                raise StoreError(f"{paths[k]}: cannot be written: {exc.strerror or exc}") from exc
        if progress is not None:
            progress(len(part.vertices))
    return len(chosen)


def _paths(folder: Path, ids: Sequence[str], suffix: str) -> list[Path]:
    """File of each id; ids come from the store, which may be of any origin."""
    paths = []
    for sample in ids:
        parts = PurePosixPath(sample).parts
        if not parts or sample.startswith("/") or ".." in parts or "\0" in sample:
            raise StoreError(
                f"export: the sample id {sample!r} is no path inside of {folder}; choose other rows"
            )
        paths.append(folder.joinpath(*parts[:-1], f"{parts[-1]}{suffix}"))
    if len(set(paths)) < len(paths):
        raise StoreError("export: two sample ids have the same file name; export them one after the other")
    return paths


def image_meshes(store: CodeStore, rows: np.ndarray) -> dict[int, Mesh]:
    """Row -> mesh in pixels of its image; rows without codes have none.

    The result is empty for codes without a mesh or without a camera and, with a logged warning, if FLAME's model file
    is not installed.

    Raises
    ------
    WeightsError : the model file is not an official FLAME file.
    MissingExtra : torch, which FLAME needs, is not installed.
    """
    rows = rows[store.ok[rows]]
    kind = face_model_of(store)
    if not len(rows) or not {"pose", "camera"} <= set(store.blocks):
        return {}
    camera = store.blocks["camera"].basis
    if kind == "ig3d" and camera == "weak-perspective":
        face = model.load()
        points = face.decode(store.codes("shape")[rows], store.codes("expression")[rows])
        size_wh = np.stack([store.column(f"sample/{side}")[rows] for side in ("width", "height")], axis=1)
        pixels = project(points, store.codes("pose")[rows], store.codes("camera")[rows], size_wh)
        triangles, part = face.triangles[:, ::-1], face.part
    elif kind == "flame" and camera == "weak-perspective-crop" and "size" in store.info.crop:
        if not set(_FLAME_BLOCKS) <= set(store.blocks):
            return {}
        if _release() is None:
            log.warning("preview: meshes are not drawn: FLAME's model file is missing; see ig3d weights")
            return {}
        pixels, triangles = _flame_pixels(store, rows)
        part = np.full(len(triangles), SKIN)
    else:
        return {}
    return {int(row): Mesh(points, triangles, part) for row, points in zip(rows, pixels, strict=True)}


def _flame_pixels(store: CodeStore, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 5023, 3) vertices in pixels of the images, and triangles."""
    layer = _flame(wanted_by="preview of FLAME codes", lids="eyelid" in store.blocks)
    from ..faces import flame

    names = [name for name in (*_FLAME_BLOCKS, "eyelid") if name in store.blocks]
    blocks = {name: store.codes(name)[rows] for name in names}
    vertices = layer.vertices(_flame_codes(layer, blocks))
    projected = flame.project(vertices, layer.tensor(blocks["camera"]))
    boxes = store.column("face/crop_box")[rows]
    pixels = flame.to_image(projected.numpy(), boxes, size=store.info.crop["size"])
    return pixels, layer.triangles.numpy()


def _release() -> str | None:
    """First release of FLAME that is installed."""
    return next((name for name in FLAME_RELEASES if locate(name)), None)


def _flame(*, wanted_by: str, lids: bool) -> Flame:
    """FLAME layer, with SMIRK's eyelids if they are wanted and installed."""
    path = find_weights(_release() or FLAME_RELEASES[0])
    require("torch", wanted_by=wanted_by)
    files = [file for side in ("left", "right") if lids and (file := locate(f"eyelid_{side}"))]
    return _read_flame(path, tuple(files) if len(files) == 2 else None)


@lru_cache(maxsize=1)
def _read_flame(path: Path, eyelids: tuple[Path, Path] | None) -> Flame:
    from ..faces import flame, flame_files

    lids = None if eyelids is None else flame_files.read_eyelids(*eyelids)
    return flame.Flame(flame_files.read_model(path), eyelids=lids)


def _flame_codes(layer: Flame, blocks: dict[str, np.ndarray]) -> Any:
    """Codes for the layer; eyelids are left out if the layer has none."""
    from ..faces.flame import FlameCodes

    return FlameCodes.from_blocks(
        {name: codes for name, codes in blocks.items() if name != "eyelid" or layer.has_eyelids}
    )
