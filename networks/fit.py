"""Training loop for 2D networks, with the weights of the best epoch as result.

All random numbers (sampling, augmentation, initial weights, dropout) depend on the seed, and the global random state is
restored. On one CPU with a fixed number of compute threads, a seed gives the same weights to the bit.
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
    """Options of the training loop.

    Attributes
    ----------
    epochs : int
        Largest number of epochs.
    patience : int
        Number of epochs without a better validation score after which training stops.
    batch_size : int
    lr : float
        Peak learning rate of AdamW: linear warm-up during a tenth of the steps, then a half cosine to zero.
    weight_decay : float
        Applied to matrices and kernels, not to biases and norms.
    smoothing : float
        Label smoothing.
    balance : float in [0, 1]
        A class of n images is drawn in proportion to n^(1 - balance): 1 draws all classes equally often, 0 as in the
        data.
    seed : int
    augment : float in [0, 2]
        Strength of the augmentation; 1 is mild, 0 is none.
    precision : str
        Arithmetic of the training: ``fp32``, ``bf16``, ``fp16``, or ``auto``: bf16 on a CUDA device (fp16 if bf16 is
        not supported), fp32 on others. Scores are computed in fp32.
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
    """n rows of decoded images with their targets; images are shared, not copied.

    Attributes
    ----------
    pixels : (m, 3, size, size) uint8 tensor
    rows : (n,) int64 tensor
        Indices of the images.
    targets : (n,) int64 tensor of labels, or (n, 2) float32 tensor
    """

    pixels: torch.Tensor
    rows: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Trained network with the weights of the best epoch, and the scores of all epochs."""

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
    """Train a network and keep the weights of the epoch with the best validation score.

    Parameters
    ----------
    module : network with an output for each class, or two for valence-arousal
    mean, std : (3,) normalisation of the input
    advance : callable, optional
        Called with the number of batches since its last call.
    after_epoch : callable, optional
        Called with each epoch and its scores.

    Raises
    ------
    ModelError : the loss is not finite.
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
            raise ModelError(f"training: the loss is {value} in epoch {number}; use a lower learning rate")
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
    """Number type of a precision on a device.

    Raises
    ------
    UsageError : the precision does not exist, or is fp16 without a CUDA device.
    """
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in types or (precision == "fp16" and device.type != "cuda"):
        raise UsageError(f"precision: {precision!r} is not auto, fp32, bf16, or fp16 on a CUDA device")
    return types[precision]


def predict(
    module: nn.Module,
    pixels: torch.Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
) -> np.ndarray:
    """Outputs (n, outputs) float32 for a batch of (n, 3, size, size) uint8 images, without augmentation.

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
    """Accuracy, balanced accuracy and macro-F1 over the classes in ``truth``."""
    predicted = logits.argmax(1)
    present = np.unique(truth)
    recalls = [float((predicted[truth == label] == label).mean()) for label in present]
    return {
        "accuracy": float((predicted == truth).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "macro_f1": float(f1_score(truth, predicted, labels=present, average="macro", zero_division=0)),
    }


def va_scores(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """CCC of each dimension, and the root mean square error over both."""
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
