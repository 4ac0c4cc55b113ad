"""Training of 2D networks on decoded images, by the loop of :mod:`ig3d.learn.training.loop`.

All random numbers (sampling, augmentation, initial weights, dropout) depend on the seed, and the global random state is
restored. On one CPU with a fixed number of compute threads, a seed gives the same weights to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..features.predictions import log_softmax
from ..learn.evaluate.metrics import measure
from ..learn.training import loop
from ..learn.training.loop import Fitted, Schedule, Watch, arithmetic
from ..learn.training.losses import class_loss, va_loss
from ..learn.training.schedule import batches_per_epoch, draw_batches, parameter_groups, warmup_cosine
from .augment import Augmentation, augment
from .images import normalise
from .train_config import TrainConfig

_SCORES = {
    "classes": ("accuracy", "balanced_accuracy", "macro_f1"),
    "va": ("ccc_valence", "ccc_arousal", "rmse_joint"),
}


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


class ImageLearner:
    """2D network on decoded images, as :func:`~ig3d.learn.training.loop.train` takes it.

    Parameters
    ----------
    module : network with an output for each class, or two for valence-arousal
    train, validation : Data
    options : TrainConfig
    mean, std : (3,) normalisation of the input
    device : torch.device
    """

    def __init__(
        self,
        module: nn.Module,
        train: Data,
        validation: Data,
        options: TrainConfig,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ) -> None:
        self.model = module.to(device).to(memory_format=torch.channels_last)
        self.train, self.validation, self.options = train, validation, options
        self.mean, self.std, self.device = mean, std, device
        self.generator = torch.Generator().manual_seed(options.seed)
        self.changes = Augmentation().scaled(options.augment)
        self.labels = train.targets if train.targets.ndim == 1 else None

    def batches(self) -> tuple[torch.Tensor, ...]:
        return draw_batches(
            len(self.train), self.labels, batch_size=self.options.batch_size, balance=self.options.balance,
            generator=self.generator,
        )  # fmt: skip

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        pixels = self.train.pixels[self.train.rows[rows]].to(self.device)
        outputs: torch.Tensor = self.model(
            _prepared(augment(pixels, self.generator, self.changes), self.mean, self.std)
        )
        return outputs

    def loss(self, outputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        truth = self.train.targets[rows].to(self.device)
        if truth.ndim == 1:
            return class_loss(outputs, truth, smoothing=self.options.smoothing)
        return va_loss(outputs, truth)

    def validate(self) -> np.ndarray:
        data = self.validation
        parts = [
            predict(self.model, data.pixels[rows], mean=self.mean, std=self.std, device=self.device)
            for rows in data.rows.split(64)
        ]
        return np.concatenate(parts)

    def score(self, outputs: np.ndarray) -> tuple[float, dict[str, float]]:
        truth = self.validation.targets.numpy()
        if truth.ndim == 1:
            scores = scores_of(outputs, truth)
            return scores["macro_f1"], scores
        scores = scores_of(np.clip(outputs, -1, 1), truth)
        return (scores["ccc_valence"] + scores["ccc_arousal"]) / 2, scores


def fit(
    module: nn.Module,
    train: Data,
    validation: Data,
    options: TrainConfig,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    watch: Watch | None = None,
) -> Fitted:
    """Train a network and keep the weights of the epoch with the best validation score.

    Parameters
    ----------
    module : network with an output for each class, or two for valence-arousal
    mean, std : (3,) normalisation of the input
    watch : callable, optional
        See :mod:`ig3d.learn.training.loop`.

    Raises
    ------
    ModelError : the loss is not finite.
    """
    learner = ImageLearner(module, train, validation, options, mean=mean, std=std, device=device)
    groups = parameter_groups(learner.model, lr=options.lr, weight_decay=options.weight_decay)
    steps = options.epochs * batches_per_epoch(len(train), options.batch_size)
    schedule = Schedule(
        options.epochs,
        options.patience,
        lambda step: warmup_cosine(step, steps),
        arithmetic=arithmetic(options.precision, device),
    )
    fitted = loop.train(learner, torch.optim.AdamW(groups), schedule, device=device, watch=watch)
    fitted.model.cpu()
    return fitted


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


def scores_of(outputs: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Scores of a network, as defined for fusion (:data:`ig3d.learn.evaluate.metrics.METRICS`).

    Parameters
    ----------
    outputs : (n, k) logits, or (n, 2) valence and arousal
    truth : (n,) labels, or (n, 2) targets

    Returns
    -------
    dict of name -> score; 0 for a CCC of equal constants, which is not defined
    """
    task = "classes" if truth.ndim == 1 else "va"
    values = outputs.astype(np.float64)
    measured = measure(log_softmax(values) if task == "classes" else values, truth, task)
    return {name: float(np.nan_to_num(measured[name])) for name in _SCORES[task]}


def _prepared(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    return normalise(pixels, mean, std).contiguous(memory_format=torch.channels_last)
