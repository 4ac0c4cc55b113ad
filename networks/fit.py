"""The training loop: batches of decoded pictures in, the weights of the best epoch out.

Every draw (sampling, augmentation, initial weights, dropout) comes from the seed; the global random state is left as
it was. On one processor with one number of compute threads the same seed gives the same weights, to the bit.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch import nn

from ..errors import ModelError, UsageError
from ..learn.training.epochs import Epoch, batches_per_epoch, draw_batches, share_of_rate
from ..learn.training.losses import class_loss, concordance, va_loss
from .augment import Augmentation, augment
from .images import normalise


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, how fast, and when to stop.

    Attributes
    ----------
    epochs : int
        At most this many passes.
    patience : int
        Stop after this many epochs without a better validation score.
    batch_size : int
    lr : float
        Peak learning rate of AdamW: reached linearly within a tenth of the steps, then a half cosine to zero.
    weight_decay : float
        On matrices and kernels, not on biases and norms.
    smoothing : float
        Of the labels.
    balance : float in [0, 1]
        A class of n images is drawn in proportion to n^(1 - balance): with 1 all classes equally often, with 0 as
        they come.
    seed : int
    augment : float in [0, 2]
        How far pictures are turned, moved and relit; 1 is mild, 0 is not at all.
    precision : str
        ``fp32``, ``bf16`` or ``fp16`` of the training's arithmetic (scores are always taken in fp32); ``auto`` is
        bf16, or fp16 where that is wanting, on a CUDA device and fp32 elsewhere.
    """

    epochs: int
    patience: int
    batch_size: int
    lr: float
    weight_decay: float
    smoothing: float
    balance: float
    seed: int
    augment: float = 1.0
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class Data:
    """n rows of decoded pictures with their truth; the pictures are shared, not copied.

    Attributes
    ----------
    pixels : (m, 3, size, size) uint8 tensor
    rows : (n,) int64 tensor
        Which of the pictures.
    targets : (n,) int64 tensor of labels, or (n, 2) float32 tensor
    """

    pixels: torch.Tensor
    rows: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Fitted:
    """The network with its best epoch's weights, and every epoch's scores."""

    module: nn.Module
    best: Epoch
    history: tuple[Epoch, ...]


def fit(
    module: nn.Module,
    train: Data,
    validation: Data,
    schedule: Schedule,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    advance: Callable[[int], object] | None = None,
    after_epoch: Callable[[Epoch], object] | None = None,
) -> Fitted:
    """Train a network and keep the epoch that did best on the validation rows.

    Parameters
    ----------
    module : network with one output per class, or two for valence-arousal
    mean, std : (3,) normalisation of its input
    advance : callable, optional
        Told the number of batches done since the last call.
    after_epoch : callable, optional
        Told each epoch's scores.

    Raises
    ------
    ModelError : the loss is no longer finite.
    """
    module = module.to(device).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(_parameter_groups(module, schedule.weight_decay), lr=schedule.lr)
    batches = batches_per_epoch(len(train), schedule.batch_size)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: share_of_rate(step, schedule.epochs * batches)
    )
    generator = torch.Generator().manual_seed(schedule.seed)
    kind = arithmetic(schedule.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=kind is torch.float16)
    changes = Augmentation().scaled(schedule.augment)
    labels = train.targets if train.targets.ndim == 1 else None
    history: list[Epoch] = []
    best: Epoch | None = None
    weights: dict[str, torch.Tensor] = {}
    for number in range(1, schedule.epochs + 1):
        losses = []
        drawn = draw_batches(
            len(train), labels, batch_size=schedule.batch_size, balance=schedule.balance, generator=generator
        )
        for rows in drawn:
            pictures = augment(train.pixels[train.rows[rows]].to(device), generator, changes)
            truth = train.targets[rows].to(device)
            with torch.autocast(device.type, kind, enabled=kind is not torch.float32):
                logits = module(_prepared(pictures, mean, std)).float()
            loss = (
                class_loss(logits, truth, smoothing=schedule.smoothing)
                if truth.ndim == 1
                else va_loss(logits, truth)
            )
            optimiser.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            scaler.step(optimiser)
            scaler.update()
            rate.step()
            losses.append(loss.detach())
            if advance is not None:
                advance(1)
        value = float(torch.stack(losses).mean())
        if not math.isfinite(value):
            raise ModelError(
                f"training: expected a finite loss, got {value} in epoch {number}; lower the learning rate"
            )
        outputs = _validate(module, validation, mean=mean, std=std, device=device)
        epoch = _epoch(number, value, outputs, validation.targets.numpy())
        history.append(epoch)
        if after_epoch is not None:
            after_epoch(epoch)
        if best is None or epoch.selection > best.selection:
            best, weights = epoch, copy.deepcopy(module.state_dict())
        elif number - best.number >= schedule.patience:
            break
    assert best is not None  # epochs >= 1
    module.load_state_dict(weights)
    return Fitted(module.eval().cpu(), best, tuple(history))


def arithmetic(precision: str, device: torch.device) -> torch.dtype:
    """The type that a precision stands for on a device.

    Raises
    ------
    UsageError : no such precision, or fp16 without a CUDA device.
    """
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    known = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in known or (precision == "fp16" and device.type != "cuda"):
        raise UsageError(f"precision: expected auto, fp32, bf16, or fp16 on a CUDA device, got {precision!r}")
    return known[precision]


def predict(
    module: nn.Module,
    pixels: torch.Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
) -> np.ndarray:
    """Outputs for one batch of (n, 3, size, size) uint8 pictures: (n, outputs) float32, no augmentation.

    The network must be in evaluation mode.
    """
    with torch.inference_mode():
        return np.asarray(module(_prepared(pixels.to(device), mean, std)).float().cpu().numpy())


def _validate(
    module: nn.Module, data: Data, *, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> np.ndarray:
    module.eval()
    parts = [
        predict(module, data.pixels[rows], mean=mean, std=std, device=device) for rows in data.rows.split(64)
    ]
    module.train()
    return np.concatenate(parts)


def class_scores(logits: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro-F1 over the classes that occur in the truth."""
    said = logits.argmax(1)
    present = np.unique(truth)
    recalls = [float((said[truth == label] == label).mean()) for label in present]
    return {
        "accuracy": float((said == truth).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "macro_f1": float(f1_score(truth, said, labels=present, average="macro", zero_division=0)),
    }


def va_scores(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Concordance per dimension, and the root mean square error over both."""
    valence, arousal = concordance(
        torch.from_numpy(predicted).double(), torch.from_numpy(truth).double()
    ).tolist()
    return {
        "ccc_valence": valence,
        "ccc_arousal": arousal,
        "rmse": float(np.sqrt(np.mean((predicted.astype(np.float64) - truth) ** 2))),
    }


def _epoch(number: int, loss: float, outputs: np.ndarray, truth: np.ndarray) -> Epoch:
    if truth.ndim == 1:
        scores = class_scores(outputs, truth)
        return Epoch(number, loss, scores, scores["macro_f1"])
    scores = va_scores(np.clip(outputs, -1, 1), truth)
    return Epoch(number, loss, scores, (scores["ccc_valence"] + scores["ccc_arousal"]) / 2)


def _prepared(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    return normalise(pixels, mean, std).contiguous(memory_format=torch.channels_last)


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    matrices = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
