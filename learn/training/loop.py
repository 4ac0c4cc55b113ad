"""The training loop of all networks: heads on codes, fusion modules and 2D networks.

A :class:`Learner` supplies batches, losses and validation scores; :func:`train` does the rest: learning rates, mixed
precision, the best epoch, early stopping, and continuing after an interruption. Imports torch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ...errors import ModelError, UsageError
from .state import Epoch, TrainingState, load_state, save_state

# Called after each batch and each epoch with the number of epochs done, such as 2.25, and the latest epoch.
Watch = Callable[[float, Epoch | None], object]

# Shortest time between two saves of an unfinished training.
SAVE_SECONDS = 30.0


class Learner(Protocol):
    """A model with its data, for :func:`train`.

    Attributes
    ----------
    model : nn.Module
        On its device.
    generator : torch.Generator or None
        Source of the random numbers of batches and masks; it is saved with an unfinished training.
    """

    @property
    def model(self) -> nn.Module: ...
    @property
    def generator(self) -> torch.Generator | None: ...

    def batches(self) -> Sequence[Any]:
        """Rows of each batch of the next epoch; the number of batches is that of every epoch."""

    def forward(self, rows: Any) -> torch.Tensor:
        """Outputs of the rows of a batch in training, with augmentation; may run in mixed precision."""

    def loss(self, outputs: torch.Tensor, rows: Any) -> torch.Tensor:
        """Loss of a batch, in float32 or float64."""

    def validate(self) -> np.ndarray:
        """(m, outputs) of the validation rows, in full precision; empty without validation rows."""

    def score(self, outputs: np.ndarray) -> tuple[float, dict[str, float]]:
        """Selection score (higher is better) and metrics of the validation rows."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Options of the loop.

    Attributes
    ----------
    epochs : int
        Largest number of epochs.
    patience : int
        Number of epochs without a better selection score after which training stops.
    rate : step -> float
        Learning rate at a step (a batch, from 0), relative to the peak rates of the optimiser.
    clip : float or None
        Largest norm of the gradient.
    arithmetic : torch.dtype
        Number type of the forward pass, see :func:`arithmetic`.
    """

    epochs: int
    patience: int
    rate: Callable[[int], float]
    clip: float | None = 5.0
    arithmetic: torch.dtype = torch.float32


@dataclass(frozen=True, slots=True)
class Fitted:
    """Trained model in evaluation mode, with the weights of the best epoch, and the scores of all epochs."""

    model: nn.Module
    best: Epoch
    history: tuple[Epoch, ...]


def train(
    learner: Learner,
    optimiser: torch.optim.Optimizer,
    schedule: Schedule,
    *,
    device: torch.device,
    unfinished: Path | None = None,
    watch: Watch | None = None,
) -> Fitted:
    """Train a model and restore its best epoch; call it inside :func:`seeded`.

    The epoch with the highest selection score is kept, the earlier of equal ones. Without validation rows, all epochs
    run and the last is kept.

    Parameters
    ----------
    optimiser : its learning rates are the peak rates
    device : device of the model
    unfinished : file, optional
        The unfinished training is saved there after an epoch, at most every 30 seconds. If the file exists, training
        continues from it. It is removed at the end.
    watch : callable, optional

    Raises
    ------
    ModelError : a loss or output is not finite, or ``unfinished`` belongs to another training.
    """
    model = learner.model
    scaler = torch.amp.GradScaler(device.type, enabled=schedule.arithmetic is torch.float16)
    peaks = [group["lr"] for group in optimiser.param_groups]
    state = TrainingState(model, optimiser, scaler, learner.generator, device)
    if unfinished is not None and unfinished.is_file():
        load_state(state, unfinished)
    watch = watch or (lambda done, epoch: None)
    for epoch in state.history:
        watch(epoch.number, epoch)
    saved = time.monotonic()
    while not _finished(state, schedule):
        number = len(state.history) + 1
        model.train()
        losses = []
        batches = learner.batches()
        for index, rows in enumerate(batches):
            share = schedule.rate((number - 1) * len(batches) + index)
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * share
            with torch.autocast(
                device.type, schedule.arithmetic, enabled=schedule.arithmetic is not torch.float32
            ):
                outputs = learner.forward(rows)
            loss = learner.loss(outputs.float() if outputs.dtype.itemsize < 4 else outputs, rows)
            optimiser.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            if schedule.clip is not None:
                scaler.unscale_(optimiser)
                nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
            scaler.step(optimiser)
            scaler.update()
            losses.append(loss.detach())
            watch(number - 1 + (index + 1) / len(batches), state.history[-1] if state.history else None)
        epoch = _evaluated(learner, number, float(torch.stack(losses).mean()))
        state.add(epoch)
        watch(number, epoch)
        if unfinished is not None and time.monotonic() - saved >= SAVE_SECONDS:
            save_state(state, unfinished)
            saved = time.monotonic()
    if unfinished is not None:
        unfinished.unlink(missing_ok=True)
    assert state.best is not None  # epochs >= 1
    model.load_state_dict(state.best_weights)
    return Fitted(model.eval(), state.best, tuple(state.history))


def _evaluated(learner: Learner, number: int, loss: float) -> Epoch:
    """Epoch with its validation scores; without validation rows, later epochs are better."""
    if not math.isfinite(loss):
        raise ModelError(f"training: the loss is {loss} in epoch {number}; use a lower learning rate")
    learner.model.eval()
    outputs = learner.validate()
    if not np.isfinite(outputs).all():
        raise ModelError(f"training: outputs are not finite after epoch {number}; use a lower learning rate")
    selection, scores = learner.score(outputs) if len(outputs) else (float(number), {})
    return Epoch(number, loss, scores, selection)


def _finished(state: TrainingState, schedule: Schedule) -> bool:
    done, best = len(state.history), state.best
    return done >= schedule.epochs or (best is not None and done - best.number >= schedule.patience)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Set torch's random state by the seed and make cuDNN deterministic; restore both afterwards."""
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.manual_seed(seed)
        yield


def arithmetic(precision: str, device: torch.device) -> torch.dtype:
    """Number type of a precision on a device.

    Parameters
    ----------
    precision : ``fp32``, ``bf16``, ``fp16``, or ``auto``
        ``auto`` is bf16 on a CUDA device (fp16 on one without bf16), fp32 on others.

    Raises
    ------
    UsageError : the precision does not exist, or is fp16 without a CUDA device.
    """
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        # torch.cuda.is_bf16_supported() counts slow emulation
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in types or (precision == "fp16" and device.type != "cuda"):
        raise UsageError(f"precision: {precision!r} is not auto, fp32, bf16, or fp16 on a CUDA device")
    return types[precision]
