"""Animation of consecutive rows of a store: the face with its mesh, next to its codes as curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import DatasetError, Ig3dError, UsageError, require
from ..faces.curves import Panel, draw_panels, with_cursor
from ..faces.draw import Tile, picture_of
from ..faces.render import Mesh, check_renderer, shaded
from ..features.atomic import replacing
from ..features.pose import ANGLES, store_degrees
from ..features.store import CodeStore
from .meshes import image_meshes
from .preview import images_folder, tile_of
from .read import bounded_images
from .sources import is_frame, parts_of

SUFFIXES = (".gif", ".webp", ".mp4")
MAX_FRAMES = 2000
_SIDE, _CURVES, _TEXT = 256, 400, 24  # sides of the pictures and height of the caption, pixels
_SIZE_WH = (2 * _SIDE + _CURVES, _SIDE + _TEXT)
_CURVES_SHOWN = 5
_PANELS = ("expression", "blendshapes", "jaw", "eyelid")  # the first two of these that a store has
_MESHES = 64  # meshes that are in memory at the same time


def animate(
    store: CodeStore,
    out: str | Path,
    *,
    rows: np.ndarray | None = None,
    fps: float = 25.0,
    root: str | Path | None = None,
    renderer: str = "built-in",
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write an animation with one frame per row: image with mesh, mesh alone, and curves with a cursor.

    The curves are yaw, pitch and roll, and the five columns of the expression codes, blendshapes or other codes that
    vary most over the rows. If the rows are of several videos, the curves are interrupted between two videos by a
    vertical line with the name of the next one.

    Parameters
    ----------
    store : CodeStore
    out : path that ends in .gif, .webp or .mp4
        MP4 needs PyAV.
    rows : (m,) int, optional
        Rows in the order in which they are shown; all rows by default.
    fps : float
        Frames per second; 1 to 100.
    root : path, optional
        Folder of the images, if they have moved since the extraction.
    renderer : name in :data:`ig3d.faces.render.RENDERERS`
    progress : function that is called with the number of frames since its last call

    Returns
    -------
    int : number of frames

    Raises
    ------
    UsageError : another suffix, too many rows, no row with codes, or ``out`` is a file of the dataset.
    DatasetError : none of the images can be read, and the codes have no mesh.
    MissingExtra : MP4 without PyAV.
    """
    path = Path(out)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"out: {out} is no animation; use a name that ends in {', '.join(SUFFIXES)}")
    if suffix == ".mp4":
        require("av", wanted_by="preview --animate to MP4")
    if not 1 <= fps <= 100:
        raise UsageError(f"fps is {fps:g}; it must be from 1 to 100")
    check_renderer(renderer)
    folder = images_folder(store, out, root)
    chosen = np.arange(len(store)) if rows is None else rows
    if len(chosen) > MAX_FRAMES:
        raise UsageError(
            f"{len(chosen)} rows are too many for an animation of at most {MAX_FRAMES}; pass --rows"
        )
    if not store.ok[chosen].any():
        raise UsageError(
            f"{store.path}: none of the chosen rows has codes; ig3d inspect counts them by status"
        )
    frames = _frames(store, chosen, folder, renderer)
    try:
        with bounded_images(), replacing(path) as temporary:
            named = temporary.with_name(temporary.name + suffix)  # the writers take the format from the name
            try:
                _write(named, _counted(frames, progress), fps)
                named.replace(temporary)
            finally:
                named.unlink(missing_ok=True)
    except OSError as exc:
        raise Ig3dError(f"{out}: the animation cannot be written: {exc.strerror or exc}") from exc
    return len(chosen)


def _write(path: Path, frames: Iterator[Image.Image], fps: float) -> None:
    if path.suffix == ".mp4":
        _write_mp4(path, frames, fps)
        return
    first = next(frames)
    options: dict[str, Any] = (
        {"lossless": False, "quality": 80, "method": 2} if path.suffix == ".webp" else {}
    )
    first.save(path, save_all=True, append_images=frames, duration=round(1000 / fps), loop=0, **options)


def _write_mp4(path: Path, frames: Iterator[Image.Image], fps: float) -> None:
    from fractions import Fraction

    av = require("av", wanted_by="preview --animate to MP4")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=Fraction(fps).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        stream.width, stream.height = _SIZE_WH  # even, as H.264 requires
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


def _counted(frames: Iterator[Image.Image], progress: Callable[[int], None] | None) -> Iterator[Image.Image]:
    for frame in frames:
        if progress is not None:
            progress(1)
        yield frame


