"""Plug-ins that installed packages register as entry points."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType


def installed_plugins(group: str) -> Mapping[str, str]:
    """Plug-ins of other packages, read once for each state of ``sys.path``.

    Parameters
    ----------
    group : str
        Such as ``rules`` for the entry points of the group ``ig3d.rules``.

    Returns
    -------
    mapping of name to ``module:Class``, sorted by name
    """
    return _installed(group, tuple(sys.path))


@lru_cache(maxsize=64)
def _installed(group: str, path: tuple[str, ...]) -> Mapping[str, str]:
    from importlib.metadata import entry_points  # slow to import

    points = {point.name: point.value for point in entry_points(group=f"ig3d.{group}")}
    return MappingProxyType(dict(sorted(points.items())))
