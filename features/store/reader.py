"""Read a store. It is checked when it is opened: all data must be in the file and follow the format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import h5py
import numpy as np

from ...errors import StoreError, UsageError, listed, plural
from ..samples import SPLITS
from ..values import Block, Rows, Status
from .format import (
    FORMAT,
    FORMAT_VERSION,
    STEP,
    StoreInfo,
    check_columns,
    content_hash,
    invalid_rows,
    read_blocks,
    read_info,
    spans_of,
)

if TYPE_CHECKING:
    import pandas as pd  # imported where it is used: codes are read without it

# Columns of the samples in a frame, in order.
FRAME_COLUMNS = ("id", "path", "split", "label", "valence", "arousal", "group", "status", "message")
_MAX_OBJECTS = 10_000
_FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
# A deflate stream expands to at most 1032 times its size.
_MAX_EXPANSION = 1100
_SMALL_BYTES = 1 << 20


class CodeStore:
    """A store, open for reading; columns and codes are read when a method needs them.

    Parameters
    ----------
    path : path of the HDF5 file

    Raises
    ------
    StoreError : the file is not a store, is of another version or damaged, or has unfinished rows.

    Examples
    --------
    ::

        with CodeStore("rafdb.h5") as store:
            expression = store.codes("expression")  # (n, width) float32, NaN where the status is not ok
            frame = store.frame(["expression", "pose"])  # samples and codes as a pandas DataFrame
        happy = frame[frame["label"] == "happy"]
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise StoreError(f"{path}: is a folder; pass a store of ig3d extract")
        if not self.path.is_file():
            raise StoreError(f"{path}: no such store; make one with ig3d extract")
        try:
            # Without a cache of chunks: each chunk is read once, and the cache would only add a copy.
            self._file = h5py.File(self.path, "r", rdcc_nbytes=0)
        except OSError as exc:
            problem = (
                "is cut short or damaged; extract it again"
                if h5py.is_hdf5(self.path)
                else "is no HDF5 file; pass a store of ig3d extract"
            )
            raise StoreError(f"{path}: {problem}") from exc
        try:
            with self._store_errors("its datasets"):
                self._check_kind()
                check_storage(self._file)
                self._rows = check_columns(self._file)
        except StoreError:
            self._file.close()
            raise

    def _check_kind(self) -> None:
        attrs = self._file.attrs
        if attrs.get("format") != FORMAT:
            raise StoreError(f"{self.path}: is an HDF5 file, but no ig3d store; make one with ig3d extract")
        version = int(attrs.get("format_version", -1))
        if version != FORMAT_VERSION:
            older = version < FORMAT_VERSION
            todo = "extract it again (ig3d extract ... --restart)" if older else "update ig3d"
            raise StoreError(
                f"{self.path}: format version {version}, written by ig3d {attrs.get('ig3d_version', 'unknown')}; this "
                f"ig3d reads version {FORMAT_VERSION}; {todo}"
            )

    @contextmanager
    def _store_errors(self, part: str) -> Iterator[None]:
        """Turn errors of HDF5, of checksums and of the checks of the format into a one-line StoreError."""
        try:
            yield
        except ValueError as exc:
            raise StoreError(f"{self.path}: not a sound store: {exc}; extract it again") from exc
        except (OSError, KeyError, RuntimeError, TypeError, OverflowError, MemoryError) as exc:
            raise StoreError(f"{self.path}: {part} cannot be read: damaged; extract it again") from exc

    def column(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """Rows of a dataset.

        Parameters
        ----------
        name : name of the dataset, such as ``sample/message``, ``face/box`` or ``codes/pose``
        rows : slice

        Returns
        -------
        (n, ...) array; texts are str.

        Raises
        ------
        StoreError : the dataset cannot be read.
        UsageError : ``rows`` is not a slice.
        """
        values = self._raw(name, rows)
        if values.dtype.kind != "S":
            return values
        with self._store_errors(name):
            try:
                return values.astype("U")  # only for ASCII, but ten times as fast
            except UnicodeDecodeError:
                return np.char.decode(values, "utf-8")

    def _raw(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """Rows of a dataset; texts as UTF-8 bytes of the width of the longest text."""
        if not isinstance(rows, slice):
            raise UsageError(f"rows: {type(rows).__name__} is not a slice; read all rows and index the array")
        with self._store_errors(name):
            column = self._file[name]
            if column.dtype.kind != "S":
                return np.asarray(column[rows])
            # Texts may be much wider in the file, such as messages, most of which are empty.
            spans = spans_of(column) if rows == slice(None) else [rows]
            return np.concatenate([np.empty(0, "S1"), *(narrowed(column[span]) for span in spans)])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._rows

    @cached_property
    def info(self) -> StoreInfo:
        with self._store_errors("its attributes"):
            return read_info(self._file)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """The sample table (:func:`~..samples.sample_table`), in the order of the store; file sizes are unknown."""
        import pandas as pd

        classes = list(self.info.classes)
        with self._store_errors("its samples"):
            table = pd.DataFrame(
                {
                    "id": _strings(self._raw("sample/id")),
                    "path": _strings(self._raw("sample/path")),
                    "split": pd.Categorical.from_codes(self.column("sample/split"), list(SPLITS)),
                    "label": pd.Categorical.from_codes(self.column("sample/label"), classes),
                    "valence": self.column("sample/valence").astype(np.float64),
                    "arousal": self.column("sample/arousal").astype(np.float64),
                    "group": _strings(self._raw("sample/group")),
                    "size_bytes": np.full(len(self), -1, np.int64),
                }
            )
            return table.assign(time=self.column("sample/time")) if "sample/time" in self._file else table

    @property
    def status(self) -> np.ndarray:
        """(n,) int8 codes of :class:`Status`."""
        return self.column("sample/status")

    @cached_property
    def ok(self) -> np.ndarray:
        """(n,) bool: rows that have codes."""
        return np.asarray(self.status == Status.ok)

    @property
    def messages(self) -> np.ndarray:
        """(n,) str reasons of rows without codes."""
        return self.column("sample/message")

    @cached_property
    def blocks(self) -> dict[str, Block]:
        """Name -> description of each block, in the order in which the regressor writes them."""
        with self._store_errors("its blocks"):
            return read_blocks(self._file)

    @property
    def named_sets(self) -> dict[str, tuple[str, ...]]:
        """Named sets of blocks that the regressor declares, for :func:`~ig3d.features.blocks.choose_blocks`."""
        sets = self.info.regressor.get("sets")
        items = sets.items() if isinstance(sets, dict) else ()
        return {name: tuple(map(str, blocks)) for name, blocks in items if isinstance(blocks, list)}

    def codes(self, block: str, rows: slice = slice(None)) -> np.ndarray:
        """(n, width) float32 codes of one block, NaN in rows whose status is not ok.

        Raises
        ------
        StoreError : the block does not exist, its bytes were changed, or it has NaN or numbers in the wrong rows.
        UsageError : ``rows`` is not a slice.
        """
        if block not in self._file["codes"]:
            raise StoreError(f"{self.path}: no block {block!r}; choose one of {', '.join(self.blocks)}")
        codes = self.column(f"codes/{block}", rows)
        if invalid := invalid_rows(codes, self.ok[rows]):
            start = rows.indices(len(self))[0]
            problems = "; ".join(
                self._describe(block, problem, start + indices) for problem, indices in invalid.items()
            )
            raise StoreError(f"{self.path}: {problems}; extract it again")
        return codes

    def frame(self, blocks: Iterable[str] | None = None) -> pd.DataFrame:
        """Samples and codes as one table, one row per sample.

        Parameters
        ----------
        blocks : names of blocks, optional
            All of them by default.

        Returns
        -------
        pandas.DataFrame
            Columns ``id``, ``path``, ``split``, ``label``, ``valence``, ``arousal``, ``group``, ``status``,
            ``message``, for videos ``time`` in seconds, then a float32 column for each code: ``pose:0``, ...
            ``split``, ``label`` and ``status`` are Categoricals. NaN is a missing split or label, and the codes of rows
            whose status is not ``ok``.

        Raises
        ------
        StoreError : a block does not exist, or the store is damaged.
        """
        import pandas as pd

        status = pd.Categorical.from_codes(self.status, [status.name for status in Status])
        names = [*FRAME_COLUMNS, *(["time"] if "time" in self.samples else [])]
        parts = [self.samples.assign(status=status, message=self.messages)[names]]
        for block in self.blocks if blocks is None else blocks:
            parts.append(code_columns(block, self.codes(block)))
        return pd.concat(parts, axis=1)

    def _describe(self, block: str, problem: str, rows: np.ndarray) -> str:
        """Message about a problem of a block in these rows."""
        ids = listed(self.samples["id"].iloc[rows].tolist())
        return f"codes/{block} has {problem}, in {plural(len(rows), 'row')} ({ids})"

    @property
    def content_sha256(self) -> str:
        """Stored hash of the content without folder and date (:func:`~.format.content_hash`); not recomputed."""
        return str(self._file.attrs.get("content_sha256", ""))

    def check_content(self) -> None:
        """Raise an error if :meth:`verify` finds a problem; 1 GB takes two to three seconds.

        Raises
        ------
        StoreError : the content was changed, or does not follow the format.
        """
        if problems := self.verify():
            raise StoreError(f"{self.path}: not a sound store: {'; '.join(problems)}; extract it again")

    def verify(self) -> list[str]:
        """Read the whole store and describe its problems: changed bytes, and NaN or numbers in the wrong rows.

        Returns
        -------
        list of str, empty if there are no problems
        """
        problems = []
        try:
            with self._store_errors("its datasets"):
                changed = content_hash(self._file) != self.content_sha256
            if changed:
                problems.append("bytes were changed: the content does not match the stored hash")
            _ = self.samples, self.messages  # decodes the texts
            for name in self.blocks:
                invalid: dict[str, list[np.ndarray]] = {}
                for span in spans_of(self._file[f"codes/{name}"]):
                    of_span = invalid_rows(self.column(f"codes/{name}", span), self.ok[span])
                    for problem, rows in of_span.items():
                        invalid.setdefault(problem, []).append(rows + span.start)
                problems += [
                    self._describe(name, problem, np.concatenate(rows)) for problem, rows in invalid.items()
                ]
        except StoreError as exc:
            problems.append(str(exc))
        return problems


def code_columns(block: str, codes: np.ndarray) -> pd.DataFrame:
    """(n, width) codes as columns ``block:0``, ``block:1``, ..."""
    import pandas as pd

    return pd.DataFrame(codes, columns=[f"{block}:{column}" for column in range(codes.shape[1])])


def check_storage(file: h5py.File) -> None:
    """Raise an error if HDF5 would read values from another file, or the same values under two names.

    Raises
    ------
    ValueError : the file has a soft, external or second hard link, a virtual dataset, external storage, an unusual
        filter, or a dataset that declares many more bytes than the file contains.
    """
    seen = {h5py.h5o.get_info(file.id).addr}
    groups = [file["/"]]
    while groups:
        group = groups.pop()
        for key in group:
            name = f"{group.name.rstrip('/')}/{key}".lstrip("/")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise ValueError(f"{name} is a link; a store must contain all of its data")
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise ValueError(f"{name} is a second name of another object")
            seen.add(address)
            if len(seen) > _MAX_OBJECTS:
                raise ValueError(f"the file has more than {_MAX_OBJECTS} objects")
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                _check_storage(name, item)


def _check_storage(name: str, dataset: h5py.Dataset) -> None:
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{name} is in another file; a store must contain all of its data")
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(index)[0] for index in range(properties.get_nfilters())}
    if filters - _FILTERS:
        raise ValueError(f"{name} has the HDF5 filter {min(filters - _FILTERS)}, which stores do not use")
    size, stored = dataset.nbytes or 0, dataset.id.get_storage_size()
    if size > _SMALL_BYTES and size > _MAX_EXPANSION * stored:
        raise ValueError(f"{name} declares {size} bytes, but the file contains {stored}")


def _strings(texts: np.ndarray) -> pd.api.extensions.ExtensionArray:
    """UTF-8 bytes as a column of strings."""
    import pandas as pd

    return pd.array([text.decode() for text in texts.tolist()], dtype="str")


def narrowed(texts: np.ndarray) -> np.ndarray:
    """(n,) UTF-8 bytes, in an array of the width of the longest text."""
    letters = np.ascontiguousarray(texts).view(np.uint8).reshape(len(texts), texts.itemsize)
    width = 1 + int(np.flatnonzero(letters.any(axis=0)).max(initial=0))
    return texts.astype(f"S{width}", copy=False)


def read_rows(store: CodeStore, rows: slice = slice(None)) -> Iterator[Rows]:
    """Results in a store, or in a slice of its rows, as :class:`Rows` of at most 4096 rows each, in order."""
    read = store.column
    first, last, _ = rows.indices(len(store))
    for start in range(first, last, STEP):
        span = slice(start, min(start + STEP, last))
        yield Rows(
            status=read("sample/status", span),
            message=read("sample/message", span).tolist(),
            size_wh=np.stack([read("sample/width", span), read("sample/height", span)], axis=1),
            digest=read("sample/digest", span),
            xyxy=read("face/box", span),
            score=read("face/score", span),
            count=read("face/count", span),
            landmark_box=read("face/landmark_box", span),
            crop_box=read("face/crop_box", span),
            codes={name: store.codes(name, span) for name in store.blocks},
        )
