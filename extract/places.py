"""The user's folders: home, data, and the cache of files that ig3d can make again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def home_folder() -> Path:
    """The user's home.

    Raises
    ------
    FileNotFoundError : the user has none, for instance a bare user id in a container.
    """
    try:
        return Path.home()
    except RuntimeError as exc:
        raise FileNotFoundError("this user has no home folder; set HOME") from exc


def data_folder() -> Path:
    """``$XDG_DATA_HOME/ig3d``, by default ``~/.local/share/ig3d`` (on other systems as in platformdirs); may not exist.

    Raises
    ------
    FileNotFoundError : the user has no home.
    """
    return _folder("data", "XDG_DATA_HOME")


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/ig3d``, by default ``~/.cache/ig3d`` (on other systems as in platformdirs); may not exist.

    Raises
    ------
    FileNotFoundError : the user has no home.
    """
    return _folder("cache", "XDG_CACHE_HOME")


def _folder(kind: str, variable: str) -> Path:
    if not os.environ.get(variable):
        home_folder()  # platformdirs would answer with a folder named ~
    return Path(getattr(platformdirs, f"user_{kind}_path")("ig3d", appauthor=False))
