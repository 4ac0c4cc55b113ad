"""Checkpoints of ``ig3d train-2d``, which contain input settings, columns and a record of the training images."""

from __future__ import annotations

import torch

from ..checkpoint import LoadedNetwork, load_network
from ..options import NetworkSpec
from .values import Opened


def open_network(spec: NetworkSpec, device: torch.device) -> Opened:
    """Read the checkpoint; no code in it is executed."""
    return opened(load_network(spec.network), device)


def opened(loaded: LoadedNetwork, device: torch.device) -> Opened:
    """Network of a loaded checkpoint."""
    info = loaded.info
    module = loaded.module.eval().to(device).to(memory_format=torch.channels_last)
    return Opened(
        call=module,
        name=info.architecture,
        sha256=loaded.sha256,
        module=module,
        input={"size": info.size, "mean": info.mean, "std": info.std},
        classes=info.columns if info.task == "classes" else (),
        va=info.task == "va",
        seen=loaded.seen,
    )
