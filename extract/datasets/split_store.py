"""``ig3d split`` on a store: the same codes with a validation part, without extracting again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import StoreError
from ...features.samples import SampleList, Samples
from ...features.store import CodeStore, read_rows
from ...features.store.writer import StoreWriter
from .splits import carve


def samples_of(store: CodeStore) -> SampleList:
    """The samples of a store as a dataset would list them."""
    return SampleList(store.info.dataset, store.info.root, store.info.classes, store.listed)


def split_store(store: CodeStore, out: Path, share: float, *, seed: int = 0) -> SampleList:
    """Write a copy of a store in which a part of the train rows is ``val``; returns its samples.

    Share, seed and samples being the same, the rows are those that :func:`~.splits.carve` takes from the dataset.

    Raises
    ------
    StoreError : ``out`` is the store itself, or cannot be written.
    """
    if out.resolve() == store.path.resolve():
        raise StoreError(f"{out}: expected another file than the store that is read; name a new one")
    carved = carve(samples_of(store), share, seed=seed)
    # part of what made this store: an extraction of the same samples is not the same run
    config = store.info.config | {"split": {"val": share, "seed": seed}}
    sorted_by_id = Samples.of(carved.samples)
    rows_of = np.searchsorted(sorted_by_id.column("id"), store.listed.column("id"))
    samples = sorted_by_id.take(rows_of)
    with StoreWriter(out, replace(store.info, config=config), samples, store.blocks) as writer:
        start = 0
        for rows in read_rows(store):
            writer.write(start, rows)
            start += len(rows)
    return carved
