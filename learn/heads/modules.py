"""Torch modules of the paper's two networks that read only codes."""

from __future__ import annotations

import torch
from torch import nn


class Mlp(nn.Sequential):
    """Four blocks of linear layer, batch norm and LeakyReLU (slope 0.2), dropout in the first, then a linear layer.

    Parameters
    ----------
    inputs, outputs : int
    width : int
        2048 in the paper.
    dropout : float in [0, 1)
    """

    def __init__(self, inputs: int, outputs: int, *, width: int = 2048, dropout: float = 0.5) -> None:
        layers: list[nn.Module] = []
        for number in range(4):
            layers += [
                nn.Linear(width if number else inputs, width),
                nn.BatchNorm1d(width),
                nn.LeakyReLU(0.2),
            ]
            if not number:
                layers.append(nn.Dropout(dropout))
        super().__init__(*layers, nn.Linear(width, outputs))


class Residual(nn.Module):
    """Linear layer, two residual blocks with ``2 * width`` and ``width`` hidden units, linear layer.

    A block is ``relu(x + second(dropout(relu(first(x)))))``.

    Parameters
    ----------
    inputs, outputs : int
    width : int
        512 in the paper.
    dropout : float in [0, 1)
    """

    def __init__(self, inputs: int, outputs: int, *, width: int = 512, dropout: float = 0.5) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, inside), nn.ReLU(), nn.Dropout(dropout), nn.Linear(inside, width))
            for inside in (2 * width, width)
        )
        self.leave = nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs) to (n, outputs)."""
        x = self.enter(x)
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return self.leave(x)


NETWORKS: dict[str, type[Mlp] | type[Residual]] = {"mlp": Mlp, "residual": Residual}
WIDTHS = {"mlp": 2048, "residual": 512}
