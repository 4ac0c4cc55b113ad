"""Features of a network, such as the input of its last layer, taken while it runs.

Networks with timm's interface run in two steps (``forward_features``, ``forward_head``). Other modules get feature
hooks. Networks whose layers cannot be accessed must return features among their outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ...errors import ModelError, UsageError, listed
from ..options import NetworkSpec
from .outputs import named_outputs
from .values import Opened

NetworkCall = Callable[[torch.Tensor], tuple[dict[str, torch.Tensor], torch.Tensor | None]]


def with_features(opened: Opened, spec: NetworkSpec) -> tuple[NetworkCall, str]:
    """Function that returns named outputs and features, and the name of the layer of the features.

    Raises
    ------
    UsageError : the layer does not exist or cannot be accessed.
    """
    layer, module = spec.features, opened.module
    if not layer:
        return lambda images: (named_outputs(opened.call(images), opened.name), None), ""
    if layer.startswith("output:"):
        return _from_outputs(opened, layer.removeprefix("output:")), layer
    if module is None:
        raise UsageError(
            f"features: layers of {opened.name} cannot be accessed (--features {layer}); export it with the features "
            "as a second output and pass output:NAME"
        )
    if layer != "auto":
        parts = dict(module.named_modules())
        if layer not in parts:
            names = [name for name in parts if name and name.count(".") < 2]
            raise UsageError(
                f"features: {opened.name} has no layer {layer!r}; pass auto, output:NAME or one of {listed(names, 12)}"
            )
        return _WithHooks(opened, {layer: parts[layer]}, inputs=False), layer
    if all(hasattr(module, name) for name in ("forward_features", "forward_head", "num_features")):
        name = "forward_features" if spec.feature_maps else "pre_logits"
        return _in_two_steps(module, opened.name, maps=spec.feature_maps), name
    linear = {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    if spec.feature_maps or not linear:
        raise UsageError(
            f"features: auto does not work with {opened.name} "
            f"({'for maps' if spec.feature_maps else 'it has no linear layer'}); pass the name of a layer"
        )
    return _WithHooks(opened, linear, inputs=True), "input of the last linear layer"


def _from_outputs(opened: Opened, name: str) -> NetworkCall:
    """Features that the network returns as an output."""

    def call(images: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        outputs = named_outputs(opened.call(images), opened.name)
        if name not in outputs:
            raise UsageError(
                f"features: there is no output:{name}; choose output:{', output:'.join(outputs)}"
            )
        return outputs, outputs[name]

    return call


def _in_two_steps(module: Any, source: str, *, maps: bool) -> NetworkCall:
    """Run a timm network: backbone, then the head, with and without its last layer."""

    def call(images: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        features = module.forward_features(images)
        outputs = named_outputs(module.forward_head(features), source)
        if maps:
            return outputs, channels_first(features, module)
        return outputs, module.forward_head(features, pre_logits=True)

    return call


def channels_first(maps: torch.Tensor, module: Any) -> torch.Tensor:
    """Convert timm's feature maps, which some families return channels last or as tokens, to (n, c, h, w)."""
    width = module.num_features
    if maps.ndim == 3:
        tokens = maps[:, getattr(module, "num_prefix_tokens", 0) :]
        side = round(tokens.shape[1] ** 0.5)
        if side * side != tokens.shape[1]:
            raise UsageError(
                f"feature maps: {tokens.shape[1]} tokens form no square; leave out --feature-maps"
            )
        return tokens.transpose(1, 2).reshape(len(maps), -1, side, side)
    return maps.permute(0, 3, 1, 2) if maps.shape[-1] == width and maps.shape[1] != width else maps


class _WithHooks:
    """Run a network with feature hooks, which record the input (``inputs``) or output of its layers.

    Of several layers, the last to run with as many outputs as the network is used; attention blocks of a backbone have
    linear layers too.
    """

    def __init__(self, opened: Opened, layers: Mapping[str, nn.Module], *, inputs: bool) -> None:
        self._opened, self._inputs = opened, inputs
        self._ran: list[tuple[int, Any]] = []
        for layer in layers.values():
            layer.register_forward_hook(self._record)

    def _record(self, layer: nn.Module, arguments: tuple[Any, ...], returned: Any) -> None:
        kept = arguments[0] if self._inputs else returned
        kept = kept[0] if isinstance(kept, (tuple, list)) else kept
        self._ran.append((getattr(layer, "out_features", 0), kept))

    def __call__(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        self._ran.clear()
        outputs = named_outputs(self._opened.call(images), self._opened.name)
        widths = {output.shape[-1] for output in outputs.values() if output.ndim == 2}
        fitting = [kept for width, kept in self._ran if width in widths] or [kept for _, kept in self._ran]
        self._ran.clear()
        if not fitting or not isinstance(fitting[-1], torch.Tensor):
            raise ModelError(
                f"{self._opened.name}: the layer of --features did not run or gives no tensor; choose another"
            )
        return outputs, fitting[-1]


def as_features(values: torch.Tensor, rows: int, *, maps: bool) -> torch.Tensor:
    """Check features: (n, d), averaging maps over positions, or with ``maps`` (n, c, h, w).

    Raises
    ------
    UsageError : the values have another shape.
    """
    shape = tuple(values.shape)
    if shape[:1] != (rows,) or len(shape) not in ((4,) if maps else (2, 4)):
        wanted = "maps (n, c, h, w)" if maps else "(n, d) or maps (n, c, h, w)"
        raise UsageError(
            f"features: the shape is {shape} for {rows} images, not {wanted}; choose another layer or output"
        )
    values = values.float()
    return values if maps or len(shape) == 2 else values.mean((2, 3))
