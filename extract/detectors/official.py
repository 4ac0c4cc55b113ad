"""Files of face-alignment's networks: found or given, read inertly, and taken whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ...features.safe_pickle import read_arrays
from ..regressors.official import load_strictly
from ..weights import find_weights, weights_sha256


def load_network(network: nn.Module, name: str, path: str | Path | None = None) -> str:
    """Give a network on the meta device its tensors; the SHA-256 of the file.

    Parameters
    ----------
    network : module
    name : str
        Of the official file, as ``ig3d weights`` lists it.
    path : path, optional
        Of the file; by default where it is looked for.

    Raises
    ------
    WeightsError : the file is missing or damaged, or holds other tensors.
    """
    file = find_weights(name) if path is None else Path(path)
    arrays = read_arrays(file)
    found: dict[str, Any] = arrays if isinstance(arrays, dict) else {}
    # counters of batches, which older files lack and nothing here reads
    counters = [key for key in network.state_dict() if key.endswith("num_batches_tracked")]
    given = {key: np.zeros((), np.int64) for key in counters} | found
    load_strictly({name: network}, {name: given}, what=f"{name} ({file.name})")
    return weights_sha256(file)
