"""Archives of datasets: find them under a root, on a disk or on remote storage; names and ids of their members."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import DatasetError, listed, plural, reason_of
from ...features.samples import Split
from ...features.table_columns import split_named
from ..image_formats import is_system_folder
from ..sources import Unavailable, Unreadable, open_archive, open_file
from ..sources.remote import is_remote, list_remote
from .base import Dataset
from .files import contents

# names of compressed archives: faces.tar.gz, faces.tgz
_PACKED = re.compile(r"\.(gz|bz2|xz|zst)$")
# first bytes of compressed files: gzip, bzip2, xz, Zstandard
_MAGIC = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True, slots=True)
class Archives:
    """Archives of one kind under a root.

    Attributes
    ----------
    root : str
        Folder or address that the paths are relative to; of an archive that was named itself, the folder around it.
    files : tuple of (POSIX path under the root, bytes), sorted by path
    packed : tuple of str
        Paths of such archives that are compressed as a whole, which have to be unpacked first.
    """

    root: str
    files: tuple[tuple[str, int], ...]
    packed: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """A warning on those that are left out."""
        if not self.packed:
            return []
        return [
            f"WARNING {plural(len(self.packed), 'compressed file')} left out: {listed(list(self.packed))}; unpack"
        ]

    def open(self, path: str, *, dataset: str) -> Any:
        """The source of one of them (:mod:`~ig3d.extract.sources`), whose index is also used when images are read.

        Raises
        ------
        DatasetError : it does not exist or is damaged.
        Unavailable : the machine, the network or the storage did not let it be read.
        """
        where = f"{self.root}/{path}"
        try:
            return open_archive(where)
        except FileNotFoundError as exc:
            raise DatasetError(f"{dataset}: {where} no longer exists; run the command again") from exc
        except Unavailable:
            raise
        except Unreadable as exc:
            cause = exc.__cause__
            reason = reason_of(cause if isinstance(cause, Exception) else exc)
            raise self.damaged(path, reason, dataset=dataset) from exc

    def damaged(self, path: str, reason: str, *, dataset: str) -> DatasetError:
        """Error for one of them from which nothing can be read."""
        return DatasetError(
            f"{dataset}: {self.root}/{path} is a damaged {PurePosixPath(path).suffix[1:]} file: {reason}; fetch it "
            "again or move it away"
        )

    def is_compressed(self, path: str) -> bool:
        """Whether one of them is compressed as a whole, by its first bytes."""
        try:
            with open_file(f"{self.root}/{path}") as file:
                return file.read(max(map(len, _MAGIC))).startswith(_MAGIC)
        except (OSError, Unreadable):
            return False  # opening it gives the reason


def archives_in(root: str | Path, dataset: Dataset) -> Archives:
    """The archives of a dataset's kind under a root, or the one that is named itself.

    Raises
    ------
    LayoutError : there is none.
    """
    where, suffix = str(root).rstrip("/"), dataset.suffix
    if where.lower().endswith(suffix):
        above, _, name = where.rpartition("/")
        size = 0 if is_remote(where) else Path(where).stat().st_size if Path(where).is_file() else -1
        if size >= 0:
            return Archives(above or ("/" if where.startswith("/") else "."), ((name, size),))
    every = [
        (path, size)
        for path, size in (list_remote(where) if is_remote(where) else files_under(where))
        if _PACKED.sub("", path.lower().replace(".tgz", ".tar.gz")).endswith(suffix) and not is_hidden(path)
    ]
    files = [file for file in every if file[0].lower().endswith(suffix)]
    if not files:
        present = "" if is_remote(where) else contents(Path(where))
        raise dataset.wrong_layout(root, f"{suffix} files", present=present)
    return Archives(where, tuple(sorted(files)), tuple(sorted({path for path, _ in set(every) - set(files)})))


def files_under(root: str) -> Iterator[tuple[str, int]]:
    """POSIX path under the root and size of each regular file; links to folders are not followed."""
    for parent, _, names in os.walk(root):
        for name in names:
            path = Path(parent, name)
            try:
                about = path.stat()
            except OSError:
                continue
            if stat.S_ISREG(about.st_mode):  # reading a device or a pipe would not end
                yield path.relative_to(root).as_posix(), about.st_size


def is_hidden(path: str) -> bool:
    """Whether a POSIX path is that of a hidden file, or lies in a folder of the system."""
    *folders, name = path.split("/")
    return name.startswith(".") or any(map(is_system_folder, folders))


def row_name(row: int, rows: int) -> str:
    """The number of a row, from 0, with as many digits as the last, so that names sort as rows do."""
    return f"{row:0{len(str(max(rows - 1, 0)))}d}"


def without_suffix(path: str) -> str:
    """An archive's path, as the first part of its members' ids."""
    return str(PurePosixPath(path).with_suffix(""))


def split_in(path: str) -> Split | None:
    """The split that an archive's path names: a folder, or a word of its name (``faces-train-00001-of-00008``)."""
    parts = without_suffix(path).split("/")
    words = [*parts[:-1], *re.split(r"[-_. ]", parts[-1])]
    return next((split for word in reversed(words) if (split := split_named(word)) is not None), None)
