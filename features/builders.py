"""What ig3d builds out of a pickle's notes: a fixed table from names to arrays and other plain values.

Used by :mod:`.rebuild`. A file can ask only for what stands in ``BUILDERS``, and each of them only arranges bytes that
lie in the file: sizes, strides and offsets are checked against them, and all that is built shares a budget.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

SPARSE = 2**24  # numbers of a sparse matrix that is given dense
_DTYPE = re.compile(r"[<>|=]?(?:[biufc]\d{1,2}|\?|[SU]\d{1,9}|O8?|b1)")


@dataclass(frozen=True, slots=True, eq=False)
class Foreign:
    """An object (or class) that a file names and nobody built.

    Parameters
    ----------
    name : str
        Its dotted name in the file, such as ``"omegaconf.dictconfig.DictConfig"``.
    args : tuple
        What it was to be made with; inert.
    state : object
        What was to be put into it (a dict as a rule), None where nothing was; inert.
    """

    name: str
    args: tuple[Any, ...]
    state: Any


class Budget:
    """Bytes that may still be built out of a file; a small file cannot ask for much."""

    def __init__(self, file_size: int) -> None:
        self.left = (256 << 20) + 8 * file_size

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise pickle.UnpicklingError("arrays much larger than the file")


class Building(Protocol):
    """What a builder may draw on: the budget, and how a torch file inside of the pickle is read."""

    @property
    def budget(self) -> Budget: ...

    @property
    def nested(self) -> Callable[[bytes], Any] | None: ...


# torch's names of element types, as numpy knows them. bfloat16 is widened to float32, which is exact.
_TORCH = {
    "float64": "f8", "double": "f8", "float32": "f4", "float": "f4", "float16": "f2", "half": "f2", "int64": "i8",
    "long": "i8", "int32": "i4", "int": "i4", "int16": "i2", "short": "i2", "int8": "i1", "char": "i1", "uint8": "u1",
    "byte": "u1",
    "uint16": "u2", "uint32": "u4", "uint64": "u8", "bool": "?", "complex64": "c8", "complexfloat": "c8",
    "complex128": "c16", "complexdouble": "c16", "bfloat16": "bf16", "untyped": "u1",
}  # fmt: skip


def torch_type(name: str) -> str | None:
    """The element type of ``torch.FloatStorage`` or ``torch.float32``; None for one that numpy does not have."""
    module, _, short = name.rpartition(".")
    return _TORCH.get(short.removesuffix("Storage").lower()) if module.partition(".")[0] == "torch" else None


def storage_array(raw: np.ndarray, kind: str, *, little: bool = True) -> np.ndarray:
    """A storage's bytes (n,) uint8 as a 1-D array of ``kind`` (of :func:`torch_type`); a view if it can be."""
    order = "<" if little else ">"
    if kind == "bf16":
        halves = raw.view(order + "u2").astype(np.uint32)
        return (halves << 16).view(np.float32)
    dtype = np.dtype(order + kind)
    return raw.view(dtype).astype(dtype.newbyteorder("="), copy=False)


def _bytes(raw: Any) -> bytes:
    """Python 2 knew no bytes: its 8-bit strings come as latin-1 text."""
    return raw.encode("latin1") if isinstance(raw, str) else bytes(memoryview(raw).cast("B"))


def _sizes(values: Any) -> tuple[int, ...]:
    """Dimensions or strides: a short tuple of non-negative integers."""
    sizes = tuple(values)
    if len(sizes) > 32 or not all(type(size) is int and 0 <= size < 2**62 for size in sizes):
        raise pickle.UnpicklingError("dimensions that are not small positive integers")
    return sizes


def _array(raw: Any, dtype: np.dtype[Any], shape: tuple[int, ...], budget: Budget, *, fortran: bool) -> Any:
    """``raw`` as an array of its own (writable), or nested lists where it holds objects."""
    if dtype.hasobject:
        if not isinstance(raw, list) or len(raw) != prod(shape):
            raise pickle.UnpicklingError(f"{prod(shape)} objects expected, others found")
        if shape == ():
            return raw[0]
        flat = np.empty(len(raw), object)
        for index, item in enumerate(raw):
            flat[index] = item
        return flat.reshape(shape, order="F" if fortran else "C").tolist()
    data = _bytes(raw)
    if dtype.itemsize * prod(shape) != len(data):
        raise pickle.UnpicklingError(
            f"an array of {prod(shape)} x {dtype.itemsize} bytes in {len(data)} bytes"
        )
    budget.take(len(data))
    own = np.frombuffer(bytearray(data), dtype) if data else np.empty(0, dtype)
    return own.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="), copy=False)


