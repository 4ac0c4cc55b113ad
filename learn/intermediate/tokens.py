"""What every module is fed: code blocks as tokens, and features as positions.

One block is one token with an embedding of its own, so that any set of blocks of any regressor goes in. A block that
is masked, and every block of a row without a face, is a learnt token in its stead: codes there are never read, and no
zero means anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


class CodeTokens(nn.Module):
    """Standardise the codes of each block and project it to one token.

    Parameters
    ----------
    widths : columns of each block, in order
    width : int
        Channels of a token.

    Notes
    -----
    The sum of the tokens of whole rows is one linear layer on the concatenated blocks, as the paper has it: the
    embeddings are its bias.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    columns: torch.Tensor

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.project = nn.ModuleList(nn.Linear(columns, width) for columns in widths)
        self.absent = nn.Parameter(torch.randn(len(widths), width) / math.sqrt(width))
        self.register_buffer("mean", torch.zeros(sum(widths)))
        self.register_buffer("scale", torch.ones(sum(widths)))
        # which block each column is of
        self.register_buffer(
            "columns", torch.arange(len(widths)).repeat_interleave(torch.tensor(widths)), persistent=False
        )

    def standardise_by(self, codes: torch.Tensor) -> None:
        """Take mean and standard deviation of (n, d) finite codes: those of the training rows."""
        self.mean, self.scale = _mean_and_scale(codes)

    def forward(self, codes: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """(n, d) codes and (n, blocks) bool to (n, blocks, width); codes of absent blocks may be anything, NaN too."""
        known = present[:, self.columns]
        standard = torch.where(known, (codes - self.mean) / self.scale, 0.0)
        parts = standard.split(self.widths, dim=1)
        tokens = torch.stack([layer(part) for layer, part in zip(self.project, parts, strict=True)], dim=1)
        return torch.where(present[:, :, None], tokens, self.absent.to(tokens.dtype))


class Positions(nn.Module):
    """Standardise features per channel and lay them out as positions of ``width`` channels.

    Parameters
    ----------
    shape : (d,) of feature vectors, or (c, h, w) of feature maps
    width : int
        Features of another width are projected to it, position by position.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, shape: Sequence[int], width: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("mean", torch.zeros(shape[0]))
        self.register_buffer("scale", torch.ones(shape[0]))
        self.project = nn.Identity() if shape[0] == width else nn.Linear(shape[0], width)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the map; (1, 1) for vectors."""
        return (self.shape[1], self.shape[2]) if len(self.shape) == 3 else (1, 1)

    def standardise_by(self, features: torch.Tensor) -> None:
        """Take mean and standard deviation per channel of (n, d) or (n, c, h, w) features of training rows."""
        self.mean, self.scale = _mean_and_scale(self._flat(features.float()).flatten(0, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, d) or (n, c, h, w) to (n, positions, width), positions row by row."""
        projected: torch.Tensor = self.project((self._flat(features) - self.mean) / self.scale)
        return projected

    @staticmethod
    def _flat(features: torch.Tensor) -> torch.Tensor:
        return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features[:, None, :]


def _mean_and_scale(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each column; a column that does not vary keeps the scale 1, so that it says nothing loudly."""
    exact = values.double()
    mean, deviation = exact.mean(0), exact.std(0, correction=0)
    varies = deviation > 1e-6 * (1 + mean.abs())
    return mean.float(), torch.where(varies, deviation, 1.0).float()
