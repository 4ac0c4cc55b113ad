"""The way of an image to its codes: read → detect → crop → regress → write. The only loop over images.

:func:`extract_shards` runs in a worker. On the CPU it does everything itself, one stage after another. For a GPU,
other processes read, detect and crop (:mod:`ig3d.extract.readers`), and this one runs the networks on full batches.
Every sample has its row, and an error of one sample ends only that row.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..console import one_line
from ..errors import DeviceError, Ig3dError
from ..features.store.format import StoreInfo
from ..features.values import CropSpec, Face, FaceBatch, LandmarkSpec, Rows, Status
from .batches import Batch, Chunk, FaceQueue, Shard, Table, chunks_of
from .boxes import choose_overlapping, is_outside, needs_detector, surroundings
from .config import ExtractConfig, build
from .crop import prepare
from .detectors import Detector, choose_face
from .plugins import check_codes, check_faces
from .read import Image, Unavailable, Unreadable, bounded_images, read_image
from .regressors import Regressor
from .runtime import device_errors, exact_arithmetic, is_device_error, one_thread
from .sources.remote import is_remote

# Decoded images that are held at a time, so that large photographs do not fill the memory.
MOST_BYTES = 1 << 27
# Threads that read from remote storage, whose answers take long.
REMOTE_THREADS = 8


def extract_shards(
    shards: Sequence[Shard], root: str, config: ExtractConfig, info: StoreInfo, readers: int = 0
) -> Counter[str]:
    """Extract the images of shards, and write each shard when its last row is finished.

    Parameters
    ----------
    shards : sequence of Shard
    root : folder of the dataset, or its address
    config : ExtractConfig, complete
    info : StoreInfo
    readers : int
        Processes that read, detect and crop for a GPU; 0 does this here.

    Returns
    -------
    Counter of status name -> rows
    """
    counts = Counter[str]()
    with device_errors(config.device), ExitStack() as settings:
        regressor, detector = build(config, info.regressor)
        for setting in (one_thread, exact_arithmetic, bounded_images):
            settings.enter_context(setting())
        cropper = Cropper(root, detector, regressor.needs)
        size = config.batch_size or 32
        if readers:
            from .readers import read_ahead

            batches = read_ahead(shards, cropper, config, readers)
        else:
            batches = map(cropper, chunks_of(shards, size))
        tables = [Table(shard, dict(regressor.blocks)) for shard in shards]
        queue = FaceQueue(regressor.device if regressor.takes_tensors else None)
        running = deque[Running]()
        for batch in batches:  # read → detect → crop
            tables[batch.chunk.shard].add(batch)
            queue.add(batch)
            while len(queue) >= size:  # regress; a batch is waited for while the next one is computed
                running.append(Running(regressor, *queue.take(size)))
                if len(running) > 1:
                    running.popleft().finish(tables)
            counts += write_finished(tables, info, regressor)
        if len(queue):
            running.append(Running(regressor, *queue.take(size)))
        for last in running:
            last.finish(tables)
        counts += write_finished(tables, info, regressor)
    return counts


def extract_in_worker(
    shards: Sequence[Shard], root: str, config: ExtractConfig, info: StoreInfo, readers: int = 0
) -> Counter[str]:
    """:func:`extract_shards` in a worker process, which an error of the device ends: another one repeats the shards."""
    try:
        return extract_shards(shards, root, config, info, readers)
    except DeviceError as error:
        print(f"ig3d: {one_line(str(error))}; a new process repeats the shards", file=sys.stderr, flush=True)
        os._exit(1)


class Cropper:
    """Read, detect and crop: the stages from the file of an image to the input of the regressor.

    Parameters
    ----------
    root : folder of the dataset, or its address
    detector : Detector or None
        Without a detector, images are read only.
    needs : CropSpec or LandmarkSpec
        Input of the regressor.
    """

    def __init__(self, root: str | Path, detector: Detector | None, needs: CropSpec | LandmarkSpec) -> None:
        self.root, self.detector, self.needs = root, detector, needs

    def __call__(self, chunk: Chunk) -> Batch:
        batch, held = Batch(chunk, Rows.pending(len(chunk.files), {})), 0
        for row, image in enumerate(read_images(chunk.files, self.root)):
            if isinstance(image, Image):
                batch.images[row] = image
                batch.rows.digest[row] = image.digest
                batch.rows.size_wh[row] = image.pixels.shape[1], image.pixels.shape[0]
                held += image.pixels.nbytes
            else:
                batch.end(row, *image)
            if held > MOST_BYTES:
                self.crop(batch)
                held = 0
        self.crop(batch)
        return batch

    def crop(self, batch: Batch) -> None:
        """Find the faces in the images of a batch, crop them, and release the images."""
        if self.detector is None:
            return
        rows, crops = [], []
        for row, face in sorted(find_faces(batch, self.detector, self.needs).items()):
            whole = self.detector.crop == "full image"
            try:
                crops.append(prepare([batch.images[row].pixels], [face], self.needs, whole=whole))
                rows.append(row)
            except Ig3dError:
                raise  # a wrong setting, not a bad sample
            except Exception as exc:
                batch.end(row, Status.failed, f"{type(exc).__name__}: {exc}")
        batch.add(rows, crops)
        batch.images.clear()


def read_images(files: Sequence[tuple[str, int]], root: str | Path) -> Iterator[Image | tuple[Status, str]]:
    """Decode images (path and size in bytes of each); for one that cannot be read, the status and the reason."""
    read = partial(_read_image, root=root)
    if not is_remote(root):
        yield from map(read, files)
        return
    with ThreadPoolExecutor(REMOTE_THREADS) as threads:
        for start in range(0, len(files), REMOTE_THREADS):
            yield from threads.map(read, files[start : start + REMOTE_THREADS])


def _read_image(file: tuple[str, int], root: str | Path) -> Image | tuple[Status, str]:
    path, size = file
    try:
        return read_image(f"{root}/{path}", size=size)
    except FileNotFoundError as exc:
        return Status.missing, str(exc)
    except Unavailable as exc:
        return Status.failed, str(exc)  # which --retry-failed reads again
    except Unreadable as exc:
        return Status.unreadable, str(exc)


def find_faces(batch: Batch, detector: Detector, needs: CropSpec | LandmarkSpec) -> dict[int, Face]:
    """The face of each image of a batch; rows without a face end here."""
    rows, boxes = batch.rows, batch.chunk.boxes
    faces = _stored_faces(batch, needs)
    searched = [row for row in batch.images if row not in faces and not rows.status[row]]
    known = {row: boxes.face(row) for row in searched}
    shown = {row: surroundings(batch.images[row].pixels, known[row]) for row in searched}

    def detect(some: Sequence[int]) -> list[list[Face]]:
        return check_faces(detector, detector([shown[row][0] for row in some]), len(some))

    for some, found in _together_or_alone(detect, searched):
        if isinstance(found, Exception):
            batch.end(some[0], Status.failed, f"{type(found).__name__}: {found}")
            continue
        for row, detected in zip(some, found, strict=True):
            if (face := known[row]) is not None:
                if (nearest := choose_overlapping(detected, face.xyxy, shown[row][1])) is None:
                    batch.end(row, Status.no_face, "no face found around the box")
                else:
                    rows.count[row], faces[row] = boxes.count[row], nearest
            elif not detected:
                batch.end(row, Status.no_face, "no face found")
            else:
                rows.count[row], faces[row] = len(detected), choose_face(detected)
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


def _stored_faces(batch: Batch, needs: CropSpec | LandmarkSpec) -> dict[int, Face]:
    """Faces that need no detector; rows without one, or whose box was found in another file, end here."""
    boxes, faces = batch.chunk.boxes, dict[int, Face]()
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
            batch.rows.count[row], faces[row] = boxes.count[row], face
    return faces


def _face_problem(face: Face) -> str:
    """Message for a face that a store cannot hold; empty for the others."""
    x0, y0, x1, y1 = face.xyxy
    if not (np.isfinite(face.xyxy).all() and x0 <= x1 and y0 <= y1):
        return f"the face's box is {face.xyxy.tolist()}; x0 <= x1 and y0 <= y1 are required"
    if face.landmarks is not None and not np.isfinite(face.landmarks).all():
        return "the face's landmarks are not finite"
    if not (np.isnan(face.score) or 0 <= face.score <= 1):
        return f"the face's score is {face.score}, not in [0, 1]"
    return ""


class Running:
    """Regress: a batch of faces of which the codes are being computed.

    Parameters
    ----------
    regressor : Regressor
    keys : (n, 2) int
        Index of the shard, and row in the shard, of each face.
    faces : FaceBatch
    """

    def __init__(self, regressor: Regressor, keys: np.ndarray, faces: FaceBatch) -> None:
        self._regressor, self._keys, self._faces = regressor, keys, faces
        self._wait: Callable[[], Mapping[str, np.ndarray]] | None = None
        try:
            self._wait = regressor.start(faces)
        except Ig3dError:
            raise
        except Exception as exc:
            if is_device_error(exc):
                raise

    def finish(self, tables: Sequence[Table]) -> None:
        """Wait for the codes and put them into the tables; after an error, each face runs alone."""
        for some, codes in _together_or_alone(self._codes, range(len(self._faces))):
            keys, crop_boxes = self._keys[some], self._faces.crop_boxes[some]
            if isinstance(codes, Exception):
                ((number, row),) = keys
                tables[number].end(row, Status.failed, f"{type(codes).__name__}: {codes}")
                continue
            for number in np.unique(keys[:, 0]):
                own = keys[:, 0] == number
                of_shard = {name: values[own] for name, values in codes.items()}
                tables[number].put(keys[own, 1], crop_boxes[own], of_shard)

    def _codes(self, some: Sequence[int]) -> dict[str, np.ndarray]:
        if self._wait:
            wait, self._wait = self._wait, None
            codes = wait()
        else:
            codes = self._regressor(self._faces[some[0] : some[-1] + 1])
        return check_codes(self._regressor, codes, len(some))


def _together_or_alone(
    call: Callable[[Sequence[int]], Any], items: Sequence[int]
) -> Iterator[tuple[Sequence[int], Any]]:
    """Call a function for all items; after an error for each alone, so that one bad sample fails alone.

    Yields items and the result, or one item and its exception. Errors of the device and wrong settings are raised.
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
        yield from _together_or_alone(call, items[position : position + 1])


def write_finished(tables: Sequence[Table], info: StoreInfo, regressor: Regressor) -> Counter[str]:
    """Write the shards whose last row is finished; rows by status."""
    if reduced := regressor.reduced_batches:
        info = replace(info, regressor={**info.regressor, "reduced_batches": reduced})
    return sum((table.write_if_finished(info) for table in tables), Counter[str]())
