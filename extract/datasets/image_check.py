"""Check of the images of a dataset for ``ig3d datasets check``: each is read once, and contents are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, cpu_count, delayed

from ...features.samples import Listing
from ..read import Unreadable, bounded_images, read_image

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Check:
    """Result of :func:`check_images`.

    Attributes
    ----------
    images : int
        Number of files; an image with several faces counts once.
    missing : tuple of str
        Paths of files that do not exist.
    unreadable : tuple of str
        ``path: reason`` of files that cannot be decoded.
    sizes : dict of (width, height) in pixels to number of images, the most frequent first
    across : tuple of tuples of str
        Paths of equal images that are in more than one split, so that test images are also trained on.
    disputed : tuple of tuples of str
        Paths of equal images with different labels.
    repeated : int
        Images that are equal to another one of the same split.
    """

    images: int
    missing: tuple[str, ...]
    unreadable: tuple[str, ...]
    sizes: dict[tuple[int, int], int]
    across: tuple[tuple[str, ...], ...]
    disputed: tuple[tuple[str, ...], ...]
    repeated: int


@dataclass(frozen=True, slots=True)
class _File:
    """Result of reading one image file; ``problem`` is empty, ``missing``, or the reason why it is unreadable."""

    path: str
    digest: bytes = b""
    size_wh: tuple[int, int] = (0, 0)
    problem: str = ""


def check_images(
    listing: Listing, *, jobs: int = 0, progress: Callable[[Counter[str]], None] | None = None
) -> Check:
    """Read every image of a dataset once and compare their contents.

    Parameters
    ----------
    listing : Listing
    jobs : int
        Number of threads; 0 is two per core, because they partly wait for the disk.
    progress : function of a Counter of ``ok``, ``missing`` and ``unreadable``, optional
        Called after each batch of images.
    """
    samples = listing.samples
    paths = samples["path"].unique().tolist()
    seen = []
    with bounded_images():
        for batch in _read(listing.root, paths, jobs or 2 * cpu_count()):
            seen += batch
            if progress is not None:
                progress(Counter(_outcome(file) for file in batch))
    copies: dict[bytes, list[str]] = {}
    for file in sorted(seen, key=lambda file: file.path):
        if not file.problem:
            copies.setdefault(file.digest, []).append(file.path)
    splits: dict[str, set[int]] = {}
    labels: dict[str, set[int]] = {}
    for path, split, label in zip(
        samples["path"], listing.splits.tolist(), listing.labels.tolist(), strict=True
    ):
        splits.setdefault(path, set()).add(split)
        labels.setdefault(path, set()).add(label)
    several = [tuple(same) for same in copies.values() if len(same) > 1]
    across = tuple(same for same in several if len(set().union(*(splits[path] for path in same))) > 1)
    return Check(
        images=len(paths),
        missing=tuple(sorted(file.path for file in seen if file.problem == "missing")),
        unreadable=tuple(
            sorted(f"{file.path}: {file.problem}" for file in seen if file.problem not in ("", "missing"))
        ),
        sizes=dict(Counter(file.size_wh for file in seen if not file.problem).most_common()),
        across=across,
        disputed=tuple(same for same in several if len(set().union(*(labels[path] for path in same))) > 1),
        repeated=sum(len(same) - len(set().union(*(splits[path] for path in same))) for same in several),
    )


def _read(root: str, paths: Sequence[str], jobs: int) -> Iterator[list[_File]]:
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    # threads suffice: Python's global lock is released while Pillow decodes and while the disk is read
    yield from Parallel(n_jobs=jobs, backend="threading", return_as="generator_unordered", batch_size=1)(
        delayed(_look)(root, batch) for batch in batches
    )


def _look(root: str, paths: Sequence[str]) -> list[_File]:
    seen = []
    for path in paths:
        try:
            image = read_image(f"{root}/{path}")
        except FileNotFoundError:
            seen.append(_File(path, problem="missing"))
        except Unreadable as exc:
            seen.append(_File(path, problem=" ".join(str(exc).split())))
        else:
            height, width = image.pixels.shape[:2]
            seen.append(_File(path, np.asarray(image.digest).tobytes(), (width, height)))
    return seen


def _outcome(file: _File) -> str:
    return "ok" if not file.problem else "missing" if file.problem == "missing" else "unreadable"
