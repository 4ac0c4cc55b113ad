"""Tensors of ``.tflite`` graphs with one row for each image of a batch.

The shapes in a file, and its constants that are shapes or bounds of slices, are for a batch of one. In this module each
tensor that depends on the input has one row for each image: if its shape in the file begins with 1, the batch replaces
this 1; otherwise, the batch is put in front. Graphs with constant shapes therefore accept batches too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .tflite import Graph

_QUANTISED = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
_NUMPY: dict[str, Callable[..., Any]] = {
    "add": np.add, "div": np.divide, "maximum": np.maximum, "minimum": np.minimum, "mul": np.multiply, "pow": np.power,
    "sub": np.subtract,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Window:
    """Window that moves over an image; all fields are (vertical, horizontal).

    Attributes
    ----------
    size, stride : height and width; steps
    low, high : padding before and after the image
    dilation : steps between the pixels of a window
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    dilation: tuple[int, ...] = (1, 1)


class Kernels(Protocol):
    """Operations of a runtime on its values, which have a ``shape`` and contain float32 numbers.

    Images are (n, height, width, channels). Other operands are arrays, numbers and tuples.
    """

    def constant(self, array: np.ndarray) -> Any: ...
    def unary(self, name: str, x: Any) -> Any: ...
    def binary(self, name: str, x: Any, y: Any) -> Any: ...
    def clamp(self, x: Any, low: float, high: float) -> Any: ...
    def gelu(self, x: Any, approximate: bool) -> Any: ...
    def prelu(self, x: Any, slope: np.ndarray) -> Any: ...
    def conv(self, x: Any, weight: np.ndarray, window: Window, groups: int) -> Any:
        """``weight`` is (outputs, inputs of a group, height, width)."""

    def conv_transposed(self, x: Any, weight: np.ndarray, window: Window) -> Any:
        """``weight`` is (inputs, outputs, height, width); the padding is cut off."""

    def pool(self, name: str, x: Any, window: Window) -> Any: ...
    def pad(self, x: Any, low: Sequence[int], high: Sequence[int], value: float) -> Any: ...
    def reshape(self, x: Any, shape: Sequence[int]) -> Any: ...
    def transpose(self, x: Any, order: Sequence[int]) -> Any: ...
    def concat(self, parts: Sequence[Any], axis: int) -> Any: ...
    def slice(self, x: Any, axis: int, index: range) -> Any: ...
    def reduce(self, name: str, x: Any, axes: Sequence[int], keep: bool) -> Any: ...
    def softmax(self, x: Any) -> Any: ...
    def matmul(self, x: Any, y: Any) -> Any: ...
    def resize(
        self, name: str, x: Any, size: Sequence[int], *, align_corners: bool, half_pixel: bool
    ) -> Any: ...


@dataclass(frozen=True, slots=True)
class Rows:
    """A tensor with a row for each image.

    Attributes
    ----------
    data : value of the runtime, (batch, ...)
    lead : bool
        The shape in the file begins with a 1, which the batch replaces.
    """

    data: Any
    lead: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """As in the file."""
        return ((1,) if self.lead else ()) + tuple(self.data.shape)[1:]


Value = Rows | np.ndarray


class Arithmetic:
    """Operations on rows and constants, for one graph; ``k`` are the kernels of the runtime."""

    def __init__(self, graph: Graph, kernels: Kernels) -> None:
        self.graph, self.k = graph, kernels

    def quantised(self, index: int, value: Value) -> Value:
        """Rounds computed values to those of the quantised type, if the tensor ``index`` has one."""
        tensor = self.graph.tensors[index]
        if not tensor.scale or tensor.dtype not in _QUANTISED or not isinstance(value, Rows):
            return value
        low, high = (float(limit - tensor.zero_point) for limit in _QUANTISED[tensor.dtype])
        scale = np.array(tensor.scale, np.float32)
        steps = self.k.clamp(self.k.unary("round", self.k.binary("div", value.data, scale)), low, high)
        return Rows(self.k.binary("mul", steps, scale), value.lead)

    def rows(self, value: Value, batch: int) -> Rows:
        """The operand as rows; a constant is repeated for each image."""
        if isinstance(value, Rows):
            return value
        array = np.asarray(value, np.float32)
        lead = array.shape[:1] == (1,)
        return Rows(self.k.constant(np.repeat(array if lead else array[None], batch, axis=0)), lead)

    def with_rank(self, value: Rows, rank: int) -> Any:
        """(batch, *shape in the file), with 1 in front of a shape of lower rank."""
        shape = value.shape
        wanted = (value.data.shape[0], *[1] * (rank - len(shape)), *shape)
        return value.data if tuple(value.data.shape) == wanted else self.k.reshape(value.data, wanted)

    def settle(self, data: Any) -> Rows:
        """Rows of data with the shape (batch, *shape in the file)."""
        shape = tuple(data.shape)
        if shape[1:2] != (1,):
            return Rows(data, lead=False)
        return Rows(self.k.reshape(data, (shape[0], *shape[2:])), lead=True)

    def along(self, value: Rows, axes: Sequence[int]) -> tuple[Any, list[int], Callable[[Any], Rows]]:
        """The data, its axes for ``axes`` of the shape in the file, and a function that makes rows of a result."""
        rank = len(value.shape)
        if any(not -rank <= axis < rank for axis in axes):
            raise IndexError(f"axes {list(axes)} of {value.shape}")
        axes = [axis % rank for axis in axes]
        if value.lead and 0 not in axes:
            return value.data, axes, lambda data: Rows(data, lead=True)
        return self.with_rank(value, rank), [axis + 1 for axis in axes], self.settle

    def images(self, value: Value) -> tuple[Any, Callable[[Any], Rows]]:
        """The operand as (n, height, width, channels), and a function that makes rows of a result."""
        if not isinstance(value, Rows) or len(value.shape) != 4:
            raise ValueError(f"images of shape {getattr(value, 'shape', None)}")
        if value.lead:
            return value.data, lambda data: Rows(data, lead=True)
        batch, *shape = value.data.shape

        def back(data: Any) -> Rows:
            return self.settle(self.k.reshape(data, (batch, shape[0], *data.shape[1:])))

        return self.k.reshape(value.data, (batch * shape[0], *shape[1:])), back

    def binary(self, name: str, x: Value, y: Value) -> Value:
        """Result of a binary operation, with broadcasting by the shapes in the file."""
        np.broadcast_shapes(x.shape, y.shape)
        if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
            return np.asarray(_NUMPY[name](x, y))
        rank = max(len(x.shape), len(y.shape))
        leads = [value.lead for value in (x, y) if isinstance(value, Rows)]
        alike = len(set(leads)) == 1 and all(
            len(value.shape) == rank
            if isinstance(value, Rows)
            else not leads[0] or len(value.shape) < rank or value.shape[0] == 1
            for value in (x, y)
        )
        if alike:
            return Rows(self.k.binary(name, *(beside(value, rank, leads[0]) for value in (x, y))), leads[0])
        whole = [
            self.with_rank(value, rank) if isinstance(value, Rows) else np.asarray(value, np.float32)
            for value in (x, y)
        ]
        return self.settle(self.k.binary(name, *whole))


def beside(value: Value, rank: int, lead: bool) -> Any:
    """Data of an operand that broadcasts with rows of this rank."""
    if isinstance(value, Rows):
        return value.data
    array = np.asarray(value, np.float32)
    return array[0] if lead and array.ndim == rank and rank else array
