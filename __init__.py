"""ig3d: measure what 3D face codes add to a 2D expression network.

``images ── extract ──▶ codes in one HDF5 store ── fuse ──▶ fused predictions with statistics``

Public names are imported on first use, so that ``import ig3d`` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# public name -> module that defines it
_PUBLIC = {
    "CodeStore": "features.store",
    "ExtractConfig": "extract.config",
    "FuseConfig": "learn.fuse",
    "Ig3dError": "errors",
    "Inputs": "features.inputs",
    "Predictions": "features.predictions",
    "extract_codes": "extract.run",
    "fuse_files": "learn.fuse",
    "fuse_predictions": "learn.fuse",
    "list_samples": "extract.datasets",
    "load_regressor": "extract.api",
    "plot_result": "learn.report.plots",
    "read_run": "learn.report.record",
    "read_codes": "features.store.tables",
    "read_samples": "features.store.tables",
}

__all__ = [
    "CodeStore",
    "ExtractConfig",
    "FuseConfig",
    "Ig3dError",
    "Inputs",
    "Predictions",
    "__version__",
    "extract_codes",
    "fuse_files",
    "fuse_predictions",
    "list_samples",
    "load_regressor",
    "plot_result",
    "read_codes",
    "read_run",
    "read_samples",
]

if TYPE_CHECKING:
    from .errors import Ig3dError
    from .extract.api import load_regressor
    from .extract.config import ExtractConfig
    from .extract.datasets import list_samples
    from .extract.run import extract_codes
    from .features.inputs import Inputs
    from .features.predictions import Predictions
    from .features.store import CodeStore
    from .features.store.tables import read_codes, read_samples
    from .learn.fuse import FuseConfig, fuse_files, fuse_predictions
    from .learn.report.plots import plot_result
    from .learn.report.record import read_run


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ig3d' has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
