"""Safe loader for official checkpoints.

A checkpoint is refused if a tensor is missing or unknown: every tensor is used or is on a list of unneeded names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import WeightsError, listed
from ...features.safe_pickle import read_arrays
from ..weights import find_weights, weights_sha256

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Location of a checkpoint.

    Attributes
    ----------
    what : str
        Regressor and file, for messages.
    path : Path
    sha256 : str
        Hash of the file.
    """

    what: str
    path: Path
    sha256: str

    def read(self) -> dict[str, Any]:
        """Read the tensors by name; other content is ignored and never executed.

        Raises
        ------
        WeightsError : the file is damaged, or has no named tensors.
        """
        arrays = read_arrays(self.path)
        if not isinstance(arrays, dict):
            raise WeightsError(
                f"{self.what}: the file contains a {type(arrays).__name__}, not named tensors; use the official file"
            )
        return {str(key): value for key, value in arrays.items()}


def find_checkpoint(name: str) -> Checkpoint:
    """Find the checkpoint of a regressor.

    Parameters
    ----------
    name : str
        Name in the list of ``ig3d weights``.

    Raises
    ------
    WeightsError : the checkpoint is missing.
    """
    path = find_weights(name)
    return Checkpoint(f"{name} ({path.name})", path, weights_sha256(path))


def tensors_under(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Entries whose names start with ``prefix``, under their names without it."""
    return {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}


def refuse_unknown(names: Sequence[str] | Mapping[str, Any], prefixes: tuple[str, ...], *, what: str) -> None:
    """Refuse names that start with none of ``prefixes``.

    Raises
    ------
    WeightsError : some names are unknown; the message lists the first.
    """
    unknown = [name for name in names if not name.startswith(prefixes)]
    if unknown:
        raise WeightsError(
            f"{what}: {len(unknown)} unknown tensors ({listed(unknown, 3)}); docs/regressors.md names the official file"
        )


def load_strictly(
    networks: Mapping[str, nn.Module], tensors: Mapping[str, Mapping[str, Any]], *, what: str
) -> None:
    """Load tensors into networks; missing, unknown and misshapen tensors are refused.

    Parameters
    ----------
    networks : name -> module, on the meta device
    tensors : name -> (name -> array)
    what : str
        Regressor and file, for messages.

    Raises
    ------
    WeightsError : tensors are missing, unknown, of another shape or not finite; the message lists the first of each.
    """
    import torch

    expected = {
        f"{name}.{key}": tuple(tensor.shape)
        for name, network in networks.items()
        for key, tensor in network.state_dict().items()
    }
    stored = {f"{name}.{key}": value for name, part in tensors.items() for key, value in part.items()}
    arrays = {
        key: value for key, value in stored.items() if key in expected and isinstance(value, np.ndarray)
    }
    differences = {
        "missing": [key for key in expected if key not in arrays],
        "unknown": [key for key in stored if key not in arrays],
        "of another shape": [
            f"{key} {array.shape} for {expected[key]}"
            for key, array in arrays.items()
            if array.shape != expected[key]
        ],
        "without finite numbers": [key for key, array in arrays.items() if not _is_finite(array)],
    }
    if any(differences.values()):
        problems = "; ".join(
            f"{len(keys)} {kind} ({listed(keys, 3)})" for kind, keys in differences.items() if keys
        )
        raise WeightsError(
            f"{what}: the tensors are not the {len(expected)} of the official networks: {problems}; "
            "ig3d weights names the official file"
        )
    for name, network in networks.items():
        # copies, because the arrays may be memory-mapped
        state = {
            key: torch.tensor(array, dtype=torch.float32 if array.dtype.kind == "f" else torch.int64)
            for key, array in tensors[name].items()
        }
        network.load_state_dict(state, strict=True, assign=True)


def _is_finite(array: np.ndarray) -> bool:
    return array.dtype.kind in "iu" or (array.dtype.kind == "f" and bool(np.isfinite(array).all()))
