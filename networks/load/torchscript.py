"""TorchScript files (``torch.jit.save``); layers cannot be accessed.

The code in the file runs in TorchScript's interpreter, which cannot run Python or start programs, but can read and
write files: use only files from sources that you trust.
"""

from __future__ import annotations

import warnings
import zipfile
from contextlib import suppress
from pathlib import Path

import torch

from ...errors import ModelError, WeightsError, shorten
from ...features.atomic import file_sha256
from ...features.safe_pickle import read_arrays
from ..options import NetworkSpec
from .values import Opened


def open_network(spec: NetworkSpec, device: torch.device) -> Opened:
    """Load the module in evaluation mode."""
    path = Path(spec.network)
    reason = "it has no code"
    if _has_code(path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch recommends torch.export
                warnings.simplefilter("ignore", DeprecationWarning)
                module = torch.jit.load(path, map_location=device)
            return Opened(call=module.eval(), name=path.name, sha256=file_sha256(path))
        except (RuntimeError, ValueError) as exc:
            reason = str(exc).strip().splitlines()[0]
    else:
        with suppress(WeightsError):
            read_arrays(path)
            reason = "it contains weights, not a network"
    raise ModelError(
        f"{path}: the file is no TorchScript network: {shorten(reason, 100)}; pass --network timm:NAME or "
        f"file.py:build with --weights {path}"
    )


def _has_code(path: Path) -> bool:
    """Whether a file is a TorchScript archive: torch's reader is not called for any other."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False
