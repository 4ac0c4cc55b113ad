"""Animation of consecutive rows of a store: the face with its mesh, next to its codes as curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import DatasetError, Ig3dError, UsageError, none_of, plural, require
from ..faces.curves import Axis, Panel, Section, draw_chart
from ..faces.draw import Tile, picture_of
from ..faces.render import Mesh, check_renderer, shaded
from ..features.atomic import replacing
from ..features.pose import ANGLES, store_degrees
from ..features.store import CodeStore
from .meshes import image_meshes
from .preview import check_size, images_folder, tile_of
from .read import bounded_images
from .sources import is_frame, parts_of

SUFFIXES = (".gif", ".webp", ".mp4")
MAX_FRAMES = 2000
_SIZE = 300  # side of the pictures, pixels
_IMAGES_PER_SECOND, _FRAMES_PER_SECOND = 2.0, 25.0  # without times
_INK = "#1b1f24"
_CURVES_SHOWN = 5
_PANELS = ("expression", "blendshapes", "jaw", "eyelid")  # the first two of these that a store has
_MESHES = 64  # meshes that are in memory at the same time


def animate(
    store: CodeStore,
    out: str | Path,
    *,
    rows: np.ndarray | None = None,
    fps: float | None = None,
    size: int | None = None,
    root: str | Path | None = None,
    renderer: str = "built-in",
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write an animation with one frame per row: image with mesh, mesh alone, and curves with a cursor.

    The curves are yaw, pitch and roll, and the five columns of the expression codes, blendshapes or other codes that
    vary most over the rows. Values of a video are curves over time; if the rows are of several videos, the curves are
    interrupted between two videos by a vertical line, and have the names of the videos. Values of images are dots.

    Parameters
    ----------
    store : CodeStore
    out : path that ends in .gif, .webp or .mp4
        MP4 needs PyAV.
    rows : (m,) int, optional
        Rows in the order in which they are shown; all rows by default.
    fps : float, optional
        Frames per second, 1 to 100; by default the speed of the video, or 2 for images.
    size : int, optional
        Side of the two pictures, pixels, in :data:`.preview.SIZES`; the chart is 2.5 times as wide. Default: 300.
    root : path, optional
        Folder of the images, if they have moved since the extraction.
    renderer : name in :data:`ig3d.faces.render.RENDERERS`
    progress : function that is called with the number of frames since its last call

    Returns
    -------
    int : number of frames

    Raises
    ------
    UsageError : another suffix, ``fps`` or ``size`` out of range, too many rows, no row with codes, several faces of
        a frame of a video, or ``out`` is a file of the dataset.
    DatasetError : none of the images can be read, and the codes have no mesh.
    MissingExtra : MP4 without PyAV.
    """
    path = Path(out)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"out: {out} is no animation; use a name that ends in {', '.join(SUFFIXES)}")
    if suffix == ".mp4":
        require("av", wanted_by="preview --animate to MP4")
    if fps is not None and not 1 <= fps <= 100:
        raise UsageError(f"fps is {fps:g}; it must be from 1 to 100")
    check_size(size)
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
    paths = store.samples["path"].iloc[chosen]
    if several := paths[paths.duplicated() & paths.map(is_frame)].nunique():
        raise UsageError(
            f"{store.path}: several faces in {plural(several, 'frame')}; faces are not tracked, so that curves would "
            "mix people; choose one face of each frame with --rows, or extract a store with --faces largest"
        )
    axis = _axis(store, chosen)
    frames = _frames(store, chosen, axis, folder, size or _SIZE, renderer)
    try:
        with bounded_images(), replacing(path) as temporary:
            named = temporary.with_name(temporary.name + suffix)  # the writers take the format from the name
            try:
                _write(named, _counted(frames, progress), fps or _speed(axis))
                named.replace(temporary)
            finally:
                named.unlink(missing_ok=True)
    except OSError as exc:
        raise Ig3dError(f"{out}: the animation cannot be written: {exc.strerror or exc}") from exc
    return len(chosen)


def _write(path: Path, frames: Iterator[Image.Image], fps: float) -> None:
    first = next(frames)
    if path.suffix == ".mp4":
        _write_mp4(path, first, frames, fps)
        return
    options: dict[str, Any] = (
        {"lossless": False, "quality": 80, "method": 2} if path.suffix == ".webp" else {}
    )
    first.save(path, save_all=True, append_images=frames, duration=round(1000 / fps), loop=0, **options)


def _write_mp4(path: Path, first: Image.Image, frames: Iterator[Image.Image], fps: float) -> None:
    from fractions import Fraction

    av = require("av", wanted_by="preview --animate to MP4")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=Fraction(fps).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        stream.width, stream.height = first.size
        for frame in chain([first], frames):
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


