"""Read features of a 2D network from a file of ``ig3d logits --features``, and describe the network.

Needs only NumPy. docs/networks.md lists the keys of the file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PredictionsError, listed, plural
from .align import find_rows
from .array_files import read_array_file


@dataclass(frozen=True, slots=True)
class Features:
    """Features of a 2D network for n rows.

    Attributes
    ----------
    ids : (n,) str
    values : (n, d) float32, or (n, c, h, w) float16 maps
    network : str
        Network, layer and input, with a hash of their content; equal for comparable features.
    source : str
        The file, for messages.

    Raises
    ------
    PredictionsError : wrong shape, missing or duplicate ids, or values that are not finite.
    """

    ids: np.ndarray
    values: np.ndarray
    network: str
    source: str = "features"

    def __post_init__(self) -> None:
        if self.values.ndim not in (2, 4) or self.values.dtype.kind != "f" or not self.values.size:
            raise PredictionsError(
                f"{self.source}: features must be floats of shape (n, d) or (n, c, h, w); the file holds "
                f"{self.values.dtype} of shape {self.values.shape}"
            )
        if self.ids.shape != (len(self.values),) or self.ids.dtype.kind != "U":
            raise PredictionsError(
                f"{self.source}: ids of type {self.ids.dtype} and shape {self.ids.shape} for "
                f"{plural(len(self.values), 'row')} of features; give one text per row"
            )
        names, counts = np.unique(self.ids, return_counts=True)
        if counts.max() > 1:
            raise PredictionsError(
                f"{self.source}: {plural(int((counts > 1).sum()), 'duplicate id')} "
                f"({listed(names[counts > 1].tolist())}); keep one row per id"
            )
        finite = np.isfinite(self.values).reshape(len(self.values), -1).all(1)
        if not finite.all():
            raise PredictionsError(
                f"{self.source}: {plural(int((~finite).sum()), 'row')} of features have NaN or infinity "
                f"({listed(self.ids[~finite].tolist())}); compute them again"
            )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def maps(self) -> bool:
        """Whether these are feature maps, which are not averaged over positions."""
        return self.values.ndim == 4

    def rows_of(self, ids: np.ndarray) -> np.ndarray:
        """(m,) int64 row of each of ``ids`` (m,), -1 for an id without features."""
        return find_rows(ids, self.ids)[0]


def made_by_of(path: str | Path) -> dict[str, Any]:
    """Record of the network of an ``.npz`` of ``ig3d logits``; empty for any other file."""
    try:
        with Path(path).open("rb") as handle, np.load(handle, allow_pickle=False) as loaded:
            return dict(json.loads(str(loaded["made_by"])))
    except Exception:  # zipfile, zlib, tokenize and numpy have no common base
        return {}


def training_rows_of(path: str | Path) -> int:
    """Number of rows that a file of ``ig3d logits`` records as training images of its network; 0 if unknown."""
    count = made_by_of(path).get("training_rows", 0)
    return count if isinstance(count, int) else 0


def network_of(path: str | Path) -> str:
    """Description of the network, its input and its crop from a file of predictions; empty if it has no record."""
    return describe_network(made_by_of(path))


def describe_network(made_by: Mapping[str, Any]) -> str:
    """Description of a network from a ``made_by`` record, for :func:`network_differences`.

    >>> describe_network({"network": "net.pt", "sha256": "ab" * 32, "input": {"size": 64}, "crop": "whole"})
    'net.pt abababababab; size 64; crop whole'
    """
    if not {"network", "sha256"} <= set(made_by):
        return ""
    view = made_by.get("input")
    parts = dict(view) if isinstance(view, Mapping) else {}
    parts |= {key: made_by[key] for key in ("crop", "crop_scale") if key in made_by}
    return "; ".join([f"{made_by['network']} {str(made_by['sha256'])[:12]}", *map(_part, parts.items())])


def _part(item: tuple[str, Any]) -> str:
    name, value = item
    values = value if isinstance(value, list | tuple) else [value]
    texts = (f"{v:g}" if isinstance(v, int | float) else str(v).replace(";", ",") for v in values)
    return f"{name} {' '.join(texts)}"


def network_differences(first: str, second: str) -> list[str]:
    """Differences between two descriptions, in the parts that both of them have.

    >>> network_differences("net.pt ab; size 64; crop whole", "net.pt ab; size 96; crop whole; crop_scale 1")
    ['size 64, now size 96']
    """
    if not first or not second:
        return []
    (network, *rest), (other, *others) = first.split("; "), second.split("; ")
    now = {part.partition(" ")[0]: part for part in others}
    pairs = [(network, other), *((part, now.get(part.partition(" ")[0], part)) for part in rest)]
    return [f"{before}, now {after}" for before, after in pairs if before != after]


def load_features(path: str | Path) -> Features:
    """Read the features of an ``.npz`` of ``ig3d logits --features``.

    Raises
    ------
    PredictionsError : the file is missing or damaged, has no features, or contains Python objects.
    """
    source = Path(path)
    if not source.is_file():
        raise PredictionsError(f"{path}: no such file of features; write one with ig3d logits --features")
    with source.open("rb") as handle:
        if handle.read(4) == b"\x89HDF":
            raise PredictionsError(
                f"{path}: is a store of codes, not features; give stores with --3d-store, and here the .npz of "
                "ig3d logits --features"
            )
    names = ("ids", "features", "feature_network")
    arrays = read_array_file(source, only=names, limit=sys.maxsize)
    if "" in arrays:
        raise PredictionsError(
            f"{path}: holds a single array without ids; write the features with ig3d logits --features"
        )
    if set(arrays) != set(names):
        raise PredictionsError(
            f"{path}: has no array {', '.join(name for name in names if name not in arrays)}; write the file with "
            "ig3d logits --features"
        )
    ids, values, network = (arrays[name] for name in names)
    return Features(ids, values, str(network), str(path))
