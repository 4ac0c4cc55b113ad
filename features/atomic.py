"""All or nothing: a file is written under a temporary name and takes its own only when it is whole and on the disk."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def temporary_name(path: Path) -> Path:
    """A hidden neighbour of ``path`` to write to, another each time: on a shared folder process ids are no names."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def flush_folder(folder: Path) -> None:
    """Put names on the disk too: before, a rename may be lost with the power, and what was removed after it not be.

    Raises
    ------
    OSError : the disk failed; not where the system or the file system cannot flush a folder.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as exc:
        if exc.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to; when the block ends well its file is flushed to disk and renamed to ``path``.

    Folders that lack are made. When the block raises, what was there before is left as it was, and nothing else is.
    A loss of power just afterwards may leave what was there before too: of many small files, each would wait for the
    disk twice, and nothing is removed in their favour (:func:`flush_folder` is for stores).

    Examples
    --------
    ::

        with replacing("x.json") as temporary:
            temporary.write_text("{}")
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(final)
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)
