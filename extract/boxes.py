"""Faces that are known before an image is read: boxes of the dataset itself, or of an earlier run's store.

Where a regressor is fed a crop, a known box takes the place of detection. Where it is fed landmarks, these are looked
for around the box only, and the face that overlaps it most is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from ..errors import DatasetError, StoreError, UsageError, some
from ..features.align import find_rows
from ..features.samples import SampleList, Samples
from ..features.store import CodeStore
from ..features.values import CropSpec, Face, LandmarkSpec, Status
from .read import Unreadable, bounded_images, digest_of
from .sources import read_content

# Around a box, in its sides, that is shown to a detector: as much as lets it see the whole head.
SURROUNDINGS = 0.5
# Files whose digest is compared before any work; the others are compared as they are read.
_CHECKED = 32


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one sample's face.

    Attributes
    ----------
    face : Face or None
        None where none was found; its landmarks may be two corners only, for the extent of what was found.
    count : int
        Faces in the image.
    digest : (16,) uint8, or None
        Of the file in which it was found; None for the dataset's own boxes.
    status, message : why there is no face
    """

    face: Face | None
    count: int = 1
    digest: np.ndarray | None = None
    status: Status = Status.ok
    message: str = ""

    def other_file(self, digest: np.ndarray) -> bool:
        """Whether the file is not the one in which the face was found."""
        return self.digest is not None and not np.array_equal(self.digest, digest)


def needs_search(known: Known | None, needs: CropSpec | LandmarkSpec) -> bool:
    """Whether a detector must be asked: nothing is known, or landmarks are lacking."""
    if known is None:
        return True
    if known.face is None or isinstance(needs, CropSpec):
        return False
    points, scores = known.face.landmarks, known.face.blendshapes
    return points is None or len(points) != needs.points or (needs.blendshapes and scores is None)


def is_outside(face: Face, image: np.ndarray) -> bool:
    """Whether no part of the face's box is in the (H, W, 3) image."""
    (x0, y0, x1, y1), (height, width) = face.xyxy, image.shape[:2]
    return bool(x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height)


def surroundings(image: np.ndarray, known: Known | None) -> tuple[np.ndarray, tuple[int, int]]:
    """The part of an (H, W, 3) image that a detector is shown, and its corner x, y; all where nothing is known."""
    if known is None or known.face is None:
        return image, (0, 0)
    x0, y0, x1, y1 = known.face.xyxy.astype(np.float64)
    margin = SURROUNDINGS * max(x1 - x0, y1 - y0)
    height, width = image.shape[:2]
    left, top = max(0, int(x0 - margin)), max(0, int(y0 - margin))
    right, bottom = min(width, int(np.ceil(x1 + margin))), min(height, int(np.ceil(y1 + margin)))
    if right <= left or bottom <= top:
        return image, (0, 0)  # a box without extent: what is found will not overlap it
    return image[top:bottom, left:right], (left, top)


def in_box(faces: Sequence[Face], known: Known, corner: tuple[int, int]) -> Face | None:
    """The face that overlaps the known box most, in pixels of the whole image; None where none does."""
    if known.face is None:
        return None
    box, shift = known.face.xyxy.astype(np.float64), np.array([*corner, *corner], np.float32)
    moved = [
        replace(face, xyxy=face.xyxy + shift, landmarks=_moved(face.landmarks, shift[:2])) for face in faces
    ]
    overlaps = [_overlap(face.xyxy.astype(np.float64), box) for face in moved]
    best = int(np.argmax(overlaps)) if overlaps else -1
    return moved[best] if best >= 0 and overlaps[best] > 0 else None


