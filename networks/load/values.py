"""Value objects of this folder: an opened network, and its outputs for a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from ..checkpoint import Seen, nothing_seen

# Standard deviation for inputs in bytes, 0 to 255
BYTES = (1 / 255,) * 3


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs of a network for n images.

    Attributes
    ----------
    logits : (n, k) float32 tensor, or None
    va : (n, 2) float32 tensor, valence and arousal, or None
    features : (n, d) or (n, c, h, w) float32 tensor, or None
    """

    logits: torch.Tensor | None
    va: torch.Tensor | None
    features: torch.Tensor | None


class Network(Protocol):
    """Protocol of 2D networks: (n, 3, size, size) float32 in, :class:`Outputs` out; rows do not affect each other."""

    def __call__(self, images: torch.Tensor) -> Outputs: ...


@dataclass(frozen=True, slots=True)
class Opened:
    """Network after opening, before its outputs are chosen.

    Attributes
    ----------
    call : callable
        Takes a (n, channels, size, size) float32 tensor on the device; returns the outputs of the network.
    name : str
        Name for messages and records; no path.
    sha256 : str
        Hash of the content: the weights, and the code of a Python file.
    module : nn.Module or None
        The network as a module with accessible layers; None if layers cannot be accessed.
    input : dict
        Fields of :class:`InputSpec` that the network defines.
    classes : tuple of str
        Classes of the columns, if the network defines them.
    va : bool
        Whether the network defines its two columns as valence and arousal.
    fixed : tuple of str
        Names in ``input`` whose value cannot be changed, such as ``size``.
    channels : int or None
        Channels of the input: 3, or 1 for grey images; None if unknown.
    fixed_rows : int or None
        Batch size, if only one is possible.
    seen : Seen
        Record of the training images; empty if unknown.
    notes : tuple of str
    """

    call: Callable[[torch.Tensor], Any]
    name: str
    sha256: str
    module: nn.Module | None = None
    input: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    va: bool = False
    fixed: tuple[str, ...] = ()
    channels: int | None = None
    fixed_rows: int | None = None
    seen: Seen = field(default_factory=nothing_seen)
    notes: tuple[str, ...] = ()
