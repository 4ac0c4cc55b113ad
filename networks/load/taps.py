"""Features: what the last layer is fed, taken while the network runs.

A network of timm's shape is asked in two steps (``forward_features``, ``forward_head``); any other module is watched by
hooks; one that runs as a whole can only give what is among its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ...errors import ModelError, UsageError, some
from .outputs import named_outputs
from .values import NetworkSpec, Opened

Asked = Callable[[torch.Tensor], tuple[dict[str, torch.Tensor], torch.Tensor | None]]


def with_features(opened: Opened, spec: NetworkSpec) -> tuple[Asked, str]:
    """A call that gives the outputs by name and the features, and the name of the layer they come from.

    Raises
    ------
    UsageError : the network cannot be watched there.
    """
    where, module = spec.features, opened.module
    if not where:
        return lambda images: (named_outputs(opened.call(images), opened.name), None), ""
    if where.startswith("output:"):
        return _among_outputs(opened, where.removeprefix("output:")), where
    if module is None:
        raise UsageError(
            f"features: expected output:NAME with {opened.name}, which runs as a whole, got {where!r}; export it with "
            "its features as a second output"
        )
    if where != "auto":
        parts = dict(module.named_modules())
        if where not in parts:
            names = [name for name in parts if name and name.count(".") < 2]
            raise UsageError(
                f"features: expected auto, output:NAME or a part of {opened.name} ({some(names, 12)}), got {where!r}"
            )
        return _Watched(opened, {where: parts[where]}, inputs=False), where
    if all(hasattr(module, name) for name in ("forward_features", "forward_head", "num_features")):
        layer = "forward_features" if spec.feature_maps else "pre_logits"
        return _in_two_steps(module, opened.name, maps=spec.feature_maps), layer
    linear = {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    if spec.feature_maps or not linear:
        raise UsageError(
            f"features: expected the name of a part of {opened.name} "
            f"({'for maps' if spec.feature_maps else 'which has no linear layer'}), got auto"
        )
    return _Watched(opened, linear, inputs=True), "input of the last linear layer"


def _among_outputs(opened: Opened, name: str) -> Asked:
    """Features that the network itself gives beside its logits."""

    def call(images: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        outputs = named_outputs(opened.call(images), opened.name)
        if name not in outputs:
            raise UsageError(f"features: expected output:{', output:'.join(outputs)}, got output:{name}")
        return outputs, outputs[name]

    return call


def _in_two_steps(module: Any, source: str, *, maps: bool) -> Asked:
    """timm's own: maps first, then the head, with and without its last layer."""

    def call(images: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        found = module.forward_features(images)
        outputs = named_outputs(module.forward_head(found), source)
        return outputs, channels_first(found, module) if maps else module.forward_head(found, pre_logits=True)

    return call


def channels_first(maps: torch.Tensor, module: Any) -> torch.Tensor:
    """(n, c, h, w) of timm's maps, which come channels last in some families and as a row of tokens in others."""
    width = module.num_features
    if maps.ndim == 3:
        tokens = maps[:, getattr(module, "num_prefix_tokens", 0) :]
        side = round(tokens.shape[1] ** 0.5)
        if side * side != tokens.shape[1]:
            raise UsageError(
                f"feature maps: expected a square of tokens, got {tokens.shape[1]}; do without maps"
            )
        return tokens.transpose(1, 2).reshape(len(maps), -1, side, side)
    return maps.permute(0, 3, 1, 2) if maps.shape[-1] == width and maps.shape[1] != width else maps


class _Watched:
    """Runs a network and takes what one of its layers is fed (``inputs``) or gives.

    Of several layers it is the last to run whose outputs are as many as those of the network; attention inside of a
    backbone has linear layers too.
    """

    def __init__(self, opened: Opened, layers: Mapping[str, nn.Module], *, inputs: bool) -> None:
        self._opened, self._inputs = opened, inputs
        self._ran: list[tuple[int, Any]] = []
        for layer in layers.values():
            layer.register_forward_hook(self._note)

    def _note(self, layer: nn.Module, given: tuple[Any, ...], returned: Any) -> None:
        kept = given[0] if self._inputs else returned
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
                f"{self._opened.name}: expected a tensor where --features says, got none: that part did not run"
            )
        return outputs, fitting[-1]


def as_features(values: torch.Tensor, rows: int, *, maps: bool) -> torch.Tensor:
    """(n, d), maps averaged over their positions; or (n, c, h, w) where maps are wanted.

    Raises
    ------
    UsageError : another shape.
    """
    shape = tuple(values.shape)
    if shape[:1] != (rows,) or len(shape) not in ((4,) if maps else (2, 4)):
        wanted = "maps (n, c, h, w)" if maps else "(n, d) or maps (n, c, h, w)"
        raise UsageError(
            f"features: expected {wanted}, got {shape} for {rows} images; name another part or output"
        )
    values = values.float()
    return values if maps or len(shape) == 2 else values.mean((2, 3))