def _numpy_reconstruct(build: Building, args: tuple[Any, ...], state: Any) -> Any:
    if not isinstance(state, tuple) or len(state) < 4:
        raise pickle.UnpicklingError("an array without contents")
    shape, dtype, fortran, raw = state[-4:]
    if not isinstance(dtype, np.dtype):
        return NotImplemented
    return _array(raw, dtype, _sizes(shape), build.budget, fortran=bool(fortran))


def _numpy_frombuffer(build: Building, args: tuple[Any, ...], state: Any) -> Any:
    raw, dtype, shape, order, *rest = args
    if not isinstance(dtype, np.dtype):
        return NotImplemented
    array = _array(raw, dtype, _sizes(shape), build.budget, fortran=order == "F")
    # NumPy 2 writes an array whose axes are permuted as the contiguous one and the permutation
    axes = rest[0] if rest else None
    if axes is None:
        return array
    if sorted(axes) != list(range(array.ndim)):
        raise pickle.UnpicklingError("an array whose axes are no permutation")
    return array.transpose(axes)


def _numpy_scalar(build: Building, args: tuple[Any, ...], state: Any) -> Any:
    dtype, raw = args
    if not isinstance(dtype, np.dtype):
        return NotImplemented
    return raw if dtype.hasobject else _array(raw, dtype, (1,), build.budget, fortran=False)[0]


def _numpy_dtype(build: Building, args: tuple[Any, ...], state: Any) -> Any:
    text = args[0] if args else None
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        return NotImplemented
    dtype = np.dtype(text)
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    return dtype.newbyteorder(">") if order == ">" else dtype


def _encode(build: Building, args: tuple[Any, ...], state: Any) -> Any:
    text, codec = (*args, "utf-8")[:2]
    if not isinstance(text, str) or codec not in ("latin1", "utf-8", "ascii"):
        return NotImplemented
    build.budget.take(len(text))
    return text.encode(codec)


def _plain_bytes(build: Building, args: tuple[Any, ...], state: Any) -> Any:
    text, *codec = args or (b"",)
    if isinstance(text, str) and codec in (["latin1"], ["latin-1"], []):
        build.budget.take(len(text))
        return text.encode("latin1")
    return text if isinstance(text, bytes) else NotImplemented


def _complex(build: Building, args: tuple[Any, ...], state: Any) -> Any:
    return complex(*args) if all(isinstance(part, (int, float)) for part in args) else NotImplemented


def _strided(build: Building, storage: Any, offset: Any, size: Any, stride: Any) -> np.ndarray:
    """A tensor as a view of its storage, after checking that every element of it lies inside."""
    if not isinstance(storage, np.ndarray) or storage.ndim != 1:
        raise pickle.UnpicklingError("a tensor without a storage")
    shape, steps = _sizes(size), _sizes(stride)
    (start,) = _sizes([offset])
    if len(shape) != len(steps):
        raise pickle.UnpicklingError(f"a tensor of {len(shape)} dimensions with {len(steps)} strides")
    count = prod(shape)
    last = (
        start + sum((length - 1) * step for length, step in zip(shape, steps, strict=True))
        if count
        else start
    )
    if last >= storage.size + (not count):
        raise pickle.UnpicklingError(f"a tensor that ends at {last + 1} of a storage of {storage.size}")
    if count > storage.size:  # expanded: the same element in many places
        build.budget.take(count * storage.itemsize)
    bytes_ = tuple(step * storage.itemsize for step in steps)
    if not count:
        return np.empty(shape, storage.dtype)
    return np.lib.stride_tricks.as_strided(storage[start:], shape, bytes_)


def _tensor(build: Building, args: tuple[Any, ...], state: Any) -> Any:
    return NotImplemented if isinstance(args[0], Foreign) else _strided(build, *args[:4])