def _moved(points: np.ndarray | None, shift: np.ndarray) -> np.ndarray | None:
    if points is None:
        return None
    moved = points.copy()
    moved[:, :2] += shift
    return moved


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    shared = np.clip(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0, None).prod()
    both = (first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod() - shared
    return float(shared / max(both, 1e-9))


class KnownRows(Sequence[Known | None]):
    """What is known of the faces of n samples; made for some of them when it is asked for.

    Parameters
    ----------
    n : int
    make : function of a slice that gives a Known or None for each of its rows
    """

    def __init__(self, n: int, make: Callable[[slice], Sequence[Known | None]]) -> None:
        self._n, self._make = n, make

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, row: int) -> Known | None: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Known | None]: ...
    def __getitem__(self, row: int | slice) -> Known | Sequence[Known | None] | None:
        if isinstance(row, slice):
            return self._make(slice(*row.indices(self._n)))
        row = range(self._n)[row]
        return self._make(slice(row, row + 1))[0]

    def part(self, rows: slice) -> KnownRows:
        """Those of consecutive samples."""
        first, stop, _ = rows.indices(self._n)
        return KnownRows(stop - first, lambda some: self._make(slice(first + some.start, first + some.stop)))


@dataclass(frozen=True, slots=True)
class KnownFaces:
    """What is known of the faces of a whole dataset.

    Attributes
    ----------
    samples : a Known or None for each sample, in order
    complete : bool
        Whether something is known of every sample.
    identity : what it came from, for the run's identity
    detector : dict or None
        What found the faces, for the store; None where the dataset says them.
    """

    samples: KnownRows
    complete: bool
    identity: Any
    detector: dict[str, Any] | None = None


def known_faces(samples: SampleList, boxes: str, needs: CropSpec | LandmarkSpec) -> KnownFaces:
    """What is known before the run.

    Parameters
    ----------
    samples : SampleList
    boxes : ``dataset`` (its own boxes, where it has some), ``none``, or the path of a store
    needs : what the regressor is fed

    Raises
    ------
    UsageError : a store of whole images, in which no face was looked for.
    DatasetError : the store is not of this dataset.
    StoreError : it is no store.
    """
    if boxes not in ("dataset", "none"):
        return _of_store(samples, boxes, needs)
    given = Samples.of(samples.samples).column("box")
    has = ~np.isnan(given[:, 0]) & (boxes == "dataset")

    def known(rows: slice) -> list[Known | None]:
        some = zip(given[rows].astype(np.float32), has[rows], strict=True)
        return [Known(Face(box)) if there else None for box, there in some]

    return KnownFaces(KnownRows(len(samples), known), bool(has.all()), "dataset" if has.any() else "none")


def _of_store(samples: SampleList, path: str, needs: CropSpec | LandmarkSpec) -> KnownFaces:
    with CodeStore(path) as store:
        store.check_content()
        rows = _rows_of(samples, store)
        if store.info.detector.get("name") == "none":
            raise UsageError(
                f"boxes: expected a store whose faces were found, got {path} of whole images; use --detector none"
            )
        check_files(samples, store, rows, what="boxes")
        begun_with = store.content_sha256
        detector = {**store.info.detector, "boxes_of": begun_with}

    def known(some: slice) -> list[Known | None]:
        with CodeStore(path) as again:
            if again.content_sha256 != begun_with:  # its rows lie elsewhere
                raise StoreError(
                    f"boxes: expected the store that the run began with at {path}, got another; put that one back and "
                    "repeat the command, or --restart with this one"
                )
            return _read_known(again, rows[some], needs)

    return KnownFaces(KnownRows(len(samples), known), True, begun_with, detector)


def _rows_of(samples: SampleList, store: CodeStore) -> np.ndarray:
    """(n,) row of the store for each sample.

    Raises
    ------
    DatasetError : some are not in it.
    """
    ids, wanted = store.column("sample/id"), Samples.of(samples.samples).column("id")
    rows, _ = find_rows(wanted, ids)
    lacking = np.flatnonzero(rows < 0)
    if len(lacking):
        raise DatasetError(
            f"boxes: expected the {len(samples)} samples of {samples.dataset} in {store.path}, got {len(lacking)} that "
            f"are not in it ({some([samples.samples[row].id for row in lacking.tolist()])}); extract that store from "
            "the same dataset"
        )
    return rows


