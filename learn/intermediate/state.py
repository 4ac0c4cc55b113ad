"""An unfinished training in one file, to go on as if it had never stopped: safetensors and JSON, never a pickle."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from ...errors import ModelError
from ..training.epochs import Epoch
from ..training.tensors import open_tensors, write_tensors

FORMAT = "ig3d-unfinished-training"


@dataclass(slots=True)
class Progress:
    """Everything that the rest of a training depends on."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    generator: torch.Generator
    device: torch.device
    history: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, epoch: Epoch) -> None:
        """Note an epoch; keep its weights when it is the best so far."""
        self.history.append(epoch)
        if self.best is None or epoch.selection > self.best.selection:
            self.best, self.best_weights = epoch, copy.deepcopy(self.model.state_dict())


def save_progress(progress: Progress, path: Path) -> None:
    """Write weights, the optimiser's moments, random states and the history, all or nothing."""
    tensors = {f"model.{name}": tensor for name, tensor in progress.model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in progress.best_weights.items()}
    for index, moments in progress.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    tensors["random.batches"] = progress.generator.get_state()
    tensors["random.torch"] = torch.get_rng_state()
    if progress.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(progress.device)
    described = {
        "format": FORMAT,
        "history": [asdict(epoch) for epoch in progress.history],
        "best": progress.best.number if progress.best else 0,
        "scaler": progress.scaler.state_dict(),
    }
    write_tensors(path, tensors, described)


def load_progress(progress: Progress, path: Path) -> None:
    """Go back to where :func:`save_progress` was.

    Raises
    ------
    ModelError : the file is damaged or of another training.
    """
    try:
        described, tensors = open_tensors(path)
        if described.get("format") != FORMAT:
            raise ValueError("a file of another kind")
        parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "best": {}, "optimiser": {}, "random": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        progress.model.load_state_dict(parts["model"])
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in parts["optimiser"].items():
            index, _, moment = name.partition(".")
            moments.setdefault(int(index), {})[moment] = tensor
        now = progress.optimiser.state_dict()
        progress.optimiser.load_state_dict({"state": moments, "param_groups": now["param_groups"]})
        progress.scaler.load_state_dict(described["scaler"])
        progress.generator.set_state(parts["random"]["batches"])
        torch.set_rng_state(parts["random"]["torch"])
        if progress.device.type == "cuda":
            torch.cuda.set_rng_state(parts["random"]["cuda"], progress.device)
        progress.history = [Epoch(**epoch) for epoch in described["history"]]
        progress.best = progress.history[described["best"] - 1]
        progress.best_weights = {name: tensor.to(progress.device) for name, tensor in parts["best"].items()}
    except Exception as exc:
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise ModelError(
            f"{path}: expected an unfinished training to go on with, got: {reason}; begin again with --restart"
        ) from exc