def _tensor_v3(build: Building, args: tuple[Any, ...], state: Any) -> Any:
    raw, dtype = args[0], args[6]
    kind = torch_type(dtype.name) if isinstance(dtype, Foreign) else None
    if not isinstance(raw, np.ndarray) or kind is None:
        return NotImplemented
    return _strided(build, storage_array(raw.view(np.uint8), kind), *args[1:4])


def _tensor_of_type(build: Building, args: tuple[Any, ...], state: Any) -> Any:
    """A tensor with attributes: the function that makes it, its class, the function's arguments, the attributes."""
    function, _, inner = args[:3]
    known = BUILDERS.get(function.name) if isinstance(function, Foreign) else None
    return known(build, inner, None) if known in (_tensor, _tensor_v3) else NotImplemented


def _first(build: Building, args: tuple[Any, ...], state: Any) -> Any:
    return args[0]


def _nested(build: Building, args: tuple[Any, ...], state: Any) -> Any:
    if build.nested is None:
        raise pickle.UnpicklingError("files inside of files inside of files")
    return build.nested(_bytes(args[0]))


def _chumpy(build: Building, args: tuple[Any, ...], state: Any) -> Any:
    """chumpy's array holds its values in ``x``."""
    inner = state.get("x") if isinstance(state, dict) else None
    return inner if isinstance(inner, (np.ndarray, np.generic, int, float)) else NotImplemented


def _chumpy_select(build: Building, args: tuple[Any, ...], state: Any) -> Any:
    """Elements ``idxs`` of the array ``a``."""
    if not isinstance(state, dict) or not isinstance(state.get("a"), np.ndarray) or "idxs" not in state:
        return NotImplemented
    index = np.asarray(state["idxs"])
    build.budget.take(index.size * state["a"].itemsize)
    chosen = state["a"].ravel()[index]
    return chosen.reshape(_sizes(np.asarray(state.get("preferred_shape", chosen.shape)).ravel().tolist()))


def sparse(kind: str, build: Building, args: tuple[Any, ...], state: Any) -> Any:
    """scipy's csc, csr and coo matrices, dense; other kinds and very large ones stay as they are."""
    if not isinstance(state, dict) or "data" not in state or not isinstance(state["data"], np.ndarray):
        return NotImplemented
    shape = _sizes(state.get("_shape", state.get("shape", ())))
    data = state["data"]
    if len(shape) != 2 or prod(shape) > SPARSE:
        return NotImplemented
    if kind in ("csc", "csr") and "indptr" in state:
        inner, starts = np.asarray(state["indices"]), np.asarray(state["indptr"])
        lengths: np.ndarray = np.diff(starts.astype(np.int64))
        if len(lengths) != shape[kind == "csc"] or (lengths < 0).any() or lengths.sum() != len(data):
            raise pickle.UnpicklingError("a sparse matrix whose parts do not fit each other")
        outer = np.repeat(np.arange(len(lengths)), lengths)
        at = (outer, inner) if kind == "csr" else (inner, outer)
    elif kind == "coo" and "row" in state:
        at = (np.asarray(state["row"]), np.asarray(state["col"]))
    elif kind == "coo" and "coords" in state:
        row, column = (np.asarray(axis) for axis in state["coords"])
        at = (row, column)
    else:
        return NotImplemented
    build.budget.take(prod(shape) * data.itemsize)
    dense = np.zeros(shape, data.dtype)
    np.add.at(dense, at, data)
    return dense


BUILDERS: dict[str, Callable[[Building, tuple[Any, ...], Any], Any]] = {
    "numpy.core.multiarray._reconstruct": _numpy_reconstruct,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy.core.numeric._frombuffer": _numpy_frombuffer,
    "numpy.dtype": _numpy_dtype,
    "_codecs.encode": _encode,
    "codecs.encode": _encode,
    "builtins.bytes": _plain_bytes,
    "builtins.bytearray": _plain_bytes,
    "builtins.complex": _complex,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": _tensor_of_type,
    "torch.storage._load_from_bytes": _nested,
    "torch.Size": _first,
    "chumpy.ch.Ch": _chumpy,
    "chumpy.reordering.Select": _chumpy_select,
}
