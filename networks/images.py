"""Images as a 2D network sees them: read once, the whole picture resized to the network's square input, uint8.

Both training and logits start here, so that both see the same pixels. Decoding and resizing run in threads
(Pillow leaves the interpreter lock while it works) and every result is taken in the order of the rows: the
number of threads changes no number. What cannot be read is named with its reason and left out.
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

# Beyond this the decoded pictures go to a temporary file that the system pages in, not to memory.
MEMORY_BYTES = 1 << 30
# Per RGB channel, of values in [0, 1]: what most networks of the field were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
COLOURS = ("rgb", "bgr", "grey")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How a picture becomes a network's input.

    Attributes
    ----------
    size : int
        Side of the square input, pixels.
    mean, std : (3,) floats
        In the order of the network's channels: it is fed (value / 255 - mean) / std.
    colour : str
        Order of the channels: ``rgb``, ``bgr``, or ``grey`` (luma, three times).
    interpolation : str
        Of the resizing: ``bilinear``, ``bicubic`` or ``nearest``.
    """

    size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    colour: str = "rgb"
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 2048:
            raise UsageError(f"size: expected 8 to 2048 pixels, got {self.size}")
        if len(self.mean) != 3 or len(self.std) != 3 or not np.isfinite([*self.mean, *self.std]).all():
            raise UsageError(f"mean, std: expected three numbers each, got {self.mean} and {self.std}")
        if min(self.std) <= 0:
            raise UsageError(f"std: expected numbers above 0, got {self.std}")
        if self.colour not in COLOURS:
            raise UsageError(f"colour: expected one of {', '.join(COLOURS)}, got {self.colour!r}")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(
                f"interpolation: expected one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}"
            )


@dataclass(frozen=True, slots=True)
class Picture:
    """One image, resized; or the reason why there is none.

    Attributes
    ----------
    row : int
        Index into the sample list.
    pixels : (size, size, 3) uint8 RGB, or None
        (s, size, size, 3) where s boxes were asked for.
    digest : (16,) uint8
        Of the file's bytes; zeros where it was not read.
    problem : str
        Empty for a good picture.
    """

    row: int
    pixels: np.ndarray | None
    digest: np.ndarray
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Pictures:
    """All readable pictures of some rows, decoded.

    Attributes
    ----------
    rows : (m,) int64
        Index of each picture into the sample list.
    pixels : (m, 3, size, size) uint8 tensor, RGB
    digests : (m, 16) uint8
    problems : tuple of str
        ``id: reason`` of each row that is left out.
    """

    rows: np.ndarray
    pixels: torch.Tensor
    digests: np.ndarray
    problems: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)


def default_jobs(jobs: int | None) -> int:
    """Reading threads: as asked, else one for each core of this process."""
    return max(1, jobs if jobs is not None else cpu_count())


def read_picture(listing: Listing, row: int, view: InputSpec, box: np.ndarray | None = None) -> Picture:
    """Read one image and resize it, or the part of it in ``box``, to the input's square (antialiased).

    Parameters
    ----------
    listing : Listing
    row : index into it
    view : InputSpec
    box : (4,) float, pixels, or None; (s, 4) for s parts of the image, which is decoded once
        Rounded to whole pixels; black where it leaves the image. NaN or None is the whole image.
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
    """Pictures of ``rows``, in their order, a few read ahead; memory stays flat however many rows there are.

    Parameters
    ----------
    listing : Listing
    rows : indices into it
    view : InputSpec
    boxes : (n, 4) or (n, s, 4) float, pixels, optional
        Part, or s parts, of each image; NaN is the whole of it.
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
    """Decode every picture of ``rows`` once, for the epochs to come.

    Parameters
    ----------
    advance : callable, optional
        Told how many rows were done since the last call.

    Notes
    -----
    At 64 pixels a picture takes 12 kB. More than `MEMORY_BYTES` of them are laid in an unnamed temporary file.
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
    """(b, 3, h, w) in [0, 255] to float32 as the network expects it: (value / 255 - mean) / std per channel."""
    offset = torch.tensor(mean, dtype=torch.float32, device=pixels.device).view(1, -1, 1, 1)
    scale = torch.tensor(std, dtype=torch.float32, device=pixels.device).view(1, -1, 1, 1)
    return (pixels.to(torch.float32) / 255.0 - offset) / scale
