"""Crop of each image for a 2D network: full image, face box of the dataset, or face box of a store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError, listed, plural
from ..extract.boxes import check_files
from ..features.align import find_rows
from ..features.samples import Listing, boxes_of
from ..features.store import CodeStore


@dataclass(frozen=True, slots=True)
class Crops:
    """Crop of each sample.

    Attributes
    ----------
    boxes : (n, 4) float64, pixels
        x0, y0, x1, y1 of a square, which may extend beyond the image; NaN is the full image.
    source : str
        Source of the boxes: ``whole`` (no boxes), ``dataset``, or ``store`` with the name of its detector.
    scale : float
        Side of the square relative to the mean side of the box; 1 for full images.
    notes : tuple of str
    """

    boxes: np.ndarray
    source: str = "whole"
    scale: float = 1.0
    notes: tuple[str, ...] = ()

    def scaled(self, scale: float) -> Crops:
        """The same crops with another scale."""
        return replace(self, boxes=_squares(self.boxes, scale / self.scale), scale=scale)

    @property
    def identity(self) -> dict[str, Any]:
        """JSON record of the crop, for ``made_by``."""
        return {"crop": self.source, "crop_scale": self.scale}


def default_crop(listing: Listing, like: str | Path | None) -> str | None:
    """Store of ``--like`` as the crop, if its samples are frames of videos or faces of shared images, else None.

    Full images would be wrong for these: a frame shows more than the face, and all faces of an image would get one
    prediction.
    """
    if like is None or np.isfinite(boxes_of(listing.samples)).any():
        return None
    return str(like) if _has_frames(listing) or listing.samples["path"].duplicated().any() else None


def choose_crops(listing: Listing, crop: str | Path | None = None, *, scale: float = 1.0) -> Crops:
    """Choose the crop of each image.

    Parameters
    ----------
    listing : Listing
    crop : ``whole``, the path of a store, or None
        None uses the boxes of the dataset if it has any, else full images. For samples without a face in the store,
        the full image is used.
    scale : float > 0
        Side of the square relative to the mean side of the box.

    Raises
    ------
    UsageError : the scale is out of range or not 1 without boxes, or the store has other ids.
    DatasetError : the store has other images under these ids.
    StoreError : the store cannot be read.
    """
    if not 0.1 <= scale <= 10:
        raise UsageError(f"crop scale is {scale}; it must be from 0.1 to 10")
    if crop is None:
        boxes = boxes_of(listing.samples)
        count = int(np.isfinite(boxes).all(1).sum())
        note = (
            f"{count} of {plural(len(boxes), 'image')} cropped to the face box of the dataset (--crop whole "
            "turns this off)",
        )
        if count:
            return Crops(_squares(boxes, scale), "dataset", scale, note)
        _check_whole(scale)
        whole = ("frames of videos are used whole; --crop STORE crops them to the faces of a store",)
        return Crops(boxes, notes=whole if _has_frames(listing) else ())
    if str(crop) == "whole":
        _check_whole(scale)
        return Crops(np.full((len(listing), 4), np.nan))
    with CodeStore(crop) as store:
        store.check_content()
        rows, _ = find_rows(listing.samples["id"], store.samples["id"])
        unknown = listing.samples["id"].iloc[np.flatnonzero(rows < 0)].tolist()
        if unknown:
            raise UsageError(
                f"crop: {crop} does not have {len(unknown)} of {plural(len(rows), 'sample')} ({listed(unknown)}); "
                "extract the same dataset"
            )
        check_files(listing, store, rows, what="crop")
        boxes = store.column("face/box")[rows].astype(np.float64)
        source = f"store ({store.info.detector.get('name', 'unknown')})"
    faceless = listing.samples["id"].iloc[np.flatnonzero(~np.isfinite(boxes).all(1))].tolist()
    notes = [f"{len(rows) - len(faceless)} of {plural(len(rows), 'image')} cropped to the face box of {crop}"]
    if faceless:
        notes.append(
            f"{len(faceless)} of {plural(len(rows), 'sample')} without a face in {crop}, used as full images "
            f"({listed(faceless)})"
        )
    return Crops(_squares(boxes, scale), source, scale, tuple(notes))


def _check_whole(scale: float) -> None:
    """Refuse a scale for full images."""
    if scale != 1:
        raise UsageError(
            f"crop-scale: {scale:g} needs face boxes, and full images are used; pass --crop STORE, or leave it out"
        )


def _has_frames(listing: Listing) -> bool:
    return "time" in listing.samples and bool(listing.samples["time"].notna().any())


def _squares(boxes: np.ndarray, scale: float) -> np.ndarray:
    """Squares around the centres of (n, 4) boxes."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).mean(1, keepdims=True) / 2 * scale
    return np.hstack([centre - half, centre + half])
