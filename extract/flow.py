"""The flow's stages: read → detect → crop → regress, on some samples at a time. Nothing else loops over images.

:func:`flow` runs them one after another; a worker runs them beside each other (:mod:`ig3d.extract.pipeline`). Every
sample has its row, and one that goes wrong ends alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import Ig3dError
from ..features.values import Block, CropSpec, Face, FaceBatch, LandmarkSpec, Rows, Status
from .boxes import FaceBoxes, choose_overlapping, is_outside, needs_detector, surroundings
from .crop import prepare
from .detectors import Detector, choose_face
from .plugins import check_codes, check_faces
from .read import Image, Unavailable, Unreadable, read_image
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
    boxes : FaceBoxes
        Of the same samples.
    rows : Rows
        What became of them so far.
    images : row -> decoded image
    faces : row -> the chosen face
    cuts : FaceBatch or None
        What is cut out of the faces' images, by rows in order.
    """

    start: int
    boxes: FaceBoxes
    rows: Rows
    images: dict[int, Image] = field(default_factory=dict)
    faces: dict[int, Face] = field(default_factory=dict)
    cuts: FaceBatch | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def end(self, row: int, status: Status, message: str) -> None:
        """The row goes no further."""
        self.rows.status[row] = status
        self.rows.message[row] = " ".join(message.split())


def flow(
    files: Sequence[tuple[str, int]],
    root: str | Path,
    detect: Detector,
    regress: Regressor,
    *,
    whole: bool = False,
    boxes: FaceBoxes | None = None,
) -> Rows:
    """read → detect → crop → regress on one batch: one row per sample, always.

    Parameters
    ----------
    files : path and size in bytes (-1: unknown) of n images
    root : folder of the dataset, or its address
    detect, regress : the plug-ins
    whole : bool
        The face is the whole image, resized.
    boxes : FaceBoxes, optional
        Of the images.

    Returns
    -------
    Rows of length n; NaN codes where the status is not ok.
    """
    opened = [open_image(file, root) for file in files]
    if boxes is None:
        boxes = FaceBoxes.unknown(len(files))
    batch = gather(0, opened, boxes, dict(regress.blocks))
    find(batch, detect, regress.needs)
    return encode(batch, [cut() for cut in cuts(batch, regress.needs, whole=whole)], regress)


def open_image(file: tuple[str, int], root: str | Path) -> Image | Ended:
    """First stage, one image (path and size in bytes): read and decode."""
    path, size = file
    try:
        return read_image(f"{root}/{path}", size=size)
    except FileNotFoundError as exc:
        return Ended(Status.missing, str(exc))
    except Unavailable as exc:
        return Ended(Status.failed, str(exc))  # which --retry-failed reads again
    except Unreadable as exc:
        return Ended(Status.unreadable, str(exc))


def gather(start: int, opened: Iterable[Image | Ended], boxes: FaceBoxes, blocks: dict[str, Block]) -> Batch:
    """Opened images as a batch; rows that could not be read end here."""
    batch = Batch(start, boxes, Rows.pending(len(boxes), blocks))
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
    _take_boxes(batch, needs)
    rows = batch.rows
    here = [row for row in batch.images if row not in batch.faces and not rows.status[row]]
    known = {row: batch.boxes.face(row) for row in here}
    shown = {row: surroundings(batch.images[row].pixels, known[row]) for row in here}

    def faces_in(some: Sequence[int]) -> list[list[Face]]:
        return check_faces(detect, detect([shown[row][0] for row in some]), len(some))

    for some, found in _together_or_one_by_one(faces_in, here):
        if isinstance(found, Exception):
            batch.end(some[0], Status.failed, f"{type(found).__name__}: {found}")
            continue
        for row, faces in zip(some, found, strict=True):
            if (face := known[row]) is not None:
                if (seen := choose_overlapping(faces, face.xyxy, shown[row][1])) is None:
                    batch.end(row, Status.no_face, "no face found around the box")
                else:
                    rows.count[row] = batch.boxes.count[row]
                    batch.faces[row] = seen
            elif not faces:
                batch.end(row, Status.no_face, "no face found")
            else:
                rows.count[row] = len(faces)
                batch.faces[row] = choose_face(faces)
    for row, face in [*batch.faces.items()]:
        if problem := _problem(face):
            del batch.faces[row]
            batch.end(row, Status.failed, problem)
            continue
        rows.xyxy[row], rows.score[row] = face.xyxy, face.score
        if face.landmarks is not None:
            points = face.landmarks[:, :2]
            rows.landmark_box[row] = *points.min(axis=0), *points.max(axis=0)


