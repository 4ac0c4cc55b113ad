"""The user's folders: home, and the cache where ig3d keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def home_folder() -> Path:
    """The user's home.

    Raises
    ------
    FileNotFoundError : the user has none, as one who is a mere number in a container.
    """
    try:
        return Path.home()
    except RuntimeError as exc:
        raise FileNotFoundError("expected a home folder, got a user without one; set HOME") from exc


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/ig3d``, by default ``~/.cache/ig3d`` (on Windows under ``%LOCALAPPDATA%``); may not exist.

    Raises
    ------
    FileNotFoundError : neither is set, and the user has no home.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else home_folder() / ".cache") / "ig3d"
