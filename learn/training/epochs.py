"""What the training loops of 2D networks and of modules share: seeded draws, batches, learning rates, epochs.

The loops are :mod:`ig3d.networks.fit` and :mod:`.intermediate.fit`. Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass gave.

    Attributes
    ----------
    number : int
        From 1.
    loss : float
        Mean training loss.
    scores : dict
        Metric -> value on the validation rows.
    selection : float
        What chooses the epoch; ties go to the earlier one.
    """

    number: int
    loss: float
    scores: dict[str, float]
    selection: float


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's random state is that of the seed and cuDNN is deterministic; outside, nothing changed."""
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.manual_seed(seed)
        yield


def batches_per_epoch(rows: int, batch_size: int) -> int:
    """An epoch draws about as many rows as there are, in batches of equal size."""
    return max(1, round(rows / min(batch_size, rows)))


def draw_batches(
    rows: int,
    labels: torch.Tensor | None,
    *,
    batch_size: int,
    balance: float,
    generator: torch.Generator,
) -> tuple[torch.Tensor, ...]:
    """Row indices of an epoch's batches, all of one size.

    Parameters
    ----------
    rows : int
        How many there are.
    labels : (rows,) int64 tensor, or None
    batch_size : int
        All rows where there are fewer.
    balance : float in [0, 1]
        A class of n rows is drawn, with replacement, in proportion to n^(1 - balance): with 1 all classes equally
        often. Without labels, or with 0, an epoch is a random order of all rows.
    generator : torch.Generator
    """
    size = min(batch_size, rows)
    count = batches_per_epoch(rows, batch_size) * size
    if labels is None or balance == 0:
        rounds = [torch.randperm(rows, generator=generator) for _ in range(math.ceil(count / rows))]
        return torch.cat(rounds)[:count].split(size)
    weights = torch.bincount(labels).double().pow(-balance)[labels]
    # by cumulated weights: torch.multinomial ends at 2^24 rows
    ladder = weights.cumsum(0)
    draws = torch.rand(count, generator=generator, dtype=torch.float64) * ladder[-1]
    return torch.searchsorted(ladder, draws, right=True).clamp_max(rows - 1).split(size)


def share_of_rate(step: int, steps: int) -> float:
    """Share of the peak learning rate at a step: up within a tenth of the steps, then a half cosine to zero."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