def _problem(face: Face) -> str:
    """Message for a face that a store cannot hold; empty for the others."""
    x0, y0, x1, y1 = face.xyxy
    if not (np.isfinite(face.xyxy).all() and x0 <= x1 and y0 <= y1):
        return f"the face's box is {face.xyxy.tolist()}; x0 <= x1 and y0 <= y1 are required"
    if face.landmarks is not None and not np.isfinite(face.landmarks).all():
        return "the face's landmarks are not finite"
    return (
        ""
        if np.isnan(face.score) or 0 <= face.score <= 1
        else f"the face's score is {face.score}, not in [0, 1]"
    )


def _take_boxes(batch: Batch, needs: CropSpec | LandmarkSpec) -> None:
    """Take the known faces; end rows that have none, or whose box was found in another file."""
    boxes = batch.boxes
    for row, image in batch.images.items():
        if boxes.status[row] == Status.pending:
            continue
        face = boxes.face(row)
        if boxes.is_other_file(row, image.digest):
            batch.end(row, Status.failed, "the file is not the one in which its box was found")
        elif face is None:
            batch.end(row, Status(int(boxes.status[row])), str(boxes.message[row]))
        elif is_outside(face, image.pixels):
            batch.end(row, Status.no_face, "its box lies outside the image")
        elif not needs_detector(face, needs):
            batch.rows.count[row] = boxes.count[row]
            batch.faces[row] = face


def cuts(
    batch: Batch, needs: CropSpec | LandmarkSpec, *, whole: bool = False
) -> list[Callable[[], Exception | None]]:
    """Third stage: a call for each face, by rows in order, that makes what the regressor is fed of it.

    Each returns what went wrong with it. They hold the images, which the batch lets go of.
    """
    images, batch.images = batch.images, {}
    here = sorted(batch.faces)
    batch.cuts = room = FaceBatch.room(len(here), needs)

    def cut(place: int, image: Image, face: Face) -> Exception | None:
        try:
            room.put(place, prepare([image.pixels], [face], needs, whole=whole))
        except Ig3dError:
            raise  # a wrong setting, not a bad sample
        except Exception as exc:
            return exc
        return None

    return [partial(cut, place, images[row], batch.faces[row]) for place, row in enumerate(here)]


def encode(batch: Batch, ended: Iterable[Exception | None], regress: Regressor) -> Rows:
    """Fourth stage: the codes of every face that was cut out; the batch's finished rows.

    ``ended`` says how each cut ended.
    """
    here, good = np.array(sorted(batch.faces), int), []
    for place, exc in enumerate(ended):
        if exc is None:
            good.append(place)
        else:
            batch.end(here[place], Status.failed, f"{type(exc).__name__}: {exc}")
    if batch.cuts is None or not good:
        return batch.rows
    fed, here = batch.cuts if len(good) == len(here) else batch.cuts.chosen(good), here[good]

    def codes_of(places: Sequence[int]) -> dict[str, np.ndarray]:
        codes = regress(fed if len(places) == len(fed) else fed.chosen(places))
        return check_codes(regress, codes, len(places))

    for places, codes in _together_or_one_by_one(codes_of, range(len(fed))):
        if isinstance(codes, Exception):
            batch.end(here[places[0]], Status.failed, f"{type(codes).__name__}: {codes}")
        else:
            _take(batch, here[places], fed.crop_boxes[places], codes)
    return batch.rows


def _take(batch: Batch, here: np.ndarray, crop_boxes: np.ndarray, codes: dict[str, np.ndarray]) -> None:
    """Codes of some rows; a row whose codes are not all finite has none."""
    rows = batch.rows
    rows.crop_box[here] = crop_boxes
    finite = {name: np.isfinite(values).all(axis=1) for name, values in codes.items()}
    ok = np.logical_and.reduce(list(finite.values()))
    rows.status[here[ok]] = Status.ok
    for name, values in codes.items():
        rows.codes[name][here[ok]] = values[ok]
    for place in np.flatnonzero(~ok):
        bad = ", ".join(name for name in codes if not finite[name][place])
        batch.end(here[place], Status.failed, f"not finite: {bad}")


def _together_or_one_by_one(
    call: Callable[[Sequence[T]], R], items: Sequence[T]
) -> Iterator[tuple[Sequence[T], R | Exception]]:
    """``call`` of all items; where that raises, of each alone, so that one bad sample fails alone.

    Yields items with what became of them, an exception of one only.
    """
    if not items:
        return
    try:
        result = call(items)
    except Ig3dError:
        raise  # a wrong setting, not a bad sample
    except Exception as exc:
        if len(items) == 1:
            yield items, exc
            return
    else:
        yield items, result
        return
    for place in range(len(items)):
        yield from _together_or_one_by_one(call, items[place : place + 1])


def by_status(status: np.ndarray) -> dict[str, int]:
    """Rows by the name of their status."""
    values, counts = np.unique(status, return_counts=True)
    return {Status(int(value)).name: int(count) for value, count in zip(values, counts, strict=True)}
