"""Identity of an extraction: everything that determines its codes, and differences between two identities.

The identity is stored in the record of a run (:mod:`ig3d.extract.shards`) and in the attribute ``config`` of a store.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..features.device import device_kind
from ..features.samples import TEXT_COLUMNS, Listing
from .config import ExtractConfig

if TYPE_CHECKING:
    import pandas as pd

_STEP = 4096  # rows that are encoded at a time
# Packages whose versions can change codes.
_PACKAGES = ("numba", "numpy", "opencv-python-headless", "openvino", "pillow", "scipy", "timm", "torch")


def identity_of(
    listing: Listing,
    config: ExtractConfig,
    regressor: dict[str, Any],
    detector: dict[str, Any],
    boxes: str = "none",
) -> dict[str, Any]:
    """Identity of a run as a JSON object: samples, options, plug-ins with their weights, versions; no paths or dates.

    Parameters
    ----------
    listing : Listing
    config : ExtractConfig
        Complete configuration.
    regressor, detector : dict
        Descriptions of the plug-ins (:func:`ig3d.extract.config.describe`).
    boxes : str
        Source of stored face boxes: ``none``, ``dataset``, ``detector``, or the content hash of a store.
    """
    options = {**asdict(config), "also": list(config.also)}
    return {
        "dataset": listing.dataset,
        "classes": list(listing.classes),
        "samples": len(listing),
        "samples_sha256": _samples_sha256(listing.samples),
        "options": {key: value for key, value in options.items() if key not in ("device", "boxes")},
        "boxes": boxes,
        "device": device_kind(config.device),
        "regressor": regressor,
        "detector": detector,
        "threads_per_worker": 1,
        "packages": {name: _version(name) for name in _PACKAGES},
        "ig3d": __version__,
    }


def _samples_sha256(samples: pd.DataFrame) -> str:
    """SHA-256 of the sample table, column by column."""
    total = hashlib.sha256()
    for name, column in samples.items():
        total.update(f"{name}:".encode())
        if name in TEXT_COLUMNS:
            for start in range(0, len(column), _STEP):
                total.update(json.dumps(column.iloc[start : start + _STEP].tolist()).encode())
        elif column.dtype.kind == "f":
            values = column.to_numpy()
            # NaN has several bit patterns; use one
            total.update(np.where(np.isnan(values), np.nan, values).tobytes())
        else:
            values = column.cat.codes if hasattr(column, "cat") else column
            total.update(values.to_numpy(np.int64).tobytes())
    return total.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Differences between two identities, one text each, such as ``regressor.version: 1 -> 2``."""
    lines = []
    for key in sorted({*before, *now}):
        old, new = before.get(key, "nothing"), now.get(key, "nothing")
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new and not key.endswith("_sha256"):
            lines.append(f"{prefix}{key}: {_short(old)} -> {_short(new)}")
        elif old != new:
            text = (
                "other ids, labels, splits, groups or file sizes"
                if key == "samples_sha256"
                else "other content"
            )
            lines.append(f"{prefix}{key.removesuffix('_sha256')}: {text}")
    return lines


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
