"""Write files atomically (under a temporary name, flushed to disk, then renamed), and hash files."""

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
    """A new random name of a hidden file in the folder of ``path``.

    Process ids would not be unique in a folder that several machines share.
    """
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")


def check_output(path: Path) -> None:
    """Raise an error if an output path exists and is not a regular file, or if its folder is a file.

    A rename would replace a device node or a FIFO, and would fail for a folder.

    Raises
    ------
    RunError : the path is a folder, device, FIFO or socket, or lies under a file.
    """
    try:
        mode = path.stat().st_mode
    except NotADirectoryError:
        parent = next(parent for parent in path.parents if parent.exists())
        raise RunError(f"{path}: {parent} is a file, not a folder; choose another path") from None
    except (OSError, ValueError):  # the path does not exist, or writing will raise the error
        return
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "special file")
        raise RunError(f"{path}: the output is an existing {kind}, not a regular file; choose another path")


def flush_folder(folder: Path) -> None:
    """Flush the names of files in a folder to disk, so that a rename is not lost if the power fails.

    Raises
    ------
    OSError : the disk failed or is full. Systems that cannot flush a folder raise no error.
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
    """Context manager for a temporary path, whose file is flushed to disk and renamed to ``path`` at the end.

    Missing folders are created. If the block raises an error, the temporary file is removed and an existing file at
    ``path`` is unchanged. If the power fails directly after the rename, the old file may remain, because the folder is
    not flushed (:func:`flush_folder`), which would take too long for many small files.

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
    """Write arrays by name to an ``.npz`` file; unlike ``numpy.savez``, no file stays open if the disk is full.

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
    """SHA-256 of the bytes of a file, as hexadecimal text."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
