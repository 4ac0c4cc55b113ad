"""Reader of ``.tflite`` files: a checked graph of operators, with its constants as NumPy arrays.

Files are not trusted. Every offset, size and index is checked in Python, and no native reader opens the file.

References
----------
TensorFlow Lite's FlatBuffer schema, from the package ``tflite``.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError, require, shorten

IDENTIFIER = b"TFL3"
MAX_BYTES = 1 << 31
# Elements of all computed tensors for one image; the largest image networks need about 2e8.
MAX_ELEMENTS = 1 << 29
_MAX_DIMENSIONS = 6

_READ_ERRORS = (
    AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError, struct.error,
)  # fmt: skip

# Operator -> table of its options in the schema; other operators have no options.
OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DIV": "DivOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "GELU": "GeluOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "PACK": "PackOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SQUEEZE": "SqueezeOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
    "SUM": "ReducerOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a graph.

    Attributes
    ----------
    name : str
    shape : tuple of int
        As in the file, for a batch of one.
    dtype : str
        ``float32``, ``int8``, ...
    value : array or None
        The constant: float32 for floating-point and quantised values, else integers; None for a computed tensor.
    scale : float or None
    zero_point : int
        Quantisation of a computed tensor; ``scale`` is None if it is not quantised.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    value: np.ndarray | None = None
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator: name in the schema, indexes of its tensors (-1 for one that is left out), and options by name."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph; all indexes of tensors are valid.

    Attributes
    ----------
    name : str
        For messages.
    tensors : tuple of Tensor
    operators : tuple of Operator
        In the order of computation.
    inputs, outputs : indexes of tensors
    """

    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_file(path: Path) -> bytes:
    """Content of a ``.tflite`` file.

    Raises
    ------
    ModelError : the file cannot be read, or is larger than a FlatBuffer can be.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelError(
                f"{path}: has {size} bytes, but a .tflite file has at most {MAX_BYTES}; check the path"
            )
        return path.read_bytes()
    except OSError as exc:
        raise ModelError(f"{path}: cannot be read ({exc.strerror})") from exc


def read_graph(content: bytes, name: str) -> Graph:
    """Read a ``.tflite`` file.

    Parameters
    ----------
    content : bytes
    name : str
        Beginning of every message.

    Raises
    ------
    ModelError : the file is damaged, of another kind, or too large.
    MissingExtra : the package ``tflite`` is not installed.
    """
    if content[4:8] != IDENTIFIER:
        raise ModelError(
            f"{name}: not a .tflite file (bytes 4 to 8 are {content[4:8]!r}, not {IDENTIFIER!r}); download or export "
            "it again"
        )
    schema = require("tflite", wanted_by=name)
    try:
        return _Reader(content, name, schema).graph()
    except _READ_ERRORS as exc:
        reason = shorten(str(exc) or type(exc).__name__, 100)
        raise ModelError(
            f"{name}: damaged .tflite file ({len(content)} bytes; {reason}); download or export it again"
        ) from exc


class _Reader:
    """Reads the graph of one file; ``schema`` is the package ``tflite``."""

    def __init__(self, content: bytes, name: str, schema: Any) -> None:
        self._content, self._name, self._schema = content, name, schema
        self._dtypes = {
            number: kind.lower()
            for kind, number in vars(schema.TensorType).items()
            if isinstance(number, int) and re.fullmatch(r"BOOL|(FLOAT|U?INT|COMPLEX)(8|16|32|64|128)", kind)
        }
        self._kinds = {
            number: kind for kind, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)
        }

    def graph(self) -> Graph:
        model = self._schema.Model.GetRootAs(self._content, 0)
        if not self._count(model.SubgraphsLength()):
            raise ValueError("no graph")
        graph = model.Subgraphs(0)
        codes = [self._kind(model.OperatorCodes(i)) for i in range(self._count(model.OperatorCodesLength()))]
        tensors = tuple(
            self._tensor(model, graph.Tensors(i)) for i in range(self._count(graph.TensorsLength()))
        )
        # checked before any array of such a shape is created
        elements = sum(math.prod(tensor.shape) for tensor in tensors if tensor.value is None)
        if elements > MAX_ELEMENTS:
            raise ModelError(
                f"{self._name}: the graph computes {elements:.2g} values for one image; at most {MAX_ELEMENTS:.2g} "
                "are accepted"
            )
        operators = tuple(
            self._operator(graph.Operators(i), codes, len(tensors))
            for i in range(self._count(graph.OperatorsLength()))
        )
        inputs, outputs = (
            self._indexes(length, item, len(tensors))
            for length, item in ((graph.InputsLength, graph.Inputs), (graph.OutputsLength, graph.Outputs))
        )
        if not inputs or not outputs or min(inputs + outputs) < 0:
            raise ValueError(f"{len(inputs)} inputs, {len(outputs)} outputs")
        for index in inputs:
            stored, shape = graph.Tensors(index), tensors[index].shape
            signature = [stored.ShapeSignature(i) for i in range(self._count(stored.ShapeSignatureLength()))]
            if shape[:1] != (1,) or -1 in signature[1:]:
                raise ModelError(
                    f"{self._name}: an input of shape {tuple(signature) or shape}; export the network with fixed sizes "
                    "and a batch of one"
                )
        return Graph(self._name, tensors, operators, inputs, outputs)

    def _count(self, length: int) -> int:
        """The length of a vector; raises an error if it is more than fits into the file."""
        if not 0 <= length <= len(self._content) // 4:
            raise ValueError(f"a list of {length} entries")
        return length

    def _indexes(self, length: Callable[[], int], item: Callable[[int], int], count: int) -> tuple[int, ...]:
        """Indexes of tensors, from -1 to ``count`` - 1."""
        indexes = tuple(int(item(i)) for i in range(self._count(length())))
        if any(not -1 <= index < count for index in indexes):
            raise ValueError(f"tensor indexes {shorten(str(indexes), 40)} of {count}")
        return indexes

    def _kind(self, code: Any) -> str:
        # older files have the number in the first field only; large numbers are in the second
        number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
        kind = self._kinds.get(number, f"number {number}")
        if kind == "CUSTOM":
            custom = code.CustomCode()
            return f"CUSTOM {shorten(custom.decode('utf-8', 'replace'), 40)!r}" if custom else kind
        return kind

    def _tensor(self, model: Any, tensor: Any) -> Tensor:
        name = shorten((tensor.Name() or b"").decode("utf-8", "replace"), 80)
        dtype = self._dtypes.get(tensor.Type())
        if dtype is None or tensor.Sparsity() is not None:
            kind = "sparse" if dtype else f"of type {tensor.Type()}"
            raise ModelError(
                f"{self._name}: tensor {name!r} is {kind}; export the network with dense numbers"
            )
        shape = tuple(int(tensor.Shape(i)) for i in range(self._count(tensor.ShapeLength())))
        if len(shape) > _MAX_DIMENSIONS or min(shape, default=1) < 0:
            raise ValueError(f"tensor {name!r} of shape {shorten(str(shape), 40)}")
        if not 0 <= tensor.Buffer() < model.BuffersLength():
            raise ValueError(f"tensor {name!r} in buffer {tensor.Buffer()} of {model.BuffersLength()}")
        value = self._value(model.Buffers(tensor.Buffer()), dtype, shape, name)
        scales, zeros = self._quantisation(tensor)
        if value is not None:
            value = _real(
                value, scales, zeros, int(tensor.Quantization().QuantizedDimension()) if scales else 0
            )
            return Tensor(name, shape, dtype, value)
        if scales and len(scales) == 1:
            return Tensor(name, shape, dtype, None, scales[0], zeros[0])
        return Tensor(name, shape, dtype)

    def _value(self, buffer: Any, dtype: str, shape: tuple[int, ...], name: str) -> np.ndarray | None:
        if buffer.Offset() > 1 or buffer.Size() > 1:
            raise ModelError(
                f"{self._name}: has constants outside of the FlatBuffer; export a file below 2 GB"
            )
        size = buffer.DataLength()
        expected = math.prod(shape) * np.dtype(dtype).itemsize
        if not size and expected:
            return None
        if size != expected:
            raise ValueError(f"tensor {name!r} of shape {shape} in {size} bytes")
        stored = buffer.DataAsNumpy() if size else b""
        # a copy, because bytes of the file may not be aligned
        return np.frombuffer(bytes(stored), np.dtype(dtype).newbyteorder("<")).reshape(shape).astype(dtype)

    def _quantisation(self, tensor: Any) -> tuple[list[float], list[int]]:
        stored = tensor.Quantization()
        if stored is None or not stored.ScaleLength():
            return [], []
        count = self._count(stored.ScaleLength())
        scales = [float(stored.Scale(i)) for i in range(count)]
        zeros = [int(stored.ZeroPoint(i)) for i in range(self._count(stored.ZeroPointLength()))]
        zeros = zeros or [0]
        if not all(math.isfinite(scale) for scale in scales) or len(zeros) not in (1, count):
            raise ValueError(f"{count} scales, {len(zeros)} zero points")
        return scales, zeros * (count if len(zeros) == 1 else 1)

    def _operator(self, operator: Any, codes: list[str], tensors: int) -> Operator:
        kind = codes[operator.OpcodeIndex()]
        options: dict[str, Any] = {}
        stored = operator.BuiltinOptions()
        if stored is not None and kind in OPTIONS:
            table = getattr(self._schema, OPTIONS[kind])()
            table.Init(stored.Bytes, stored.Pos)
            options = {
                part: value
                for part in dir(type(table))
                if part[0].isupper()
                and not part.startswith(("Init", "GetRootAs"))
                and not part.endswith(("AsNumpy", "Length", "IsNone", "HasIdentifier"))
                and isinstance(value := _option(table, part), int | float | bool | tuple)
            }
        return Operator(
            kind,
            self._indexes(operator.InputsLength, operator.Inputs, tensors),
            self._indexes(operator.OutputsLength, operator.Outputs, tensors),
            options,
        )


def _option(table: Any, part: str) -> Any:
    """Value of a field of an options table; a vector is a tuple of at most six numbers."""
    if hasattr(table, f"{part}Length"):
        count = getattr(table, f"{part}Length")()
        if not 0 <= count <= _MAX_DIMENSIONS:
            raise ValueError(f"{part} of {count} entries")
        return tuple(int(getattr(table, part)(i)) for i in range(count))
    return getattr(table, part)()


def _real(value: np.ndarray, scales: list[float], zeros: list[int], axis: int) -> np.ndarray:
    """Floating-point and quantised constants as float32; other integers are not converted."""
    if value.dtype.kind == "f":
        return value.astype(np.float32)
    if not scales:
        return value
    if len(scales) > 1 and (not 0 <= axis < value.ndim or value.shape[axis] != len(scales)):
        raise ValueError(f"{len(scales)} scales along axis {axis} of {value.shape}")
    shape = [1] * value.ndim
    if len(scales) > 1:
        shape[axis] = len(scales)
    scale, zero = (np.array(numbers).reshape(shape) for numbers in (scales, zeros))
    return np.asarray((value.astype(np.float64) - zero) * scale, np.float32)
