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

from ..extract.read import Unreadable, bounded_images, read_image
from ..features.values import SampleList

# Beyond this the decoded pictures go to a temporary file that the system pages in, not to memory.
MEMORY_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Picture:
    """One image, resized; or the reason why there is none.

    Attributes
    ----------
    row : int
        Index into the sample list.
    pixels : (size, size, 3) uint8 RGB, or None
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


def read_picture(samples: SampleList, row: int, *, size: int) -> Picture:
    """Read one image and resize the whole of it to ``size`` by ``size`` pixels (bilinear, antialiased)."""
    sample = samples.samples[row]
    try:
        image = read_image(f"{samples.root}/{sample.path}")
    except FileNotFoundError:
        return Picture(row, None, np.zeros(16, np.uint8), f"{sample.id}: missing")
    except Unreadable as exc:
        return Picture(row, None, np.zeros(16, np.uint8), f"{sample.id}: {exc}")
    resized = Pillow.fromarray(image.pixels).resize((size, size), Pillow.Resampling.BILINEAR)
    return Picture(row, np.asarray(resized, np.uint8), np.asarray(image.digest, np.uint8))


def read_pictures(
    samples: SampleList, rows: Sequence[int] | np.ndarray, *, size: int, jobs: int | None = None
) -> Iterator[Picture]:
    """Pictures of ``rows``, in their order, a few read ahead; memory stays flat however many rows there are.

    Parameters
    ----------
    samples : SampleList
    rows : indices into it
    size : int
        Side of the network's input, pixels.
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
                    waiting.append(pool.submit(read_picture, samples, int(row), size=size))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def load_pictures(
    samples: SampleList,
    rows: Sequence[int] | np.ndarray,
    *,
    size: int,
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
    shape = (len(rows), 3, size, size)
    if int(np.prod(shape, dtype=np.int64)) <= MEMORY_BYTES:
        pixels = np.empty(shape, np.uint8)
    else:
        with tempfile.TemporaryFile(prefix="ig3d-pictures-") as handle:
            pixels = np.memmap(handle, np.uint8, "w+", shape=shape)
    kept: list[int] = []
    digests: list[np.ndarray] = []
    problems: list[str] = []
    for picture in read_pictures(samples, rows, size=size, jobs=jobs):
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
