"""The user's folders: home, data, and cache (files that can be created again)."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def home_folder() -> Path:
    """The user's home folder.

    Raises
    ------
    FileNotFoundError : the user has no home folder, as for a numeric user id in a container.
    """
    try:
        return Path.home()
    except RuntimeError as exc:
        raise FileNotFoundError("this user has no home folder; set HOME") from exc


def data_folder() -> Path:
    """``$XDG_DATA_HOME/ig3d``, by default ``~/.local/share/ig3d`` on Linux; may not exist.

    Raises
    ------
    FileNotFoundError : the user has no home folder.
    """
    return _folder("data", "XDG_DATA_HOME")


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/ig3d``, by default ``~/.cache/ig3d`` on Linux; may not exist.

    Raises
    ------
    FileNotFoundError : the user has no home folder.
    """
    return _folder("cache", "XDG_CACHE_HOME")


def _folder(kind: str, variable: str) -> Path:
    if not os.environ.get(variable):
        home_folder()  # raises if there is none; platformdirs would return a folder named ~
    return Path(getattr(platformdirs, f"user_{kind}_path")("ig3d", appauthor=False))
