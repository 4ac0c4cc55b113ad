"""Join the stores of parts of a dataset to the store that a single run would have written."""

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
    """Write the rows of several stores, in order, to one store.

    Parameters
    ----------
    out : Path
    info : StoreInfo
    samples : DataFrame
        Sample table of all rows.
    blocks : dict of block name to Block
    parts : sequence of Path
        Stores; their checksums are verified when rows are read.

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
    """Smallest batch of each network whose batch was halved in a part because memory did not suffice."""
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
    parts : paths of stores, or of folders of shards (``STORE.h5.parts``), in any order
    out : path of the joined store, which must not exist

    Returns
    -------
    dict of status name -> rows

    Raises
    ------
    RunError : the file ``out`` exists.
    UsageError : ``parts`` is empty, or a folder has no shards.
    StoreError : a part is damaged or of another run, or parts overlap or are missing.
    """
    final = Path(out)
    if final.exists():
        raise RunError(f"{final}: the file exists, and join replaces no file; choose another --out")
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
    StoreError : the part is damaged.
    """
    with CodeStore(path) as store:
        store.check_content()
        return _Part(path, store.info, store.blocks, store.samples, Counter(by_status(store.status)))


def _files(parts: Sequence[str | Path]) -> list[Path]:
    """Stores, and the stores of shards in folders."""
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
    """Attributes of a part without ``part``: those of the joined store."""
    return replace(info, config={key: value for key, value in info.config.items() if key != "part"})


def _check_same(part: _Part, first: _Part) -> None:
    """Refuse a part of another run."""

    def attributes(part: _Part) -> dict[str, Any]:
        values = asdict(_without_part(part.info))
        for name in ("created", "root", "ig3d_version"):
            del values[name]
        values["regressor"] = {**values["regressor"]}
        values["regressor"].pop("reduced_batches", None)
        return values | values.pop("config") | {"classes": list(part.info.classes)}

    differing = differences(attributes(first), attributes(part))
    if not differing and part.blocks != first.blocks:
        differing = ["other blocks"]
    if differing:
        raise StoreError(
            f"{part.path}: the part is not of the same run as {first.path} ({listed(differing)}); leave it out"
        )


def _check_rows(parts: Sequence[_Part], identity: dict[str, Any]) -> None:
    """Refuse parts that overlap, and incomplete ones."""
    part_of: dict[str, _Part] = {}
    for part in parts:
        if repeated := [name for name in part.samples["id"] if name in part_of]:
            raise StoreError(
                f"{part.path}: {plural(len(repeated), 'id')} also in {part_of[repeated[0]].path}, such as "
                f"{repeated[0]}; leave one of the stores out"
            )
        part_of |= dict.fromkeys(part.samples["id"], part)
    rows, wanted = sum(len(part.samples) for part in parts), identity.get("samples")
    if wanted is not None and rows != wanted:
        names = sorted(filter(None, (str(part.info.config.get("part", "")) for part in parts)))
        raise StoreError(
            f"join: the run has {wanted} samples, the stores have {rows}"
            + (f" (parts {listed(names, 12)})" if names else "")
            + "; pass the stores of all parts"
        )
