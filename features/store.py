"""The HDF5 store of codes: one file, one sample per row. ``docs/format.md`` states the format.

This module reads; :mod:`ig3d.features.store_writer` writes. Shards of a run are small stores of the same format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np

from ..errors import StoreError, UsageError
from .samples import Samples, narrowed
from .store_format import (
    FORMAT,
    FORMAT_VERSION,
    STEP,
    TEXT_COLUMNS,
    FaceTable,
    SampleTable,
    StoreInfo,
    content_hash,
    spans_of,
)
from .values import Block, Rows, Status


class CodeStore:
    """A finished store, open for reading; samples and faces are read once, codes when asked for.

    Parameters
    ----------
    path : path of the HDF5 file

    Raises
    ------
    StoreError : not an ig3d store, of another version, cut short, or with unfinished rows.

    Examples
    --------
    ::

        with CodeStore("rafdb.h5") as store:
            expression = store.codes("expression")      # (n, width) float32, NaN where the status is not ok
            happy = store.samples.label == store.info.classes.index("happy")
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise StoreError(f"{path}: expected an ig3d store, found no file; make one with ig3d extract")
        try:
            # no cache of chunks: each is read once, and would be copied through it
            self._file = h5py.File(self.path, "r", rdcc_nbytes=0)
        except OSError as exc:
            raise StoreError(
                f"{path}: expected an HDF5 file, got one that is not, or is cut short; extract it again"
            ) from exc
        try:
            with self._border("its datasets"):
                self._check()
        except StoreError:
            self._file.close()
            raise

    def _check(self) -> None:
        attrs = self._file.attrs
        if attrs.get("format") != FORMAT:
            raise StoreError(f"{self.path}: expected an ig3d store, got an HDF5 file of another kind")
        version = int(attrs.get("format_version", -1))
        if version != FORMAT_VERSION:
            raise StoreError(
                f"{self.path}: expected format version {FORMAT_VERSION}, got {version}; read it with the ig3d that "
                f"wrote it ({attrs.get('ig3d_version', 'unknown')}) or update ig3d"
            )
        names = {f"sample/{column}" for column in SampleTable.__slots__}
        names |= {f"face/{column}" for column in FaceTable.__slots__}
        lacking = sorted(name for name in names if name not in self._file)
        if lacking or "codes" not in self._file:
            raise StoreError(f"{self.path}: expected the dataset {(lacking or ['codes'])[0]}, found none")
        names |= {f"codes/{name}" for name in self._file["codes"]}
        lengths = {name: len(self._file[name]) for name in sorted(names)}
        if len(set(lengths.values())) != 1:
            raise StoreError(f"{self.path}: expected as many rows in every dataset, got {lengths}")
        pending = int(np.sum(self.column("sample/status") == Status.pending))
        if pending:
            raise StoreError(f"{self.path}: expected finished rows, got {pending} pending; extract it again")

    @contextmanager
    def _border(self, what: str) -> Iterator[None]:
        """Whatever HDF5, a checksum or JSON says of damaged bytes becomes one line."""
        try:
            yield
        except (OSError, KeyError, ValueError, RuntimeError, TypeError) as exc:
            raise StoreError(
                f"{self.path}: expected the bytes that were written to {what}, got others; extract it again"
            ) from exc

    def column(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """(n, ...) rows of a dataset, by its name in the file; texts as UTF-8 bytes, as wide as the longest."""
        if not isinstance(rows, slice):
            raise UsageError(f"rows: expected a slice, got {type(rows).__name__}; index what all rows give")
        with self._border(name):
            column = self._file[name]
            if column.dtype.kind != "S":
                return np.asarray(column[rows])
            # those in the file may be far wider, such as messages that are mostly empty
            spans = spans_of(column) if rows == slice(None) else [rows]
            return np.concatenate([np.empty(0, "S1"), *(narrowed(column[span]) for span in spans)])

    def _text(self, name: str) -> np.ndarray:
        """A column of texts; UTF-8 that is ASCII is decoded ten times as fast as ASCII."""
        texts = self.column(name)
        with self._border(name):
            try:
                return texts.astype("U")
            except UnicodeDecodeError:
                return np.char.decode(texts, "utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._file["sample/id"])

    @cached_property
    def info(self) -> StoreInfo:
        attrs = self._file.attrs
        with self._border("its attributes"):
            return StoreInfo(
                dataset=str(attrs["dataset"]),
                root=str(attrs["root"]),
                classes=tuple(json.loads(attrs["classes"])),
                **{name: json.loads(attrs[name]) for name in ("regressor", "detector", "crop", "config")},
                ig3d_version=str(attrs["ig3d_version"]),
                created=str(attrs["created"]),
            )

    @cached_property
    def samples(self) -> SampleTable:
        columns = {
            column: self._text(f"sample/{column}")
            if column in TEXT_COLUMNS
            else self.column(f"sample/{column}")
            for column in SampleTable.__slots__
        }
        return SampleTable(**columns)

    @property
    def listed(self) -> Samples:
        """The samples as their dataset lists them, but for sizes and boxes, which a store does not hold."""
        n = len(self)
        return Samples(
            {
                "id": self.column("sample/id"),
                "path": self.column("sample/path"),
                "label": self.column("sample/label").astype(np.int32),
                "split": self.column("sample/split"),
                "valence": self.column("sample/valence").astype(np.float64),
                "arousal": self.column("sample/arousal").astype(np.float64),
                "group": self.column("sample/group"),
                "size_bytes": np.broadcast_to(np.int64(-1), n),
                "box": np.broadcast_to(np.nan, (n, 4)),
            }
        )

    @property
    def status(self) -> np.ndarray:
        """(n,) int8 codes of :class:`Status`, without the other columns of :attr:`samples`."""
        return self.column("sample/status")

    @cached_property
    def faces(self) -> FaceTable:
        return FaceTable(**{column: self.column(f"face/{column}") for column in FaceTable.__slots__})

    @cached_property
    def blocks(self) -> dict[str, Block]:
        """Block name -> what it holds, in the order the regressor wrote them."""
        with self._border("its blocks"):
            group = self._file["codes"]
            found = {}
            for name in sorted(group, key=lambda block: int(group[block].attrs.get("position", 0))):
                attrs = group[name].attrs
                found[name] = Block(
                    width=group[name].shape[1],
                    unit=str(attrs["unit"]),
                    basis=str(attrs["basis"]),
                    description=str(attrs["description"]),
                    columns=tuple(json.loads(attrs["columns"])) if "columns" in attrs else (),
                )
        return found

    def codes(self, block: str, rows: slice = slice(None)) -> np.ndarray:
        """(n, width) float32 codes of one block, NaN exactly where the status is not ok.

        Raises
        ------
        StoreError : there is no such block, or its bytes were changed.
        UsageError : rows are no slice.
        """
        if block not in self._file["codes"]:
            raise StoreError(
                f"{self.path}: expected one of the blocks {', '.join(self.blocks)}, got {block!r}"
            )
        return self.column(f"codes/{block}", rows)

    @property
    def content_sha256(self) -> str:
        """Hash of everything but where and when; equal for equal stores. As written, not recomputed."""
        return str(self._file.attrs.get("content_sha256", ""))

    def check_content(self) -> None:
        """Read everything and compare its hash with the one that was written: 1 GB in two seconds.

        Raises
        ------
        StoreError : the store is not what was written.
        """
        with self._border("its datasets"):
            same = content_hash(self._file) == self.content_sha256
        if not same:
            raise StoreError(
                f"{self.path}: expected the content that was written, got another hash; look at it with ig3d inspect "
                f"{self.path} --verify, or extract it again"
            )

    def verify(self) -> list[str]:
        """Read everything and say what is wrong: changed bytes, ids twice, NaN where there should be none.

        Returns
        -------
        list of str, empty when the store is sound
        """
        problems = []
        try:
            with self._border("its datasets"):
                changed = content_hash(self._file) != self.content_sha256
            if changed:
                problems.append(
                    "content: expected the hash written with the store, got another; bytes were changed"
                )
            if len(np.unique(self.column("sample/id"))) != len(self):
                problems.append("sample/id: expected every id once, got some twice")
            ok = self.status == Status.ok
            for name in self.blocks:
                problems += self._misplaced(name, ok)
        except StoreError as exc:
            problems.append(str(exc))
        return problems

    def _misplaced(self, name: str, ok: np.ndarray) -> list[str]:
        """What is wrong with where a block has numbers, read some thousand rows at a time."""
        lacking = spare = False
        for span in spans_of(self._file[f"codes/{name}"]):
            finite = np.isfinite(self.codes(name, span))
            lacking |= not finite[ok[span]].all()
            spare |= bool(finite[~ok[span]].any())
        problems = []
        if lacking:
            problems.append(f"codes/{name}: expected finite codes where the status is ok, got others")
        if spare:
            problems.append(f"codes/{name}: expected NaN where the status is not ok, got numbers")
        return problems


def read_rows(store: CodeStore, rows: slice = slice(None)) -> Iterator[Rows]:
    """The outcomes in a store (or in some rows of it) as :class:`Rows`, some thousand at a time, in order."""
    read = store.column
    first, last, _ = rows.indices(len(store))
    for start in range(first, last, STEP):
        span = slice(start, min(start + STEP, last))
        yield Rows(
            status=read("sample/status", span),
            message=np.char.decode(read("sample/message", span), "utf-8").tolist(),
            size_wh=np.stack([read("sample/width", span), read("sample/height", span)], axis=1),
            digest=read("sample/digest", span),
            xyxy=read("face/box", span),
            score=read("face/score", span),
            count=read("face/count", span),
            transform=read("face/transform", span),
            codes={name: store.codes(name, span) for name in store.blocks},
        )
