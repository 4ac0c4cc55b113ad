"""Training of the paper's networks on codes, with the loop of :mod:`ig3d.learn.training.loop`.

All random numbers (initial weights, batches, masks, dropout) depend on the seed. Torch's random state is restored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..progress import report_share
from ..training import loop
from ..training.loop import Schedule, seeded
from ..training.losses import class_loss, va_loss
from ..training.schedule import triangle
from .modules import NETWORKS, WIDTHS

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of a training.

    Attributes
    ----------
    head : :class:`~.paper.MlpClassifier` or another head of :mod:`.paper`, with its parameters
    blocks : widths of the code blocks
    va_weight : weight of the valence-arousal loss
    seed : int
    """

    head: Any
    blocks: tuple[int, ...]
    va_weight: float
    seed: int


@dataclass(frozen=True, slots=True)
class Truth:
    """True labels, values, or both, of n rows.

    Attributes
    ----------
    k : int
        Number of classes; their logits are the first outputs.
    labels : (n,) int64 or None
    values : (n, q) float32 or None, NaN where missing
    mass : (k,) float64
        Weight of each class in the validation loss; sums to 1.
    """

    k: int
    labels: np.ndarray | None
    values: np.ndarray | None
    mass: np.ndarray

    @property
    def outputs(self) -> int:
        return self.k + (0 if self.values is None else self.values.shape[1])


@dataclass(frozen=True, slots=True)
class Trained:
    """Weights and number of the best epoch, and the loss of each epoch on the held-out rows."""

    weights: dict[str, np.ndarray]
    epoch: int
    losses: tuple[float, ...]


def build(recipe: Recipe, inputs: int, outputs: int) -> nn.Module:
    """Network with new random weights."""
    return NETWORKS[recipe.head.network](
        inputs, outputs, width=recipe.head.width or WIDTHS[recipe.head.network], dropout=recipe.head.dropout
    )


def masked(
    codes: torch.Tensor, blocks: tuple[int, ...], chance: float, rng: np.random.Generator
) -> torch.Tensor:
    """Codes of which some are set to 0, the mean of standardised codes.

    A block of a row is masked with probability ``chance``. A number from 1 to its width is then drawn, and that many
    of its columns, chosen at random, become 0. A column of a block of width w is thus masked with probability
    chance (w + 1) / (2 w).

    Parameters
    ----------
    codes : (n, d) float tensor
    blocks : widths that sum to d
    chance : float in [0, 1]
    rng : numpy generator

    References
    ----------
    The paper's feature masking. The paper's code also masks during validation; this function is used in training only.
    """
    keep = np.ones(codes.shape, np.float32)
    start = 0
    for width in blocks:
        rows = np.flatnonzero(rng.random(len(codes)) < chance)
        count = rng.integers(1, width + 1, len(rows))
        rank = rng.random((len(rows), width)).argsort(axis=1).argsort(axis=1)
        keep[rows, start : start + width] = rank >= count[:, None]
        start += width
    return codes * torch.from_numpy(keep).to(codes)


