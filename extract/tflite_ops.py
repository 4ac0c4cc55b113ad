"""Operators of ``.tflite`` graphs, written once for OpenVINO and torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import ModelError, shorten
from .tflite import MAX_ELEMENTS, Graph, Operator
from .tflite_rows import Arithmetic, Kernels, Rows, Value, Window, beside

_SAME = 0  # value of the schema's Padding
# Operators that only move values: quantised values are not rounded again.
_MOVING = ("MAX_POOL_2D", "PAD", "RESHAPE", "SLICE", "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE", "EXPAND_DIMS")

# Errors of NumPy, OpenVINO and torch for sizes that do not fit each other.
_MISFIT = (ArithmeticError, IndexError, KeyError, RuntimeError, TypeError, ValueError)

UNARY = {
    "ABS": "abs", "CEIL": "ceil", "COS": "cos", "ELU": "elu", "EXP": "exp", "FLOOR": "floor",
    "HARD_SWISH": "hard_swish", "LOG": "log", "LOGISTIC": "sigmoid", "NEG": "neg", "RELU": "relu", "ROUND": "round",
    "SIN": "sin", "SQRT": "sqrt", "TANH": "tanh",
}  # fmt: skip
BINARY = {
    "ADD": "add", "DIV": "div", "MAXIMUM": "maximum", "MINIMUM": "minimum", "MUL": "mul", "POW": "pow", "SUB": "sub",
}  # fmt: skip
_CLAMPED = {"RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}
_REDUCED = {"MEAN": "mean", "SUM": "sum", "REDUCE_MAX": "max", "REDUCE_MIN": "min"}
# Option FusedActivationFunction -> operator
_FUSED = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH"}


def apply(graph: Graph, kernels: Kernels, inputs: Sequence[Any]) -> list[Any]:
    """Compute a graph with the kernels of a runtime.

    Parameters
    ----------
    graph : Graph
    kernels : Kernels
    inputs : values of the runtime, (batch, ...)

    Returns
    -------
    list of values of the runtime, (batch, ...) : the outputs

    Raises
    ------
    ModelError : an operator is unknown, or sizes do not fit each other.
    """
    values: dict[int, Value] = {
        index: tensor.value for index, tensor in enumerate(graph.tensors) if tensor.value is not None
    }
    run = Arithmetic(graph, kernels)
    for index, data in zip(graph.inputs, inputs, strict=True):
        values[index] = run.quantised(index, Rows(data, lead=True))
    for position, operator in enumerate(graph.operators):
        where = f"{graph.name}: operator {position} ({operator.kind})"
        if operator.kind not in OPERATORS:
            raise ModelError(f"{where} is not supported; docs/networks.md lists the operators that are")
        try:
            absent = [index for index in _present(operator.inputs) if index not in values]
            if absent:
                raise ValueError(f"tensor {absent[0]} is not computed yet")
            results = _results(run, operator, [values[index] for index in _present(operator.inputs)])
            for index, value in zip(operator.outputs, results, strict=True):
                elements = math.prod(value.shape)
                if elements > MAX_ELEMENTS:
                    raise ValueError(f"{elements:.2g} values for one image")
                moving = operator.kind in _MOVING
                values[index] = value if moving else run.quantised(index, value)
        except _MISFIT as exc:
            reason = f"option {exc} is missing" if isinstance(exc, KeyError) else str(exc)
            lines = reason.strip().splitlines() or [type(exc).__name__]
            raise ModelError(f"{where} does not fit its operands: {shorten(lines[-1], 100)}") from exc
    outputs = [rows for index in graph.outputs if isinstance(rows := values.get(index), Rows)]
    if len(outputs) < len(graph.outputs):
        raise ModelError(f"{graph.name}: an output does not depend on the input")
    return [rows.data for rows in outputs]


def _results(run: Arithmetic, operator: Operator, operands: list[Value]) -> list[Value]:
    result = OPERATORS[operator.kind](run, operator, *operands)
    results = result if isinstance(result, list) else [result]
    fused = operator.options.get("FusedActivationFunction", 0)
    if not fused:
        return results
    kind = _FUSED[fused]
    return [OPERATORS[kind](run, Operator(kind, (), ()), value) for value in results]


def _present(inputs: Sequence[int]) -> Sequence[int]:
    """Indexes of the operands; optional ones at the end, such as biases, may be left out (-1)."""
    while inputs and inputs[-1] < 0:
        inputs = inputs[:-1]
    if min(inputs, default=0) < 0:
        raise ValueError("an operand is missing")
    return inputs


def _window(
    op: Operator, sides: Sequence[int], size: Sequence[int], dilation: Sequence[int] = (1, 1)
) -> Window:
    """Window of an operator on images of height and width ``sides``."""
    stride = op.options["StrideH"], op.options["StrideW"]
    extent = [(side - 1) * step + 1 for side, step in zip(size, dilation, strict=True)]
    low, high = _padding(op.options["Padding"], sides, extent, stride)
    return Window(tuple(size), stride, low, high, tuple(dilation))


def _padding(kind: int, sides: Sequence[int], size: Sequence[int], stride: Sequence[int]) -> Any:
    """Padding before and after height and width."""
    if min(*size, *stride, *sides) < 1:
        raise ValueError(f"window {tuple(size)}, stride {tuple(stride)} on {tuple(sides)}")
    if kind != _SAME:
        if any(window > side for window, side in zip(size, sides, strict=True)):
            raise ValueError(f"window {tuple(size)} on {tuple(sides)}")
        return (0, 0), (0, 0)
    totals = [
        max((-(-side // step) - 1) * step + window - side, 0)
        for side, window, step in zip(sides, size, stride, strict=True)
    ]
    return tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)


def _computed(value: Value) -> Rows:
    """The operand; raises an error for a constant."""
    if not isinstance(value, Rows):
        raise ValueError("the operand is constant")
    return value


def _array(value: Value, what: str) -> np.ndarray:
    """The constant; ``what`` names it in errors."""
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{what} are not constant")
    return value


def _numbers(value: Value, what: str) -> np.ndarray:
    return _array(value, what).astype(np.float32)


def _integers(value: Value, what: str) -> list[int]:
    array = _array(value, what)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{what} of type {array.dtype}")
    return [int(number) for number in array.ravel()]


def _convolution(run: Arithmetic, op: Operator, x: Value, w: Value, b: Value | None = None) -> Value:
    data, back = run.images(x)
    weight = _numbers(w, "weights")
    if weight.ndim != 4:
        raise ValueError(f"weights of shape {weight.shape}")
    channels = data.shape[3]
    # (outputs, height, width, inputs of a group); depthwise (1, height, width, outputs)
    if op.kind == "DEPTHWISE_CONV_2D":
        weight, groups = weight.transpose(3, 0, 1, 2), channels
        if weight.shape[1] != 1:
            raise ValueError(f"weights of shape {weight.shape}")
    else:
        weight = weight.transpose(0, 3, 1, 2)
        groups = channels // weight.shape[1]
    if groups < 1 or groups * weight.shape[1] != channels or weight.shape[0] % groups:
        raise ValueError(f"{channels} channels, {groups} groups, weights {weight.shape}")
    dilation = op.options["DilationHFactor"], op.options["DilationWFactor"]
    window = _window(op, data.shape[1:3], weight.shape[2:], dilation)
    return back(_biased(run, run.k.conv(data, np.ascontiguousarray(weight), window, groups), b))


def _biased(run: Arithmetic, data: Any, bias: Value | None) -> Any:
    if bias is None:
        return data
    array = _numbers(bias, "biases")
    if array.shape != (data.shape[-1],):
        raise ValueError(f"biases of shape {array.shape} for {data.shape[-1]} outputs")
    return run.k.binary("add", data, array)


def _transposed(
    run: Arithmetic,
    op: Operator,
    shape: Value,
    w: Value,
    x: Value,
    b: Value | None = None,
) -> Value:
    data, back = run.images(x)
    weight, sides = _numbers(w, "weights"), _integers(shape, "sizes")[1:3]
    if weight.ndim != 4 or weight.shape[3] != data.shape[3]:
        raise ValueError(f"weights of shape {weight.shape} for {data.shape[3]} channels")
    window = _window(op, sides, weight.shape[1:3])
    full = [
        (side - 1) * step + length
        for side, step, length in zip(data.shape[1:3], window.stride, window.size, strict=True)
    ]
    high = tuple(whole - before - side for whole, before, side in zip(full, window.low, sides, strict=True))
    if min(high) < 0:
        raise ValueError(f"size {sides} of {full}")
    weight = np.ascontiguousarray(weight.transpose(3, 0, 1, 2))
    return back(_biased(run, run.k.conv_transposed(data, weight, replace(window, high=high)), b))


def _pool(run: Arithmetic, op: Operator, x: Value) -> Value:
    data, back = run.images(x)
    size = op.options["FilterHeight"], op.options["FilterWidth"]
    name = "max" if op.kind == "MAX_POOL_2D" else "mean"
    return back(run.k.pool(name, data, _window(op, data.shape[1:3], size)))


def _dense(run: Arithmetic, op: Operator, x: Value, w: Value, b: Value | None = None) -> Value:
    x, weight = _computed(x), _numbers(w, "weights")
    if weight.ndim != 2 or op.options.get("WeightsFormat"):
        raise ValueError(f"weights of shape {weight.shape}")
    width, batch = weight.shape[1], x.data.shape[0]
    rows = math.prod(x.shape) // width
    if rows * width != math.prod(x.shape):
        raise ValueError(f"{math.prod(x.shape)} values for weights {weight.shape}")
    data = run.k.reshape(x.data, (batch, rows, width) if rows > 1 else (batch, width))
    result = _biased(run, run.k.matmul(data, np.ascontiguousarray(weight.T)), b)
    if op.options.get("KeepNumDims"):
        return run.settle(run.k.reshape(result, (batch, *x.shape[:-1], weight.shape[0])))
    return Rows(result, lead=rows == 1)


def _pad(run: Arithmetic, op: Operator, x: Value, amounts: Value, fill: Value | None = None) -> Value:
    x, pairs = _computed(x), _array(amounts, "amounts").astype(int)
    if pairs.shape != (len(x.shape), 2) or pairs.min(initial=0) < 0:
        raise ValueError(f"amounts of shape {pairs.shape}")
    # before anything is allocated
    if math.prod(int(side) for side in np.array(x.shape) + pairs.sum(1)) > MAX_ELEMENTS:
        raise ValueError(f"amounts {pairs.tolist()}")
    axes = [axis for axis in range(len(pairs)) if pairs[axis].any()]
    data, data_axes, back = run.along(x, axes)
    low, high = ([0] * len(data.shape) for _ in range(2))
    for axis, data_axis in zip(axes, data_axes, strict=True):
        low[data_axis], high[data_axis] = map(int, pairs[axis])
    value = float(_array(fill, "values").ravel()[0]) if fill is not None else 0.0
    return back(run.k.pad(data, low, high, value))


def _shaped(run: Arithmetic, x: Value, shape: Sequence[int]) -> Value:
    shape = list(shape)
    elements = math.prod(x.shape)
    if shape.count(-1) == 1:
        others = -math.prod(shape)
        shape[shape.index(-1)] = elements // others if others else 0
    if math.prod(shape) != elements or min(shape, default=1) < 0:
        raise ValueError(f"shape {tuple(shape)} for {x.shape}")
    if isinstance(x, np.ndarray):
        return x.reshape(shape)
    lead = shape[:1] == [1]
    wanted = (x.data.shape[0], *shape[lead:])
    return Rows(x.data if tuple(x.data.shape) == wanted else run.k.reshape(x.data, wanted), lead)


def _reshape(run: Arithmetic, op: Operator, x: Value, shape: Value | None = None) -> Value:
    return _shaped(run, x, op.options["NewShape"] if shape is None else _integers(shape, "sizes"))


def _squeeze(run: Arithmetic, op: Operator, x: Value) -> Value:
    axes = [axis % len(x.shape) for axis in op.options.get("SqueezeDims", ())]
    kept = [side for axis, side in enumerate(x.shape) if side != 1 or (axes and axis not in axes)]
    return _shaped(run, x, kept)


def _expand(run: Arithmetic, op: Operator, x: Value, axis: Value) -> Value:
    shape = list(x.shape)
    (position,) = _integers(axis, "axes")
    shape.insert(position % (len(shape) + 1), 1)
    return _shaped(run, x, shape)


def _transpose(run: Arithmetic, op: Operator, x: Value, order: Value) -> Value:
    axes = _integers(order, "axes")
    if sorted(axes) != list(range(len(x.shape))):
        raise ValueError(f"axes {axes}")
    if isinstance(x, np.ndarray):
        return x.transpose(axes)
    if x.lead and axes[0] == 0:
        return Rows(run.k.transpose(x.data, axes), lead=True)
    return run.settle(run.k.transpose(run.with_rank(x, len(axes)), [0, *(axis + 1 for axis in axes)]))


def _concatenation(run: Arithmetic, op: Operator, *parts: Value) -> Value:
    axis = op.options["Axis"]
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate([part for part in parts if isinstance(part, np.ndarray)], axis)
    (batch,) = {part.data.shape[0] for part in parts if isinstance(part, Rows)}
    rows = [run.rows(part, batch) for part in parts]
    rank = len(rows[0].shape)
    if not -rank <= axis < rank or any(len(part.shape) != rank for part in rows):
        raise ValueError(f"axis {axis} of {[part.shape for part in rows]}")
    if axis % rank and all(part.lead for part in rows):
        return Rows(run.k.concat([part.data for part in rows], axis % rank), lead=True)
    return run.settle(run.k.concat([run.with_rank(part, rank) for part in rows], axis % rank + 1))


def _pack(run: Arithmetic, op: Operator, *parts: Value) -> Value:
    axis = op.options.get("Axis", 0)
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.stack([part for part in parts if isinstance(part, np.ndarray)], axis)
    expanded = [_expand(run, op, part, np.array(axis)) for part in parts]
    return _concatenation(run, Operator(op.kind, (), (), {"Axis": axis}), *expanded)


def _strided_slice(
    run: Arithmetic,
    op: Operator,
    x: Value,
    begin: Value,
    end: Value,
    strides: Value,
) -> Value:
    options, shape = op.options, x.shape
    starts, stops, steps = (_integers(value, "bounds") for value in (begin, end, strides))
    if (
        options.get("EllipsisMask")
        or options.get("NewAxisMask")
        or not (len(starts) == len(stops) == len(steps) <= len(shape))
    ):
        raise ValueError(f"bounds {starts}, {stops} of {shape}")
    if options.get("Offset"):
        stops = [start + length for start, length in zip(starts, stops, strict=True)]
    kept, indexes = list(shape), []
    for axis, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
        if options.get("ShrinkAxisMask", 0) >> axis & 1:
            indexes.append(range(shape[axis])[start : start + 1 or None])
            kept[axis] = -1
            continue
        first = None if options.get("BeginMask", 0) >> axis & 1 else start
        last = None if options.get("EndMask", 0) >> axis & 1 else stop
        indexes.append(range(shape[axis])[first:last:step])
    whole = indexes + [range(side) for side in shape[len(indexes) :]]
    result = _sliced(run, x, whole)
    return _shaped(run, result, [len(index) for index, side in zip(whole, kept, strict=True) if side != -1])


def _slice(run: Arithmetic, op: Operator, x: Value, begin: Value, size: Value) -> Value:
    starts, sizes = _integers(begin, "bounds"), _integers(size, "sizes")
    indexes = [
        range(side)[start : None if length < 0 else start + length]
        for start, length, side in zip(starts, sizes, x.shape, strict=True)
    ]
    return _sliced(run, x, indexes)


def _sliced(run: Arithmetic, x: Value, indexes: Sequence[range]) -> Value:
    if not all(indexes):
        raise ValueError("an empty slice")
    if isinstance(x, np.ndarray):
        return x[np.ix_(*indexes)] if indexes else x
    for axis, index in enumerate(indexes):
        if index != range(x.shape[axis]):
            data, (data_axis,), back = run.along(x, [axis])
            x = back(run.k.slice(data, data_axis, index))
    return x


def _split(run: Arithmetic, op: Operator, axis: Value, x: Value) -> list[Value]:
    (divided,), count = _integers(axis, "axes"), len(op.outputs)
    side = x.shape[divided] // count
    if side * count != x.shape[divided]:
        raise ValueError(f"{x.shape[divided]} in {count} parts")
    parts = []
    for start in range(0, side * count, side):
        indexes = [range(length) for length in x.shape]
        indexes[divided] = range(start, start + side)
        parts.append(_sliced(run, x, indexes))
    return parts


def _reduce(run: Arithmetic, op: Operator, x: Value, axes: Value) -> Value:
    data, data_axes, back = run.along(_computed(x), _integers(axes, "axes"))
    return back(
        run.k.reduce(_REDUCED[op.kind], data, sorted(set(data_axes)), bool(op.options.get("KeepDims")))
    )


def _unary(run: Arithmetic, op: Operator, x: Value) -> Value:
    x, k = _computed(x), run.k
    if op.kind in UNARY:
        data = k.unary(UNARY[op.kind], x.data)
    elif op.kind in _CLAMPED:
        data = k.clamp(x.data, *_CLAMPED[op.kind])
    elif op.kind == "GELU":
        data = k.gelu(x.data, bool(op.options.get("Approximate")))
    elif op.kind == "LEAKY_RELU":
        data = k.prelu(x.data, np.array(op.options["Alpha"], np.float32))
    elif op.kind == "SQUARE":
        data = k.binary("mul", x.data, x.data)
    elif op.kind == "RSQRT":
        data = k.binary("div", np.array(1, np.float32), k.unary("sqrt", x.data))
    else:
        raise KeyError(op.kind)
    return Rows(data, x.lead)


def _prelu(run: Arithmetic, op: Operator, x: Value, slope: Value) -> Value:
    x, array = _computed(x), _numbers(slope, "slopes")
    if np.broadcast_shapes(x.shape, array.shape) != x.shape:
        raise ValueError(f"slopes of shape {array.shape}")
    return Rows(run.k.prelu(x.data, beside(array, len(x.shape), x.lead)), x.lead)


def _softmax(run: Arithmetic, op: Operator, x: Value) -> Value:
    data, _, back = run.along(_computed(x), [-1])
    beta = float(op.options.get("Beta", 1.0))
    result = run.k.softmax(data if beta == 1 else run.k.binary("mul", data, np.array(beta, np.float32)))
    return back(run.k.unary("log", result) if op.kind == "LOG_SOFTMAX" else result)


def _l2(run: Arithmetic, op: Operator, x: Value) -> Value:
    data, axes, back = run.along(_computed(x), [-1])
    squares = run.k.reduce("sum", run.k.binary("mul", data, data), axes, True)
    length = run.k.unary("sqrt", run.k.binary("maximum", squares, np.array(1e-12, np.float32)))
    return back(run.k.binary("div", data, length))


def _matmul(run: Arithmetic, op: Operator, x: Value, y: Value) -> Value:
    (batch,) = {part.data.shape[0] for part in (x, y) if isinstance(part, Rows)}
    rows = [run.rows(part, batch) for part in (x, y)]
    rank = max(len(part.shape) for part in rows)
    parts = [run.with_rank(part, rank) for part in rows]
    swapped = [*range(rank - 1), rank, rank - 1]
    for side, option in enumerate(("AdjX", "AdjY")):
        if op.options.get(option):
            parts[side] = run.k.transpose(parts[side], swapped)
    return run.settle(run.k.matmul(*parts))


def _resize(run: Arithmetic, op: Operator, x: Value, size: Value) -> Value:
    data, back = run.images(x)
    sides = _integers(size, "sizes")
    if len(sides) != 2 or min(sides) < 1 or math.prod(sides) * data.shape[3] > MAX_ELEMENTS:
        raise ValueError(f"sizes {sides}")
    name = "linear" if op.kind == "RESIZE_BILINEAR" else "nearest"
    return back(
        run.k.resize(
            name,
            data,
            sides,
            align_corners=bool(op.options.get("AlignCorners")),
            half_pixel=bool(op.options.get("HalfPixelCenters")),
        )
    )


def _gather(run: Arithmetic, op: Operator, x: Value, index: Value) -> Value:
    if not isinstance(x, np.ndarray) or op.options.get("BatchDims"):
        raise ValueError("the operand is not constant")
    return np.take(x, _array(index, "indexes"), axis=op.options.get("Axis", 0))


def _shape(run: Arithmetic, op: Operator, x: Value) -> Value:
    return np.array(x.shape, np.int32)


def _same(run: Arithmetic, op: Operator, x: Value) -> Value:
    """The operand: computed values are float32, and quantised constants were read as float32."""
    return x


def _cast(run: Arithmetic, op: Operator, x: Value) -> Value:
    kind = run.graph.tensors[op.outputs[0]].dtype
    if isinstance(x, np.ndarray):
        return x.astype(kind)
    if kind not in ("float32", "float16"):
        raise ValueError(f"computed values are converted to {kind}")
    return x


def _difference(run: Arithmetic, op: Operator, x: Value, y: Value) -> Value:
    difference = run.binary("sub", x, y)
    return run.binary("mul", difference, difference)


def _binary(run: Arithmetic, op: Operator, x: Value, y: Value) -> Value:
    return run.binary(BINARY[op.kind], x, y)


OPERATORS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys((*UNARY, *_CLAMPED, "GELU", "LEAKY_RELU", "RSQRT", "SQUARE"), _unary),
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys(_REDUCED, _reduce),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), _convolution),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _pool),
    **dict.fromkeys(("SOFTMAX", "LOG_SOFTMAX"), _softmax),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _resize),
    **dict.fromkeys(("DEQUANTIZE", "QUANTIZE"), _same),
    **dict.fromkeys(("PAD", "PADV2"), _pad),
    "BATCH_MATMUL": _matmul,
    "CAST": _cast,
    "CONCATENATION": _concatenation,
    "EXPAND_DIMS": _expand,
    "FULLY_CONNECTED": _dense,
    "GATHER": _gather,
    "L2_NORMALIZATION": _l2,
    "PACK": _pack,
    "PRELU": _prelu,
    "RESHAPE": _reshape,
    "SHAPE": _shape,
    "SLICE": _slice,
    "SPLIT": _split,
    "SQUARED_DIFFERENCE": _difference,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transposed,
}
