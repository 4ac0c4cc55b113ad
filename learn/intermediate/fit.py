"""The training loop of every module, on features or end to end: rows in, the weights of the best epoch out.

Every draw (initial weights, rows, masks, augmentation, dropout) comes from the seed; the global random state is left
as it was. On one processor with one compute thread the same seed gives the same weights to the bit, also when the
training was interrupted and went on (:mod:`.state`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...errors import ModelError
from ...features.predictions import log_softmax
from ..measures.metrics import measure
from ..training.epochs import Epoch, draw_batches, share_of_rate
from ..training.losses import class_loss, va_loss
from .config import IntermediateConfig
from .state import Progress, load_progress, save_progress

_EVERY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class TrainingData:
    """n rows as a module sees them; indices count these rows.

    Attributes
    ----------
    inputs : (rows, generator or None) -> features or pixels of these rows, on the device
        With a generator augmented by its draws, without one as they are.
    codes : (n, d) float32 tensor
        Read only where a block is present.
    present : (n,) bool tensor
    blocks : columns of each block
    labels : (n,) int64 tensor, -1 where there is none
    targets : (n, 2) float32 tensor, NaN where there is none
    train, validation : (m,) int64 tensors
    classes : number of class outputs, 0 for valence-arousal alone
    va : whether there are outputs for valence and arousal, after those of the classes
    """

    inputs: Callable[[torch.Tensor, torch.Generator | None], torch.Tensor]
    codes: torch.Tensor
    present: torch.Tensor
    blocks: tuple[int, ...]
    labels: torch.Tensor
    targets: torch.Tensor
    train: torch.Tensor
    validation: torch.Tensor
    classes: int
    va: bool

    @property
    def outputs(self) -> int:
        return self.classes + 2 * self.va

    def blocks_present(self, rows: torch.Tensor) -> torch.Tensor:
        """(len(rows), blocks) bool."""
        return self.present[rows, None].expand(-1, len(self.blocks))


@dataclass(frozen=True, slots=True)
class Fitted:
    """The model with its best epoch's weights, in evaluation mode, and every epoch's scores."""

    model: nn.Module
    best: Epoch
    history: tuple[Epoch, ...]


def parameter_groups(module: nn.Module, *, lr: float, weight_decay: float) -> list[dict[str, object]]:
    """Parameters with their peak learning rate; weight decay on matrices and kernels, not on the rest."""
    spared = ("absent", "place", "decision")
    named = list(module.named_parameters())
    decayed = [p for name, p in named if p.ndim > 1 and name.rpartition(".")[2] not in spared]
    others = [p for name, p in named if p.ndim <= 1 or name.rpartition(".")[2] in spared]
    return [
        {"params": decayed, "peak": lr, "weight_decay": weight_decay},
        {"params": others, "peak": lr, "weight_decay": 0.0},
    ]


def fit(
    model: nn.Module,
    groups: list[dict[str, object]],
    data: TrainingData,
    config: IntermediateConfig,
    *,
    seed: int,
    device: torch.device,
    keep: Path | None = None,
    keep_seconds: float = _EVERY_SECONDS,
    after_epoch: Callable[[Epoch], object] | None = None,
) -> Fitted:
    """Train a model and keep the epoch that did best on the validation rows; call it inside ``seeded``.

    Parameters
    ----------
    model : module called with (inputs, codes, present)
    groups : of :func:`parameter_groups`
    keep : file, optional
        Where an unfinished training is kept after an epoch, no more often than every ``keep_seconds``; it goes on
        from there, and is removed when it is finished.
    after_epoch : callable, optional
        Told each epoch's scores.

    Raises
    ------
    ModelError : the loss is no longer finite; what is kept does not fit.
    """
    model = model.to(device)
    optimiser = torch.optim.AdamW(groups, lr=config.lr, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=_half(config, device) is torch.float16)
    generator = torch.Generator().manual_seed(seed)
    progress = Progress(model, optimiser, scaler, generator, device)
    if keep is not None and keep.is_file():
        load_progress(progress, keep)
    if after_epoch is not None:
        for epoch in progress.history:
            after_epoch(epoch)
    saved = time.monotonic()
    while not _finished(progress, config):
        number = len(progress.history) + 1
        loss = _one_epoch(model, optimiser, scaler, data, config, number, generator, device)
        scores = _validate(model, data, config, device)
        epoch = Epoch(number, loss, scores, _selection(scores, data))
        progress.add(epoch)
        if after_epoch is not None:
            after_epoch(epoch)
        if keep is not None and time.monotonic() - saved >= keep_seconds:
            save_progress(progress, keep)
            saved = time.monotonic()
    if keep is not None:
        keep.unlink(missing_ok=True)
    model.load_state_dict(progress.best_weights)
    best = progress.best
    assert best is not None  # epochs >= 1
    return Fitted(model.eval(), best, tuple(progress.history))


def _finished(progress: Progress, config: IntermediateConfig) -> bool:
    done, best = len(progress.history), progress.best
    return done >= config.epochs or (best is not None and done - best.number >= config.patience)


def _one_epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    data: TrainingData,
    config: IntermediateConfig,
    number: int,
    generator: torch.Generator,
    device: torch.device,
) -> float:
    """Mean loss of one pass; weights change."""
    model.train()
    half = _half(config, device)
    labels = data.labels[data.train] if data.classes else None
    batches = draw_batches(
        len(data.train), labels, batch_size=config.batch_size, balance=config.balance, generator=generator
    )
    steps = config.epochs * len(batches)
    losses = []
    for index, drawn in enumerate(batches):
        rows = data.train[drawn]
        share = share_of_rate((number - 1) * len(batches) + index, steps)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share
        present = mask_blocks(data.blocks_present(rows), config.masking, generator)
        inputs = data.inputs(rows, generator)
        with torch.autocast(device.type, dtype=half or torch.bfloat16, enabled=half is not None):
            outputs = model(inputs, data.codes[rows].to(device), present.to(device))
        loss = _loss(outputs.float(), data, rows, config)
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        scaler.step(optimiser)
        scaler.update()
        losses.append(loss.detach())
    value = float(torch.stack(losses).mean())
    if not math.isfinite(value):
        raise ModelError(
            f"training: expected a finite loss, got {value} in epoch {number}; lower the learning rate (--lr)"
        )
    return value


def _half(config: IntermediateConfig, device: torch.device) -> torch.dtype | None:
    """Type of mixed precision; None for float32 throughout. bfloat16 has float32's range and needs no scaling."""
    if not config.mixed or device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def _loss(
    outputs: torch.Tensor, data: TrainingData, rows: torch.Tensor, config: IntermediateConfig
) -> torch.Tensor:
    """Cross-entropy, or MSE + (1 - CCC), or both; in float32, whatever the model ran in."""
    parts = []
    if data.classes:
        truth = data.labels[rows].to(outputs.device)
        parts.append(class_loss(outputs[:, : data.classes], truth, smoothing=config.smoothing))
    if data.va:
        weight = config.va_weight if data.classes else 1.0
        parts.append(weight * va_loss(outputs[:, data.classes :], data.targets[rows].to(outputs.device)))
    return torch.stack(parts).sum()


