"""Stored face boxes: those of the dataset itself, or of the store of an earlier extraction.

For a regressor that takes crops, the crop around the box is used and no detector runs. For a regressor that takes
landmarks, the detector searches the surroundings of the box, and the face that overlaps the box most is used. With
``--faces all``, the boxes are those of the detector itself: it searches the full image again, so that a face has the
codes that it has without stored boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..errors import DatasetError, StoreError, UsageError, listed, plural
from ..features.align import find_rows
from ..features.samples import Listing, boxes_of
from ..features.store import CodeStore
from ..features.values import CropSpec, Face, LandmarkSpec, Status
from .read import Unreadable, bounded_images, digest_of
from .sources import read_content

# Margin around a box in which a detector searches, relative to the longer side of the box: enough for the whole head.
SURROUNDINGS = 0.5
# Number of files whose digest is compared before the extraction; the others are compared when they are read.
_CHECKED = 32


@dataclass(frozen=True, slots=True)
class FaceBoxes:
    """Stored face boxes of n samples, with landmarks if the store has them.

    Attributes
    ----------
    status : (n,) int8 codes of :class:`Status`
        ``ok``: the row has a box; ``pending``: the row has no box and needs a detector; any other: the status that the
        row gets.
    message : (n,) str
        Reason for any other status.
    box : (n, 4) float32, pixels
        x0, y0, x1, y1; NaN for rows without a box.
    score : (n,) float32
        Confidence of the detector in [0, 1]; NaN for boxes of the dataset.
    count : (n,) int16
        Number of faces in the image.
    digest : (n, 16) uint8
        BLAKE2b-128 of the file in which the face was found; zeros for boxes of the dataset.
    search_full_image : (n,) bool
        Whether the face is searched in the full image again, because the box is that of the first pass of
        ``--faces all``: its codes are then those of a run without this option.
    landmarks : (n, p, 2 or 3) float32, pixels, or None
        NaN for rows without landmarks. If the store has only the extent of the landmarks, its two corners, p = 2.
    blendshapes : (n, 52) float32 in [0, 1], or None
    """

    status: np.ndarray
    message: np.ndarray
    box: np.ndarray
    score: np.ndarray
    count: np.ndarray
    digest: np.ndarray
    search_full_image: np.ndarray
    landmarks: np.ndarray | None = None
    blendshapes: np.ndarray | None = None

    @classmethod
    def of(cls, boxes: np.ndarray, *, detected: bool = False) -> Self:
        """FaceBoxes of (n, 4) boxes of a dataset or the run's detector, pixels; NaN for rows without a box."""
        n, has_box = len(boxes), ~np.isnan(boxes[:, 0])
        return cls(
            status=np.where(has_box, Status.ok, Status.pending).astype(np.int8),
            message=np.zeros(n, "U1"),
            box=boxes.astype(np.float32),
            score=np.full(n, np.nan, np.float32),
            count=has_box.astype(np.int16),
            digest=np.zeros((n, 16), np.uint8),
            search_full_image=np.full(n, detected),
        )

    @classmethod
    def unknown(cls, n: int) -> Self:
        """FaceBoxes of n samples without boxes."""
        return cls.of(np.full((n, 4), np.nan))

    def __len__(self) -> int:
        return len(self.status)

    def __getitem__(self, rows: slice) -> FaceBoxes:
        columns = {name: getattr(self, name) for name in self.__slots__}
        part: dict[str, Any] = {
            name: None if values is None else values[rows] for name, values in columns.items()
        }
        return FaceBoxes(**part)

    def face(self, row: int) -> Face | None:
        """The stored face of a row; None if it has none."""
        if self.status[row] != Status.ok:
            return None
        points = None if self.landmarks is None else self.landmarks[row]
        return Face(
            self.box[row],
            float(self.score[row]),
            None if points is None or np.isnan(points).any() else points,
            None if self.blendshapes is None else self.blendshapes[row],
        )

    def is_other_file(self, row: int, digest: np.ndarray) -> bool:
        """Whether a file's digest differs from that of the file in which the face was found."""
        return bool(self.digest[row].any()) and not np.array_equal(self.digest[row], digest)


def needs_detector(face: Face, needs: CropSpec | LandmarkSpec) -> bool:
    """Whether a stored face has no landmarks or blendshapes as the regressor takes them."""
    if isinstance(needs, CropSpec):
        return False
    points, scores = face.landmarks, face.blendshapes
    return points is None or len(points) != needs.points or (needs.blendshapes and scores is None)


