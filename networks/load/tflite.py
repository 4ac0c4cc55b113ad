"""A ``.tflite`` graph, run as a whole by ig3d's engine: a graph of known operators, in which no code can hide."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import ModelError
from ...extract.engine import load_tflite
from ...extract.tflite import Tensor, read_file, read_graph
from .state import digest_file
from .values import NetworkSpec, Opened

_BATCH = {"cpu": 4, "cuda": 64}


def open_network(spec: NetworkSpec, device: torch.device) -> Opened:
    """Load the graph; images may come first or last in channels."""
    path = Path(spec.network)
    content = read_file(path)
    graph = read_graph(content, str(path))
    images = graph.tensors[graph.inputs[0]]
    shape = images.shape
    last = len(shape) == 4 and shape[3] in (1, 3)
    channels = shape[3 if last else 1] if len(shape) == 4 else 0
    sides = shape[1:3] if last else shape[2:]
    if len(graph.inputs) != 1 or channels not in (1, 3):
        shapes = [graph.tensors[index].shape for index in graph.inputs]
        raise ModelError(
            f"{path}: expected one input of images (1, h, w, 3), (1, h, w, 1) or with the channels second, got {shapes}"
        )
    if sides[0] != sides[1]:
        raise ModelError(f"{path}: expected square images, got {sides[0]} by {sides[1]}; export it again")
    network = load_tflite(
        content,
        name=str(path),
        batch=_BATCH[device.type],
        device=str(device),
        backend=None if find_spec("openvino") else "torch",
        threads=torch.get_num_threads(),
    )
    names = [graph.tensors[index].name for index in graph.outputs]
    if len(set(names)) < len(names):
        names = [str(position) for position in range(len(names))]

    def call(batch: torch.Tensor) -> dict[str, Any]:
        fed = batch.cpu().numpy()
        outputs = network(fed.transpose(0, 2, 3, 1) if last else fed)
        return {name: torch.from_numpy(_flat(one)) for name, one in zip(names, outputs, strict=True)}

    return Opened(
        call=call,
        name=path.name,
        sha256=digest_file(path),
        input={"size": sides[0], **_normalisation(images)},
        fixed=("size",),
        channels=channels,
    )


def _normalisation(images: Tensor) -> dict[str, tuple[float, ...]]:
    """Of a graph that takes integers: those that make each grey level one of them."""
    if images.dtype not in ("uint8", "int8"):
        return {}
    lowest = 0 if images.dtype == "uint8" else -128
    scale = images.scale or 1.0
    return {"mean": ((images.zero_point - lowest) / 255,) * 3, "std": (1 / (255 * scale),) * 3}


def _flat(output: np.ndarray) -> np.ndarray:
    """(n, k) of (n, 1, 1, k), as graphs end that pool by a convolution."""
    return (
        output.reshape(len(output), -1) if output.ndim > 2 and output[:1].size == output.shape[-1] else output
    )
