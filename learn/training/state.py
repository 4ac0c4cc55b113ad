"""State of an unfinished training, saved so that the training can be resumed.

The file is safetensors with JSON, never a pickle. Imports torch.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from ...errors import ModelError
from .tensors import open_tensors, write_tensors

FORMAT = "ig3d-unfinished-training"


@dataclass(frozen=True, slots=True)
class Epoch:
    """Result of one pass over the training rows.

    Attributes
    ----------
    number : int
        From 1.
    loss : float
        Mean training loss.
    scores : dict
        Metric -> value on the validation rows.
    selection : float
        Score that chooses the epoch; the earlier of equal ones is chosen.
    """

    number: int
    loss: float
    scores: dict[str, float]
    selection: float


@dataclass(slots=True)
class TrainingState:
    """State on which the rest of a training depends."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    generator: torch.Generator | None
    device: torch.device
    history: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, epoch: Epoch) -> None:
        """Add an epoch; keep its weights if it is the best so far."""
        self.history.append(epoch)
        if self.best is None or epoch.selection > self.best.selection:
            self.best, self.best_weights = epoch, copy.deepcopy(self.model.state_dict())


def save_state(state: TrainingState, path: Path) -> None:
    """Write weights, moments of the optimiser, random states and history."""
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best_weights.items()}
    for index, moments in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    if state.generator is not None:
        tensors["random.batches"] = state.generator.get_state()
    tensors["random.torch"] = torch.get_rng_state()
    if state.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(state.device)
    described = {
        "format": FORMAT,
        "history": [asdict(epoch) for epoch in state.history],
        "best": state.best.number if state.best else 0,
        "scaler": state.scaler.state_dict(),
    }
    write_tensors(path, tensors, described)


def load_state(state: TrainingState, path: Path) -> None:
    """Restore a state of :func:`save_state`.

    Raises
    ------
    ModelError : the file is damaged or belongs to another training.
    """
    try:
        described, tensors = open_tensors(path)
        if described.get("format") != FORMAT:
            raise ValueError("a file of another kind")
        parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "best": {}, "optimiser": {}, "random": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        state.model.load_state_dict(parts["model"])
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in parts["optimiser"].items():
            index, _, moment = name.partition(".")
            moments.setdefault(int(index), {})[moment] = tensor
        now = state.optimiser.state_dict()
        state.optimiser.load_state_dict({"state": moments, "param_groups": now["param_groups"]})
        state.scaler.load_state_dict(described["scaler"])
        if state.generator is not None:
            state.generator.set_state(parts["random"]["batches"])
        torch.set_rng_state(parts["random"]["torch"])
        if state.device.type == "cuda":
            torch.cuda.set_rng_state(parts["random"]["cuda"], state.device)
        state.history = [Epoch(**epoch) for epoch in described["history"]]
        state.best = state.history[described["best"] - 1]
        state.best_weights = {name: tensor.to(state.device) for name, tensor in parts["best"].items()}
    except Exception as exc:
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise ModelError(
            f"{path}: the unfinished training has other options or data ({reason}); start again with "
            "--restart"
        ) from exc
