"""Shards of a run: consecutive samples that one worker extracts; planning and resuming.

``STORE.h5.parts/`` has ``run.json`` (identity of the run), one small store per finished shard, and a lock. A shard gets
its final name when it is complete, so a file under that name is a finished shard. The name contains the id of the run:
a worker that survives its run cannot write into another.
"""

from __future__ import annotations

import json
import re
import secrets
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from ..errors import RunError, StoreError
from ..features.atomic import check_output, replacing
from ..features.samples import Listing
from ..features.store import CodeStore, read_rows
from ..features.store.format import FORMAT, StoreInfo
from ..features.store.writer import StoreWriter
from ..features.values import Block, Rows, Status
from .identity import differences

_RUN_ID = re.compile(r"[0-9a-f]{12}")
# Files that a run puts into its folder; others are left alone.
_OWN = re.compile(
    r"lock|(run\.json|\d{5,}-[0-9a-f]{12}\.h5)|\.(run\.json|\d{5,}-[0-9a-f]{12}\.h5)\.[0-9a-f]{16}\.tmp"
)
_BEGUN_BY = ("", "restart", "retry-failed")


def shard_size(samples: int) -> int:
    """Rows per shard: some hundred shards, so that a kill costs about a hundredth, within sensible bounds."""
    return min(1024, max(64, -(-samples // 100)))


@dataclass(frozen=True, slots=True)
class _Record:
    """``run.json``: what is known of the run whose shards lie beside it.

    Attributes
    ----------
    identity : dict
    begun_by : str
        ``restart``, ``retry-failed`` or nothing: the same command goes on, and does not throw away its own work.
    run_id : str
        Drawn when it was begun; part of its shards' names.
    """

    identity: dict[str, Any]
    begun_by: str = ""
    run_id: str = field(default_factory=lambda: secrets.token_hex(6))

    def __post_init__(self) -> None:
        if not isinstance(self.identity, dict) or self.begun_by not in _BEGUN_BY:
            raise ValueError("not a record of a run")
        if not isinstance(self.run_id, str) or not _RUN_ID.fullmatch(self.run_id):
            raise ValueError(f"run_id {self.run_id!r} does not match {_RUN_ID.pattern}")


@dataclass(slots=True)
class Run:
    """One extraction on disk.

    Attributes
    ----------
    out : final path of the store
    listing : Listing
    identity : dict
    blocks : block name -> Block, of the regressor
    counts : rows of the shards that :meth:`begin` found finished, by status
    run_id : what :meth:`begin` found the run to be called, or called it
    """

    out: Path
    listing: Listing
    identity: dict[str, Any]
    blocks: dict[str, Block]
    counts: Counter[str] = field(default_factory=Counter)
    run_id: str = ""

    @property
    def parts(self) -> Path:
        return self.out.with_name(self.out.name + ".parts")

    @property
    def _lock(self) -> Path:
        return self.parts / "lock"

    @property
    def _run_json(self) -> Path:
        return self.parts / "run.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run's lock; the system lets go of it when the process dies, however it dies.

        Raises
        ------
        RunError : another run holds it, the folder cannot be written, or it or a file in it is a link.
        """
        check_output(self.out)
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
            self._check_folder()
            lock = FileLock(self._lock)
            lock.acquire(timeout=0)
        except Timeout as exc:
            raise RunError(
                f"{self.out}: another extraction is writing this store; wait for it to finish"
            ) from exc
        except OSError as exc:
            raise RunError(
                f"{self.out}: its folder cannot be written: {exc.strerror or exc}; choose another --out"
            ) from exc
        try:
            yield
        finally:
            if not self._run_json.exists():  # no run to continue
                with suppress(OSError):
                    self._remove_own(self._lock)
                    self._lock.unlink()  # still held: a file there afterwards is another run's
            lock.release()
            with suppress(OSError):
                self.parts.rmdir()  # where it is empty

    def finished(self, *, restart: bool, retry_failed: bool = False) -> bool:
        """Whether there is nothing to do: this run's store exists and is not to be replaced.

        Raises
        ------
        RunError : a store of another run, or a damaged one, exists and ``restart`` is not set; or another file exists,
            which is never replaced.
        """
        if not self.out.exists():
            return False
        if not _is_store(self.out):
            raise RunError(f"{self.out}: the file exists and is no store; choose another --out")
        left = self._recorded()
        if restart or (left and not differences(left.identity, self.identity)):
            return False
        try:
            with CodeStore(self.out) as store:
                if retry_failed:
                    store.check_content()  # its rows are copied
                before, failed = store.info.config, Status.failed in store.status
        except StoreError as exc:
            raise RunError(f"{exc}; --restart replaces it") from exc
        if differing := differences(before, self.identity):
            raise RunError(
                f"{self.out}: the store is of another run ({'; '.join(differing)}); choose another --out, or "
                "replace it with --restart"
            )
        return not (retry_failed and failed)

    def begin(self, *, restart: bool, retry_failed: bool = False) -> list[int]:
        """Numbers of the shards that are left to do; counts the rows of finished ones.

        ``restart`` discards, and ``retry_failed`` repeats, what exists when the option is first given; a run that was
        begun with the option and interrupted is continued. The finished store stays until the new one is complete.

        Raises
        ------
        RunError : an interrupted run of another identity has finished shards.
        """
        left = self._recorded()
        differing = differences(left.identity, self.identity) if left else []
        other = differing and any(self.parts.glob("0*.h5"))  # else there is nothing to lose
        if left and ((restart and (differing or left.begun_by != "restart")) or (differing and not other)):
            self.forget()
            left = None
        elif other:
            raise RunError(
                f"{self.out}: {self.parts.name} has shards of another, interrupted run ({'; '.join(differing)}); "
                "finish that run, choose another --out, or discard its shards with --restart"
            )
        begun_by = "restart" if restart else "retry-failed" if retry_failed else ""
        retry = retry_failed and not (left and left.begun_by == begun_by)
        record = left or _Record(self.identity)
        self.run_id = record.run_id
        self._remove_own(self._lock, self._run_json, *map(self.shard_path, range(self.shards)))
        if left is None and retry and self.out.exists():
            self._reopen()
        todo = [shard for shard in range(self.shards) if not self._is_done(shard, retry_failed=retry)]
        if left is None or retry:
            with replacing(self._run_json) as temporary:
                record = replace(record, begun_by=begun_by)
                temporary.write_text(json.dumps(asdict(record), indent=1, sort_keys=True))
        return todo

    def _recorded(self) -> _Record | None:
        """The interrupted run, if any."""
        try:
            return _Record(**json.loads(self._run_json.read_text()))
        except FileNotFoundError:
            return None
        except OSError:
            raise
        except Exception:
            return _Record({"run.json": "damaged"})

    def _reopen(self) -> None:
        """Write the shards of the finished store again, except those with a failed row."""
        with CodeStore(self.out) as store:
            failed = store.status == Status.failed
            for shard in range(self.shards):
                rows = self.rows_of(shard)
                if failed[rows].any():
                    continue
                part = self.shard_samples(shard)
                (kept,) = read_rows(store, rows)  # which has more at a time than a shard
                with StoreWriter(self.shard_path(shard), store.info, part, store.blocks) as writer:
                    writer.write(0, kept)

    @property
    def shards(self) -> int:
        return -(-len(self.listing) // shard_size(len(self.listing)))

    def shard_path(self, shard: int) -> Path:
        return self.parts / f"{shard:05d}-{self.run_id}.h5"

    def rows_of(self, shard: int) -> slice:
        """The rows of the sample list that a shard holds."""
        size = shard_size(len(self.listing))
        return slice(shard * size, (shard + 1) * size)

    def shard_samples(self, shard: int) -> pd.DataFrame:
        """The rows of the sample table that a shard holds."""
        return self.listing.samples[self.rows_of(shard)]

    def _is_done(self, shard: int, *, retry_failed: bool) -> bool:
        """Whether a sound shard of this run is there; another one (power loss, another run's) is removed."""
        path = self.shard_path(shard)
        if not path.exists():
            return False
        try:
            with CodeStore(path) as store:
                sound = not store.verify() and self._is_own(store, shard)
                values, counts = np.unique(store.status, return_counts=True)
                sound &= not (retry_failed and Status.failed in values)
        except StoreError:
            sound = False
        if not sound:
            path.unlink()
            return False
        for value, count in zip(values, counts, strict=True):
            self.counts[Status(int(value)).name] += int(count)
        return True

    def _is_own(self, store: CodeStore, shard: int) -> bool:
        """Whether a shard has the rows of this run's samples, extracted with the same options.

        Labels and the like are not compared: those of the joined store are the run's.
        """
        return (
            not differences(store.info.config, self.identity)
            and store.blocks == self.blocks
            and store.samples["id"].tolist() == self.shard_samples(shard)["id"].tolist()
        )

    def give_up(self, shard: int, info: StoreInfo, blocks: dict[str, Block], message: str) -> Counter[str]:
        """Write a shard whose rows are all failed; returns its rows by status."""
        samples = self.shard_samples(shard)
        rows = Rows.pending(len(samples), blocks)
        rows.status[:] = Status.failed
        rows.message[:] = [message] * len(samples)
        with StoreWriter(self.shard_path(shard), info, samples, blocks) as writer:
            writer.write(0, rows)
        return Counter({Status.failed.name: len(samples)})

    def forget(self) -> None:
        """End the run: there is nothing to go on with. Its shards go when the lock does."""
        self._run_json.unlink(missing_ok=True)

    def _check_folder(self) -> None:
        """Refuse a folder that is a link, or that holds links, devices or folders under names of ours.

        Raises
        ------
        RunError
        """
        odd = [self.parts] if self.parts.is_symlink() else []
        odd += [
            entry
            for entry in ([] if odd else self.parts.iterdir())
            if _OWN.fullmatch(entry.name) and not stat.S_ISREG(entry.lstat().st_mode)
        ]
        if odd:
            kind = "a symbolic link" if odd[0].is_symlink() else "not a regular file"
            raise RunError(f"{odd[0]}: {kind}, which no run puts there; remove it, or choose another --out")

    def _remove_own(self, *kept: Path) -> None:
        """Remove files of runs but for those to keep; what cannot be removed is harmless."""
        for entry in {*self.parts.iterdir()}.difference(kept):
            if _OWN.fullmatch(entry.name):
                with suppress(OSError):
                    entry.unlink()


def _is_store(path: Path) -> bool:
    """Whether a file is a store of ours, or an HDF5 file too damaged to tell."""
    with path.open("rb") as handle:
        if handle.read(8) != b"\x89HDF\r\n\x1a\n":
            return False
    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs.get("format") == FORMAT)
    except Exception:  # h5py raises many kinds for a damaged file
        return True