def is_outside(face: Face, image: np.ndarray) -> bool:
    """Whether no part of the face's box is in the (H, W, 3) image."""
    (x0, y0, x1, y1), (height, width) = face.xyxy, image.shape[:2]
    return bool(x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height)


def surroundings(image: np.ndarray, face: Face | None) -> tuple[np.ndarray, tuple[int, int]]:
    """Part of an (H, W, 3) image around a face, and its top left corner x, y; the full image if the face is None."""
    if face is None:
        return image, (0, 0)
    x0, y0, x1, y1 = face.xyxy.astype(np.float64)
    margin = SURROUNDINGS * max(x1 - x0, y1 - y0)
    height, width = image.shape[:2]
    left, top = max(0, int(x0 - margin)), max(0, int(y0 - margin))
    right, bottom = min(width, int(np.ceil(x1 + margin))), min(height, int(np.ceil(y1 + margin)))
    if right <= left or bottom <= top:
        return image, (0, 0)  # the box is empty or outside of the image
    return image[top:bottom, left:right], (left, top)


def choose_overlapping(faces: Sequence[Face], box: np.ndarray, corner: tuple[int, int]) -> Face | None:
    """The face that overlaps a box most (intersection over union), or None if none overlaps it.

    Parameters
    ----------
    faces : sequence of Face
        Detected in a part of the image, in pixels of the part.
    box : (4,) array
        x0, y0, x1, y1 in pixels of the full image.
    corner : x, y of the top left corner of the part in the full image

    Returns
    -------
    Face or None
        In pixels of the full image.
    """
    box, shift = box.astype(np.float64), np.array([*corner, *corner], np.float32)
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


@dataclass(frozen=True, slots=True)
class BoxSource:
    """Source of stored face boxes, which are read for one shard at a time.

    Attributes
    ----------
    complete : bool
        Whether every sample has a known box, or a status that the store gives it.
    identity : str
        ``none``, ``dataset``, ``detector``, or the content hash of the store; part of the identity of a run.
    boxes : (n, 4) float32, pixels
        Boxes of the dataset or the detector; NaN for samples without a box. Not used with a store.
    store : Path or None
        Store of an earlier extraction.
    rows : (n,) int or None
        Row of the store for each sample.
    needs : CropSpec, LandmarkSpec or None
        Input of the regressor.
    detector : dict or None
        Description of the detector of the store.
    """

    complete: bool
    identity: str
    boxes: np.ndarray
    store: Path | None = None
    rows: np.ndarray | None = None
    needs: CropSpec | LandmarkSpec | None = None
    detector: dict[str, Any] | None = None

    def part(self, rows: slice) -> BoxSource:
        """Source for consecutive samples."""
        return replace(self, boxes=self.boxes[rows], rows=None if self.rows is None else self.rows[rows])

    def read(self, rows: slice) -> FaceBoxes:
        """Face boxes of consecutive samples.

        Raises
        ------
        StoreError : the store was replaced by another since :func:`box_source`.
        """
        if self.store is None or self.rows is None or self.needs is None:
            return FaceBoxes.of(self.boxes[rows], detected=self.identity == "detector")
        with CodeStore(self.store) as store:
            if store.content_sha256 != self.identity:  # its rows may have changed
                raise StoreError(
                    f"boxes: {self.store} is another store than when the run began; restore the first one and repeat "
                    "the command, or start again with --restart"
                )
            return _read_boxes(store, self.rows[rows], self.needs)


def box_source(listing: Listing, boxes: str, needs: CropSpec | LandmarkSpec) -> BoxSource:
    """Source of face boxes by the option ``--boxes``.

    Parameters
    ----------
    listing : Listing
    boxes : ``dataset`` (boxes of the dataset, if it has any), ``none``, or the path of a store
    needs : CropSpec or LandmarkSpec
        Input of the regressor.

    Raises
    ------
    UsageError : the store has codes of full images, without detected faces.
    DatasetError : samples are not in the store, or files have other content.
    StoreError : the store cannot be read.
    """
    if boxes not in ("dataset", "none"):
        return _store_source(listing, Path(boxes), needs)
    own = boxes_of(listing.samples).astype(np.float32)
    if listing.detected:
        return BoxSource(complete=False, identity="detector", boxes=own)
    if boxes == "none":
        own = np.full_like(own, np.nan)
    has_box = ~np.isnan(own[:, 0])
    return BoxSource(bool(has_box.all()), "dataset" if has_box.any() else "none", own)


