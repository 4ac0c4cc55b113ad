"""Features of a 2D network as ``ig3d logits --features`` writes them, by id and with the name of what made them.

Reading only, numpy only; docs/networks.md lists the keys of the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ..errors import PredictionsError, some


@dataclass(frozen=True, slots=True)
class Features:
    """n rows of features.

    Attributes
    ----------
    ids : (n,) str
    values : (n, d) float32, or (n, c, h, w) float16 maps
    network : str
        Names the network, the layer and the input by content: features mean the same where it is equal.
    source : str
        The file, for messages.

    Raises
    ------
    PredictionsError : another shape, ids missing or twice, numbers that are not finite.
    """

    ids: np.ndarray
    values: np.ndarray
    network: str
    source: str = "features"

    def __post_init__(self) -> None:
        if self.values.ndim not in (2, 4) or self.values.dtype.kind != "f" or not self.values.size:
            raise PredictionsError(
                f"{self.source}: expected features (n, d) or maps (n, c, h, w), got {self.values.dtype} "
                f"{self.values.shape}"
            )
        if self.ids.shape != (len(self.values),) or self.ids.dtype.kind != "U":
            raise PredictionsError(
                f"{self.source}: expected an id for each of {len(self.values)} rows of features, got {self.ids.dtype} "
                f"{self.ids.shape}"
            )
        names, counts = np.unique(self.ids, return_counts=True)
        if counts.max() > 1:
            raise PredictionsError(
                f"{self.source}: expected every id once, got {int((counts > 1).sum())} ids more than once "
                f"({some(names[counts > 1].tolist())})"
            )
        finite = np.isfinite(self.values).reshape(len(self.values), -1).all(1)
        if not finite.all():
            raise PredictionsError(
                f"{self.source}: expected finite features, got others in {int((~finite).sum())} rows "
                f"({some(self.ids[~finite].tolist())})"
            )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def maps(self) -> bool:
        """Whether these are maps, not yet averaged over their positions."""
        return self.values.ndim == 4

    def rows_of(self, ids: np.ndarray) -> np.ndarray:
        """(n,) int64 row of each of ``ids``, -1 where there is none."""
        place = {name: row for row, name in enumerate(self.ids.tolist())}
        return np.array([place.get(name, -1) for name in np.asarray(ids).tolist()], np.int64)


def made_by_of(path: str | Path) -> dict[str, Any]:
    """What an ``.npz`` of ``ig3d logits`` says of the network that made it; empty for any other file."""
    try:
        with Path(path).open("rb") as handle, np.load(handle, allow_pickle=False) as loaded:
            return dict(json.loads(str(loaded["made_by"])))
    except (ValueError, TypeError, OSError, EOFError, BadZipFile, KeyError, AttributeError):
        return {}


def network_of(path: str | Path) -> str:
    """Name and weights of the network that made a file of predictions, where the file says so; else empty."""
    said = made_by_of(path)
    return f"{said['network']} {str(said['sha256'])[:12]}" if {"network", "sha256"} <= set(said) else ""


def load_features(path: str | Path) -> Features:
    """Read the features of an ``.npz`` of ``ig3d logits --features``.

    Raises
    ------
    PredictionsError : missing, damaged, without features, or with Python objects inside.
    """
    source = Path(path)
    if not source.is_file():
        raise PredictionsError(
            f"{path}: expected a file of features, found none; ig3d logits --features writes one"
        )
    try:
        with source.open("rb") as handle:  # numpy leaves a damaged archive open
            if handle.read(4) == b"\x89HDF":
                raise PredictionsError(
                    f"{path}: expected an .npz of ig3d logits --features, got a store; stores are given with --3d-store"
                )
            handle.seek(0)
            loaded = np.load(handle, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise PredictionsError(f"{path}: expected an .npz with ids and features, got a single array")
            lacking = [key for key in ("ids", "features", "feature_network") if key not in loaded.files]
            if lacking:
                raise PredictionsError(
                    f"{path}: expected the arrays ids, features and feature_network, got {', '.join(loaded.files)}; "
                    "write them with ig3d logits --features"
                )
            return Features(loaded["ids"], loaded["features"], str(loaded["feature_network"]), str(path))
    except (ValueError, OSError, EOFError, BadZipFile, KeyError) as exc:
        raise PredictionsError(f"{path}: expected an .npz of features, got {exc or 'an empty file'}") from exc
