"""``.tflite`` graphs as torch modules, for the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from .tflite import Graph
from .tflite_ops import apply
from .tflite_rows import Window

_UNARY = {
    "abs": torch.abs, "ceil": torch.ceil, "cos": torch.cos, "elu": functional.elu, "exp": torch.exp,
    "floor": torch.floor, "hard_swish": functional.hardswish, "log": torch.log, "neg": torch.neg, "relu": torch.relu,
    "round": torch.round, "sigmoid": torch.sigmoid, "sin": torch.sin, "sqrt": torch.sqrt, "tanh": torch.tanh,
}  # fmt: skip
_BINARY = {
    "add": torch.add, "div": torch.div, "maximum": torch.maximum, "minimum": torch.minimum, "mul": torch.mul,
    "pow": torch.pow, "sub": torch.sub,
}  # fmt: skip
_REDUCE = {"max": torch.amax, "mean": torch.mean, "min": torch.amin, "sum": torch.sum}


def build_module(graph: Graph, batch: int) -> nn.Module:
    """The graph for batches of one size: float32 tensors to a tuple of (batch, ...) float32 tensors.

    Raises
    ------
    ModelError : an operator is unknown, or sizes do not fit each other.
    """
    kernels = _Kernels()
    inputs = [
        _Value(
            kernels.graph.placeholder(f"input_{k}"),
            torch.empty((batch, *graph.tensors[index].shape[1:]), device="meta"),
        )
        for k, index in enumerate(graph.inputs)
    ]
    with torch.inference_mode():
        outputs = apply(graph, kernels, inputs)
    kernels.graph.output(tuple(output.node for output in outputs))
    kernels.graph.eliminate_dead_code()
    return fx.GraphModule(kernels.constants, kernels.graph)


@dataclass(frozen=True, slots=True)
class _Value:
    """A node of the new graph, and a tensor of its shape without values (torch's device ``meta``)."""

    node: fx.Node
    meta: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.meta.shape)


