"""What adapters share of containers: finding them under a root, here or on remote storage; names and ids of members."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ...errors import DatasetError, Ig3dError, LayoutError, number, some
from ...features.columns import split_named
from ...features.samples import Split
from ..kinds import is_system_folder
from ..sources import open_file, reason_of
from ..sources.remote import is_remote, list_remote
from .files import listing

# what a compressed container is called by: faces.tar.gz, faces.tgz
_PACKED = re.compile(r"\.(gz|bz2|xz|zst)$")
# what such a file begins with, whatever it is called by: gzip, bzip2, xz, Zstandard
_MAGIC = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True, slots=True)
class Containers:
    """Containers under a root.

    Attributes
    ----------
    root : str
        Folder or address that the paths are relative to; where a container itself was named, what holds it.
    files : tuple of (POSIX path under the root, bytes), sorted by path
    packed : tuple of str
        Paths of such containers that are compressed as a whole, which cannot be read where they are.
    """

    root: str
    files: tuple[tuple[str, int], ...]
    packed: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What to say of those that are left out."""
        if not self.packed:
            return []
        return [
            f"WARNING {number(len(self.packed), 'compressed file')} left out: {some(list(self.packed))}; unpack"
        ]

    @contextmanager
    def open(self, path: str, *, dataset: str) -> Iterator[BinaryIO]:
        """One of them, for reading what it lists.

        Raises
        ------
        DatasetError : it is not there or cannot be opened; or damaged, by what the body raises.
        """
        where = f"{self.root}/{path}"
        try:
            file = open_file(where)
        except Ig3dError:
            raise
        except Exception as exc:
            reason = "none there" if isinstance(exc, FileNotFoundError) else reason_of(exc)
            raise DatasetError(f"{dataset}: expected to read {where}, got: {reason}") from exc
        try:
            with file:
                yield file
        except Ig3dError:
            raise
        except Exception as exc:  # the border to the libraries of archives, which raise errors of many kinds
            raise DatasetError(
                f"{dataset}: expected a sound {PurePosixPath(path).suffix[1:]} file at {where}, got {reason_of(exc)}; "
                "fetch it again or move it away"
            ) from exc


def containers_in(root: str | Path, suffix: str, *, dataset: str, layout: str) -> Containers:
    """The containers of one kind under a root, or the one that is named itself.

    Raises
    ------
    DatasetError : there is none.
    """
    where = str(root).rstrip("/")
    if where.lower().endswith(suffix):
        above, _, name = where.rpartition("/")
        size = 0 if is_remote(where) else Path(where).stat().st_size if Path(where).is_file() else -1
        if size >= 0:
            return Containers(above or ("/" if where.startswith("/") else "."), ((name, size),))
    every = [
        (path, size)
        for path, size in (list_remote(where) if is_remote(where) else files_under(where))
        if _PACKED.sub("", path.lower().replace(".tgz", ".tar.gz")).endswith(suffix) and not is_hidden(path)
    ]
    files = [one for one in every if one[0].lower().endswith(suffix)]
    if not files:
        there = "none" if is_remote(where) else listing(Path(where))
        raise LayoutError(
            f"{dataset}: expected {suffix} files, found {there} in {root}; {layout} (docs/datasets.md)"
        )
    return Containers(
        where, tuple(sorted(files)), tuple(sorted({path for path, _ in set(every) - set(files)}))
    )


def is_compressed(file: BinaryIO) -> bool:
    """Whether a file is compressed as a whole, by its first bytes; it stands at its beginning before and after."""
    first = file.read(max(map(len, _MAGIC)))
    file.seek(0)
    return first.startswith(_MAGIC)


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
    """A container's path, as the first part of its members' ids."""
    return str(PurePosixPath(path).with_suffix(""))


def split_in(path: str) -> Split | None:
    """The split that a container's path names: a folder, or a word of its name (``faces-train-00001-of-00008``)."""
    parts = without_suffix(path).split("/")
    words = [*parts[:-1], *re.split(r"[-_. ]", parts[-1])]
    return next((split for word in reversed(words) if (split := split_named(word)) is not None), None)
