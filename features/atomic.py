"""Atomic writing of files (a temporary name, flushed to the disk, then renamed), and hashes of files."""

from __future__ import annotations

import errno
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RunError

if TYPE_CHECKING:
    import numpy as np

_KINDS = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISCHR, "character device"),
    (stat.S_ISBLK, "block device"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
)


def temporary_name(path: Path) -> Path:
    """A hidden neighbour of ``path`` to write to, another each time: on a shared folder process ids are no names."""
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")


def check_output(path: Path) -> None:
    """Refuse an output path at which something other than a regular file exists.

    A rename would replace a device node or a FIFO, and fails on a folder.

    Raises
    ------
    RunError : the path is a folder, device, FIFO or socket.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # nothing there, or not reachable: writing reports it
        return
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "special file")
        raise RunError(f"{path}: the output is an existing {kind}, not a regular file; choose another path")


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

    Raises
    ------
    RunError : ``path`` is an existing folder, device, FIFO or socket (:func:`check_output`).

    Examples
    --------
    ::

        with replacing("x.json") as temporary:
            temporary.write_text("{}")
    """
    final = Path(path)
    check_output(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(final)
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], *, compress: bool = False) -> None:
    """Write an ``.npz``; unlike NumPy's own writer it leaves nothing open where the disk is full.

    Raises
    ------
    OSError : the disk is full.
    """
    import numpy as np

    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as handle:
                np.lib.format.write_array(handle, np.asanyarray(array), allow_pickle=False)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
