"""Versions of the packages that affect results, for the record of a run."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from .. import __version__

_PACKAGES = ("lightgbm", "numpy", "scikit-learn", "scipy")


def versions() -> dict[str, str]:
    """Package -> version, ig3d first."""
    result = {"ig3d": __version__}
    for name in _PACKAGES:
        try:
            result[name] = version(name)
        except PackageNotFoundError:
            result[name] = "unknown"
    return result
