"""Stages of the extraction: from image files to codes in a store.

======= ============================================ ================================================================
read    file → pixels                                :mod:`~ig3d.extract.read`, :mod:`~ig3d.extract.sources`
detect  pixels → the face of each row                :mod:`~ig3d.extract.detectors`, :mod:`~ig3d.extract.boxes`
crop    pixels and face → input of the regressor     :mod:`~ig3d.extract.crop`
regress input → codes, in full batches of faces      :mod:`~ig3d.extract.regressors`
write   outcomes and codes of a shard → HDF5         :mod:`~ig3d.features.store.writer`
======= ============================================ ================================================================

:func:`extract_shards` pulls batches of images through the stages, the functions below it, in order. A
:class:`~ig3d.extract.batches.Batch` gets an outcome for each of its rows; an error of one sample ends only that row. On
the CPU, one process runs all stages. With a GPU, other processes read, detect and crop
(:mod:`~ig3d.extract.reading_processes`), and the process that owns the GPU regresses and writes. If the detector too
runs on the GPU, the other processes only read.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ..console import one_line
from ..errors import DeviceError, Ig3dError
from ..features.store.format import StoreInfo
from ..features.store.writer import StoreWriter
from ..features.values import CropSpec, Face, FaceBatch, LandmarkSpec, Rows, Status, by_status
from .batches import Batch, FaceGroup, FaceQueue, Shard, batches_of
from .boxes import choose_overlapping, is_outside, needs_detector, surroundings
from .config import ExtractConfig, build
from .crop import prepare
from .detectors import Detector, choose_face
from .plugins import check_codes, check_faces
from .read import Image, Unavailable, Unreadable, bounded_images, read_image
from .regressors import Regressor
from .runtime import device_errors, exact_arithmetic, is_device_error, one_thread
from .sources.remote import is_remote

# Bytes of decoded images in memory at a time, in each process.
MAX_BYTES = 1 << 27
# Threads that read from remote storage, which has long response times.
REMOTE_THREADS = 8


def extract_shards(
    shards: Sequence[Shard], root: str, config: ExtractConfig, info: StoreInfo, readers: int = 0
) -> Counter[str]:
    """Extract the images of shards, and write the store of each shard once all of its rows have an outcome.

    Parameters
    ----------
    shards : sequence of Shard
    root : folder of the dataset, or its address
    config : ExtractConfig
        Complete configuration.
    info : StoreInfo
    readers : int
        Processes that read for a GPU, and detect and crop unless the detector runs on the GPU; with 0, this process
        does everything.

    Returns
    -------
    Counter of status name -> rows
    """
    counts = Counter[str]()
    with device_errors(config.device), ExitStack() as settings:
        regressor, detector = build(config, info.regressor)
        for setting in (one_thread, exact_arithmetic, bounded_images):
            settings.enter_context(setting())
        assert config.batch_size is not None  # set by resolve_config()
        size = config.batch_size
        if readers:
            from .reading_processes import read_ahead

            batches = read_ahead(shards, root, detector, regressor.needs, config, readers)
        else:
            to_crops = partial(read_detect_crop, root=root, detector=detector, needs=regressor.needs)
            batches = map(to_crops, batches_of(shards, size))
        for position, finished in groupby(regress(batches, regressor, size), key=lambda batch: batch.shard):
            counts += write(shards[position], [batch.rows for batch in finished], info, regressor)
    return counts


def extract_in_worker(
    shards: Sequence[Shard], root: str, config: ExtractConfig, info: StoreInfo, readers: int = 0
) -> Counter[str]:
    """:func:`extract_shards` in a worker process. An error of the device ends it, and a new one repeats the shards."""
    try:
        return extract_shards(shards, root, config, info, readers)
    except DeviceError as error:
        print(f"ig3d: {one_line(str(error))}; a new process repeats the shards", file=sys.stderr, flush=True)
        os._exit(1)


def read_detect_crop(
    batch: Batch, root: str | Path, detector: Detector, needs: CropSpec | LandmarkSpec
) -> Batch:
    """The first three stages of a batch, in groups of images that take about :data:`MAX_BYTES` of memory."""
    for images in read(batch, root):
        faces = detect(batch, images, detector, needs)
        crop(batch, images, faces, detector, needs)
    return batch


# read


def read(batch: Batch, root: str | Path) -> Iterator[dict[int, Image]]:
    """Decode the images of a batch. If a file cannot be read, its row gets a status and is finished.

    Yields
    ------
    dict of row -> Image, with about :data:`MAX_BYTES` at most
    """
    images, held = dict[int, Image](), 0
    for row, image_or_problem in enumerate(_read_images(batch.files, root)):
        if not isinstance(image_or_problem, Image):
            batch.end(row, *image_or_problem)  # status and reason
            continue
        image = image_or_problem
        images[row] = image
        batch.rows.digest[row] = image.digest
        batch.rows.size_wh[row] = image.pixels.shape[1], image.pixels.shape[0]
        held += image.pixels.nbytes
        if held > MAX_BYTES:
            yield images
            images, held = {}, 0
    if images:
        yield images


def _read_images(files: Sequence[tuple[str, int]], root: str | Path) -> Iterator[Image | tuple[Status, str]]:
    """Images of files (path and size in bytes); for one that cannot be read, the status and the reason."""
    read_file = partial(_read_file, root=root)
    if not is_remote(root):
        yield from map(read_file, files)
        return
    with ThreadPoolExecutor(REMOTE_THREADS) as threads:
        for start in range(0, len(files), REMOTE_THREADS):
            yield from threads.map(read_file, files[start : start + REMOTE_THREADS])


def _read_file(file: tuple[str, int], root: str | Path) -> Image | tuple[Status, str]:
    path, size = file
    try:
        return read_image(f"{root}/{path}", size=size)
    except FileNotFoundError as exc:
        return Status.missing, str(exc)
    except Unavailable as exc:
        return Status.failed, str(exc)  # which --retry-failed reads again
    except Unreadable as exc:
        return Status.unreadable, str(exc)


# detect


def detect(
    batch: Batch, images: Mapping[int, Image], detector: Detector, needs: CropSpec | LandmarkSpec
) -> dict[int, Face]:
    """The face of each row: the stored one, or the detector's choice. Rows without a face are finished.

    With ``--faces all``, several rows have the same image.
    """
    rows, boxes = batch.rows, batch.boxes
    faces = _stored_faces(batch, images, needs)
    # rows without a stored box; rows whose box comes without the landmarks that the regressor needs; rows of
    # --faces all, which get the face that overlaps most with their box
    searched = [row for row in images if row not in faces and not rows.status[row]]
    near = {row: boxes.face(row) for row in searched}  # face to search around; None: search the whole image
    in_full = {row for row in searched if near[row] is None or boxes.search_full_image[row]}
    views = {  # pixels, top left corner
        row: surroundings(images[row].pixels, None if row in in_full else near[row]) for row in searched
    }

    def detected_faces(chosen: Sequence[int]) -> list[list[Face]]:
        # rows of one image are searched together
        keys = [batch.files[row][0] if row in in_full else row for row in chosen]
        pixels = {key: views[row][0] for key, row in zip(keys, chosen, strict=True)}
        faces_of = dict(
            zip(pixels, check_faces(detector, detector([*pixels.values()]), len(pixels)), strict=True)
        )
        return [faces_of[key] for key in keys]

    for chosen, detected in together_or_alone(detected_faces, searched):
        if isinstance(detected, Exception):
            batch.end(chosen[0], Status.failed, f"{type(detected).__name__}: {detected}")
            continue
        for row, of_image in zip(chosen, detected, strict=True):
            if (box := near[row]) is not None:
                if (nearest := choose_overlapping(of_image, box.xyxy, views[row][1])) is None:
                    batch.end(row, Status.no_face, "no face found around the box")
                elif needs_detector(nearest, needs):  # such as sfd, which gives those of one face
                    batch.end(row, Status.failed, f"{detector.name} gives no landmarks of this face")
                else:
                    rows.count[row] = len(of_image) if boxes.search_full_image[row] else boxes.count[row]
                    faces[row] = nearest
            elif not of_image:
                batch.end(row, Status.no_face, "no face found")
            else:
                rows.count[row], faces[row] = len(of_image), choose_face(of_image)
    for row, face in [*faces.items()]:
        if problem := _face_problem(face):
            del faces[row]
            batch.end(row, Status.failed, problem)
            continue
        rows.xyxy[row], rows.score[row] = face.xyxy, face.score
        if face.landmarks is not None:
            points = face.landmarks[:, :2]
            rows.landmark_box[row] = *points.min(axis=0), *points.max(axis=0)
    return faces


def _stored_faces(
    batch: Batch, images: Mapping[int, Image], needs: CropSpec | LandmarkSpec
) -> dict[int, Face]:
    """Stored faces that need no detector.

    A row ends here if the store that gives the boxes has no face for it, if its box lies outside the image, or if its
    file has changed.
    """
    boxes, faces = batch.boxes, dict[int, Face]()
    for row, image in images.items():
        if boxes.status[row] == Status.pending or boxes.search_full_image[row]:  # the full image is searched
            continue
        face = boxes.face(row)
        if boxes.is_other_file(row, image.digest):
            batch.end(row, Status.failed, "the file is not the one in which its box was found")
        elif face is None:
            batch.end(row, Status(int(boxes.status[row])), str(boxes.message[row]))
        elif is_outside(face, image.pixels):
            batch.end(row, Status.no_face, "its box lies outside the image")
        elif not needs_detector(face, needs):
            batch.rows.count[row], faces[row] = boxes.count[row], face
    return faces


def _face_problem(face: Face) -> str:
    """Reason why a face is invalid; empty for a valid face."""
    x0, y0, x1, y1 = face.xyxy
    if not (np.isfinite(face.xyxy).all() and x0 <= x1 and y0 <= y1):
        return f"the face's box is {face.xyxy.tolist()}; x0 <= x1 and y0 <= y1 are required"
    if face.landmarks is not None and not np.isfinite(face.landmarks).all():
        return "the face's landmarks are not finite"
    if not (np.isnan(face.score) or 0 <= face.score <= 1):
        return f"the face's score is {face.score}, not in [0, 1]"
    return ""


# crop


def crop(
    batch: Batch,
    images: Mapping[int, Image],
    faces: Mapping[int, Face],
    detector: Detector,
    needs: CropSpec | LandmarkSpec,
) -> None:
    """Compute the input of the regressor for each face, and add it to the batch."""
    whole = detector.crop == "full image"

    def prepared(rows: Sequence[int]) -> FaceBatch:
        return prepare([images[row].pixels for row in rows], [faces[row] for row in rows], needs, whole=whole)

    for rows, result in together_or_alone(prepared, sorted(faces)):
        if isinstance(result, Exception):
            batch.end(rows[0], Status.failed, f"{type(result).__name__}: {result}")
        else:
            batch.add(rows, result)


# regress


def regress(batches: Iterable[Batch], regressor: Regressor, size: int) -> Iterator[Batch]:
    """Compute the codes of the faces of batches, ``size`` faces at a time; yields finished batches, in order.

    The networks get full batches: faces wait until enough images, also of the next shards, have been read. A GPU
    computes one group of faces while the next group is prepared.
    """
    queue = FaceQueue(regressor.device if regressor.takes_tensors else None)
    started, unfinished = deque[Computation](), deque[Batch]()
    for batch in batches:
        batch.rows.codes.update(Rows.pending(len(batch.rows), dict(regressor.blocks)).codes)
        unfinished.append(batch)
        queue.add(batch)
        while len(queue) >= size:
            started.append(Computation(regressor, queue.take(size)))
            if len(started) > 1:
                started.popleft().finish()
        while unfinished and unfinished[0].finished:
            yield unfinished.popleft()
    if len(queue):
        started.append(Computation(regressor, queue.take(size)))
    for computation in started:
        computation.finish()
    yield from unfinished


class Computation:
    """Codes of a group of faces that are being computed; on a GPU, the constructor does not wait for them.

    Parameters
    ----------
    regressor : Regressor
    group : FaceGroup
    """

    def __init__(self, regressor: Regressor, group: FaceGroup) -> None:
        self._regressor, self._group = regressor, group
        self._wait: Callable[[], Mapping[str, np.ndarray]] | None = None
        try:
            self._wait = regressor.start(group.faces)
        except Ig3dError:
            raise
        except Exception as exc:
            if is_device_error(exc):
                raise
            # finish() calls the regressor again for all faces, and if that fails too, for each face alone

    def finish(self) -> None:
        """Wait for the codes and copy them to the rows of the batches. After an error, each face is computed alone."""
        faces = self._group.faces
        codes = Rows.pending(len(faces), dict(self._regressor.blocks)).codes
        problems = dict[int, str]()
        for chosen, result in together_or_alone(self._compute, range(len(faces))):
            if isinstance(result, Exception):
                problems[chosen[0]] = f"{type(result).__name__}: {result}"
                continue
            for name, values in result.items():
                codes[name][chosen] = values
        finite = {name: np.isfinite(values).all(axis=1) for name, values in codes.items()}
        ok = np.logical_and.reduce([*finite.values()])
        for face in np.flatnonzero(~ok):
            bad = ", ".join(name for name in codes if not finite[name][face])
            problems.setdefault(int(face), f"not finite: {bad}")
        for values in codes.values():
            values[~ok] = np.nan
        first = 0
        for batch, rows in self._group.origins:
            own = slice(first, first + len(rows))
            batch.rows.crop_box[rows] = faces.crop_boxes[own]
            batch.rows.status[rows] = Status.ok
            for name, values in codes.items():
                batch.rows.codes[name][rows] = values[own]
            for face in np.flatnonzero(~ok[own]):
                batch.end(rows[face], Status.failed, problems[int(first + face)])
            first = own.stop

    def _compute(self, chosen: Sequence[int]) -> dict[str, np.ndarray]:
        if self._wait:  # the first call is for all faces
            wait, self._wait = self._wait, None
            codes = wait()
        else:
            codes = self._regressor(self._group.faces[chosen[0] : chosen[-1] + 1])
        return check_codes(self._regressor, codes, len(chosen))


# write


def write(shard: Shard, rows: Sequence[Rows], info: StoreInfo, regressor: Regressor) -> Counter[str]:
    """Write the store of a shard; returns its rows by status."""
    if reduced := regressor.reduced_batches:  # networks whose batch was halved for lack of memory
        info = replace(info, regressor={**info.regressor, "reduced_batches": reduced})
    outcomes = Rows.join(rows)
    with StoreWriter(shard.path, info, shard.samples, dict(regressor.blocks)) as writer:
        writer.write(0, outcomes)
    return Counter(by_status(outcomes.status))


# errors of one sample


def together_or_alone(
    call: Callable[[Sequence[int]], Any], items: Sequence[int]
) -> Iterator[tuple[Sequence[int], Any]]:
    """Call a function for all items; after an error, for each item alone, so that one bad sample fails alone.

    Yields
    ------
    items and the result, or one item and its exception

    Raises
    ------
    Exception : errors of the device, which end the process.
    Ig3dError : errors that end the run, such as a plug-in that breaks its contract, wrong settings, or too little
        memory for one item.
    """
    if not items:
        return
    try:
        result = call(items)
    except Ig3dError:
        raise
    except Exception as exc:
        if is_device_error(exc):
            raise
        if len(items) == 1:
            yield items, exc
            return
    else:
        yield items, result
        return
    for position in range(len(items)):
        yield from together_or_alone(call, items[position : position + 1])
