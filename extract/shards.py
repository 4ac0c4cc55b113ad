"""Shards of a run: consecutive samples that are written to one small store; planning and resuming.

The folder ``STORE.h5.parts/`` has ``run.json`` (the identity of the run), one small store per finished shard, and a
lock file. A shard gets its final name when it is complete, so a file with that name is a finished shard. The name
contains the id of the run, so that a worker of an earlier run that is still alive cannot write into a later run.
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
    """Rows per shard: a hundredth of the samples, so that little is lost if a run is killed; 64 to 1,024 rows."""
    return min(1024, max(64, -(-samples // 100)))


@dataclass(frozen=True, slots=True)
class _Record:
    """Content of ``run.json``.

    Attributes
    ----------
    identity : dict
        Identity of the run (:mod:`ig3d.extract.identity`).
    begun_by : {"", "restart", "retry-failed"}
        Option that was applied last. Given again, it has no further effect: the run continues and keeps its shards.
    run_id : str
        Random id of the run, part of the names of its shards.
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
    """One extraction and its files.

    Attributes
    ----------
    out : path of the store
    listing : Listing
    identity : dict
    blocks : block name -> Block
        Blocks that the regressor computes.
    counts : status name -> rows
        Rows of the shards that were finished when :meth:`begin` was called.
    run_id : str
        Set by :meth:`begin`: the id of the run that is continued, or a new one.
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
        """Hold the lock of the run, which the operating system releases even if the process is killed.

        Raises
        ------
        RunError : another run holds the lock, the folder cannot be written, or the folder or a file in it is a link.
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
                    self._lock.unlink()  # before it is released: a later lock file belongs to another run
            lock.release()
            with suppress(OSError):
                self.parts.rmdir()  # fails unless the folder is empty

    def nothing_to_do(self, *, restart: bool, retry_failed: bool = False) -> bool:
        """Whether the store of this run exists, and neither ``restart`` nor ``retry_failed`` requires work.

        Raises
        ------
        RunError : a damaged store or one of another run exists, and ``restart`` is not set; or the file at ``out`` is
            no store, and would not be replaced by any option.
        """
        if not self.out.exists():
            return False
        if not _is_store(self.out):
            raise RunError(f"{self.out}: the file exists and is no store; choose another --out")
        interrupted = self._recorded()
        if restart or (interrupted and not differences(interrupted.identity, self.identity)):
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
        """Begin or continue the run; returns the numbers of the shards that are not finished.

        ``restart`` discards everything, ``retry_failed`` only the shards with failed rows. Both act once: if the
        run is interrupted and the option given again, the run continues. The finished store stays until the new one is
        complete.

        Raises
        ------
        RunError : an interrupted run of another identity has finished shards.
        """
        interrupted = self._recorded()
        differing = differences(interrupted.identity, self.identity) if interrupted else []
        has_shards = any(self.parts.glob("[0-9]*.h5"))
        if interrupted and (
            (restart and (differing or interrupted.begun_by != "restart")) or (differing and not has_shards)
        ):
            self.end()
            interrupted = None
        elif differing and has_shards:
            raise RunError(
                f"{self.out}: {self.parts.name} has shards of another, interrupted run ({'; '.join(differing)}); "
                "finish that run, choose another --out, or discard its shards with --restart"
            )
        begun_by = "restart" if restart else "retry-failed" if retry_failed else ""
        retry = retry_failed and not (interrupted and interrupted.begun_by == begun_by)
        record = interrupted or _Record(self.identity)
        self.run_id = record.run_id
        self._remove_own(self._lock, self._run_json, *map(self.shard_path, range(self.n_shards)))
        if interrupted is None and retry and self.out.exists():
            self._split_store()
        todo = [shard for shard in range(self.n_shards) if not self._is_done(shard, retry_failed=retry)]
        if interrupted is None or retry:
            with replacing(self._run_json) as temporary:
                record = replace(record, begun_by=begun_by)
                temporary.write_text(json.dumps(asdict(record), indent=1, sort_keys=True))
        return todo

    def _recorded(self) -> _Record | None:
        """Record of an interrupted run, if there is one."""
        try:
            return _Record(**json.loads(self._run_json.read_text()))
        except FileNotFoundError:
            return None
        except OSError:
            raise
        except Exception:
            return _Record({"run.json": "damaged"})

    def _split_store(self) -> None:
        """Write the rows of the finished store to shards, except shards with a failed row."""
        with CodeStore(self.out) as store:
            failed = store.status == Status.failed
            for shard in range(self.n_shards):
                rows = self.rows_of(shard)
                if failed[rows].any():
                    continue
                part = self.shard_samples(shard)
                # one item: a shard has fewer rows than read_rows yields at a time
                (kept,) = read_rows(store, rows)
                with StoreWriter(self.shard_path(shard), store.info, part, store.blocks) as writer:
                    writer.write(0, kept)

    @property
    def n_shards(self) -> int:
        return -(-len(self.listing) // shard_size(len(self.listing)))

    def shard_path(self, shard: int) -> Path:
        return self.parts / f"{shard:05d}-{self.run_id}.h5"

    def rows_of(self, shard: int) -> slice:
        """Rows of the sample table that belong to a shard."""
        size = shard_size(len(self.listing))
        return slice(shard * size, (shard + 1) * size)

    def shard_samples(self, shard: int) -> pd.DataFrame:
        """Samples of a shard: rows of the sample table."""
        return self.listing.samples[self.rows_of(shard)]

    def _is_done(self, shard: int, *, retry_failed: bool) -> bool:
        """Whether a shard is finished; adds its rows to ``counts``. Damaged shards are removed."""
        path = self.shard_path(shard)
        if not path.exists():
            return False
        try:
            with CodeStore(path) as store:
                problems = store.verify()
                sound = not problems and self._is_own(store, shard)
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
        """Whether the store of a shard has the ids, blocks and identity of this run.

        Other columns, such as labels, are not compared: the joined store gets those of this run.
        """
        return (
            not differences(store.info.config, self.identity)
            and store.blocks == self.blocks
            and store.samples["id"].tolist() == self.shard_samples(shard)["id"].tolist()
        )

    def write_failed(self, shard: int, info: StoreInfo, message: str) -> Counter[str]:
        """Write a shard whose rows all have status ``failed``; returns its rows by status."""
        samples = self.shard_samples(shard)
        rows = Rows.pending(len(samples), self.blocks)
        rows.status[:] = Status.failed
        rows.message[:] = [message] * len(samples)
        with StoreWriter(self.shard_path(shard), info, samples, self.blocks) as writer:
            writer.write(0, rows)
        return Counter({Status.failed.name: len(samples)})

    def end(self) -> None:
        """End the run, so that it is not continued; its shards are removed when the lock is released."""
        self._run_json.unlink(missing_ok=True)

    def _check_folder(self) -> None:
        """Refuse a folder that is a link, or in which a file of a run is a link, a device or a folder.

        Raises
        ------
        RunError
        """
        refused = [self.parts] if self.parts.is_symlink() else []
        refused += [
            entry
            for entry in ([] if refused else self.parts.iterdir())
            if _OWN.fullmatch(entry.name) and not stat.S_ISREG(entry.lstat().st_mode)
        ]
        if refused:
            kind = "a symbolic link" if refused[0].is_symlink() else "not a regular file"
            raise RunError(f"{refused[0]}: {kind}, which no run creates; remove it, or choose another --out")

    def _remove_own(self, *kept: Path) -> None:
        """Remove the files of runs except ``kept``; one that cannot be removed does no harm."""
        for entry in {*self.parts.iterdir()}.difference(kept):
            if _OWN.fullmatch(entry.name):
                with suppress(OSError):
                    entry.unlink()


def _is_store(path: Path) -> bool:
    """Whether a file is a store, or an HDF5 file that is too damaged to be recognised."""
    with path.open("rb") as handle:
        if handle.read(8) != b"\x89HDF\r\n\x1a\n":
            return False
    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs.get("format") == FORMAT)
    except Exception:  # h5py raises many types of errors for damaged files
        return True
