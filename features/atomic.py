"""All or nothing: a file is written under a temporary name and takes its own only when it is whole and on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def temporary_name(path: Path) -> Path:
    """The hidden neighbour of ``path`` that this process writes to."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to; when the block ends well its file is flushed to disk and renamed to ``path``.

    Folders that lack are made. When the block raises, what was there before is left as it was, and nothing else is.

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
