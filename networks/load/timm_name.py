"""``timm:NAME``: an architecture of timm with the user's weights; nothing is downloaded."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config

from ...errors import ModelError, UsageError
from ..checkpoint import check_architecture, seen_of
from ..options import NetworkSpec
from .state import State, classifier_of, digest_module, fit_state, read_state
from .values import Opened


def open_network(spec: NetworkSpec, device: torch.device) -> Opened:
    """Build the architecture with as many outputs as the weights have, and load the weights."""
    name = spec.network.removeprefix("timm:")
    check_architecture(name)
    if spec.weights is None:
        raise UsageError(f"network timm:{name}: pass its trained weights with --weights")
    state = read_state(spec.weights, spec.key)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    stem = state.get(f"{getattr(config, 'first_conv', '')}.weight")
    channels = 1 if stem is not None and stem.ndim == 4 and stem.shape[1] == 1 else 3
    options: dict[str, Any] = {"in_chans": channels}
    if config is not None and config.fixed_input_size and spec.size is not None:
        options["img_size"] = spec.size
    try:
        module = timm.create_model(name, pretrained=False, num_classes=_outputs(name, state), **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as exc:
        raise ModelError(f"network timm:{name}: timm cannot build it: {str(exc).splitlines()[0]}") from exc
    notes = fit_state(module, state, source=str(spec.weights))
    module.eval().to(device)
    resolved = resolve_model_data_config(module)
    fixed = bool(config and config.fixed_input_size)
    return Opened(
        call=module,
        name=name,
        sha256=digest_module(module),
        module=module,
        input={
            "size": spec.size if fixed and spec.size else int(resolved["input_size"][-1]),
            "mean": tuple(map(float, resolved["mean"])),
            "std": tuple(map(float, resolved["std"])),
            "interpolation": resolved["interpolation"]
            if resolved["interpolation"] in ("nearest", "bicubic")
            else "bilinear",
        },
        fixed=("size",) if fixed else (),
        channels=channels,
        seen=seen_of(spec.weights),
        notes=notes,
    )


def _outputs(name: str, state: State) -> int:
    """Number of outputs of the weights: rows of the layer that timm names as classifier."""
    layer = classifier_of(timm.get_pretrained_cfg(name, allow_unregistered=True))
    for key in ("weight", "bias"):
        widths = {
            len(value)
            for entry, value in state.items()
            if f".{entry}".endswith(f".{layer}.{key}") and value.ndim
        }
        if len(widths) == 1:
            return widths.pop()
    raise ModelError(
        f"network timm:{name}: the weights have no layer {layer}; pass another --key, or build the network in a "
        "Python file (file.py:build)"
    )
