"""``.tflite`` files, run by ig3d's engine; they contain a graph of known operators and no code."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import ModelError
from ...extract.engine import load_tflite
from ...extract.tflite import Tensor, read_file, read_graph
from ...features.atomic import file_sha256
from ..options import NetworkSpec
from .values import Opened

_BATCH = {"cpu": 4, "cuda": 64}


def open_network(spec: NetworkSpec, device: torch.device) -> Opened:
    """Load the graph; channels may be first or last."""
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
            f"{path}: the inputs have shapes {shapes}; one input of images with 1 or 3 channels is needed"
        )
    if sides[0] != sides[1]:
        raise ModelError(
            f"{path}: the input is {sides[0]} by {sides[1]} pixels; export a network with square input"
        )
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
        values = batch.cpu().numpy()
        outputs = network(values.transpose(0, 2, 3, 1) if last else values)
        return {name: torch.from_numpy(_flat(output)) for name, output in zip(names, outputs, strict=True)}

    return Opened(
        call=call,
        name=path.name,
        sha256=file_sha256(path),
        input={"size": sides[0], **_normalisation(images)},
        fixed=("size",),
        channels=channels,
    )


def _normalisation(images: Tensor) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation for integer inputs, such that each grey level becomes one integer."""
    if images.dtype not in ("uint8", "int8"):
        return {}
    lowest = 0 if images.dtype == "uint8" else -128
    scale = images.scale or 1.0
    return {"mean": ((images.zero_point - lowest) / 255,) * 3, "std": (1 / (255 * scale),) * 3}


def _flat(output: np.ndarray) -> np.ndarray:
    """(n, k) values of (n, 1, 1, k), the output of graphs that pool by a convolution."""
    return (
        output.reshape(len(output), -1) if output.ndim > 2 and output[:1].size == output.shape[-1] else output
    )
