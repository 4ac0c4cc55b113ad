"""``ig3d split`` on a store: the same codes with a validation part, without extracting again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...errors import StoreError
from ...features.samples import Listing
from ...features.store import CodeStore, read_rows
from ...features.store.writer import StoreWriter
from .splits import carve


def listing_of(store: CodeStore) -> Listing:
    """The samples of a store as a dataset lists them: sorted by id."""
    samples = store.samples.sort_values("id", kind="stable", ignore_index=True)
    return Listing(store.info.dataset, store.info.root, samples)


def split_store(store: CodeStore, out: Path, share: float, *, seed: int = 0) -> Listing:
    """Write a copy of a store in which a part of the train rows is ``val``; returns its samples.

    Share, seed and samples being the same, the rows are those that :func:`~.splits.carve` takes from the dataset.

    Raises
    ------
    StoreError : ``out`` is the store itself, or cannot be written.
    """
    if out.resolve() == store.path.resolve():
        raise StoreError(f"{out}: is the store that is read; name a new file")
    carved = carve(listing_of(store), share, seed=seed)
    # part of what made this store: an extraction of the same samples is not the same run
    config = store.info.config | {"split": {"val": share, "seed": seed}}
    samples = carved.samples.set_index("id", drop=False).loc[store.samples["id"]].reset_index(drop=True)
    with StoreWriter(out, replace(store.info, config=config), samples, store.blocks) as writer:
        start = 0
        for rows in read_rows(store):
            writer.write(start, rows)
            start += len(rows)
    return carved
