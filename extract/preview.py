"""Contact sheet of a store: faces with their box, landmarks or mesh, drawn over the images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DatasetError, Ig3dError, UsageError, none_of
from ..faces import draw, model
from ..faces.render import Mesh, check_renderer
from ..features.atomic import replacing
from ..features.store import CodeStore
from ..features.values import Status
from .meshes import face_model_of, image_meshes
from .read import Unreadable, bounded_images, read_image
from .regressors.facemesh import project
from .sources.remote import is_remote

SIZES = (100, 1000)  # sides of a picture on a sheet and in an animation, pixels
_SHEET_WIDTH, _LARGEST_DEFAULT = 1500, 480  # pixels; they limit the default size of a picture
_MAX_PIXELS = 200_000_000


def preview(
    store: CodeStore,
    out: str | Path,
    *,
    count: int = 24,
    seed: int = 0,
    root: str | Path | None = None,
    rows: np.ndarray | None = None,
    size: int | None = None,
    mesh: bool = False,
    renderer: str = "built-in",
) -> tuple[int, int]:
    """Write a contact sheet: first rows without codes (at most a quarter of the sheet), then a random choice.

    FLAME codes are drawn as meshes, those of the embedded face model as contours.

    Parameters
    ----------
    store : CodeStore
    out : path of a PNG or JPEG
    count : int
        Faces on the sheet.
    seed : int
        Seed of the random choice.
    root : path, optional
        Folder of the images, if they have moved since the extraction.
    rows : (m,) int, optional
        Rows to show, in this order, instead of a random choice.
    size : int, optional
        Side of a picture on the sheet, pixels, in :data:`SIZES`; by default larger if there are few pictures.
    mesh : bool
        Draw meshes also for the embedded face model.
    renderer : name in :data:`ig3d.faces.render.RENDERERS`

    Returns
    -------
    (int, int) : numbers of faces and of rows without codes on the sheet

    Raises
    ------
    UsageError : ``count`` is below 1, ``size`` is out of range, the sheet is too large, the renderer does not exist, or
        ``out`` is no PNG or JPEG name or is a file of the dataset.
    DatasetError : none of the chosen images can be read.
    """
    if count < 1:
        raise UsageError(f"count is {count}; it must be at least 1")
    if Path(out).suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UsageError(
            f"out: {out} is no image file; use a name that ends in .png or .jpg, or pass --animate for an animation"
        )
    check_size(size)
    check_renderer(renderer)
    folder = images_folder(store, out, root)
    rows = _choose(store, count, seed) if rows is None else rows
    columns = _columns(len(rows))
    side = size or min(_SHEET_WIDTH // columns, _LARGEST_DEFAULT)
    if side**2 * len(rows) > _MAX_PIXELS:
        raise UsageError(
            f"{len(rows)} pictures of {side} x {side} pixels are too many for one sheet; pass a smaller --size, or "
            "fewer rows by --count or --rows"
        )
    flame_or_asked = mesh or face_model_of(store) == "flame"
    surfaces = image_meshes(store, rows) if flame_or_asked else {}
    points = {} if surfaces else _points(store, rows)
    with bounded_images():
        tiles = [
            tile_of(store, int(row), folder, points.get(int(row)), surfaces.get(int(row))) for row in rows
        ]
    if all(tile.image is None for tile in tiles):
        raise DatasetError(
            f"preview: {none_of(len(tiles), 'image', 'can')} be read under {folder}; pass their folder with --root"
        )
    picture = Image.fromarray(draw.sheet(tiles, columns=columns, side=side, renderer=renderer))
    encoded = io.BytesIO()
    picture.save(encoded, "PNG" if Path(out).suffix.lower() == ".png" else "JPEG")
    try:
        with replacing(out) as temporary:
            temporary.write_bytes(encoded.getvalue())
    except OSError as exc:
        raise Ig3dError(f"{out}: the sheet cannot be written: {exc.strerror or exc}") from exc
    faces = sum(tile.good for tile in tiles)
    return faces, len(tiles) - faces


def check_size(size: int | None) -> None:
    """Refuse a size of pictures that is out of range.

    Raises
    ------
    UsageError
    """
    if size is not None and not SIZES[0] <= size <= SIZES[1]:
        raise UsageError(f"size is {size}; it must be from {SIZES[0]} to {SIZES[1]} pixels")


def _columns(pictures: int) -> int:
    """Number of pictures side by side on a sheet."""
    if pictures <= 3:
        return pictures
    return next((columns for columns, most in ((2, 4), (3, 6), (4, 16)) if pictures <= most), 6)


def images_folder(store: CodeStore, out: str | Path, root: str | Path | None) -> str:
    """Folder or address of a store's images.

    Raises
    ------
    UsageError : ``out`` is a file of the dataset.
    """
    folder = str(root or store.info.root)
    if (
        Path(out).exists()
        and not is_remote(folder)
        and Path(out).resolve().is_relative_to(Path(folder).resolve())
    ):
        raise UsageError(f"out: {out} is a file of the dataset and would be overwritten; choose another path")
    return folder


def _choose(store: CodeStore, count: int, seed: int) -> np.ndarray:
    """Rows for the sheet, those without codes first."""
    rng = np.random.default_rng(seed)
    ok = store.ok
    bad, good = np.flatnonzero(~ok), np.flatnonzero(ok)
    bad = rng.permutation(bad)[: max(count // 4, count - len(good))]
    good = rng.permutation(good)[: count - len(bad)]
    return np.concatenate([np.sort(bad), np.sort(good)])


def _points(store: CodeStore, rows: np.ndarray) -> dict[int, np.ndarray]:
    """Row -> (p, 2) landmarks in pixels; empty if the store has no facemesh pose and camera."""
    if not {"pose", "camera"} <= set(store.blocks) or store.info.regressor.get("name") != "facemesh":
        return {}
    rows = rows[store.ok[rows]]
    aligned = _aligned(store, rows)
    if aligned is None:
        return {}
    size_wh = np.stack([store.column(f"sample/{side}")[rows] for side in ("width", "height")], axis=1)
    pixels = project(aligned, store.codes("pose")[rows], store.codes("camera")[rows], size_wh)
    return dict(zip(rows.tolist(), pixels[..., :2], strict=True))


def _aligned(store: CodeStore, rows: np.ndarray) -> np.ndarray | None:
    """(n, 478, 3) aligned points: from the store, or decoded from its codes; None for another face model."""
    if "landmarks" in store.blocks:
        return store.codes("landmarks")[rows].reshape(len(rows), model.POINTS, 3)
    face = model.load()
    if any(store.blocks[name].basis != face.basis for name in ("shape", "expression")):
        return None
    return face.decode(store.codes("shape")[rows], store.codes("expression")[rows])


def tile_of(
    store: CodeStore, row: int, folder: str, points: np.ndarray | None = None, mesh: Mesh | None = None
) -> draw.Tile:
    """One row as a tile: its image, if it can be read, its box, and points or mesh in pixels of the image."""
    sample, at = store.samples.iloc[row], slice(row, row + 1)
    status = Status(int(store.column("sample/status", at)[0]))
    try:
        image = read_image(f"{folder}/{sample['path']}").pixels
    except (Unreadable, FileNotFoundError):
        image = None
    label = sample["label"] if isinstance(sample["label"], str) else ""
    if status == Status.ok:
        score = store.column("face/score", at)[0]
        caption = " · ".join(filter(None, [label, "" if np.isnan(score) else f"score {score:.2f}"]))
    else:
        caption = f"{status.name}: {store.column('sample/message', at)[0]}"
    return draw.Tile(
        image,
        sample["id"],
        caption,
        store.column("face/box", at)[0],
        points,
        mesh,
        status == Status.ok,
    )