def _counted(frames: Iterator[Image.Image], progress: Callable[[int], None] | None) -> Iterator[Image.Image]:
    for frame in frames:
        if progress is not None:
            progress(1)
        yield frame


def _frames(
    store: CodeStore, rows: np.ndarray, axis: Axis, folder: str, size: int, renderer: str
) -> Iterator[Image.Image]:
    font_size = max(size // 19, 9)
    font = ImageFont.load_default(size=font_size)
    wide, text = size // 2 * 5, 2 * font_size
    # even, as H.264 requires
    size_wh = ((size + wide + 1) // 2 * 2, 2 * size + text)
    chart = draw_chart(_panels(store, rows), axis, (wide, 2 * size), font_size=font_size)
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
                    f"preview: {none_of(len(rows), 'image', 'can')} be read under {folder}; "
                    "pass their folder with --root"
                )
            frame = Image.new("RGB", size_wh, "white")
            shown = Tile(tile.image, mesh=mesh)
            frame.paste(picture_of(shown, size, window=windows[number], renderer=renderer), (0, 0))
            frame.paste(_mesh_alone(mesh, windows[number], size, renderer), (0, size))
            frame.paste(chart.at(number), (size, 0))
            caption = f"{tile.title}   {tile.caption}"
            ImageDraw.Draw(frame).text(
                (font_size // 2, 2 * size + text / 2), caption, _INK, font, anchor="lm"
            )
            yield frame


def _mesh_alone(mesh: Mesh | None, window: np.ndarray, size: int, renderer: str) -> Image.Image:
    empty = np.full((2 * size, 2 * size, 3), 246, np.uint8)
    if mesh is None or not np.isfinite(window).all():
        return Image.fromarray(empty[:size, :size])
    scale = 2 * size / (window[2] - window[0])
    mesh = replace(mesh, points=(mesh.points - (*window[:2], 0)) * scale)
    drawn = shaded(empty, mesh, renderer=renderer, opaque=True)
    return Image.fromarray(drawn).resize((size, size), Image.Resampling.BOX)


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


def _axis(store: CodeStore, rows: np.ndarray) -> Axis:
    """Seconds if all rows are frames of videos with times, else numbers from 1; a section per video."""
    samples = store.samples.iloc[rows]
    files = [parts_of(path)[0] if is_frame(path) else "" for path in samples["path"]]
    starts = [number for number, file in enumerate(files) if number == 0 or file != files[number - 1]]
    sections = [
        Section(start, Path(files[start]).stem if len(starts) > 1 else "", joined=bool(files[start]))
        for start in starts
    ]
    times = samples["time"].to_numpy(float) if "time" in samples else np.full(len(rows), np.nan)
    steps = np.diff(times)
    inside = np.delete(steps, np.array(starts[1:], int) - 1)
    if not all(files) or not np.isfinite(times).all() or (inside < 0).any():
        numbers = np.arange(1.0, len(rows) + 1)
        return Axis("frame" if all(files) else "image", numbers, numbers, sections)
    steps[np.array(starts[1:], int) - 1] = np.median(inside) if len(inside) else 1.0  # between two videos
    x = times[0] + np.concatenate([[0.0], np.cumsum(steps)])
    return Axis("time (s)", x, times, sections)


def _speed(axis: Axis) -> float:
    """Frames per second that show videos at their speed."""
    steps = np.diff(axis.x)
    if axis.label == "image":
        return _IMAGES_PER_SECOND
    if axis.label == "frame" or not (steps > 0).any():
        return _FRAMES_PER_SECOND
    return float(np.clip(1 / np.median(steps[steps > 0]), 1, 100))


def _panels(store: CodeStore, rows: np.ndarray) -> list[Panel]:
    panels = []
    degrees = store_degrees(store)
    if degrees is not None:
        panels.append(Panel("head pose (degrees)", ANGLES, degrees[rows]))
    names = [name for name in _PANELS if name in store.blocks] or list(store.blocks)
    for name in names[:2]:
        block = store.blocks[name]
        values = store.codes(name)[rows].astype(float)
        spread = np.nanstd(values[store.ok[rows]], axis=0)
        columns = np.argsort(-spread, kind="stable")[:_CURVES_SHOWN]
        labels = block.columns or [str(column) for column in range(block.width)]
        short = max(map(len, labels)) <= 3  # numbers and axes, which mean nothing without the block
        shown = [f"{name} {labels[column]}" if short else labels[column] for column in columns]
        unit = "standard deviations" if block.basis.startswith("ig3d-face-") else block.unit
        title = name if unit == "1" else f"{name} ({unit})"
        panels.append(Panel(title, shown, values[:, columns]))
    return panels