def draw_batches(
    labels: np.ndarray | None, n: int, batch_size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Row indices of an epoch's batches, all of the same size, at least two.

    With labels, rows are drawn with replacement, all classes equally often; without, rows come in random order.
    """
    size = max(2, min(batch_size, n))
    count = max(1, round(n / size)) * size
    if labels is None:
        order = np.concatenate([rng.permutation(n) for _ in range(math.ceil(count / n))])[:count]
    else:
        chance = 1 / np.bincount(labels)[labels]
        order = rng.choice(n, count, p=chance / chance.sum())
    yield from order.reshape(-1, size)


class CodeLearner:
    """A network with n rows of standardised codes, for :func:`~..training.loop.train`.

    Parameters
    ----------
    recipe : Recipe
    X : (n, d) float32, standardised
    truth : Truth of the rows
    held : (n,) bool
        Rows for early stopping, not used in training.
    device : torch.device
    rng : numpy generator
    """

    generator = None

    def __init__(
        self,
        recipe: Recipe,
        X: np.ndarray,
        truth: Truth,
        held: np.ndarray,
        device: torch.device,
        rng: np.random.Generator,
    ) -> None:
        self.recipe, self.truth, self.rng = recipe, truth, rng
        self.rows, self.held = np.flatnonzero(~held), np.flatnonzero(held)
        self.labels = None if truth.labels is None else truth.labels[self.rows]
        # Double precision on the CPU: in single precision, rounding differences between numbers of threads grow with
        # every step.
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        self.codes = torch.from_numpy(X).to(device, dtype)
        self.model = build(recipe, X.shape[1], truth.outputs).to(device, dtype)

    def batches(self) -> list[np.ndarray]:
        drawn = draw_batches(self.labels, len(self.rows), self.recipe.head.batch_size, self.rng)
        return [self.rows[batch] for batch in drawn]

    def forward(self, rows: np.ndarray) -> torch.Tensor:
        codes = masked(self.codes[rows], self.recipe.blocks, self.recipe.head.masking, self.rng)
        outputs: torch.Tensor = self.model(codes)
        return outputs

    def loss(self, outputs: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        return _loss(outputs, self.truth, rows, self.recipe.va_weight)

    def validate(self) -> np.ndarray:
        with torch.inference_mode():
            parts = [self.model(part) for part in self.codes[self.held].split(_ROWS_AT_ONCE)]
        return np.asarray(torch.cat(parts).cpu().numpy()) if len(self.held) else np.empty((0, 0))

    def score(self, outputs: np.ndarray) -> tuple[float, dict[str, float]]:
        loss = held_loss(outputs, self.truth, self.held)
        return -loss, {"loss": loss}


def train(recipe: Recipe, X: np.ndarray, truth: Truth, held: np.ndarray, device: torch.device) -> Trained:
    """Train on the rows that are not held out, and keep the epoch with the smallest loss on the held-out rows.

    Parameters
    ----------
    X : (n, d) float32, standardised
    held : (n,) bool
        Held-out rows. If there are none, all epochs are run and the last is kept.

    Raises
    ------
    ModelError : the loss is not finite.
    """
    rng = np.random.default_rng(recipe.seed)
    with seeded(int(rng.integers(2**62)), device):
        learner = CodeLearner(recipe, X, truth, held, device, rng)
        # fused=True: otherwise, an optimiser step takes as long as the forward and backward passes
        optimiser = torch.optim.AdamW(
            learner.model.parameters(),
            lr=recipe.head.max_lr,
            weight_decay=recipe.head.weight_decay,
            fused=True,
        )
        size = max(2, min(recipe.head.batch_size, len(learner.rows)))
        half = max(1.0, recipe.head.half_cycle * max(1, round(len(learner.rows) / size)))
        low = recipe.head.min_lr / recipe.head.max_lr
        schedule = Schedule(
            recipe.head.epochs, recipe.head.patience, lambda step: triangle(step / half, low), clip=None
        )
        fitted = loop.train(
            learner,
            optimiser,
            schedule,
            device=device,
            watch=lambda done, epoch: report_share(done / recipe.head.epochs),
        )
    weights = fitted.model.state_dict()
    kept = {name: np.asarray(tensor.cpu().numpy(), np.float32) for name, tensor in weights.items()}
    losses = tuple(epoch.scores.get("loss", epoch.loss) for epoch in fitted.history)
    return Trained(kept, fitted.best.number, losses)


def outputs_of(recipe: Recipe, weights: dict[str, np.ndarray], X: np.ndarray, outputs: int) -> np.ndarray:
    """(n, outputs) float64, computed in double precision on the CPU, so that a row does not depend on its batch."""
    with torch.device("meta"):  # no random weights are drawn
        module = build(recipe, X.shape[1], outputs)
    held = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
    module.load_state_dict(held, assign=True)
    module = module.double().eval()
    with torch.inference_mode():
        parts = [module(part) for part in torch.from_numpy(np.asarray(X, np.float64)).split(_ROWS_AT_ONCE)]
    return np.asarray(torch.cat(parts).numpy())


def _loss(outputs: torch.Tensor, truth: Truth, rows: np.ndarray, va_weight: float) -> torch.Tensor:
    """Cross-entropy of the labels, plus the loss of the values in rows that have them."""
    loss = outputs.sum() * 0
    if truth.labels is not None:
        loss = class_loss(outputs[:, : truth.k], torch.from_numpy(truth.labels[rows]).to(outputs.device))
    if truth.values is not None:
        values = torch.from_numpy(truth.values[rows]).to(outputs)
        has_values = torch.isfinite(values).all(dim=1)
        if int(has_values.sum()) > 1:
            weight = va_weight if truth.labels is not None else 1.0
            loss = loss + weight * va_loss(outputs[has_values, truth.k :], values[has_values])
    return loss


def held_loss(outputs: np.ndarray, truth: Truth, rows: np.ndarray) -> float:
    """Log loss of rows, weighted to the class weights ``truth.mass``; without labels, the loss of the values."""
    if truth.labels is None:
        return float(_loss(torch.from_numpy(outputs), truth, rows, 1.0))
    labels = torch.from_numpy(truth.labels[rows])
    mass = torch.from_numpy(truth.mass)
    log_p = functional.log_softmax(torch.from_numpy(outputs)[:, : truth.k].double() + mass.log(), dim=1)
    # row weights, such that each class has its weight in ``mass``
    counts = torch.bincount(labels, minlength=truth.k).clamp_min(1)
    weight = (mass / counts)[labels]
    losses = -log_p[torch.arange(len(labels)), labels]
    return float((weight * losses).sum() / weight.sum())
