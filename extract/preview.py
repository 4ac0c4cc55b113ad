"""A look at a store: some of its faces with box, points or mesh, drawn from the images and the codes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DatasetError, Ig3dError, UsageError
from ..faces import draw, model
from ..features.atomic import replacing
from ..features.store import CodeStore
from ..features.values import Status
from .preview_flame import meshes
from .read import Unreadable, bounded_images, read_image
from .regressors.facemesh import project
from .sources.remote import is_remote


def preview(
    store: CodeStore, out: str | Path, *, count: int = 24, seed: int = 0, root: str | Path | None = None
) -> int:
    """Write a sheet of faces: rows without codes first (a quarter of the sheet at most), then a random choice.

    Parameters
    ----------
    store : CodeStore
    out : path of a PNG or JPEG
    count : int
        Faces on the sheet.
    seed : int
        Of the choice.
    root : path, optional
        Folder of the images, where they have moved since they were extracted.

    Returns
    -------
    int : faces drawn

    Raises
    ------
    UsageError : a count below 1, or a file name that is no picture's.
    DatasetError : none of the chosen images is there.
    """
    if count < 1:
        raise UsageError(f"count: expected at least 1, got {count}")
    if Path(out).suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UsageError(f"out: expected a name that ends in .png or .jpg, got {out}")
    folder = str(root or store.info.root)
    if (
        Path(out).exists()
        and not is_remote(folder)
        and Path(out).resolve().is_relative_to(Path(folder).resolve())
    ):
        raise UsageError(
            f"out: expected a place outside of the dataset, got {out}, a file of it; name another"
        )
    rows = _choose(store, count, seed)
    points, surfaces = _points(store, rows), meshes(store, rows)
    with bounded_images():
        tiles = [_tile(store, int(row), folder, points.get(int(row)), surfaces.get(int(row))) for row in rows]
    if all(tile.image is None for tile in tiles):
        raise DatasetError(
            f"preview: expected readable images under {folder}, found none; say where they are with --root"
        )
    picture = Image.fromarray(draw.sheet(tiles, columns=6 if count > 4 else count))
    encoded = io.BytesIO()
    picture.save(encoded, "PNG" if Path(out).suffix.lower() == ".png" else "JPEG")
    try:
        with replacing(out) as temporary:
            temporary.write_bytes(encoded.getvalue())
    except OSError as exc:
        raise Ig3dError(f"{out}: expected to write the sheet, got {exc.strerror or exc}") from exc
    return len(tiles)


def _choose(store: CodeStore, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ok = store.samples.ok
    bad, good = np.flatnonzero(~ok), np.flatnonzero(ok)
    bad = rng.permutation(bad)[: max(count // 4, count - len(good))]
    good = rng.permutation(good)[: count - len(bad)]
    return np.concatenate([np.sort(bad), np.sort(good)])


def _points(store: CodeStore, rows: np.ndarray) -> dict[int, np.ndarray]:
    """Row -> (p, 2) pixels, for stores whose blocks say where the points lie."""
    if not {"pose", "camera"} <= set(store.blocks) or store.info.regressor.get("name") != "facemesh":
        return {}
    rows = rows[store.samples.ok[rows]]
    aligned = _aligned(store, rows)
    if aligned is None:
        return {}
    size_wh = np.stack([store.samples.width[rows], store.samples.height[rows]], axis=1)
    pixels = project(aligned, store.codes("pose")[rows], store.codes("camera")[rows], size_wh)
    return dict(zip(rows.tolist(), pixels[..., :2], strict=True))


def _aligned(store: CodeStore, rows: np.ndarray) -> np.ndarray | None:
    """(n, 478, 3): the aligned points where the store has them, else those that its codes describe."""
    if "landmarks" in store.blocks:
        return store.codes("landmarks")[rows].reshape(len(rows), model.POINTS, 3)
    face = model.load()
    if any(store.blocks[name].basis != face.basis for name in ("shape", "expression")):
        return None  # codes of another face model cannot be drawn with this one
    return face.decode(store.codes("shape")[rows], store.codes("expression")[rows])


def _tile(
    store: CodeStore, row: int, folder: str, points: np.ndarray | None, mesh: draw.Mesh | None
) -> draw.Tile:
    samples = store.samples
    status = Status(int(samples.status[row]))
    try:
        image = read_image(f"{folder}/{samples.path[row]}").pixels
    except (Unreadable, FileNotFoundError):
        image = None
    label = store.info.classes[samples.label[row]] if samples.label[row] >= 0 else ""
    if status == Status.ok:
        score = store.faces.score[row]
        second = " · ".join(filter(None, [label, "" if np.isnan(score) else f"score {score:.2f}"]))
    else:
        second = f"{status.name}: {samples.message[row]}"
    return draw.Tile(
        image, f"{samples.id[row]}\n{second}", store.faces.box[row], points, mesh, status == Status.ok
    )
