"""Joining the stores of parts of one data set to the store that a single run would have written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import RunError, StoreError, UsageError, listed, plural
from ..features.store import CodeStore, read_rows
from ..features.store.format import StoreInfo
from ..features.store.writer import StoreWriter
from ..features.values import Block, by_status
from .identity import differences


def write_joined(
    out: Path,
    info: StoreInfo,
    samples: pd.DataFrame,
    blocks: dict[str, Block],
    parts: Sequence[Path],
) -> None:
    """Copy the rows of stores, in order, into one; a few thousand at a time.

    HDF5's checksums are compared as rows are read.

    Raises
    ------
    StoreError : a part is damaged, or the disk is full.
    """
    if reduced := _reduced_batches(parts):
        info = replace(info, regressor={**info.regressor, "reduced_batches": reduced})
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


def _reduced_batches(parts: Sequence[Path]) -> dict[str, int]:
    """Smallest batch of each network whose batch was halved in a part, for lack of memory."""
    smallest: dict[str, int] = {}
    for path in parts:
        with CodeStore(path) as part:
            for name, batch in part.info.regressor.get("reduced_batches", {}).items():
                smallest[name] = min(batch, smallest.get(name, batch))
    return smallest


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
    StoreError : a part is damaged, of another run or given twice, or parts are missing.
    """
    final = Path(out)
    if final.exists():
        raise RunError(
            f"{final}: expected nothing where the joined store goes, got something; name another --out"
        )
    opened = sorted(map(_read_part, _files(parts)), key=lambda part: part.samples["id"].iat[0])
    for part in opened[1:]:
        _check_same(part, opened[0])
    info = _without_part(opened[0].info)
    _check_rows(opened, info.config)
    samples = pd.concat([part.samples for part in opened], ignore_index=True)
    write_joined(final, info, samples, opened[0].blocks, [part.path for part in opened])
    return dict(sum((part.counts for part in opened), Counter[str]()))


@dataclass(frozen=True, slots=True)
class _Part:
    """Description of a part, without its codes."""

    path: Path
    info: StoreInfo
    blocks: dict[str, Block]
    samples: pd.DataFrame
    counts: Counter[str]


def _read_part(path: Path) -> _Part:
    """Check and describe a part.

    Raises
    ------
    StoreError : it is damaged.
    """
    with CodeStore(path) as store:
        store.check_content()
        return _Part(path, store.info, store.blocks, store.samples, Counter(by_status(store.status)))


def _files(parts: Sequence[str | Path]) -> list[Path]:
    files = []
    for part in map(Path, parts):
        inside = sorted(part.glob("[0-9]*.h5")) if part.is_dir() else [part]
        if not inside:
            raise UsageError(f"join: the folder {part} has no shards")
        files += inside
    if not files:
        raise UsageError("join: no stores to join; name at least one")
    return files


def _without_part(info: StoreInfo) -> StoreInfo:
    """Attributes of the joined store."""
    return replace(info, config={key: value for key, value in info.config.items() if key != "part"})


def _check_same(part: _Part, first: _Part) -> None:
    """Refuse a part of another run."""

    def about(one: _Part) -> dict[str, Any]:
        columns = asdict(_without_part(one.info))
        for name in ("created", "root", "ig3d_version"):
            del columns[name]
        columns["regressor"] = {**columns["regressor"]}
        columns["regressor"].pop("reduced_batches", None)
        return columns | columns.pop("config") | {"classes": list(one.info.classes)}

    differing = differences(about(first), about(part))
    if not differing and part.blocks != first.blocks:
        differing = ["other blocks"]
    if differing:
        raise StoreError(
            f"{part.path}: expected a part of the same run as {first.path}, got one of another ({listed(differing)})"
        )


def _check_rows(parts: Sequence[_Part], identity: dict[str, Any]) -> None:
    """Refuse parts that overlap, and incomplete ones."""
    part_of: dict[str, _Part] = {}
    for part in parts:
        if twice := [name for name in part.samples["id"] if name in part_of]:
            raise StoreError(
                f"{part.path}: {plural(len(twice), 'id')} already in {part_of[twice[0]].path}, such as {twice[0]}; "
                "leave one out"
            )
        part_of |= dict.fromkeys(part.samples["id"], part)
    rows, wanted = sum(len(part.samples) for part in parts), identity.get("samples")
    if wanted is not None and rows != wanted:
        names = sorted(filter(None, (str(part.info.config.get("part", "")) for part in parts)))
        raise StoreError(
            f"join: expected the {wanted} samples of the whole run, got {rows}"
            + (f" in the parts {listed(names, 12)}" if names else "")
            + "; name all of its parts"
        )
