"""Storage elsewhere, through fsspec: ``s3://bucket/faces``, ``gs://…``, ``memory://…``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from ...errors import DatasetError, UsageError, require

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|[a-z0-9]+::")


def is_remote(location: str | Path) -> bool:
    """Whether a location has a scheme, as in ``s3://bucket/faces``."""
    return _SCHEME.match(str(location)) is not None


def read_remote(location: str) -> bytes:
    """The bytes of one file.

    Raises
    ------
    OSError : it cannot be read; FileNotFoundError if it does not exist.
    UsageError, MissingExtra : there is no driver for its scheme.
    """
    with _border(location) as (storage, path):
        return cast(bytes, storage.cat_file(path))


def open_remote(location: str) -> BinaryIO:
    """A file, seekable, read in blocks; raises as :func:`read_remote`."""
    with _border(location) as (storage, path):
        return cast(BinaryIO, storage.open(path, "rb"))


def list_remote(root: str) -> list[tuple[str, int]]:
    """All files under a remote root: path under it, bytes; sorted.

    Raises
    ------
    DatasetError : there is no such folder, or it cannot be read.
    UsageError, MissingExtra : there is no driver for its scheme.
    """
    try:
        with _border(root) as (storage, path):
            files = storage.find(path, detail=True)
    except OSError as exc:
        raise DatasetError(
            f"{root}: the folder cannot be read: {exc}; check the address and your access"
        ) from exc
    above = path.rstrip("/") + "/"
    return sorted(
        (name.removeprefix(above), int(about.get("size") or 0))
        for name, about in files.items()
        if name.startswith(above)
    )


@contextmanager
def _border(location: str) -> Iterator[tuple[Any, str]]:
    """Storage and path of a location; errors of drivers become OSError."""
    core = require("fsspec.core", wanted_by=location)
    try:
        storage, path = core.url_to_fs(location)
    except ImportError as exc:  # the message of fsspec names the package for this scheme
        raise UsageError(f"{location}: no driver for this storage is installed: {exc}") from exc
    except ValueError as exc:
        raise UsageError(
            f"{location}: fsspec does not support this scheme ({exc}); use one such as s3:// or https://"
        ) from exc
    try:
        yield storage, path
    except OSError:
        raise
    except Exception as exc:
        raise OSError(f"{type(exc).__name__}: {exc}") from exc