def _read_known(store: CodeStore, rows: np.ndarray, needs: CropSpec | LandmarkSpec) -> list[Known | None]:
    """What a store knows of some of its rows, which lie near each other."""
    if not len(rows):
        return []
    first, last = int(rows.min()), int(rows.max())

    def read(name: str) -> np.ndarray:
        return store.column(name, slice(first, last + 1))[rows - first]

    boxes, scores, counts = read("face/box"), read("face/score"), read("face/count")
    status, digests, messages = read("sample/status"), read("sample/digest"), read("sample/message")
    points = _corners(read) if isinstance(needs, CropSpec) else _points(store, read)
    wanted = isinstance(needs, LandmarkSpec) and needs.blendshapes and "blendshapes" in store.blocks
    blendshapes = read("codes/blendshapes") if wanted else None
    known: list[Known | None] = []
    for row in range(len(rows)):
        if np.isfinite(boxes[row]).all():
            face = Face(
                boxes[row],
                float(scores[row]),
                None if points is None or np.isnan(points[row]).any() else points[row],
                None if blendshapes is None else blendshapes[row],
            )
            known.append(Known(face, int(counts[row]), digests[row]))
            continue
        if not digests[row].any():  # it could not be read then, and nobody has looked for its face
            known.append(Known(None, 0, None, Status.failed, "no face is known of it"))
        else:
            known.append(Known(None, 0, digests[row], Status(int(status[row])), messages[row].decode()))
    return known


def _corners(read: Callable[[str], np.ndarray]) -> np.ndarray:
    """(n, 2, 2) corners of the landmarks' extent, by which crops are made; NaN where the detector gave none."""
    return read("face/landmark_box").reshape(-1, 2, 2)


def _points(store: CodeStore, read: Callable[[str], np.ndarray]) -> np.ndarray | None:
    """(n, 478, 3) points, pixels, of a store that has them; NaN where there is no face."""
    if store.info.regressor.get("name") != "facemesh" or "landmarks" not in store.blocks:
        return None
    from .regressors.facemesh import project

    aligned = read("codes/landmarks")
    aligned = aligned.reshape(len(aligned), -1, 3)
    size_wh = np.stack([read("sample/width"), read("sample/height")], axis=1)
    points, ok = np.full_like(aligned, np.nan), read("sample/status") == Status.ok
    pose, camera = read("codes/pose"), read("codes/camera")
    points[ok] = project(aligned[ok], pose[ok], camera[ok], size_wh[ok])
    return points


def check_files(samples: SampleList, store: CodeStore, rows: np.ndarray, *, what: str) -> None:
    """Compare some files with what the store saw, so that another dataset is refused before any work.

    Parameters
    ----------
    samples : SampleList
    store : CodeStore
    rows : (n,) int
        Row of the store for each sample.
    what : str
        What the store is taken for; opens the message.

    Raises
    ------
    DatasetError : files of another content than the store's.
    """
    digests = store.column("sample/digest")[rows]
    seen = np.flatnonzero(digests.any(axis=1))  # the others were not read
    chosen = seen[np.unique(np.linspace(0, len(seen) - 1, _CHECKED).astype(int))] if len(seen) else seen
    other = []
    with bounded_images():
        for row in chosen.tolist():
            sample = samples.samples[row]
            try:
                content = read_content(f"{samples.root}/{sample.path}")
            except (FileNotFoundError, Unreadable):
                continue  # its row will say so
            raw = content.tobytes() if isinstance(content, np.ndarray) else content
            if not np.array_equal(digest_of(raw), digests[row]):
                other.append(sample.id)
    if other:
        raise DatasetError(
            f"{what}: expected the images of {store.path}, got {len(other)} of {len(chosen)} that were looked at with "
            f"other content ({some(other)}); extract that store from the same images"
        )
