"""``ig3d split`` on a store: the same codes with a validation part, without extracting again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...errors import StoreError
from ...features.samples import Listing
from ...features.store import CodeStore, read_rows
from ...features.store.writer import StoreWriter
from . import with_groups
from .splits import draw_val


def listing_of(store: CodeStore, groups: str | None = None) -> Listing:
    """The samples of a store as a dataset lists them: sorted by id; ``groups`` is a pattern as for ``--groups``."""
    samples = store.samples.sort_values("id", kind="stable", ignore_index=True)
    listing = Listing(store.info.dataset, store.info.root, samples)
    return listing if groups is None else with_groups(listing, groups)


def split_store(
    store: CodeStore, out: Path, share: float | None, *, seed: int = 0, groups: str | None = None
) -> Listing:
    """Write a copy of a store with the splits of :func:`~.splits.draw_val`; returns its samples.

    With the same share, seed and samples, the splits are those of the dataset.

    Raises
    ------
    StoreError : ``out`` is the store itself, or cannot be written.
    """
    if out.resolve() == store.path.resolve():
        raise StoreError(f"{out}: is the store that is read; name a new file")
    carved = draw_val(listing_of(store, groups), share, seed=seed)
    # part of what made this store: an extraction of the same samples is not the same run
    config = store.info.config | {"split": {"val": share, "seed": seed}}
    samples = carved.samples.set_index("id", drop=False).loc[store.samples["id"]].reset_index(drop=True)
    with StoreWriter(out, replace(store.info, config=config), samples, store.blocks) as writer:
        start = 0
        for rows in read_rows(store):
            writer.write(start, rows)
            start += len(rows)
    return carved
