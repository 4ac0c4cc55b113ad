"""Samples and codes of one or several stores.

Stores of the same samples are joined by id, their codes side by side. Stores of different data sets are stacked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import StoreError, plural
from .blocks import choose_blocks_of, column_names
from .classes import canonical_all
from .content import hash_contents
from .fusion_table import BlockUse
from .merge import merge_same, stack
from .quality import face_quality
from .store import CodeStore

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Codes:
    """Codes of n samples.

    Attributes
    ----------
    values : (n, d) float32
        NaN where a store has no codes of the sample.
    columns : d names
    blocks : the blocks that the columns are made of, in order
    quality : (n, 6) float64 (:func:`~.quality.face_quality`), of the first store of each dataset
    image_hash : (n,) int64 (:func:`~.content.hash_contents`), 0 for an image that no store has read
    source : str
        Names of the stores, for messages.
    sources : name of the input -> files, hashes and regressors
    notes : lines for the user: blocks, aligned rows, warnings
    reported : str
        Data set whose test rows are reported, if there are several; else empty.
    spare : classes that not all data sets have; predictions may have columns of them
    """

    values: np.ndarray
    columns: tuple[str, ...]
    blocks: tuple[BlockUse, ...]
    quality: np.ndarray
    image_hash: np.ndarray
    source: str
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reported: str = ""
    spare: tuple[str, ...] = ()

    @property
    def covered(self) -> np.ndarray:
        """(n,) bool: rows with codes."""
        return np.asarray(np.isfinite(self.values).all(axis=1))


def read_codes(paths: Sequence[Path], *, blocks: str = "full") -> tuple[pd.DataFrame, Codes]:
    """Read samples and codes of stores.

    Stores with the same ids (several regressors on one data set) are joined by id: blocks are named
    ``smirk:expression``, and a row has codes if all stores have codes of it. Stores without a common id are stacked
    (:func:`~.merge.stack`): models are trained on all but the last data set, which is reported.

    Parameters
    ----------
    paths : paths of the stores
    blocks : code blocks (:func:`~.blocks.choose_blocks_of`)

    Raises
    ------
    UsageError : an unknown block.
    StoreError : a store cannot be read, was changed, or does not fit the others.
    PredictionsError : samples with different labels or splits in several stores; no classes in common.
    """
    with ExitStack() as opened:
        stores = [opened.enter_context(CodeStore(path)) for path in paths]
        for store in stores:
            store.check_content()
        _check_different(stores)
        datasets = [_named(group) for group in _datasets(stores)]
        first = datasets[0]
        chosen = choose_blocks_of(
            blocks, {name: (list(store.blocks), store.named_sets) for name, store in first.items()}
        )
        notes = [note for other in datasets[1:] for note in _check_same(first, other, chosen)]
        pairs = [(name, block) for name in first for block in chosen[name]]
        used, columns = [], []
        for name, block in pairs:
            described, full_name = first[name].blocks[block], f"{name}:{block}" if name else block
            used.append(BlockUse(full_name, described.width, described.basis))
            columns += column_names(full_name, described)
        parts = [_read_dataset(dataset, pairs) for dataset in datasets]
        samples, spare = parts[0].samples, tuple[str, ...]()
        source = " + ".join(part.source for part in parts)
        notes += [note for part in parts for note in part.notes]
        if len(parts) > 1:
            samples, spare, roles = stack([(part.source, part.samples) for part in parts])
            notes += roles
        widths = ", ".join(f"{block.name} ({block.width})" for block in used)
        return samples, Codes(
            values=np.concatenate([part.values for part in parts]),
            columns=tuple(columns),
            blocks=tuple(used),
            quality=np.concatenate([part.quality for part in parts]),
            image_hash=np.concatenate([part.image_hash for part in parts]),
            source=source,
            sources={
                "3d": source,
                "3d_content_sha256": ", ".join(store.content_sha256 for store in stores),
                "3d_regressor": ", ".join(dict.fromkeys(_regressor(store) for store in stores)),
                "3d_blocks": ", ".join(f"{block.name} {block.width}" for block in used),
            },
            notes=(*notes, f"{source}: code blocks used: {widths}"),
            reported=parts[-1].source if len(parts) > 1 else "",
            spare=spare,
        )


def _check_different(stores: Sequence[CodeStore]) -> None:
    """Raise an error if two stores have the same content."""
    first: dict[str, CodeStore] = {}
    for store in stores:
        other = first.setdefault(store.content_sha256, store)
        if other is not store:
            raise StoreError(
                f"{other.path.name} and {store.path.name}: both stores have the same content; omit one"
            )


def _regressor(store: CodeStore) -> str:
    """Name of the regressor of a store; empty if the store does not have it."""
    return str(store.info.regressor.get("name", ""))


def _datasets(stores: Sequence[CodeStore]) -> list[list[CodeStore]]:
    """Stores grouped by their ids, in the order of the arguments."""
    groups: list[list[CodeStore]] = []
    for store in stores:
        for group in groups:
            group_ids, ids = group[0].samples["id"], store.samples["id"]
            common = len(np.intersect1d(group_ids, ids, assume_unique=True))
            if common == len(group_ids) == len(ids):
                group.append(store)
                break
            if common:
                raise StoreError(
                    f"{group[0].path.name} and {store.path.name}: the stores share only a part of their samples "
                    f"({plural(common, 'id')} in both, {len(group_ids) - common} only in the first, "
                    f"{len(ids) - common} only in the second); extract both from the same list"
                )
        else:
            groups.append([store])
    return groups


def _named(group: Sequence[CodeStore]) -> dict[str, CodeStore]:
    """Prefix of the names of blocks -> store, for the stores of one data set.

    The prefix is the regressor, else the file name; it is empty for a single store.
    """
    if len(group) == 1:
        return {"": group[0]}
    for names in ([_regressor(store) for store in group], [store.path.stem for store in group]):
        if "" not in names and len(set(names)) == len(group):
            return dict(zip(names, group, strict=True))
    raise StoreError(
        f"{group[0].path.name}: several stores have the same regressor and file name; rename a file"
    )


def _check_same(
    first: Mapping[str, CodeStore], other: Mapping[str, CodeStore], chosen: Mapping[str, tuple[str, ...]]
) -> list[str]:
    """Warnings of different weights of two data sets.

    Raises
    ------
    StoreError : the codes are of different regressors, blocks or bases.
    """
    names = [" + ".join(store.path.name for store in dataset.values()) for dataset in (first, other)]
    regressors = [sorted(_regressor(store) for store in dataset.values()) for dataset in (first, other)]
    if regressors[0] != regressors[1] or set(first) != set(other):
        raise StoreError(
            f"{names[0]} and {names[1]}: codes of different regressors ({' + '.join(regressors[0])}; "
            f"{' + '.join(regressors[1])}); extract both with the same"
        )
    for name, blocks in chosen.items():
        for block in blocks:
            one, two = first[name].blocks[block], other[name].blocks.get(block)
            if two is None or (one.width, one.basis) != (two.width, two.basis):
                description = "none" if two is None else f"{two.width} numbers of {two.basis}"
                raise StoreError(
                    f"{names[1]}: the block {block} is {description}, that of {names[0]} is {one.width} numbers of "
                    f"{one.basis}; extract both with the same regressor"
                )
    weights = [
        {name: store.info.regressor.get("weights_sha256") for name, store in dataset.items()}
        for dataset in (first, other)
    ]
    differ = [name or regressors[0][0] for name in first if weights[0][name] != weights[1][name]]
    return [
        f"WARNING {names[0]} and {names[1]}: {name} had different weights; their codes may not be comparable"
        for name in differ
    ]


@dataclass(frozen=True, slots=True)
class _Dataset:
    """One data set of n samples, sorted by id: sample table, (n, d) codes, (n, 6) quality and (n,) image hashes."""

    source: str
    samples: pd.DataFrame
    values: np.ndarray
    quality: np.ndarray
    image_hash: np.ndarray
    notes: tuple[str, ...]


def _read_dataset(stores: Mapping[str, CodeStore], pairs: Sequence[tuple[str, str]]) -> _Dataset:
    """Read the stores of one data set; ``pairs`` are the prefix and the name of each block, in order."""
    order = {
        name: np.argsort(store.samples["id"].to_numpy(str), kind="stable") for name, store in stores.items()
    }
    values = np.concatenate([stores[name].codes(block)[order[name]] for name, block in pairs], axis=1)
    (name, first), *others = stores.items()
    quality = face_quality(first)[order[name]]
    source = " + ".join(store.path.name for store in stores.values())
    samples = [_samples(store, order[name]) for name, store in stores.items()]
    digests = [store.column("sample/digest")[order[name]] for name, store in stores.items()]
    image_hash = hash_contents(digests[0])
    for digest in digests[1:]:
        image_hash = np.where(image_hash != 0, image_hash, hash_contents(digest))
    if not others:
        return _Dataset(source, samples[0], values, quality, image_hash, ())
    covered = np.isfinite(values).all(axis=1)
    merged = merge_same(samples, source=source)
    each = ", ".join(
        f"{name} {int(stores[name].ok.sum())}" for name in dict.fromkeys(name for name, _ in pairs)
    )
    notes = [
        f"{source}: aligned by id, {plural(len(merged), 'row')}, of which {int(covered.sum())} have codes in "
        f"each ({each})"
    ]
    for store, digest in zip(list(stores.values())[1:], digests[1:], strict=True):
        read = digests[0].any(axis=1) & digest.any(axis=1)
        other = int((read & (digests[0] != digest).any(axis=1)).sum())
        if other:
            notes.append(
                f"WARNING {first.path.name} and {store.path.name}: {plural(other, 'row')} of the same id were "
                "extracted from different image files"
            )
    return _Dataset(source, merged, values, quality, image_hash, tuple(notes))


def _samples(store: CodeStore, order: np.ndarray) -> pd.DataFrame:
    """Sample table of a store with rows in this order and canonical names of the classes."""
    samples = store.samples.iloc[order].reset_index(drop=True)
    samples["label"] = samples["label"].cat.rename_categories(list(canonical_all(store.info.classes)))
    return samples
