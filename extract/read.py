"""Read one image of any format as RGB bytes: the first stage of :mod:`ig3d.extract.stages`.

The formats are those of :mod:`ig3d.extract.image_formats`, recognised by content. Grey, 16-bit, CMYK, palette,
transparent and EXIF-rotated files are decoded as a viewer would show them. A file that cannot be decoded raises
:class:`Unreadable`; :class:`Unavailable` is raised if the cause is not the file, such as the network or the memory.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from ..errors import Ig3dError
from .image_formats import FORMATS, content_kind
from .sources import Unavailable as Unavailable
from .sources import Unreadable as Unreadable
from .sources import has_size, read_content


@dataclass(frozen=True, slots=True)
class Image:
    """A decoded image.

    Attributes
    ----------
    pixels : (H, W, 3) uint8, RGB
    digest : (16,) uint8
        BLAKE2b-128 of the file's bytes; of the pixels for a frame of a video or an image stored as an array.
    """

    pixels: np.ndarray
    digest: np.ndarray


@contextmanager
def bounded_images() -> Iterator[None]:
    """Refuse images with more pixels than Pillow considers safe, and silence Pillow's other warnings.

    Warning filters belong to the whole process: enter this once, outside of threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        warnings.simplefilter("error", Pillow.DecompressionBombWarning)
        yield


def digest_of(content: bytes) -> np.ndarray:
    """(16,) uint8: BLAKE2b-128 of a file's bytes."""
    return np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), np.uint8)


def read_image(location: str | Path, *, size: int = -1) -> Image:
    """Read and decode one image: a file, a member of an archive or a frame of a video, local or remote.

    Parameters
    ----------
    location : root, ``/`` and path of a sample; see :mod:`ig3d.extract.sources`
    size : int
        Size of the file in bytes when the sample was listed; below 1 if unknown.

    Returns
    -------
    Image

    Raises
    ------
    FileNotFoundError : the file, or the member of an archive, does not exist.
    Unreadable : the image cannot be decoded; the message has the reason.
    Unavailable : the network, the storage or the memory failed, or the file's size has changed since it was listed.
    """
    content = read_content(location)
    if isinstance(content, np.ndarray):
        if size > 0 and not has_size(str(location), b"", size):
            raise Unavailable("its file changed since it was listed")
        pixels = np.repeat(content[..., None], 3, axis=2) if content.ndim == 2 else content
        return Image(np.ascontiguousarray(pixels), digest_of(content.tobytes()))
    if size > 0 and not has_size(str(location), content, size):
        raise Unavailable(f"changed since it was listed: {size} bytes then, {len(content)} now")
    if not content:
        raise Unreadable("the file is empty")
    return Image(decode(content), digest_of(content))


def decode(content: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an encoded image.

    Raises
    ------
    Unreadable : it cannot be decoded.
    Unavailable : the memory does not suffice.
    """
    try:
        with Pillow.open(io.BytesIO(content), formats=FORMATS) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return np.ascontiguousarray(rgb_of(image))
    except (Ig3dError, Unreadable):
        raise
    except UnidentifiedImageError as exc:
        raise Unreadable(_unsupported(content)) from exc
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as exc:
        raise Unreadable(f"absurdly large: more than {Pillow.MAX_IMAGE_PIXELS:,} pixels") from exc
    except MemoryError as exc:
        raise Unavailable("could not be decoded: out of memory") from exc
    except Exception as exc:  # the border to Pillow: its decoders raise errors of many kinds on damaged files
        raise Unreadable(f"damaged: {exc}" if str(exc) else "damaged") from exc


def _unsupported(content: bytes) -> str:
    """Message for content that no decoder supports."""
    kind = content_kind(content)
    if kind == "Git LFS pointer":
        return "a Git LFS pointer, not the image itself: run git lfs pull"
    return f"{f'{kind}, ' if kind else ''}not an image in a supported format"


def rgb_of(image: Pillow.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image of any mode; transparency over white."""
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey(np.asarray(image))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        # the colour of transparent pixels is not part of the image
        image = Pillow.alpha_composite(Pillow.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _deep_grey(values: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of 16-bit, 32-bit or float grey values, whose range is guessed from the largest value."""
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise Unreadable("holds values that are not finite")
    top = values.max(initial=0)
    ceiling = next((limit for limit in (1.0, 255.0, 65535.0) if top <= limit), top)
    grey = np.round(np.clip(values, 0, None) * (255 / ceiling)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
