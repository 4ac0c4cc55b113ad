"""Constructors of arrays and plain values for names in a pickle; used by :mod:`.safe_pickle` only.

A constructor gets the arguments and the state of the object in the file (both already converted) and the budget. It
only rearranges bytes of the file, after checking sizes, strides and offsets. If it returns ``NotImplemented``, the
object becomes a :class:`Foreign`.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Literal

import numpy as np

MAX_DENSE = 2**24  # elements of a sparse matrix that is returned dense
_DTYPE = re.compile(r"[<>|=]?(?:[biufc]\d{1,2}|\?|[SU]\d{1,9}|O8?|b1)")


@dataclass(frozen=True, slots=True, eq=False)
class Foreign:
    """Description of an object or a class that a file names and that has no constructor.

    Parameters
    ----------
    name : str
        Dotted name in the file, such as ``"omegaconf.dictconfig.DictConfig"``.
    args : tuple
        Arguments of the call, then items and pairs that were added to the result.
    state : object
        Attributes, usually a dict, or None.
    """

    name: str
    args: tuple[Any, ...]
    state: Any


class Budget:
    """Number of bytes that may still be allocated for a file, which depends on the size of the file."""

    def __init__(self, file_size: int) -> None:
        self.left = (256 << 20) + 8 * file_size

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise pickle.UnpicklingError("arrays much larger than the file")


Constructor = Callable[[tuple[Any, ...], Any, Budget], Any]

# ---- torch: storages and tensors

# Element types of torch as NumPy names them; bfloat16 is widened to float32, which is exact.
_TORCH = {
    "float64": "f8", "double": "f8", "float32": "f4", "float": "f4", "float16": "f2", "half": "f2", "int64": "i8",
    "long": "i8", "int32": "i4", "int": "i4", "int16": "i2", "short": "i2", "int8": "i1", "char": "i1", "uint8": "u1",
    "byte": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8", "bool": "?", "complex64": "c8", "complexfloat": "c8",
    "complex128": "c16", "complexdouble": "c16", "bfloat16": "bf16", "untyped": "u1",
}  # fmt: skip


def torch_type(name: str) -> str | None:
    """Element type of ``torch.FloatStorage`` or ``torch.float32``; None for a type that NumPy does not have."""
    module, _, short = name.rpartition(".")
    return _TORCH.get(short.removesuffix("Storage").lower()) if module.partition(".")[0] == "torch" else None


def type_size(kind: str) -> int:
    """Bytes of one element of a :func:`torch_type`."""
    return 2 if kind == "bf16" else np.dtype(kind).itemsize


def storage_array(raw: np.ndarray, kind: str, *, little: bool = True) -> np.ndarray:
    """Bytes of a storage (n,) uint8 as a 1-D array of a :func:`torch_type`; a view where possible."""
    order = "<" if little else ">"
    if kind == "bf16":
        return (raw.view(order + "u2").astype(np.uint32) << 16).view(np.float32)
    dtype = np.dtype(order + kind)
    return raw.view(dtype).astype(dtype.newbyteorder("="), copy=False)


def _sizes(values: Any) -> tuple[int, ...]:
    """Dimensions or strides: a short tuple of non-negative integers."""
    sizes = tuple(values)
    if len(sizes) > 32 or not all(type(size) is int and 0 <= size < 2**62 for size in sizes):
        raise pickle.UnpicklingError("dimensions that are not small positive integers")
    return sizes


def _strided(budget: Budget, storage: Any, offset: Any, size: Any, stride: Any) -> np.ndarray:
    """A tensor as a view of its storage, after checking that all elements are inside."""
    # a file can use a tensor as the storage of another; with stride 0, it has more elements than bytes
    if not isinstance(storage, np.ndarray) or storage.ndim != 1 or not storage.flags.c_contiguous:
        raise pickle.UnpicklingError("a tensor without a storage")
    shape, steps = _sizes(size), _sizes(stride)
    (start,) = _sizes([offset])
    if len(shape) != len(steps):
        raise pickle.UnpicklingError(f"a tensor of {len(shape)} dimensions with {len(steps)} strides")
    count = prod(shape)
    if not count:
        return np.empty(shape, storage.dtype)
    last = start + sum((length - 1) * step for length, step in zip(shape, steps, strict=True))
    if last >= storage.size:
        raise pickle.UnpicklingError(f"a tensor that ends at {last + 1} of a storage of {storage.size}")
    if count > storage.size:  # expanded: an element has several positions
        budget.take(count * storage.itemsize)
    strides = tuple(step * storage.itemsize for step in steps)
    return np.lib.stride_tricks.as_strided(storage[start:], shape, strides)


def _tensor(args: tuple[Any, ...], state: Any, budget: Budget) -> Any:
    return NotImplemented if isinstance(args[0], Foreign) else _strided(budget, *args[:4])


def _tensor_v3(args: tuple[Any, ...], state: Any, budget: Budget) -> Any:
    raw, dtype = args[0], args[6]
    kind = torch_type(dtype.name) if isinstance(dtype, Foreign) else None
    if not isinstance(raw, np.ndarray) or kind is None:
        return NotImplemented
    return _strided(budget, storage_array(raw.view(np.uint8), kind), *args[1:4])


def _tensor_of_type(args: tuple[Any, ...], state: Any, budget: Budget) -> Any:
    """A tensor with attributes: its function, its class, the arguments of the function, the attributes."""
    function, _, inner = args[:3]
    constructor = CONSTRUCTORS.get(function.name) if isinstance(function, Foreign) else None
    return constructor(inner, None, budget) if constructor in (_tensor, _tensor_v3) else NotImplemented


def _first(args: tuple[Any, ...], state: Any, budget: Budget) -> Any:
    return args[0]


# ---- NumPy, SciPy and chumpy


def _array(raw: Any, dtype: np.dtype[Any], shape: tuple[int, ...], budget: Budget, *, fortran: bool) -> Any:
    """``raw`` as a new, writable array; an array of objects as nested lists."""
    order: Literal["F", "C"] = "F" if fortran else "C"
    if dtype.hasobject:
        if not isinstance(raw, list) or len(raw) != prod(shape):
            raise pickle.UnpicklingError(f"an array of {prod(shape)} objects that are not in the file")
        budget.take(8 * prod(max(size, 1) for size in shape))  # a length of 0 allows many empty lists
        if shape == ():
            return raw[0]
        flat = np.empty(len(raw), object)
        for index, item in enumerate(raw):
            flat[index] = item
        return flat.reshape(shape, order=order).tolist()
    data = as_bytes(raw)
    if dtype.itemsize * prod(shape) != len(data):
        raise pickle.UnpicklingError(
            f"an array of {prod(shape)} x {dtype.itemsize} bytes in {len(data)} bytes"
        )
    budget.take(len(data))
    array = np.frombuffer(bytearray(data), dtype) if data else np.empty(0, dtype)
    return array.reshape(shape, order=order).astype(dtype.newbyteorder("="), copy=False)


def as_bytes(raw: Any) -> bytes:
    """Bytes of an object of a file; 8-bit strings of Python 2 were decoded as Latin-1."""
    if isinstance(raw, bytes):
        return raw
    return raw.encode("latin1") if isinstance(raw, str) else bytes(memoryview(raw).cast("B"))


def _numpy_reconstruct(args: tuple[Any, ...], state: Any, budget: Budget) -> Any:
    if not isinstance(state, tuple) or len(state) < 4:
        raise pickle.UnpicklingError("an array without contents")
    shape, dtype, fortran, raw = state[-4:]
    if not isinstance(dtype, np.dtype):
        return NotImplemented
    return _array(raw, dtype, _sizes(shape), budget, fortran=bool(fortran))


def _numpy_frombuffer(args: tuple[Any, ...], state: Any, budget: Budget) -> Any:
    raw, dtype, shape, order, *rest = args
    if not isinstance(dtype, np.dtype):
        return NotImplemented
    array = _array(raw, dtype, _sizes(shape), budget, fortran=order == "F")
    # NumPy 2 writes an array whose axes are permuted as the contiguous one and the permutation
    axes = rest[0] if rest else None
    if axes is None:
        return array
    if sorted(axes) != list(range(array.ndim)):
        raise pickle.UnpicklingError("an array whose axes are not a permutation")
    return array.transpose(axes)


def _numpy_scalar(args: tuple[Any, ...], state: Any, budget: Budget) -> Any:
    dtype, raw = args
    if not isinstance(dtype, np.dtype):
        return NotImplemented
    return raw if dtype.hasobject else _array(raw, dtype, (1,), budget, fortran=False)[0]


def _numpy_dtype(args: tuple[Any, ...], state: Any, budget: Budget) -> Any:
    text = args[0] if args else None
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        return NotImplemented
    dtype = np.dtype(text)
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    return dtype.newbyteorder(">") if order == ">" else dtype


def _sparse(kind: str, args: tuple[Any, ...], state: Any, budget: Budget) -> Any:
    """Dense array of a csc, csr or coo matrix of SciPy, which does not check the positions itself."""
    if not isinstance(state, dict) or not isinstance(state.get("data"), np.ndarray):
        return NotImplemented
    data = state["data"]
    shape = _sizes(state.get("_shape", state.get("shape", ())))
    if len(shape) != 2 or prod(shape) > MAX_DENSE:
        return NotImplemented
    if kind != "coo" and "indptr" in state:
        inner, starts = np.asarray(state["indices"]), np.asarray(state["indptr"]).astype(np.int64)
        # differences near 2**63 would overflow, and np.repeat does not check their sum; so numbers are compared
        ascending = len(starts) > 0 and starts[0] == 0 and (starts[1:] >= starts[:-1]).all()
        if not ascending or starts[-1] != len(data) or len(starts) != shape[kind == "csc"] + 1:
            raise pickle.UnpicklingError("a sparse matrix of inconsistent sizes")
        outer = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        positions = (outer, inner) if kind == "csr" else (inner, outer)
    elif kind == "coo" and "row" in state:
        positions = (np.asarray(state["row"]), np.asarray(state["col"]))
    elif kind == "coo" and "coords" in state:
        row, column = (np.asarray(axis) for axis in state["coords"])
        positions = (row, column)
    else:
        return NotImplemented
    budget.take(prod(shape) * data.itemsize)
    dense = np.zeros(shape, data.dtype)
    np.add.at(dense, positions, data)
    return dense


def _chumpy(args: tuple[Any, ...], state: Any, budget: Budget) -> Any:
    """Array of chumpy, whose values are in ``x``."""
    inner = state.get("x") if isinstance(state, dict) else None
    return inner if isinstance(inner, (np.ndarray, np.generic, int, float)) else NotImplemented


def _chumpy_select(args: tuple[Any, ...], state: Any, budget: Budget) -> Any:
    """Elements ``idxs`` of the array ``a``."""
    if not isinstance(state, dict) or not isinstance(state.get("a"), np.ndarray) or "idxs" not in state:
        return NotImplemented
    index = np.asarray(state["idxs"])
    budget.take(index.size * state["a"].itemsize)
    chosen = state["a"].ravel()[index]
    return chosen.reshape(_sizes(np.asarray(state.get("preferred_shape", chosen.shape)).ravel().tolist()))


# ---- Python's own values, as older protocols write them


def _encode(args: tuple[Any, ...], state: Any, budget: Budget) -> Any:
    text, codec = (*args, "utf-8")[:2]
    if not isinstance(text, str) or codec not in ("latin1", "utf-8", "ascii"):
        return NotImplemented
    budget.take(len(text))
    return text.encode(codec)


def _bytes(args: tuple[Any, ...], state: Any, budget: Budget) -> Any:
    text, *codec = args or (b"",)
    if isinstance(text, str) and codec in (["latin1"], ["latin-1"], []):
        budget.take(len(text))
        return text.encode("latin1")
    return text if isinstance(text, bytes) else NotImplemented


def _complex(args: tuple[Any, ...], state: Any, budget: Budget) -> Any:
    return complex(*args) if all(isinstance(part, (int, float)) for part in args) else NotImplemented


# Name in a pickle -> constructor; safe_pickle.py converts names of Python 2 and NumPy 2 to those below.
CONSTRUCTORS: dict[str, Constructor] = {
    "_codecs.encode": _encode,
    "codecs.encode": _encode,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.complex": _complex,
    "numpy.core.multiarray._reconstruct": _numpy_reconstruct,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy.core.numeric._frombuffer": _numpy_frombuffer,
    "numpy.dtype": _numpy_dtype,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": _tensor_of_type,
    "torch.Size": _first,
    "chumpy.ch.Ch": _chumpy,
    "chumpy.reordering.Select": _chumpy_select,
}
for _kind in ("csc", "csr", "coo"):  # "scipy.sparse.csc.csc_matrix" before SciPy 1.8
    for _module in (_kind, f"_{_kind}"):
        for _class in ("matrix", "array"):
            CONSTRUCTORS[f"scipy.sparse.{_module}.{_kind}_{_class}"] = partial(_sparse, _kind)
