"""Joining: stores of parts of one dataset, made here or elsewhere, to the store that one run would have written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError, StoreError, UsageError, number, some
from ..features.samples import Sample, Samples
from ..features.store import CodeStore, read_rows
from ..features.store.format import StoreInfo
from ..features.store.writer import StoreWriter
from ..features.values import Block
from .flow import by_status
from .identity import differences


def write_joined(
    out: Path,
    info: StoreInfo,
    samples: Sequence[Sample],
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
                if part.blocks != blocks:
                    raise StoreError(
                        f"{path}: its blocks are not those of {out}; remove it and repeat the command"
                    )
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
    found = sorted(map(_looked_at, _files(parts)), key=lambda part: part.samples[0].id)
    for part in found[1:]:
        _check_same(part, found[0])
    whole = _whole(found[0].info)
    _check_rows(found, whole.config)
    samples = Samples.together([part.samples for part in found])
    write_joined(final, whole, samples, found[0].blocks, [part.path for part in found])
    return dict(sum((part.counts for part in found), Counter[str]()))


@dataclass(frozen=True, slots=True)
class _Part:
    """What is to be known of a part before its rows are copied."""

    path: Path
    info: StoreInfo
    blocks: dict[str, Block]
    samples: Samples
    counts: Counter[str]


def _looked_at(path: Path) -> _Part:
    """A part, which is sound.

    Raises
    ------
    StoreError : it is not.
    """
    with CodeStore(path) as store:
        if problems := store.verify():
            raise StoreError(f"{path}: expected a sound part, got: {'; '.join(problems)}; make it again")
        return _Part(path, store.info, store.blocks, store.listed, Counter(by_status(store.status)))


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


def _whole(info: StoreInfo) -> StoreInfo:
    """What the store of the whole run says of itself."""
    return replace(info, config={key: value for key, value in info.config.items() if key != "part"})


def _check_same(part: _Part, first: _Part) -> None:
    """Refuse a part of another run."""

    def about(one: _Part) -> dict[str, Any]:
        info = _whole(one.info)
        return {
            "dataset": info.dataset,
            "classes": list(info.classes),
            "regressor": info.regressor,
            "detector": info.detector,
            "crop": info.crop,
            **info.config,
        }

    found = differences(about(first), about(part))
    if not found and part.blocks != first.blocks:
        found = ["other blocks"]
    if found:
        raise StoreError(
            f"{part.path}: expected a part of the same run as {first.path}, got one of another ({some(found)})"
        )


def _check_rows(parts: Sequence[_Part], identity: dict[str, Any]) -> None:
    """Refuse parts that overlap, and parts that are not all there."""
    ids = np.concatenate([part.samples.column("id") for part in parts])
    of_part = np.repeat(np.arange(len(parts)), [len(part.samples) for part in parts])
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if len(twice):
        first, second = order[twice[0]], order[twice[0] + 1]
        path, other = parts[of_part[second]].path, parts[of_part[first]].path
        raise StoreError(
            f"{path}: {number(len(twice), 'id')} already in {other}, such as {ids[first].decode()}; leave one out"
        )
    rows, wanted = sum(len(part.samples) for part in parts), identity.get("samples")
    if wanted is not None and rows != wanted:
        names = sorted(filter(None, (str(part.info.config.get("part", "")) for part in parts)))
        raise StoreError(
            f"join: expected the {wanted} samples of the whole run, got {rows}"
            + (f" in the parts {some(names, 12)}" if names else "")
            + "; name all of its parts"
        )
