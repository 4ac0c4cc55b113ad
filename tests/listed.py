"""Listings and sample tables of a few rows, made and compared row by row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from ig3d.features.samples import BOX_COLUMNS, Listing, Split, boxes_of, sample_table


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A row of the sample table; the label is an index, -1 for none."""

    id: str
    path: str
    label: int = -1
    split: Split = Split.none
    valence: float = math.nan
    arousal: float = math.nan
    group: str = ""
    size_bytes: int = -1
    box: tuple[float, float, float, float] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sample) and repr(self) == repr(other)  # NaN is equal to NaN

    def __hash__(self) -> int:
        return hash(repr(self))


def record(sample: Sample) -> dict[str, Any]:
    values = {field.name: getattr(sample, field.name) for field in fields(sample)}
    box = values.pop("box")
    return values | (dict(zip(BOX_COLUMNS, box, strict=True)) if box else {})


def table_of(samples: Iterable[Sample], classes: Sequence[str] = ()) -> pd.DataFrame:
    """The sample table in the given order, without sorting by id."""
    records = [record(sample) for sample in samples]
    classes = classes or [f"class {label}" for label in range(1 + max(one["label"] for one in records))]
    numbered = [one | {"id": f"{row:09d}"} for row, one in enumerate(records)]
    return sample_table(numbered, classes=classes).assign(
        id=pd.Series([one["id"] for one in records], dtype="str")
    )


def listing_of(
    dataset: str, root: str, classes: Sequence[str], samples: Iterable[Sample], notes: tuple[str, ...] = ()
) -> Listing:
    return Listing(dataset, root, sample_table(map(record, samples), classes=classes), notes)


def with_samples(listing: Listing, samples: Iterable[Sample]) -> Listing:
    return listing_of(listing.dataset, listing.root, listing.classes, samples, listing.notes)


def samples_of(listing: Listing) -> list[Sample]:
    columns = listing.samples[["id", "path", "valence", "arousal", "group", "size_bytes"]]
    boxes = [tuple(box) if np.isfinite(box).all() else None for box in boxes_of(listing.samples).tolist()]
    return [
        # the very object, by which equal samples are equal
        Sample(name, path, label, Split(split), *(math.nan if v != v else v for v in va), group, size, box)
        for (name, path, *va, group, size), label, split, box in zip(
            columns.itertuples(index=False, name=None),
            listing.labels.tolist(),
            listing.splits.tolist(),
            boxes,
            strict=True,
        )
    ]


def by_id(listing: Listing) -> dict[str, Sample]:
    return {sample.id: sample for sample in samples_of(listing)}


def words(listing: Listing, sample_id: str) -> tuple[str, str]:
    """Class and split of a sample, in words."""
    sample = by_id(listing)[sample_id]
    return listing.classes[sample.label] if sample.label >= 0 else "none", sample.split.name
