"""A TorchScript file (``torch.jit.save``), run as a whole.

The code inside runs in TorchScript's own interpreter, which knows no Python and starts no program, but may read and
write files: take such a file only from someone you trust.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path

import torch

from ...errors import ModelError, WeightsError, short
from ...features.safe_pickle import read_arrays
from .state import digest_file
from .values import NetworkSpec, Opened


def open_network(spec: NetworkSpec, device: torch.device) -> Opened:
    """Load the module in evaluation mode."""
    path = Path(spec.network)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch would rather have torch.export
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(path, map_location=device)
    except (RuntimeError, ValueError) as exc:
        got = str(exc).strip().splitlines()[0]
        with suppress(WeightsError):
            read_arrays(path)
            got = "weights, not a network"
        raise ModelError(
            f"{path}: expected a TorchScript file, got {short(got, 100)}; give --network timm:NAME or file.py:build "
            f"with --weights {path}"
        ) from exc
    return Opened(call=module.eval(), name=path.name, sha256=digest_file(path))