def _frames(store: CodeStore, rows: np.ndarray, folder: str, renderer: str) -> Iterator[Image.Image]:
    panels = _panels(store, rows)
    curves = draw_panels(panels, (_CURVES, _SIDE + _TEXT), _videos(store, rows))
    windows = _windows(store, rows)
    seen = False
    for start in range(0, len(rows), _MESHES):
        part = rows[start : start + _MESHES]
        meshes = image_meshes(store, part)
        for number, row in enumerate(part.tolist(), start):
            tile, mesh = tile_of(store, row, folder), meshes.get(row)
            seen = seen or tile.image is not None or mesh is not None
            if number == len(rows) - 1 and not seen:
                raise DatasetError(
                    f"preview: none of {len(rows)} images under {folder} can be read; pass their folder with --root"
                )
            frame = Image.new("RGB", _SIZE_WH, "white")
            frame.paste(_face(tile, mesh, windows[number], renderer), (0, 0))
            frame.paste(_mesh_alone(mesh, windows[number], renderer), (_SIDE, 0))
            frame.paste(with_cursor(curves, number, len(rows), len(panels)), (2 * _SIDE, 0))
            caption = tile.caption.replace("\n", "  ")
            ImageDraw.Draw(frame).text((6, _SIDE + 5), caption, "#1b1f24", ImageFont.load_default(size=12))
            yield frame


def _face(tile: Tile, mesh: Mesh | None, window: np.ndarray, renderer: str) -> Image.Image:
    if tile.image is None:
        return Image.new("RGB", (_SIDE, _SIDE), "#eeeeee")
    plain = Tile(tile.image, "", mesh=mesh)
    return picture_of(plain, _SIDE, window=window, renderer=renderer)


def _mesh_alone(mesh: Mesh | None, window: np.ndarray, renderer: str) -> Image.Image:
    empty = np.full((2 * _SIDE, 2 * _SIDE, 3), 246, np.uint8)
    if mesh is None or not np.isfinite(window).all():
        return Image.fromarray(empty[:_SIDE, :_SIDE])
    scale = 2 * _SIDE / (window[2] - window[0])
    mesh = replace(mesh, points=(mesh.points - (*window[:2], 0)) * scale)
    drawn = shaded(empty, mesh, renderer=renderer, opaque=True)
    return Image.fromarray(drawn).resize((_SIDE, _SIDE), Image.Resampling.BOX)


def _windows(store: CodeStore, rows: np.ndarray) -> np.ndarray:
    """(m, 4) square part of each image that is shown: one for all rows of a video, otherwise around each face."""
    boxes = store.column("face/box")[rows].astype(float)
    finite = np.isfinite(boxes).all(axis=1)
    size_wh = np.stack([store.column(f"sample/{side}")[rows] for side in ("width", "height")], axis=1)
    groups = store.samples["group"].to_numpy(str)[rows]
    one_video = (
        len(set(groups[finite])) == 1 and groups[finite][0] != "" and len({*map(tuple, size_wh[finite])}) == 1
    )
    if one_video or not finite.any():
        whole = [0.0, 0.0, *size_wh.max(axis=0).astype(float)]
        box = [*boxes[finite, :2].min(0), *boxes[finite, 2:].max(0)] if finite.any() else whole
        boxes = np.tile(box, (len(rows), 1))
    else:  # rows without a face show the window of the row before
        last = np.maximum.accumulate(np.where(finite, np.arange(len(rows)), 0))
        last = np.where(finite[last], last, np.flatnonzero(finite)[0])
        boxes = boxes[last]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = 0.75 * (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
    return np.concatenate([centre - half, centre + half], axis=1)


def _videos(store: CodeStore, rows: np.ndarray) -> list[tuple[int, str]]:
    """Position of the first row of each video, and its file name without suffix; empty if all rows are of one file."""
    files = [parts_of(path)[0] if is_frame(path) else "" for path in store.samples["path"].iloc[rows]]
    starts = [number for number, file in enumerate(files) if number == 0 or file != files[number - 1]]
    return [(start, Path(files[start]).stem) for start in starts] if len(starts) > 1 else []


def _panels(store: CodeStore, rows: np.ndarray) -> list[Panel]:
    panels = []
    degrees = store_degrees(store)
    if degrees is not None:
        panels.append(Panel("pose, degrees", ANGLES, degrees[rows]))
    names = [name for name in _PANELS if name in store.blocks] or list(store.blocks)
    for name in names[:2]:
        values = store.codes(name)[rows].astype(float)
        spread = np.nanstd(values[store.ok[rows]], axis=0)
        columns = np.argsort(-spread, kind="stable")[:_CURVES_SHOWN]
        labels = store.blocks[name].columns or [str(column) for column in range(values.shape[1])]
        panels.append(Panel(name, [labels[column] for column in columns], values[:, columns]))
    return panels