def predict(
    model: nn.Module,
    data: TrainingData,
    rows: torch.Tensor,
    *,
    device: torch.device,
    batch_size: int = 32,
) -> np.ndarray:
    """(m, outputs) float32 of these rows: class logits, then valence and arousal; no augmentation, no masks."""
    model.eval()
    parts = [np.empty((0, data.outputs), np.float32)]
    with torch.inference_mode():
        for some in rows.split(batch_size):
            outputs = model(
                data.inputs(some, None), data.codes[some].to(device), data.blocks_present(some).to(device)
            )
            parts.append(outputs.float().cpu().numpy())
    return np.concatenate(parts)


def _validate(
    model: nn.Module, data: TrainingData, config: IntermediateConfig, device: torch.device
) -> dict[str, float]:
    """Scores of the validation rows."""
    outputs = predict(model, data, data.validation, device=device, batch_size=config.batch_size)
    if not np.isfinite(outputs).all():
        raise ModelError("training: expected finite outputs, got others; lower the learning rate (--lr)")
    scores: dict[str, float] = {}
    rows = data.validation
    if data.classes:
        values = log_softmax(outputs[:, : data.classes].astype(np.float64))
        scores |= measure(values, data.labels[rows].numpy(), "classes")
    if data.va:
        clipped = np.clip(outputs[:, data.classes :].astype(np.float64), -1, 1)
        scores |= measure(clipped, data.targets[rows].numpy().astype(np.float64), "va")
    return scores


def _selection(scores: dict[str, float], data: TrainingData) -> float:
    """What chooses the epoch: macro-F1, the CCC of both dimensions (the one that is reported), or their mean."""
    parts = [scores["macro_f1"]] if data.classes else []
    if data.va:
        # where truth and outputs are the same constant, concordance is not defined and says nothing
        parts.append(float(np.nan_to_num(scores["ccc_joint"])))
    return float(np.mean(parts))


def mask_blocks(present: torch.Tensor, chance: float, generator: torch.Generator) -> torch.Tensor:
    """(n, blocks) bool: a row loses all its blocks by ``chance``, else each block by ``chance``.

    Whole rows as well, so that the tokens of rows without a face are learnt even where every training row has one.
    """
    draws = torch.rand((len(present), present.shape[1] + 1), generator=generator)
    return present & (draws[:, :1] >= chance) & (draws[:, 1:] >= chance)
