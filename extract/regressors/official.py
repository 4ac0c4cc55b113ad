"""Official checkpoints: found, read as arrays, and given to networks whole or not at all.

Nothing of a checkpoint is skipped in silence: each tensor is used, or its name is known to be of no use here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import WeightsError, some
from ...features.safe_pickle import read_arrays
from ..weights import find_weights, weights_sha256

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was found.

    Attributes
    ----------
    what : str
        The regressor and the file; opens every message.
    path : Path
    sha256 : str
        Of the file.
    """

    what: str
    path: Path
    sha256: str

    def read(self) -> dict[str, Any]:
        """Its tensors, and nothing else of it, by name.

        Raises
        ------
        WeightsError : it is damaged, or holds nothing by name.
        """
        arrays = read_arrays(self.path)
        if not isinstance(arrays, dict):
            raise WeightsError(
                f"{self.what}: expected tensors by name, got a {type(arrays).__name__}; is it the official file?"
            )
        return {str(key): value for key, value in arrays.items()}


def find_checkpoint(name: str) -> Checkpoint:
    """Find a regressor's checkpoint.

    Parameters
    ----------
    name : str
        As ``ig3d weights`` lists it.

    Raises
    ------
    WeightsError : it is not there.
    """
    path = find_weights(name)
    return Checkpoint(f"{name} ({path.name})", path, weights_sha256(path))


def tensors_under(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries whose names start with ``prefix``, without it."""
    return {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}


def refuse_unknown(names: Sequence[str] | Mapping[str, Any], known: tuple[str, ...], *, what: str) -> None:
    """Refuse names that start with none of ``known``.

    Raises
    ------
    WeightsError : lists the first of them.
    """
    unknown = [name for name in names if not name.startswith(known)]
    if unknown:
        raise WeightsError(
            f"{what}: expected nothing but official names, got {len(unknown)} unknown ({some(unknown, 3)}); "
            "docs/regressors.md says which file it must be"
        )


def load_strictly(
    networks: Mapping[str, nn.Module], tensors: Mapping[str, Mapping[str, Any]], *, what: str
) -> None:
    """Give networks their tensors, every one of them and no other.

    Parameters
    ----------
    networks : name -> module, on the meta device
    tensors : name -> (name -> array)
    what : str
        Opens the message.

    Raises
    ------
    WeightsError : tensors are missing, unknown, of another shape or not finite; lists the first of each.
    """
    import torch

    expected = {
        f"{name}.{key}": tuple(tensor.shape)
        for name, network in networks.items()
        for key, tensor in network.state_dict().items()
    }
    given = {f"{name}.{key}": value for name, part in tensors.items() for key, value in part.items()}
    arrays = {key: value for key, value in given.items() if key in expected and isinstance(value, np.ndarray)}
    differences = {
        "missing": [key for key in expected if key not in arrays],
        "unknown": [key for key in given if key not in arrays],
        "of another shape": [
            f"{key} {array.shape} for {expected[key]}"
            for key, array in arrays.items()
            if array.shape != expected[key]
        ],
        "without finite numbers": [key for key, array in arrays.items() if not _is_finite(array)],
    }
    if any(differences.values()):
        found = "; ".join(
            f"{len(keys)} {kind} ({some(keys, 3)})" for kind, keys in differences.items() if keys
        )
        raise WeightsError(
            f"{what}: expected the {len(expected)} tensors of the official networks, got {found}; "
            "ig3d weights says which file it must be"
        )
    for name, network in networks.items():
        # a copy each: what was read may lie in a file's memory
        state = {
            key: torch.tensor(array, dtype=torch.float32 if array.dtype.kind == "f" else torch.int64)
            for key, array in tensors[name].items()
        }
        network.load_state_dict(state, strict=True, assign=True)


def _is_finite(array: np.ndarray) -> bool:
    return array.dtype.kind in "iu" or (array.dtype.kind == "f" and bool(np.isfinite(array).all()))
