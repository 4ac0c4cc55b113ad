"""A row for each face of an image: ``ig3d extract --faces all``.

The faces are detected in a pass before the extraction, and become samples with boxes. The extraction detects the faces
of each image again and uses the face of the box; the landmarks of all faces of a large dataset would fill the memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from math import ceil

import numpy as np
from joblib import Parallel, cpu_count, delayed
from threadpoolctl import threadpool_limits

from ..errors import DatasetError, UsageError, listed, plural
from ..features.samples import BOX_COLUMNS, Listing, files_of
from .config import ExtractConfig, detector_of, resolve_config
from .detectors import Detector, find_detector, in_order, load_detector
from .plugins import check_faces
from .read import Unreadable, bounded_images, read_image
from .sources import is_frame

# Images of a task, and frames of videos, of which decoding begins at the key frame before the first one. The progress
# bar advances by tasks.
_IMAGES, _FRAMES = 16, 256


def list_faces(
    listing: Listing,
    config: ExtractConfig | None = None,
    *,
    jobs: int = 0,
    progress: Callable[[Counter[str]], None] | None = None,
) -> Listing:
    """List every face of a dataset as a sample.

    The face that an extraction would choose keeps the id of the image; the others are ``ID@1``, ``ID@2``, ... by size.
    An image that has no face or cannot be read keeps its row. All faces of an image have its label and its group;
    if it has no group, the image is the group.

    Parameters
    ----------
    listing : Listing
        Samples without face boxes, or with boxes that ``config.boxes = "none"`` ignores.
    config : ExtractConfig, optional
        The detector and its device are used.
    jobs : int
        Number of processes; 0 is one per core.
    progress : function of a Counter, optional
        Called first with an empty counter, and after each task with the number of its images, under the key
        ``images``.

    Returns
    -------
    Listing
        With the box of each face, in pixels of the image.

    Raises
    ------
    UsageError : the dataset has face boxes, or the detector is ``none`` or detects one face only.
    DatasetError : a sample has an id that a face gets.
    """
    config = config or ExtractConfig()
    if BOX_COLUMNS[0] in listing.samples and config.boxes != "none":
        raise UsageError(
            "faces: the dataset has a box for each face; leave out --faces all, or pass --boxes none"
        )
    if config.boxes not in ("dataset", "none"):
        raise UsageError(
            f"faces: --faces all detects faces, and --boxes {config.boxes} names existing ones; use one"
        )
    wanted = None if config.detector is None else find_detector(config.detector)
    if wanted and (not wanted.detects or wanted.crop == "full image"):
        raise UsageError(f"faces: --faces all needs a detector, and --detector {config.detector} is none")
    config, _ = resolve_config(replace(config, device=config.devices[0]))
    if getattr(detector_of(config), "max_faces", 0) == 1:
        raise UsageError(
            f"faces: detector {config.detector} detects one face of an image; use --detector facemesh"
        )
    files = files_of(listing.samples)
    on_cpu = config.device == "cpu" or not detector_of(config).gpu
    workers = (jobs or cpu_count()) if on_cpu else 1
    size = min(_FRAMES, ceil(len(files) / workers)) if is_frame(files[0][0]) else _IMAGES
    tasks = [files[start : start + size] for start in range(0, len(files), size)]
    workers = min(workers, len(tasks))
    if progress:
        progress(Counter())  # shows the bar while the processes start
    boxes: list[np.ndarray] = []
    run = Parallel(n_jobs=workers, return_as="generator")
    for detected in run(delayed(_boxes_of)(task, listing.root, config) for task in tasks):
        boxes += detected
        if progress:
            progress(Counter(images=len(detected)))
    return _expanded(listing, boxes)


def _boxes_of(files: Sequence[tuple[str, int]], root: str, config: ExtractConfig) -> list[np.ndarray]:
    """(k, 4) boxes of the faces of each image, pixels; k = 0 if it has no face or cannot be read."""
    detect = _detector(config)
    boxes = []
    with bounded_images(), threadpool_limits(1):
        for path, size in files:
            try:
                image = read_image(f"{root}/{path}", size=size).pixels
            except (FileNotFoundError, Unreadable):
                boxes.append(np.empty((0, 4), np.float32))  # the extraction gives the row its status
                continue
            (faces,) = check_faces(detect, detect([image]), 1)
            boxes.append(np.array([face.xyxy for face in in_order(faces)], np.float32).reshape(-1, 4))
    return boxes


@lru_cache(maxsize=1)
def _detector(config: ExtractConfig) -> Detector:
    return load_detector(str(config.detector), device=config.devices[0])


def _expanded(listing: Listing, boxes: Sequence[np.ndarray]) -> Listing:
    """The samples with a row and a box for each face."""
    counts = np.array([len(of_image) for of_image in boxes])
    rows = np.repeat(np.arange(len(boxes)), np.maximum(counts, 1))
    rank = np.concatenate([np.arange(max(count, 1)) for count in counts.tolist()])
    corners = np.concatenate([of_image if len(of_image) else np.full((1, 4), np.nan) for of_image in boxes])
    samples = listing.samples.iloc[rows].reset_index(drop=True)
    image = samples["id"]
    samples["group"] = samples["group"].where((samples["group"] != "") | (counts[rows] < 2), image)
    samples["id"] = image.where(rank == 0, image + "@" + rank.astype(str))
    samples[list(BOX_COLUMNS)] = corners.astype(np.float64)
    if twice := samples["id"][samples["id"].duplicated()].tolist():
        raise DatasetError(
            f"{listing.dataset}: ids end as those of further faces do: {listed(twice)}; rename the files"
        )
    samples = samples.sort_values("id", kind="stable", ignore_index=True)
    several = int((counts > 1).sum())
    note = f"{plural(int(counts.sum()), 'face')} in {plural(len(boxes), 'image')}, several in {several}"
    return replace(listing, samples=samples, notes=(note,), detected=True)
