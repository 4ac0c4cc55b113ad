"""Joining: stores of parts of one dataset, made here or elsewhere, to the store that one run would have written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import RunError, StoreError, UsageError, some
from ..features.store import CodeStore, StoreInfo, read_rows
from ..features.store_writer import StoreWriter
from ..features.values import Block, Sample, Split
from .flow import by_status
from .shards import differences


def write_joined(
    out: Path,
    info: StoreInfo,
    samples: tuple[Sample, ...],
    blocks: dict[str, Block],
    parts: Sequence[Path],
) -> None:
    """Copy the rows of some stores, in order, into one; some thousand at a time, whatever their number.

    HDF5's checksums are compared as they are read.

    Raises
    ------
    StoreError : a part is damaged, or the disk is full.
    """
    with StoreWriter(out, info, samples, blocks) as writer:
        start = 0
        for path in parts:
            with CodeStore(path) as part:
                for rows in read_rows(part):
                    writer.write(start, rows)
                    start += len(rows)


def join_parts(parts: Sequence[str | Path], out: str | Path) -> dict[str, int]:
    """Join the stores of ``ig3d extract --part``, or the shards of a run, to one store.

    Parameters
    ----------
    parts : stores, or folders of shards (``STORE.h5.parts``), in any order
    out : path of the store to write; nothing may be there

    Returns
    -------
    dict of status name -> rows

    Raises
    ------
    RunError : something is at ``out``.
    UsageError : there is nothing to join.
    StoreError : a part is damaged, of another run or there twice, or some are lacking.
    """
    final = Path(out)
    if final.exists():
        raise RunError(
            f"{final}: expected nothing where the joined store goes, got something; name another --out"
        )
    with ExitStack() as opened:
        stores = [opened.enter_context(CodeStore(path)) for path in _files(parts)]
        for store in stores:
            if problems := store.verify():
                raise StoreError(
                    f"{store.path}: expected a sound part, got: {'; '.join(problems)}; make it again"
                )
        stores.sort(key=lambda store: str(store.samples.id[0]))
        whole = _whole(stores[0])
        for store in stores[1:]:
            _check_same(store, stores[0])
        _check_rows(stores, whole.config)
        samples = tuple(sample for store in stores for sample in _samples(store))
        blocks, paths = dict(stores[0].blocks), [store.path for store in stores]
        counts: Counter[str] = Counter()
        for store in stores:
            counts += Counter(by_status(store.samples.status))
    write_joined(final, whole, samples, blocks, paths)
    return dict(counts)


def _files(parts: Sequence[str | Path]) -> list[Path]:
    found = []
    for part in map(Path, parts):
        inside = sorted(part.glob("[0-9]*.h5")) if part.is_dir() else [part]
        if not inside:
            raise UsageError(f"join: expected shards in the folder {part}, found none")
        found += inside
    if not found:
        raise UsageError("join: expected stores to join, got none")
    return found


def _whole(store: CodeStore) -> StoreInfo:
    """What the store of the whole run says of itself."""
    config = {key: value for key, value in store.info.config.items() if key != "part"}
    return replace(store.info, config=config)


def _check_same(store: CodeStore, first: CodeStore) -> None:
    """Refuse a part of another run."""

    def about(one: CodeStore) -> dict[str, Any]:
        info = _whole(one)
        return {
            "dataset": info.dataset,
            "classes": list(info.classes),
            "regressor": info.regressor,
            "detector": info.detector,
            "crop": info.crop,
            **info.config,
        }

    found = differences(about(first), about(store))
    if not found and store.blocks != first.blocks:
        found = ["other blocks"]
    if found:
        raise StoreError(
            f"{store.path}: expected a part of the same run as {first.path}, got one of another ({some(found)})"
        )


def _check_rows(stores: Sequence[CodeStore], identity: dict[str, Any]) -> None:
    """Refuse parts that overlap, and parts that are not all there."""
    for before, after in pairwise(stores):
        if str(before.samples.id[-1]) >= str(after.samples.id[0]):
            raise StoreError(
                f"{after.path}: expected other samples than in {before.path}, got some that are in both "
                f"({before.samples.id[-1]}); leave one out"
            )
    rows, wanted = sum(map(len, stores)), identity.get("samples")
    if wanted is not None and rows != wanted:
        parts = sorted(filter(None, (str(store.info.config.get("part", "")) for store in stores)))
        raise StoreError(
            f"join: expected the {wanted} samples of the whole run, got {rows}"
            + (f" in the parts {some(parts, 12)}" if parts else "")
            + "; name all of its parts"
        )


def _samples(store: CodeStore) -> Iterator[Sample]:
    table = store.samples
    columns = (table.id, table.path, table.label, table.split, table.valence, table.arousal, table.group)
    for identifier, path, label, split, valence, arousal, group in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        yield Sample(identifier, path, label, Split(split), valence, arousal, group)
