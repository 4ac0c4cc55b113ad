"""Five modules that combine code tokens with the features of a 2D network before its last layer.

The input is positions (n, p, width) and tokens (n, blocks, width). The output (n, outputs) is class logits, then
valence and arousal. ``gate`` and ``attention`` also return the share of the codes in the decision, (n,) in [0, 1]; for
the others it is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from ...errors import UsageError, one_of
from .config import MODULES


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """Description from which a module is built.

    Attributes
    ----------
    name : one of ``MODULES``
    shape : (d,) of feature vectors, or (c, h, w) of feature maps
    blocks : columns of each code block, in order
    width : int
        Channels of the hidden layers.
    outputs : int
    dropout : float
    """

    name: str
    shape: tuple[int, ...]
    blocks: tuple[int, ...]
    width: int
    outputs: int
    dropout: float

    def __post_init__(self) -> None:
        if self.name not in MODULES:
            raise UsageError(f"module: {self.name!r} does not exist; choose {one_of(MODULES)}")
        numbers = (*self.shape, *self.blocks, self.width, self.outputs)
        if len(self.shape) not in (1, 3) or not self.blocks or min(numbers) < 1:
            raise UsageError(
                f"module {self.name}: needs features of shape (d,) or (c, h, w), at least one code block and a "
                f"positive width, got {self.shape}, blocks {self.blocks} and width {self.width}"
            )


class CodeTokens(nn.Module):
    """Standardise the codes of each block and project it to one token.

    Parameters
    ----------
    widths : columns of each block, in order
    width : int
        Channels of a token.

    Notes
    -----
    Each block is one token with a separate embedding, so that any set of blocks of any regressor can be used. A masked
    block, and every block of a row without a face, is replaced by a learnt token; its codes are not read. Without
    masking, the sum of the tokens equals one linear layer on the concatenated blocks, as in the paper.
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
        # block of each column
        self.register_buffer(
            "columns", torch.arange(len(widths)).repeat_interleave(torch.tensor(widths)), persistent=False
        )

    def standardise_by(self, codes: torch.Tensor) -> None:
        """Set mean and standard deviation from (n, d) finite codes of the training rows."""
        self.mean, self.scale = _mean_and_scale(codes)

    def forward(self, codes: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """(n, d) codes and (n, blocks) bool to (n, blocks, width); codes of absent blocks are ignored, also NaN."""
        standard = torch.where(present[:, self.columns], (codes - self.mean) / self.scale, 0.0)
        parts = standard.split(self.widths, dim=1)
        tokens = torch.stack([layer(part) for layer, part in zip(self.project, parts, strict=True)], dim=1)
        return torch.where(present[:, :, None], tokens, self.absent.to(tokens.dtype))


class Positions(nn.Module):
    """Standardise features per channel and arrange them as positions of ``width`` channels.

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
        """Set mean and standard deviation per channel from (n, d) or (n, c, h, w) features of the training rows."""
        self.mean, self.scale = _mean_and_scale(self._flat(features.float()).flatten(0, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, d) or (n, c, h, w) to (n, positions, width), positions row by row."""
        projected: torch.Tensor = self.project((self._flat(features) - self.mean) / self.scale)
        return projected

    @staticmethod
    def _flat(features: torch.Tensor) -> torch.Tensor:
        return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features[:, None, :]


def _mean_and_scale(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each column; the scale of a constant column is 1."""
    exact = values.double()
    mean, deviation = exact.mean(0), exact.std(0, correction=0)
    varies = deviation > 1e-6 * (1 + mean.abs())
    return mean.float(), torch.where(varies, deviation, 1.0).float()


class FusionModule(nn.Module):
    """Base class of the five modules."""

    kinds: ClassVar[dict[str, type[FusionModule]]] = {}

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__()
        self.spec = spec
        self.positions = Positions(spec.shape, spec.width)
        self.tokens = CodeTokens(spec.blocks, spec.width)

    def __init_subclass__(cls, *, name: str = "", **options: object) -> None:
        super().__init_subclass__(**options)
        FusionModule.kinds[name] = cls

    def forward(self, features: torch.Tensor, codes: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Outputs.

        Parameters
        ----------
        features : (n, d) or (n, c, h, w) float
        codes : (n, columns) float
            Read only where ``present``.
        present : (n, blocks) bool
        """
        return self.join(self.positions(features), self.tokens(codes, present))[0]

    def share(self, features: torch.Tensor, codes: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """(n,) share of the codes in the decision of each row."""
        return self.join(self.positions(features), self.tokens(codes, present))[1]

    def join(self, positions: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, outputs) and the (n,) share."""
        raise NotImplementedError

    def head(self, inputs: int) -> nn.Sequential:
        """Two layers to the outputs, with the paper's LeakyReLU."""
        spec = self.spec
        return nn.Sequential(
            nn.Linear(inputs, spec.width),
            nn.LeakyReLU(0.2),
            nn.Dropout(spec.dropout),
            nn.Linear(spec.width, spec.outputs),
        )


def make_module(spec: ModuleSpec) -> FusionModule:
    """A module with random weights, from torch's random state."""
    return FusionModule.kinds[spec.name](spec)


def _no_share(rows: torch.Tensor) -> torch.Tensor:
    return torch.full((len(rows),), math.nan, device=rows.device)


class LinearFusion(FusionModule, name="linear"):
    """Codes, projected to the width of the features, are concatenated with them; three linear layers follow.

    References
    ----------
    Dong et al., Ig3D (ECCV Workshops 2024): Linear to 512, concatenated 1024 → 2048 → 1024 → classes.
    """

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec)
        both = 2 * spec.width
        self.decide = nn.Sequential(
            nn.Linear(both, 2 * both),
            nn.LeakyReLU(0.2),
            nn.Dropout(spec.dropout),
            nn.Linear(2 * both, both),
            nn.LeakyReLU(0.2),
            nn.Linear(both, spec.outputs),
        )

    def join(self, positions: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        joined = torch.cat([tokens.sum(1), positions.mean(1)], dim=1)
        return self.decide(joined), _no_share(joined)


class GateFusion(FusionModule, name="gate"):
    """A gate per row and channel mixes codes and features: g · codes + (1 - g) · features.

    Both are normalised first, so that g is the share of the codes. The share of a row is the mean of g.

    References
    ----------
    Arevalo et al., Gated multimodal units for information fusion (ICLR Workshops 2017).
    """

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec)
        self.norm_codes, self.norm_features = nn.LayerNorm(spec.width), nn.LayerNorm(spec.width)
        self.gate = nn.Linear(2 * spec.width, spec.width)
        self.decide = self.head(spec.width)

    def join(self, positions: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.norm_features(positions)
        codes = self.norm_codes(tokens.sum(1))[:, None].expand_as(features)
        gate = torch.sigmoid(self.gate(torch.cat([codes, features], dim=2)))
        mixed = gate * codes + (1 - gate) * features
        return self.decide(mixed.mean(1)), gate.mean((1, 2))


class FilmFusion(FusionModule, name="film"):
    """Codes scale and shift the channels of the features: (1 + γ) · features + β, pooled, two layers.

    γ and β start at 0, so that the module starts as a network without codes.

    References
    ----------
    Perez et al., FiLM: visual reasoning with a general conditioning layer (AAAI 2018).
    """

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec)
        self.condition = nn.Sequential(
            nn.LayerNorm(spec.width),
            nn.Linear(spec.width, spec.width),
            nn.LeakyReLU(0.2),
            nn.Linear(spec.width, 2 * spec.width),
        )
        last = self.condition[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]  # a Linear
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.decide = self.head(spec.width)

    def join(self, positions: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale, shift = self.condition(tokens.sum(1))[:, None].chunk(2, dim=2)
        changed = functional.leaky_relu((1 + scale) * positions + shift, 0.2)
        return self.decide(changed.mean(1)), _no_share(tokens)


class _Attend(nn.Module):
    """Queries attend to a memory, then two layers; pre-norm, with residual connections."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        heads = next(number for number in (4, 2, 1) if width % number == 0)
        self.norm_query, self.norm_memory = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )

    def forward(self, query: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, q, width) and (n, q, m) weights, mean over heads; a row of weights sums to 1 (without dropout)."""
        normed = self.norm_memory(memory)
        attended, weights = self.attention(self.norm_query(query), normed, normed)
        query = query + attended
        return query + self.layers(query), weights


class AttentionFusion(FusionModule, name="attention"):
    """Code tokens attend to the positions of the map and to each other; then a decision token attends to all of them.

    The softmax always runs over at least two elements (a feature vector is one position beside the tokens). In the
    published attention (If3d) it runs over one, so that its weight is always 1. The share is the weight that the
    decision token gives to code tokens.

    References
    ----------
    Vaswani et al., Attention is all you need (NeurIPS 2017); the decision token is that of Dosovitskiy et al., An
    image is worth 16x16 words (ICLR 2021).
    """

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec)
        high, wide = self.positions.grid
        self.place = nn.Parameter(torch.randn(high * wide, spec.width) / math.sqrt(spec.width))
        self.decision = nn.Parameter(torch.randn(1, spec.width) / math.sqrt(spec.width))
        self.look = _Attend(spec.width, spec.dropout)
        self.weigh = _Attend(spec.width, spec.dropout)
        self.decide = self.head(spec.width)

    def join(self, positions: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = positions + self.place
        attended, _ = self.look(tokens, torch.cat([tokens, features], dim=1))
        query = self.decision.expand(len(tokens), -1, -1)
        decided, weights = self.weigh(query, torch.cat([attended, features], dim=1))
        return self.decide(decided[:, 0]), weights[:, 0, : tokens.shape[1]].sum(1)


class SppFusion(FusionModule, name="spp"):
    """Maxima of the feature map over 1, 4 and 16 parts are concatenated with the codes; two layers follow.

    Levels finer than the map are left out; a feature vector has one part.

    References
    ----------
    He et al., Spatial pyramid pooling in deep convolutional networks (ECCV 2014).
    """

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec)
        self.levels = [level for level in (1, 2, 4) if level <= min(self.positions.grid)]
        parts = sum(level * level for level in self.levels)
        self.decide = self.head((parts + 1) * spec.width)

    def join(self, positions: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = positions.transpose(1, 2).unflatten(2, self.positions.grid)
        pooled = [functional.adaptive_max_pool2d(maps, level).flatten(1) for level in self.levels]
        return self.decide(torch.cat([tokens.sum(1), *pooled], dim=1)), _no_share(tokens)