def _store_source(listing: Listing, path: Path, needs: CropSpec | LandmarkSpec) -> BoxSource:
    with CodeStore(path) as store:
        store.check_content()
        rows = _rows_of(listing, store)
        if store.info.crop.get("whole_image"):
            raise UsageError(
                f"boxes: {path} is a store of full images, without detected faces; use --detector none"
            )
        check_files(listing, store, rows, what="boxes")
        detector = {**store.info.detector, "boxes_of": store.content_sha256}
        unused = np.broadcast_to(np.float32(np.nan), (len(rows), 4))
        return BoxSource(True, store.content_sha256, unused, path, rows, needs, detector)


def _rows_of(listing: Listing, store: CodeStore) -> np.ndarray:
    """(n,) int: row of the store for each sample.

    Raises
    ------
    DatasetError : samples are not in the store.
    """
    rows, _ = find_rows(listing.samples["id"], store.samples["id"])
    missing = listing.samples["id"][rows < 0].tolist()
    if missing:
        raise DatasetError(
            f"boxes: {store.path} does not have {len(missing)} of {plural(len(listing), 'sample')} of "
            f"{listing.dataset} ({listed(missing)}); extract that store from the same dataset"
        )
    return rows


def _read_boxes(store: CodeStore, rows: np.ndarray, needs: CropSpec | LandmarkSpec) -> FaceBoxes:
    """Face boxes of rows of a store; all rows from the first to the last one are read."""
    first, last = int(rows.min(initial=len(store))), int(rows.max(initial=-1))

    def read(name: str) -> np.ndarray:
        return store.column(name, slice(first, last + 1))[rows - first]

    box, digest = read("face/box"), read("sample/digest")
    has_box, unread = ~np.isnan(box[:, 0]), ~digest.any(axis=1)
    status = np.where(has_box, Status.ok, np.where(unread, Status.failed, read("sample/status")))
    with_blendshapes = isinstance(needs, LandmarkSpec) and needs.blendshapes and "blendshapes" in store.blocks
    return FaceBoxes(
        status=status.astype(np.int8),
        # a file without digest could not be read, so that no face was searched in it
        message=np.where(
            unread & ~has_box, "its face is unknown: the file could not be read", read("sample/message")
        ),
        box=box,
        score=read("face/score"),
        count=read("face/count"),
        digest=digest,
        search_full_image=np.zeros(len(box), bool),
        landmarks=read("face/landmark_box").reshape(-1, 2, 2)
        if isinstance(needs, CropSpec)
        else _points(store, read),
        blendshapes=read("codes/blendshapes") if with_blendshapes else None,
    )


def _points(store: CodeStore, read: Callable[[str], np.ndarray]) -> np.ndarray | None:
    """(n, 478, 3) landmarks, pixels; NaN for rows without a face. None if the store has no landmarks."""
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


def check_files(listing: Listing, store: CodeStore, rows: np.ndarray, *, what: str) -> None:
    """Compare up to 32 files with the digests in a store, so that another dataset is refused before any work.

    Parameters
    ----------
    listing : Listing
    store : CodeStore
    rows : (n,) int
        Row of the store for each sample.
    what : str
        First word of the message, such as ``boxes``.

    Raises
    ------
    DatasetError : files have another content.
    """
    digests = store.column("sample/digest")[rows]
    seen = np.flatnonzero(digests.any(axis=1))  # the others were not read
    chosen = seen[np.unique(np.linspace(0, len(seen) - 1, _CHECKED).astype(int))] if len(seen) else seen
    other = []
    with bounded_images():
        for row in chosen.tolist():
            path = listing.samples["path"].iat[row]
            try:
                content = read_content(f"{listing.root}/{path}")
            except (FileNotFoundError, Unreadable):
                continue  # the extraction gives the row its status
            raw = content.tobytes() if isinstance(content, np.ndarray) else content
            if not np.array_equal(digest_of(raw), digests[row]):
                other.append(listing.samples["id"].iat[row])
    if other:
        raise DatasetError(
            f"{what}: other content than in {store.path} in {len(other)} of {plural(len(chosen), 'compared file')} "
            f"({listed(other)}); extract that store from the same images"
        )
