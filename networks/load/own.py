"""Checkpoints of ``ig3d train-2d``, which contain input settings, columns and a record of the training images."""

from __future__ import annotations

from typing import Any

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
    view: dict[str, Any] = {"size": info.size, "mean": info.mean, "std": info.std}
    crop: dict[str, Any] = {key: info.training[key] for key in ("crop", "crop_scale") if key in info.training}
    module = loaded.module.eval().to(device).to(memory_format=torch.channels_last)
    return Opened(
        call=module,
        name=info.architecture,
        sha256=loaded.sha256,
        module=module,
        input=view,
        classes=info.columns if info.task == "classes" else (),
        va=info.task == "va",
        seen=loaded.seen,
        trained_with={"input": view, **crop},
    )
