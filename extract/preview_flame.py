"""Meshes for :mod:`.preview`: a store's FLAME codes as heads in their images, where FLAME's file is there."""

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

# The releases of FLAME that are drawn with, the one whose basis the codes have first.
MODELS = ("flame2020", "flame2023", "flame2017", "flame2023_open")
_NEEDED = ("shape", "expression", "pose", "jaw", "camera")


def meshes(store: CodeStore, rows: np.ndarray) -> dict[int, Mesh]:
    """Row -> the head that its codes describe, in pixels of its image.

    Rows without codes have none; nor has any row of a store without FLAME codes, or where FLAME's file is not there (a
    line is logged).

    Raises
    ------
    WeightsError : the file that is there is none of FLAME's.
    MissingExtra : torch is not installed.
    """
    rows = rows[store.samples.ok[rows]]
    if not _has_heads(store) or not len(rows):
        return {}
    found = next((name for name in MODELS if locate(name)), None)
    if found is None:
        log.warning("preview: no mesh is drawn without FLAME's model file; ig3d weights says where it goes")
        return {}
    require("torch", wanted_by="preview of FLAME codes")
    from ..faces import flame

    layer = _layer(found, lids="eyelid" in store.blocks)
    names = [
        name
        for name in (*_NEEDED, "eyelid")
        if name in store.blocks and (name != "eyelid" or layer.has_eyelids)
    ]
    blocks = {name: store.codes(name)[rows] for name in names}
    vertices = layer.vertices(flame.FlameCodes.from_blocks(blocks))
    seen = flame.project(vertices, layer.tensor(blocks["camera"]))
    pixels = flame.to_image(seen.numpy(), store.faces.crop_box[rows], size=store.info.crop["size"])
    triangles = layer.triangles.numpy()
    return {int(row): Mesh(points, triangles) for row, points in zip(rows, pixels, strict=True)}


def _has_heads(store: CodeStore) -> bool:
    """Codes in FLAME's basis, with a camera that looks into a crop."""
    return (
        set(_NEEDED) <= set(store.blocks)
        and all(store.blocks[name].basis.startswith("flame-") for name in ("shape", "expression"))
        and store.blocks["camera"].basis == "weak-perspective-crop"
        and "size" in store.info.crop
    )


def _layer(name: str, *, lids: bool) -> Flame:
    from ..faces import flame, flame_files

    files = [locate(f"eyelid_{side}") for side in ("left", "right")] if lids else []
    here = [file for file in files if file is not None]
    return flame.Flame(
        flame_files.read_model(find_weights(name)),
        eyelids=flame_files.read_eyelids(here[0], here[1]) if len(here) == 2 else None,
    )
