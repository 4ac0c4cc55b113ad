"""``.tflite`` graphs as OpenVINO models; neither torch nor TensorFlow is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino
import openvino.opset13 as ops

from .tflite import Graph
from .tflite_ops import apply
from .tflite_rows import Window

_TO_IMAGES, _TO_PLANES = (0, 2, 3, 1), (0, 3, 1, 2)
_UNARY = {
    "abs": ops.abs, "ceil": ops.ceiling, "cos": ops.cos, "exp": ops.exp, "floor": ops.floor,
    "hard_swish": ops.hswish, "log": ops.log, "neg": ops.negative, "relu": ops.relu, "sigmoid": ops.sigmoid,
    "sin": ops.sin, "sqrt": ops.sqrt, "tanh": ops.tanh,
}  # fmt: skip
_BINARY = {
    "add": ops.add, "div": ops.divide, "maximum": ops.maximum, "minimum": ops.minimum, "mul": ops.multiply,
    "pow": ops.power, "sub": ops.subtract,
}  # fmt: skip
_REDUCE = {"max": ops.reduce_max, "mean": ops.reduce_mean, "min": ops.reduce_min, "sum": ops.reduce_sum}


def build_model(graph: Graph, batch: int) -> openvino.Model:
    """The graph for batches of one size, float32 in and out; outputs are (batch, ...).

    Raises
    ------
    ModelError : an operator is unknown, or sizes do not fit each other.
    """
    parameters = [
        ops.parameter([batch, *graph.tensors[index].shape[1:]], np.float32, name=f"input {k}")
        for k, index in enumerate(graph.inputs)
    ]
    kernels = _Kernels()
    outputs = apply(graph, kernels, [_Value(parameter.output(0)) for parameter in parameters])
    return openvino.Model([ops.result(kernels.plain(value)) for value in outputs], parameters, graph.name)


@dataclass(frozen=True, slots=True)
class _Value:
    """Output of a node; with ``planes``, it is (n, channels, height, width), the order of OpenVINO's convolutions.

    Images keep this order as long as possible, because OpenVINO does not move transposes past every operator.
    """

    node: Any
    planes: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        shape = tuple(int(side) for side in self.node.get_shape())
        return tuple(shape[axis] for axis in _TO_IMAGES) if self.planes else shape


class _Kernels:
    def constant(self, array: np.ndarray) -> _Value:
        return _Value(_constant(array))

    def plain(self, x: _Value) -> Any:
        return _transposed(x.node, _TO_IMAGES) if x.planes else x.node

    def planes(self, x: _Value) -> Any:
        return x.node if x.planes else _transposed(x.node, _TO_PLANES)

    def unary(self, name: str, x: _Value) -> _Value:
        if name == "elu":
            return _Value(ops.elu(x.node, 1.0).output(0), x.planes)
        if name == "round":
            return _Value(ops.round(x.node, "half_to_even").output(0), x.planes)
        return _Value(_UNARY[name](x.node).output(0), x.planes)

    def binary(self, name: str, x: Any, y: Any) -> _Value:
        values = [value for value in (x, y) if isinstance(value, _Value)]
        images = all(len(value.shape) == 4 for value in values)
        planes = images and any(value.planes for value in values)
        nodes = [
            (self.planes(value) if planes else self.plain(value))
            if isinstance(value, _Value)
            else _constant(_as_planes(value) if planes else value)
            for value in (x, y)
        ]
        return _Value(_BINARY[name](*nodes).output(0), planes)

    def clamp(self, x: _Value, low: float, high: float) -> _Value:
        return _Value(ops.clamp(x.node, float(low), float(high)).output(0), x.planes)

    def gelu(self, x: _Value, approximate: bool) -> _Value:
        return _Value(ops.gelu(x.node, "tanh" if approximate else "erf").output(0), x.planes)

    def prelu(self, x: _Value, slope: np.ndarray) -> _Value:
        if slope.size == 1 or (x.planes and slope.size == slope.shape[-1] == x.shape[-1]):
            return _Value(ops.prelu(x.node, _constant(slope.reshape(-1))).output(0), x.planes)
        negative = ops.minimum(x.node, _constant(np.zeros(1)))
        part = self.binary("mul", _Value(negative.output(0), x.planes), slope)
        return self.binary("add", _Value(ops.relu(x.node).output(0), x.planes), part)

    def conv(self, x: _Value, weight: np.ndarray, window: Window, groups: int) -> _Value:
        layout = [list(part) for part in (window.stride, window.low, window.high, window.dilation)]
        if groups == 1:
            node = ops.convolution(self.planes(x), _constant(weight), *layout)
        else:
            parts = weight.reshape(groups, -1, *weight.shape[1:])
            node = ops.group_convolution(self.planes(x), _constant(parts), *layout)
        return _Value(node.output(0), planes=True)

    def conv_transposed(self, x: _Value, weight: np.ndarray, window: Window) -> _Value:
        cut = {"pads_begin": list(window.low), "pads_end": list(window.high)}
        node = ops.convolution_backprop_data(self.planes(x), _constant(weight), list(window.stride), **cut)
        return _Value(node.output(0), planes=True)

    def pool(self, name: str, x: _Value, window: Window) -> _Value:
        stride, *layout = (list(part) for part in (window.stride, window.low, window.high, window.size))
        if name == "max":
            node = ops.max_pool(self.planes(x), stride, [1, 1], *layout)
        else:
            node = ops.avg_pool(self.planes(x), stride, *layout, exclude_pad=True)
        return _Value(node.output(0), planes=True)

    def pad(self, x: _Value, low: Sequence[int], high: Sequence[int], value: float) -> _Value:
        amounts = [[side[axis] for axis in _TO_PLANES] if x.planes else side for side in (low, high)]
        node = ops.pad(x.node, *(_indexes(side) for side in amounts), "constant", _constant(np.array(value)))
        return _Value(node.output(0), x.planes)

    def reshape(self, x: _Value, shape: Sequence[int]) -> _Value:
        return _Value(ops.reshape(self.plain(x), _indexes(shape), False).output(0))

    def transpose(self, x: _Value, order: Sequence[int]) -> _Value:
        return _Value(_transposed(self.plain(x), order))

    def concat(self, parts: Sequence[_Value], axis: int) -> _Value:
        planes = any(part.planes for part in parts)
        nodes = [self.planes(part) if planes else self.plain(part) for part in parts]
        return _Value(ops.concat(nodes, _TO_PLANES.index(axis) if planes else axis).output(0), planes)

    def slice(self, x: _Value, axis: int, index: range) -> _Value:
        axis = _TO_PLANES.index(axis) if x.planes else axis
        # -1, the end of a range with a negative step, would be the last element
        stop = index.stop if index.stop >= 0 else -(2**31)
        bounds = [_indexes([number]) for number in (index.start, stop, index.step, axis)]
        return _Value(ops.slice(x.node, *bounds).output(0), x.planes)

    def reduce(self, name: str, x: _Value, axes: Sequence[int], keep: bool) -> _Value:
        # the order of the axes that remain is the same in both layouts
        same = x.planes and (keep or {1, 2} <= set(axes))
        node = x.node if same else self.plain(x)
        axes = [_TO_PLANES.index(axis) if same else axis for axis in axes]
        return _Value(_REDUCE[name](node, _indexes(axes), keep).output(0), same and keep)

    def softmax(self, x: _Value) -> _Value:
        node = self.plain(x)
        return _Value(ops.softmax(node, len(x.shape) - 1).output(0))

    def matmul(self, x: _Value, y: Any) -> _Value:
        other = self.plain(y) if isinstance(y, _Value) else _constant(y)
        return _Value(ops.matmul(self.plain(x), other, False, False).output(0))

    def resize(
        self, name: str, x: _Value, size: Sequence[int], *, align_corners: bool, half_pixel: bool
    ) -> _Value:
        coordinates = "align_corners" if align_corners else "half_pixel" if half_pixel else "asymmetric"
        node = ops.interpolate(
            self.planes(x),
            _indexes(size),
            mode="linear_onnx" if name == "linear" else "nearest",
            shape_calculation_mode="sizes",
            coordinate_transformation_mode=coordinates,
            nearest_mode="round_prefer_ceil" if align_corners else "floor",
            axes=_indexes([2, 3]),
        )
        return _Value(node.output(0), planes=True)


def _constant(array: Any) -> Any:
    return ops.constant(np.array(array, np.float32, order="C")).output(0)


def _indexes(numbers: Sequence[int]) -> Any:
    return ops.constant(np.array(numbers, np.int64).reshape(-1))


def _transposed(node: Any, order: Sequence[int]) -> Any:
    return ops.transpose(node, _indexes(order)).output(0)


def _as_planes(array: np.ndarray) -> np.ndarray:
    """A constant that broadcasts with images, for images whose channels come second."""
    return array.reshape([1] * (4 - array.ndim) + list(array.shape)).transpose(_TO_PLANES)
