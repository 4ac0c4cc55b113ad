"""What crosses the borders of this folder: what the user says of a network, what a file gives, what a batch gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ...errors import UsageError
from ..checkpoint import Seen

# Standard deviation of inputs that are bytes, 0 to 255
BYTES = (1 / 255,) * 3


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What the user says of a network; what is not said comes from the preset, the file, or is refused.

    Attributes
    ----------
    network : str
        A file (``.safetensors``, ``.pt``, ``.pt2``, ``.onnx``, ``.tflite``), ``timm:NAME``, ``file.py:build``, or
        ``fer``.
    weights : path or None
        Checkpoint for ``timm:`` and ``file.py:``.
    key : str
        Entry of that checkpoint which holds the weights; dots go deeper.
    preset : str
        Name in :data:`ig3d.networks.presets.PRESETS`.
    classes : str
        What the class columns are: a preset order, names by comma, or ``dataset`` for the dataset's own order.
    output : str
        Which outputs of a network that gives several: positions or names by comma, laid side by side.
    columns : str
        Columns of these that are classes: ``0:8`` or ``0,2,1``.
    va : str
        Columns that are valence and arousal, in this order: ``8,9``.
    features : str
        ``auto`` (what the last layer is fed), ``output:1``, or the name of a module; empty writes none.
    feature_maps : bool
        Write features as maps, before they are averaged over positions.
    size, mean, std, colour, interpolation
        See :class:`InputSpec`; None is unsaid.
    """

    network: str
    weights: Path | None = None
    key: str = ""
    preset: str = ""
    classes: str = ""
    output: str = ""
    columns: str = ""
    va: str = ""
    features: str = ""
    feature_maps: bool = False
    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    colour: str | None = None
    interpolation: str | None = None

    def __post_init__(self) -> None:
        if self.feature_maps and not self.features:
            raise UsageError(
                "feature maps: expected --features with --feature-maps, got none; say --features auto"
            )


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a network says of n images.

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
    """A 2D network, whatever it is made of: (n, 3, size, size) float32 in, :class:`Outputs` out, row by row."""

    def __call__(self, images: torch.Tensor) -> Outputs: ...


def nothing_seen() -> Seen:
    """For a network that does not say what it learnt from."""
    return Seen(*(np.empty(0, np.int64) for _ in range(3)))


@dataclass(frozen=True, slots=True)
class Opened:
    """What the file of one kind gives, before it is known which of its outputs are wanted.

    Attributes
    ----------
    call : callable
        (n, channels, size, size) float32 tensor on the device to whatever the network returns.
    name : str
        For messages and for the file that is written; no path.
    sha256 : str
        Of the network's contents: its weights, and its code where that is the user's.
    module : nn.Module or None
        The same as a module whose parts can be watched; None for a network that runs as a whole.
    input : dict
        What of :class:`InputSpec` the network itself says.
    classes : tuple of str
        Its class columns, where it says so; else empty.
    va : bool
        It says that its two columns are valence and arousal.
    fixed : tuple of str
        Names in ``input`` whose value is the only one that it takes, such as ``size``.
    channels : int or None
        Of its input: 3, or 1 for a network of grey images; None where the network does not say.
    fixed_rows : int or None
        It takes batches of this many rows only.
    seen : Seen
        What it learnt from, where it says so.
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