class _Kernels:
    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.constants: dict[str, torch.Tensor] = {}

    def constant(self, array: np.ndarray) -> _Value:
        name = f"constant_{len(self.constants)}"
        kind = np.float32 if array.dtype.kind == "f" else np.int64
        self.constants[name] = tensor = torch.tensor(np.asarray(array, kind))
        return _Value(self.graph.get_attr(name), tensor.to("meta"))

    def call(self, function: Any, *operands: Any, **options: Any) -> _Value:
        """A node that calls ``function``; values and arrays among its operands become nodes."""

        values = [
            self.constant(operand) if isinstance(operand, np.ndarray) else operand for operand in operands
        ]
        node = self.graph.call_function(function, _parts(values, "node"), options)
        return _Value(node, function(*_parts(values, "meta"), **options))

    def unary(self, name: str, x: _Value) -> _Value:
        return self.call(_UNARY[name], x)

    def binary(self, name: str, x: Any, y: Any) -> _Value:
        return self.call(_BINARY[name], x, y)

    def clamp(self, x: _Value, low: float, high: float) -> _Value:
        return self.call(torch.clamp, x, float(low), float(high))

    def gelu(self, x: _Value, approximate: bool) -> _Value:
        return self.call(functional.gelu, x, approximate="tanh" if approximate else "none")

    def prelu(self, x: _Value, slope: np.ndarray) -> _Value:
        if slope.size == 1 or (len(x.shape) == 4 and slope.size == slope.shape[-1] == x.shape[-1]):
            planes = self.planes(x) if len(x.shape) == 4 else x
            result = self.call(torch.prelu, planes, slope.reshape(-1))
            return self.images(result) if len(x.shape) == 4 else result
        negative = self.binary("mul", self.call(torch.clamp, x, max=0.0), slope)
        return self.binary("add", self.unary("relu", x), negative)

    def planes(self, x: _Value) -> _Value:
        """A view as (n, channels, height, width), which convolutions use without copying (channels last)."""
        return self.call(torch.permute, x, (0, 3, 1, 2))

    def images(self, x: _Value) -> _Value:
        return self.call(torch.permute, x, (0, 2, 3, 1))

    def padded(self, x: _Value, window: Window, value: float) -> _Value:
        """(n, channels, height, width) with the padding of the window."""
        if not any((*window.low, *window.high)):
            return x
        return self.call(functional.pad, x, _sides(window), value=value)

    def conv(self, x: _Value, weight: np.ndarray, window: Window, groups: int) -> _Value:
        planes, padding = self.planes(x), window.low
        if window.low != window.high:
            planes, padding = self.padded(planes, window, 0.0), (0, 0)
        return self.images(
            self.call(torch.conv2d, planes, weight, None, window.stride, padding, window.dilation, groups)
        )

    def conv_transposed(self, x: _Value, weight: np.ndarray, window: Window) -> _Value:
        result = self.images(self.call(torch.conv_transpose2d, self.planes(x), weight, None, window.stride))
        for axis, low, high in zip((1, 2), window.low, window.high, strict=True):
            result = self.slice(result, axis, range(low, result.shape[axis] - high))
        return result

    def pool(self, name: str, x: _Value, window: Window) -> _Value:
        layout = window.size, window.stride
        if name == "max":
            padded = self.padded(self.planes(x), window, float("-inf"))
            return self.images(self.call(torch.max_pool2d, padded, *layout))
        padded = self.padded(self.planes(x), window, 0.0)
        result = self.images(self.call(functional.avg_pool2d, padded, *layout))
        if not any((*window.low, *window.high)):
            return result
        # the padding does not count: divide by the share of each window that is inside the image
        ones = functional.pad(torch.ones(1, 1, *x.shape[1:3]), _sides(window))
        share = functional.avg_pool2d(ones, *layout).permute(0, 2, 3, 1)
        return self.binary("div", result, share.numpy())

    def pad(self, x: _Value, low: Sequence[int], high: Sequence[int], value: float) -> _Value:
        amounts = [side for pair in zip(reversed(low), reversed(high), strict=True) for side in pair]
        return self.call(functional.pad, x, tuple(amounts), value=value)

    def reshape(self, x: _Value, shape: Sequence[int]) -> _Value:
        return self.call(torch.reshape, x, tuple(shape))

    def transpose(self, x: _Value, order: Sequence[int]) -> _Value:
        return self.call(torch.permute, x, tuple(order))

    def concat(self, parts: Sequence[_Value], axis: int) -> _Value:
        return self.call(torch.cat, list(parts), axis)

    def slice(self, x: _Value, axis: int, index: range) -> _Value:
        if index.step == 1:
            return self.call(torch.narrow, x, axis, index.start, len(index))
        return self.call(torch.index_select, x, axis, np.array(index))

    def reduce(self, name: str, x: _Value, axes: Sequence[int], keep: bool) -> _Value:
        return self.call(_REDUCE[name], x, tuple(axes), keep)

    def softmax(self, x: _Value) -> _Value:
        return self.call(torch.softmax, x, -1)

    def matmul(self, x: _Value, y: Any) -> _Value:
        return self.call(torch.matmul, x, y)

    def resize(
        self, name: str, x: _Value, size: Sequence[int], *, align_corners: bool, half_pixel: bool
    ) -> _Value:
        images = x
        for axis, side in zip((1, 2), size, strict=True):
            images = self._resized(name, images, axis, side, align_corners, half_pixel)
        return images

    def _resized(
        self, name: str, x: _Value, axis: int, side: int, align_corners: bool, half_pixel: bool
    ) -> _Value:
        """Resized along one axis by a matrix product, because torch does not have all of these coordinate modes."""
        old = x.shape[axis]
        position = np.arange(side, dtype=np.float64)
        if align_corners:
            position *= (old - 1) / max(side - 1, 1)
        else:
            position = (position + 0.5) * old / side - 0.5 if half_pixel else position * old / side
        weights = np.zeros((side, old), np.float32)
        rows = np.arange(side)
        if name == "nearest":
            nearest = np.floor(position + 0.5) if align_corners or half_pixel else np.floor(position)
            weights[rows, np.clip(nearest, 0, old - 1).astype(int)] = 1
        else:
            position = np.clip(position, 0, old - 1)
            first = np.minimum(np.floor(position).astype(int), old - 1)
            np.add.at(weights, (rows, first), 1 - (position - first))
            np.add.at(weights, (rows, np.minimum(first + 1, old - 1)), position - first)
        subscripts = "nhwc,oh->nowc" if axis == 1 else "nhwc,ow->nhoc"
        return self.call(torch.einsum, subscripts, x, weights)


def _sides(window: Window) -> tuple[int, ...]:
    """Padding as :func:`torch.nn.functional.pad` takes it: left, right, top, bottom."""
    return window.low[1], window.high[1], window.low[0], window.high[0]


def _parts(operands: Sequence[Any], part: str) -> tuple[Any, ...]:
    return tuple(
        getattr(operand, part)
        if isinstance(operand, _Value)
        else list(_parts(operand, part))
        if isinstance(operand, list)
        else operand
        for operand in operands
    )
