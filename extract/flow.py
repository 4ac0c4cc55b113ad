"""The flow's stages: read → detect → crop → regress, on some samples at a time. Nothing else loops over images.

:func:`flow` runs them one after another; a worker runs them beside each other (:mod:`ig3d.extract.pipeline`). Every
sample has its row, and one that goes wrong ends alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import Ig3dError
from ..features.values import Block, CropSpec, Face, FaceBatch, LandmarkSpec, Rows, Sample, Status
from .boxes import Known, in_box, needs_search, surroundings
from .crop import prepare
from .detectors import Detector, choose_face
from .read import Image, Unreadable, read_image
from .regressors import Regressor

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Ended:
    """A sample that goes no further: how its row ends, and why."""

    status: Status
    message: str


@dataclass(slots=True)
class Batch:
    """Consecutive samples on their way through the stages.

    Attributes
    ----------
    start : int
        Row of the first one in the shard.
    known : what is known of each sample's face
    rows : Rows
        What became of them so far.
    images : row -> decoded image
    faces : row -> the chosen face
    """

    start: int
    known: Sequence[Known | None]
    rows: Rows
    images: dict[int, Image] = field(default_factory=dict)
    faces: dict[int, Face] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def end(self, row: int, status: Status, message: str) -> None:
        """The row goes no further."""
        self.rows.status[row] = status
        self.rows.message[row] = " ".join(message.split())


def flow(
    samples: Sequence[Sample],
    root: str | Path,
    detect: Detector,
    regress: Regressor,
    *,
    whole: bool = False,
    known: Sequence[Known | None] = (),
) -> Rows:
    """read → detect → crop → regress on one batch: one row per sample, always.

    Parameters
    ----------
    samples : n samples
    root : folder of the dataset, or its address
    detect, regress : the plug-ins
    whole : bool
        The face is the whole image, resized.
    known : what is known of each sample's face, or nothing

    Returns
    -------
    Rows of length n; NaN codes where the status is not ok.
    """
    opened = [open_image(sample, root) for sample in samples]
    batch = gather(0, opened, known or [None] * len(samples), dict(regress.blocks))
    find(batch, detect, regress.needs)
    return encode(batch, [cut(*one, regress.needs, whole=whole) for one in to_cut(batch)], regress)


def open_image(sample: Sample, root: str | Path) -> Image | Ended:
    """First stage, one image: read and decode."""
    try:
        return read_image(f"{root}/{sample.path}")
    except FileNotFoundError as exc:
        return Ended(Status.missing, str(exc))
    except Unreadable as exc:
        return Ended(Status.unreadable, str(exc))


def gather(
    start: int, opened: Iterable[Image | Ended], known: Sequence[Known | None], blocks: dict[str, Block]
) -> Batch:
    """Opened images as a batch; rows that could not be read end here."""
    batch = Batch(start, known, Rows.pending(len(known), blocks))
    for row, one in enumerate(opened):
        if isinstance(one, Ended):
            batch.end(row, one.status, one.message)
            continue
        batch.images[row] = one
        batch.rows.digest[row] = one.digest
        batch.rows.size_wh[row] = one.pixels.shape[1], one.pixels.shape[0]
    return batch


def find(batch: Batch, detect: Detector, needs: CropSpec | LandmarkSpec) -> None:
    """Second stage: the face of each image; rows without one end here."""
    _take_known(batch, needs)
    rows = batch.rows
    here = [row for row in batch.images if row not in batch.faces and not rows.status[row]]
    shown = {row: surroundings(batch.images[row].pixels, batch.known[row]) for row in here}

    def faces_in(some: Sequence[int]) -> list[list[Face]]:
        return detect([shown[row][0] for row in some])

    results = _together_or_one_by_one(faces_in, here)
    for row, faces in zip(here, results, strict=True):
        if isinstance(faces, Exception):
            batch.end(row, Status.failed, f"{type(faces).__name__}: {faces}")
        elif (given := batch.known[row]) is not None:
            if (face := in_box(faces, given, shown[row][1])) is None:
                batch.end(row, Status.no_face, "no face found around the box")
            else:
                rows.count[row] = given.count
                batch.faces[row] = face
        elif not faces:
            batch.end(row, Status.no_face, "no face found")
        else:
            rows.count[row] = len(faces)
            batch.faces[row] = choose_face(faces)
    for row, face in batch.faces.items():
        rows.xyxy[row], rows.score[row] = face.xyxy, face.score


def _take_known(batch: Batch, needs: CropSpec | LandmarkSpec) -> None:
    """The faces that are known; rows known to have none, or known from another file, end here."""
    for row, image in batch.images.items():
        given = batch.known[row]
        if given is None:
            continue
        if given.other_file(image.digest):
            batch.end(row, Status.failed, "the file is not the one in which its box was found")
        elif given.face is None:
            batch.end(row, given.status, given.message)
        elif not needs_search(given, needs):
            batch.rows.count[row] = given.count
            batch.faces[row] = given.face


def to_cut(batch: Batch) -> list[tuple[Image, Face]]:
    """What the third stage works on, by rows in order; the batch lets go of its images."""
    images, batch.images = batch.images, {}
    return [(images[row], batch.faces[row]) for row in sorted(batch.faces)]


def cut(
    image: Image, face: Face, needs: CropSpec | LandmarkSpec, *, whole: bool = False
) -> FaceBatch | Exception:
    """Third stage, one face: what the regressor is fed, or what went wrong with it."""
    try:
        return prepare([image.pixels], [face], needs, whole=whole)
    except Ig3dError:
        raise  # a wrong setting, not a bad sample
    except Exception as exc:
        return exc


def encode(batch: Batch, fed: Iterable[FaceBatch | Exception], regress: Regressor) -> Rows:
    """Fourth stage: the codes of every face that was cut out; the batch's finished rows."""
    rows = batch.rows
    cuts: dict[int, FaceBatch] = {}
    for row, one in zip(sorted(batch.faces), fed, strict=True):
        if isinstance(one, Exception):
            batch.end(row, Status.failed, f"{type(one).__name__}: {one}")
        else:
            cuts[row] = one

    def codes_of(chosen: Sequence[int]) -> list[dict[str, np.ndarray]]:
        codes = regress(FaceBatch.together([cuts[row] for row in chosen]))
        return [{name: codes[name][place] for name in regress.blocks} for place in range(len(chosen))]

    here = list(cuts)
    results = _together_or_one_by_one(codes_of, here)
    for row, codes in zip(here, results, strict=True):
        if isinstance(codes, Exception):
            batch.end(row, Status.failed, f"{type(codes).__name__}: {codes}")
            continue
        rows.transform[row] = cuts[row].transforms[0]
        bad = [name for name, values in codes.items() if not np.isfinite(values).all()]
        if bad:
            batch.end(row, Status.failed, f"not finite: {', '.join(bad)}")
            continue
        rows.status[row] = Status.ok
        for name, values in codes.items():
            rows.codes[name][row] = values
    return rows


def _together_or_one_by_one(
    call: Callable[[Sequence[T]], list[R]], items: Sequence[T]
) -> list[R | Exception]:
    """``call`` over the batch; where that raises, over each item, so that one bad sample fails alone."""
    if not items:
        return []
    try:
        return list(call(items))
    except Ig3dError:
        raise  # a wrong setting, not a bad sample
    except Exception as exc:
        if len(items) == 1:
            return [exc]
        return [result for item in items for result in _together_or_one_by_one(call, [item])]


def by_status(status: np.ndarray) -> dict[str, int]:
    """Rows by the name of their status."""
    values, counts = np.unique(status, return_counts=True)
    return {Status(int(value)).name: int(count) for value, count in zip(values, counts, strict=True)}
