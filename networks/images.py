"""Read images as input of a 2D network: decoded and resized to the square input of the network, uint8.

Training and inference use the same functions and therefore the same pixels. Decoding and resizing run in threads
(Pillow releases the interpreter lock). Results are in the order of the rows, for any number of threads. Unreadable
images are left out and reported with the reason.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from joblib import cpu_count
from PIL import Image as Pillow

from ..errors import UsageError
from ..extract.read import Unreadable, bounded_images, read_image
from ..features.samples import Listing

# Larger amounts of decoded images are stored in a memory-mapped temporary file.
MEMORY_BYTES = 1 << 30
# Normalisation of each RGB channel for values in [0, 1], used by most published networks.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
COLOURS = ("rgb", "bgr", "grey")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Conversion of an image to the input of a network.

    Attributes
    ----------
    size : int
        Side of the square input, pixels.
    mean, std : (3,) floats
        In the order of the network's channels; the input is (value / 255 - mean) / std.
    colour : str
        Order of the channels: ``rgb``, ``bgr``, or ``grey`` (luma in three channels).
    interpolation : str
        For resizing: ``bilinear``, ``bicubic`` or ``nearest``.
    """

    size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    colour: str = "rgb"
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 2048:
            raise UsageError(f"size is {self.size}; it must be from 8 to 2048 pixels")
        if len(self.mean) != 3 or len(self.std) != 3 or not np.isfinite([*self.mean, *self.std]).all():
            raise UsageError(f"mean, std: {self.mean} and {self.std} must be three numbers each")
        if min(self.std) <= 0:
            raise UsageError(f"std: {self.std} must be numbers above 0")
        if self.colour not in COLOURS:
            raise UsageError(f"colour: {self.colour!r} is unknown; choose one of {', '.join(COLOURS)}")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(
                f"interpolation: {self.interpolation!r} is unknown; choose one of {', '.join(INTERPOLATIONS)}"
            )


