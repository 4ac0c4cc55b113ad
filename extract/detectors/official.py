"""Safe loader for the official weights of face-alignment's networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ...features.safe_pickle import read_arrays
from ..regressors.official import load_strictly
from ..weights import find_weights, weights_sha256


def load_network(network: nn.Module, name: str, path: str | Path | None = None) -> str:
    """Load the official weights into a network on the meta device.

    Parameters
    ----------
    network : module
    name : str
        Name of the official file in ``ig3d weights``.
    path : path, optional
        Weights file; default: the one that ``ig3d weights`` lists.

    Returns
    -------
    str : SHA-256 of the file

    Raises
    ------
    WeightsError : the file is missing or damaged, or contains other tensors.
    """
    file = find_weights(name) if path is None else Path(path)
    arrays = read_arrays(file)
    stored: dict[str, Any] = arrays if isinstance(arrays, dict) else {}
    # old files have no batch counters; inference does not use them
    counters = [key for key in network.state_dict() if key.endswith("num_batches_tracked")]
    tensors = {key: np.zeros((), np.int64) for key in counters} | stored
    load_strictly({name: network}, {name: tensors}, what=f"{name} ({file.name})")
    return weights_sha256(file)
