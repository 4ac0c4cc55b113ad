"""Value objects of this folder: an opened network, and its outputs for a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from ...features.network_features import describe_network, network_differences
from ..checkpoint import Seen, nothing_seen
from ..images import InputSpec

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
    trained_with : dict
        Input of the training: ``input`` (fields of :class:`InputSpec`), ``crop`` and ``crop_scale``; empty if unknown.
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
    trained_with: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def input_warnings(
    name: str, trained_with: Mapping[str, Any], view: InputSpec, crop: Mapping[str, Any]
) -> list[str]:
    """Warning if a network gets images of another size, normalisation or crop than in its training.

    Parameters
    ----------
    name : name of the network
    trained_with : :attr:`Opened.trained_with`
    view : InputSpec
    crop : :attr:`ig3d.networks.crop.Crops.identity`, or a part of it
    """
    if not trained_with:
        return []
    network = {"network": name, "sha256": ""}
    now = describe_network({**network, "input": asdict(view), **crop})
    differences = network_differences(describe_network({**network, **trained_with}), now)
    if not differences:
        return []
    return [
        f"WARNING {name} was trained with another input: {'; '.join(differences)}. Its outputs are likely worse; use "
        "the --crop and --size of its training"
    ]