@dataclass(frozen=True, slots=True)
class Picture:
    """A resized image, or the reason why it cannot be read.

    Attributes
    ----------
    row : int
        Index into the sample list.
    pixels : (size, size, 3) uint8 RGB, or None
        (s, size, size, 3) for s boxes.
    digest : (16,) uint8
        Digest of the file; zeros if it was not read.
    problem : str
        Reason why the image cannot be read, else empty.
    """

    row: int
    pixels: np.ndarray | None
    digest: np.ndarray
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Decoded images of several rows, without the unreadable ones.

    Attributes
    ----------
    rows : (m,) int64
        Index of each image into the sample list.
    pixels : (m, 3, size, size) uint8 tensor, RGB
    digests : (m, 16) uint8
    problems : tuple of str
        ``id: reason`` for each row that is left out.
    """

    rows: np.ndarray
    pixels: torch.Tensor
    digests: np.ndarray
    problems: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)


def default_jobs(jobs: int | None) -> int:
    """Number of reading threads: ``jobs``, or one for each core of this process."""
    return max(1, jobs if jobs is not None else cpu_count())


def read_picture(listing: Listing, row: int, view: InputSpec, box: np.ndarray | None = None) -> Picture:
    """Read an image and resize it, or its part in ``box``, to the square input, with antialiasing.

    Parameters
    ----------
    listing : Listing
    row : index into the listing
    view : InputSpec
    box : (4,) float, pixels, or None; (s, 4) for s parts of the image, which is decoded once
        Rounded to whole pixels; black outside of the image. NaN or None is the full image.
    """
    sample, path, size = (listing.samples[name].iat[row] for name in ("id", "path", "size_bytes"))
    try:
        image = read_image(f"{listing.root}/{path}", size=size)
    except FileNotFoundError:
        return Picture(row, None, np.zeros(16, np.uint8), f"{sample}: missing")
    except Unreadable as exc:
        return Picture(row, None, np.zeros(16, np.uint8), f"{sample}: {exc}")
    picture = Pillow.fromarray(image.pixels)
    if box is None or box.ndim == 1:
        pixels = _resized(picture, view, box)
    else:
        pixels = np.stack([_resized(picture, view, part) for part in box])
    return Picture(row, pixels, np.asarray(image.digest, np.uint8))


def _resized(picture: Pillow.Image, view: InputSpec, box: np.ndarray | None) -> np.ndarray:
    """(size, size, 3) uint8 pixels of an image, or of a part of it."""
    if box is not None and np.isfinite(box).all():
        x0, y0, x1, y1 = np.round(box).astype(int).tolist()
        picture = picture.crop((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)))
    if view.colour == "grey":
        picture = picture.convert("L").convert("RGB")
    resized = picture.resize((view.size, view.size), Pillow.Resampling[view.interpolation.upper()])
    pixels = np.asarray(resized, np.uint8)
    return pixels[..., ::-1] if view.colour == "bgr" else pixels


def read_pictures(
    listing: Listing,
    rows: Sequence[int] | np.ndarray,
    *,
    view: InputSpec,
    boxes: np.ndarray | None = None,
    jobs: int | None = None,
) -> Iterator[Picture]:
    """Read the images of ``rows`` in order, a few in advance; memory does not grow with the number of rows.

    Parameters
    ----------
    listing : Listing
    rows : indices into the listing
    view : InputSpec
    boxes : (n, 4) or (n, s, 4) float, pixels, optional
        Crop, or s crops, of each image; NaN is the full image.
    jobs : int, optional
        Reading threads; None is one for each core.
    """
    threads = default_jobs(jobs)
    waiting: deque[Future[Picture]] = deque()
    todo = iter(rows)
    with bounded_images(), ThreadPoolExecutor(threads, thread_name_prefix="ig3d-read") as pool:
        try:
            while True:
                for row in islice(todo, 8 * threads - len(waiting)):
                    box = None if boxes is None else boxes[row]
                    waiting.append(pool.submit(read_picture, listing, int(row), view, box))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def batched(pictures: Iterator[Picture], size: int) -> Iterator[list[Picture]]:
    """Lists of up to ``size`` pictures."""
    while batch := list(islice(pictures, size)):
        yield batch


def load_pictures(
    listing: Listing,
    rows: Sequence[int] | np.ndarray,
    *,
    view: InputSpec,
    boxes: np.ndarray | None = None,
    jobs: int | None = None,
    advance: Callable[[int], object] | None = None,
) -> Pictures:
    """Decode the images of ``rows`` once, to use them in all epochs.

    Parameters
    ----------
    advance : callable, optional
        Called with the number of rows since its last call.

    Notes
    -----
    An image of 64 pixels takes 12 kB. More than `MEMORY_BYTES` are stored in a temporary file.
    """
    shape = (len(rows), 3, view.size, view.size)
    if int(np.prod(shape, dtype=np.int64)) <= MEMORY_BYTES:
        pixels = np.empty(shape, np.uint8)
    else:
        with tempfile.TemporaryFile(prefix="ig3d-pictures-") as handle:
            pixels = np.memmap(handle, np.uint8, "w+", shape=shape)
    kept: list[int] = []
    digests: list[np.ndarray] = []
    problems: list[str] = []
    for picture in read_pictures(listing, rows, view=view, boxes=boxes, jobs=jobs):
        if picture.pixels is None:
            problems.append(picture.problem)
        else:
            pixels[len(kept)] = picture.pixels.transpose(2, 0, 1)
            kept.append(picture.row)
            digests.append(picture.digest)
        if advance is not None:
            advance(1)
    return Pictures(
        rows=np.array(kept, np.int64),
        pixels=torch.from_numpy(pixels[: len(kept)]),
        digests=np.array(digests, np.uint8).reshape(-1, 16),
        problems=tuple(problems),
    )


def normalise(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Normalise (b, 3, h, w) values in [0, 255] to float32: (value / 255 - mean) / std for each channel."""
    offset = torch.tensor(mean, dtype=torch.float32, device=pixels.device).view(1, -1, 1, 1)
    scale = torch.tensor(std, dtype=torch.float32, device=pixels.device).view(1, -1, 1, 1)
    return (pixels.to(torch.float32) / 255.0 - offset) / scale
