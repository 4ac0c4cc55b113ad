"""Batches, learning rates and parameter groups of a training. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


def batches_per_epoch(rows: int, batch_size: int) -> int:
    """Number of batches of an epoch; batches have equal size, and an epoch draws about ``rows`` rows."""
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
        Number of rows.
    labels : (rows,) int64 tensor, or None
    batch_size : int
        Limited to the number of rows.
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
    # cumulative weights, because torch.multinomial is limited to 2^24 rows
    cumulative = weights.cumsum(0)
    draws = torch.rand(count, generator=generator, dtype=torch.float64) * cumulative[-1]
    return torch.searchsorted(cumulative, draws, right=True).clamp_max(rows - 1).split(size)


def warmup_cosine(step: int, steps: int) -> float:
    """Learning rate relative to its peak: linear warm-up in a tenth of the steps, then a half cosine to zero."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def triangle(position: float, low: float) -> float:
    """Learning rate relative to its peak: linear from ``low`` to 1 in one half-cycle, and back in the next.

    References
    ----------
    Smith, Cyclical learning rates for training neural networks (2017).
    """
    up = 1 - abs(position % 2 - 1)
    return low + (1 - low) * up


def parameter_groups(
    module: nn.Module, *, lr: float, weight_decay: float, no_decay: Sequence[str] = ()
) -> list[dict[str, object]]:
    """Parameters with their peak learning rate; weight decay on matrices and kernels, not on biases and norms.

    Parameters
    ----------
    no_decay : last parts of names of further parameters without weight decay
    """
    named = list(module.named_parameters())
    decayed = [p for name, p in named if p.ndim > 1 and name.rpartition(".")[2] not in no_decay]
    others = [p for name, p in named if p.ndim <= 1 or name.rpartition(".")[2] in no_decay]
    return [
        {"params": decayed, "lr": lr, "weight_decay": weight_decay},
        {"params": others, "lr": lr, "weight_decay": 0.0},
    ]
