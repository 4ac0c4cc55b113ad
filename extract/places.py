"""Where ig3d keeps what it can make again: the user's cache."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/ig3d``, by default ``~/.cache/ig3d`` (on Windows under ``%LOCALAPPDATA%``); may not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "ig3d"
