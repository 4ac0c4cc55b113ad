"""FLAME meshes for :mod:`.preview`, computed from the codes of a store and FLAME's model file."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from ..errors import require
from ..faces.draw import Mesh
from ..features.store import CodeStore
from .weights import find_weights, locate

if TYPE_CHECKING:
    from ..faces.flame import Flame

log = logging.getLogger("ig3d")

# Releases of FLAME, in order of preference; the codes have the basis of the first.
MODELS = ("flame2020", "flame2023", "flame2017", "flame2023_open")
_NEEDED = ("shape", "expression", "pose", "jaw", "camera")


def meshes(store: CodeStore, rows: np.ndarray) -> dict[int, Mesh]:
    """Row -> FLAME mesh in pixels of its image.

    Rows without codes have no mesh. The result is empty for a store without FLAME codes and, with a logged warning, if
    FLAME's model file is not installed.

    Raises
    ------
    WeightsError : the model file is not an official FLAME file.
    MissingExtra : torch is not installed.
    """
    rows = rows[store.ok[rows]]
    if not _has_heads(store) or not len(rows):
        return {}
    release = next((name for name in MODELS if locate(name)), None)
    if release is None:
        log.warning("preview: meshes are not drawn: FLAME's model file is missing; see ig3d weights")
        return {}
    require("torch", wanted_by="preview of FLAME codes")
    from ..faces import flame

    layer = _layer(release, lids="eyelid" in store.blocks)
    names = [
        name
        for name in (*_NEEDED, "eyelid")
        if name in store.blocks and (name != "eyelid" or layer.has_eyelids)
    ]
    blocks = {name: store.codes(name)[rows] for name in names}
    vertices = layer.vertices(flame.FlameCodes.from_blocks(blocks))
    projected = flame.project(vertices, layer.tensor(blocks["camera"]))
    pixels = flame.to_image(
        projected.numpy(), store.column("face/crop_box")[rows], size=store.info.crop["size"]
    )
    triangles = layer.triangles.numpy()
    return {int(row): Mesh(points, triangles) for row, points in zip(rows, pixels, strict=True)}


def _has_heads(store: CodeStore) -> bool:
    """Whether a store has codes in FLAME's basis and a camera relative to the crop."""
    return (
        set(_NEEDED) <= set(store.blocks)
        and all(store.blocks[name].basis.startswith("flame-") for name in ("shape", "expression"))
        and store.blocks["camera"].basis == "weak-perspective-crop"
        and "size" in store.info.crop
    )


def _layer(name: str, *, lids: bool) -> Flame:
    from ..faces import flame, flame_files

    paths = [locate(f"eyelid_{side}") for side in ("left", "right")] if lids else []
    files = [path for path in paths if path is not None]
    return flame.Flame(
        flame_files.read_model(find_weights(name)),
        eyelids=flame_files.read_eyelids(files[0], files[1]) if len(files) == 2 else None,
    )
