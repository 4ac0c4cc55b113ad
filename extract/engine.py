"""Inference engine: runs a network on a device in batches of one fixed size; inputs and outputs are NumPy arrays.

OpenVINO runs networks on the CPU, torch on a GPU. torch is imported only to run or to convert a network.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from importlib.util import find_spec
from itertools import cycle
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import ModelError, RunError, UsageError, absent, require
from ..features.device import device_kind, resolve_device
from .runtime import exact_arithmetic, is_out_of_memory, reason

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger("ig3d")

# When OpenVINO is imported, its telemetry sends an event over the network without asking, from a fork of this process
# that may never end, for instance if a video was decoded before. Without the package, OpenVINO sends nothing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# Increase it if .tflite graphs are built in another way, so that models in the cache are not used.
_TFLITE_VERSION = 1


class Session(Protocol):
    """A network for batches of one size."""

    @property
    def runtime(self) -> str:
        """Library, its version and the kind of device."""

    @property
    def shapes(self) -> Sequence[tuple[int, ...]] | None:
        """Shape of one row of each output; None if it is only known after a call."""

    def __call__(self, inputs: Sequence[np.ndarray]) -> Sequence[Any]:
        """Outputs (batch, ...) of inputs (batch, ...): arrays, or torch tensors in host memory."""


_SINGLE = ContextVar("single rows", default=False)


@contextmanager
def unpadded_single_rows() -> Iterator[None]:
    """In this context, a network computes a single row as it is, instead of a batch that is filled with zeros.

    This is faster for single images. Codes may differ by 1e-5, so an extraction does not use it.
    """
    token = _SINGLE.set(True)
    try:
        yield
    finally:
        _SINGLE.reset(token)


class Network:
    """A network that is ready to run.

    Parameters
    ----------
    start : function of an int
        Creates a session for batches of this size.
    name : str
        Name in messages.
    batch : int
        Rows of each call of the session; halved if the memory does not suffice.
    types : sequence of str
        Name of the NumPy type of each input; repeated if there are more inputs.
    device : str
        ``cpu``, ``cuda``, ``cuda:1``.

    Raises
    ------
    RunError : the memory does not suffice for the network.
    """

    def __init__(
        self, start: Callable[[int], Session], *, name: str, batch: int, types: Sequence[str], device: str
    ) -> None:
        self._start, self._types = start, types
        self.name, self.batch, self.device, self.reduced = name, batch, device, False
        try:
            self._session: Session | None = start(batch)
            self._single: Session | None = None
        except (RuntimeError, MemoryError) as exc:
            if not is_out_of_memory(exc):
                raise
            raise self._no_memory("the network", exc) from exc
        self.runtime = self._session.runtime

    def __call__(self, *inputs: Any) -> tuple[np.ndarray, ...]:
        """Outputs for n rows, n >= 0, in the order of the network.

        The session always gets ``batch`` rows; missing rows are zero. Libraries choose algorithms by the size of a
        batch, so that with other sizes the last digits of a row would depend on the number of rows.

        Parameters
        ----------
        *inputs : (n, ...) arrays, or torch tensors on the device

        Returns
        -------
        (n, ...) arrays

        Raises
        ------
        RunError : the memory does not suffice for one row.
        """
        return self.start(*inputs)()

    def start(self, *inputs: Any) -> Callable[[], tuple[np.ndarray, ...]]:
        """Start computing; the returned function waits for the outputs of :meth:`__call__`."""
        arrays = [
            array if _is_tensor(array) else np.asarray(array, dtype)
            for array, dtype in zip(inputs, cycle(self._types), strict=False)
        ]
        n, start = len(arrays[0]), 0
        if not n and self._session and self._session.shapes is not None:
            empty = tuple(np.zeros((0, *shape), np.float32) for shape in self._session.shapes)
            return lambda: empty
        parts: list[Sequence[Any]] = []
        if n == 1 and self.batch > 1 and _SINGLE.get():
            self._single = self._single or self._start(1)
            parts.append(self._single(arrays))
            start = n
        while start < n or not parts:
            rows = [_padded(array[start : start + self.batch], self.batch) for array in arrays]
            outputs = self._run(rows)
            if outputs is not None:
                parts.append(outputs)
                start += self.batch
        wait = _record(self.device)

        def finish() -> tuple[np.ndarray, ...]:
            wait()
            return tuple(
                np.concatenate([np.asarray(output) for output in outputs])[:n]
                for outputs in zip(*parts, strict=True)
            )

        return finish

    def _run(self, rows: Sequence[Any]) -> Sequence[Any] | None:
        """Outputs of one batch; None if the memory did not suffice and the batch was halved."""
        try:
            if self._session is None:
                self._session = self._start(self.batch)
            return self._session(rows)
        except (RuntimeError, MemoryError) as exc:
            if not is_out_of_memory(exc):
                raise
            if self.batch == 1:
                raise self._no_memory("one image", exc) from exc
            # the batch is halved below: here, the traceback of the exception still holds the tensors
        self._halve()
        return None

    def _halve(self) -> None:
        self._session = None
        self.batch //= 2
        self.reduced = True
        if self.device.startswith("cuda"):
            sys.modules["torch"].cuda.empty_cache()
        log.warning(
            "%s: out of memory on %s with %d images at once; continuing with %d",
            self.name,
            self.device,
            2 * self.batch,
            self.batch,
        )

    def _no_memory(self, what: str, exc: BaseException) -> RunError:
        reason = (str(exc) or type(exc).__name__).splitlines()[0]
        return RunError(
            f"{self.name}: not enough memory on {self.device} for {what} ({reason}); use --device cpu, or fewer --jobs"
        )


def _record(device: str) -> Callable[[], None]:
    """Function that waits for all copies from the device that have been started."""
    if not device.startswith("cuda"):
        return lambda: None
    import torch

    event = torch.cuda.current_stream(torch.device(device)).record_event()
    wait: Callable[[], None] = event.synchronize
    return wait


class Torch:
    """Session of a torch module on a device.

    Parameters
    ----------
    module : nn.Module
        Takes a tensor for each input, and returns a tensor or a tuple of tensors.
    device : str
    """

    shapes = None

    def __init__(self, module: nn.Module, device: str) -> None:
        import torch

        self._device = torch.device(device)
        self._module = module.eval().to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.runtime = f"torch {version('torch')} {self._device.type}"

    def __call__(self, inputs: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        """Tensors in host memory; from a GPU, the copies may not have finished (see :func:`_record`)."""
        import torch

        with exact_arithmetic(), torch.inference_mode():
            tensors = [torch.as_tensor(array).to(self._device, non_blocking=True) for array in inputs]
            outputs = self._module(*tensors)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            return tuple(output.to("cpu", non_blocking=True) for output in outputs)


def load_tflite(
    content: bytes,
    *,
    name: str,
    batch: int,
    device: str = "cpu",
    backend: str | None = None,
    threads: int = 1,
) -> Network:
    """Load a ``.tflite`` graph; its inputs are float32, images (n, height, width, channels).

    Parameters
    ----------
    content : bytes
        Content of the file.
    name : str
        Name in messages.
    batch : int
        Rows of each call of the runtime.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
    backend : {"openvino", "torch"}, optional
        By default OpenVINO on the CPU and torch on a GPU.
    threads : int
        Threads of OpenVINO; 1 in an extraction, which has one worker per core.

    Raises
    ------
    ModelError : the file is damaged or of another kind, or has an unknown operator.
    MissingExtra : the runtime is not installed.
    """
    device = resolve_device(device)

    def by_openvino(size: int) -> Session:
        require("openvino", wanted_by=name)
        from .compiled import Compiled

        def build() -> Any:
            from .tflite import read_graph
            from .tflite_openvino import build_model

            return build_model(read_graph(content, name), size)

        key = f"tflite {_TFLITE_VERSION} {hashlib.sha256(content).hexdigest()}"
        try:
            return Compiled(key, size, build, threads=threads)
        except RuntimeError as exc:
            raise ModelError(f"{name}: OpenVINO cannot compile the graph ({reason(exc)})") from exc

    def by_torch(size: int) -> Session:
        require("torch", wanted_by=name)
        from .tflite import read_graph
        from .tflite_torch import build_module

        return Torch(build_module(read_graph(content, name), size), device)

    start = by_openvino if _choose_backend(backend, device) == "openvino" else by_torch
    return Network(start, name=name, batch=batch, types=["float32"], device=device)


def load_module(
    build: Callable[[], nn.Module],
    *,
    key: str,
    name: str,
    inputs: Sequence[tuple[tuple[int, ...], str]],
    batch: int,
    device: str = "cpu",
    backend: str | None = None,
) -> Network:
    """Load a torch module; on the CPU it is converted once and torch is not needed afterwards.

    Parameters
    ----------
    build : function
        Creates the module with its weights, on the CPU. Not called if the converted module is in the cache.
    key : str
        Identifies the module and its weights in the cache: modules that compute other numbers need another key.
    name : str
        Name in messages.
    inputs : sequence of (tuple of int, str)
        Shape of one row and name of the NumPy type of each input.
    batch : int
        Rows of each call of the runtime.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
    backend : {"openvino", "torch"}, optional
        By default OpenVINO on the CPU and torch on a GPU. If OpenVINO cannot convert the module, and is not required
        here, torch runs it, with a warning.
    """
    device = resolve_device(device)

    def by_torch(_: int) -> Session:
        require("torch", wanted_by=name)
        return Torch(build(), device)

    def by_openvino(size: int) -> Session:
        from .compiled import Compiled, converted

        examples = [np.zeros((1, *shape), dtype) for shape, dtype in inputs]
        cache_key = f"module {list(inputs)} {key}"
        return Compiled(cache_key, size, lambda: converted(cache_key, build, examples, size))

    def by_openvino_or_torch(size: int) -> Session:
        try:
            return by_openvino(size)
        except (ImportError, RuntimeError) as exc:
            if is_out_of_memory(exc):
                raise
            if backend:
                raise ModelError(f"{name}: OpenVINO cannot run the network ({reason(exc)})") from exc
            log.warning("%s: torch runs the network, because OpenVINO cannot (%s)", name, reason(exc))
            return by_torch(size)

    start = by_openvino_or_torch if _choose_backend(backend, device) == "openvino" else by_torch
    return Network(start, name=name, batch=batch, types=[dtype for _, dtype in inputs], device=device)


def runtime_of(device: str, backend: str | None = None) -> str:
    """Library that runs networks on a device, with its version: ``openvino 2025.3.0 cpu``, ``torch 2.9.0 cuda``.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda:0``, ...
    backend : {"openvino", "torch"}, optional
        By default OpenVINO on the CPU and torch on a GPU.

    Raises
    ------
    MissingExtra : the library is not installed.
    """
    library = _choose_backend(backend, device)
    if find_spec(library) is None:
        raise absent(ModuleNotFoundError(name=library), wanted_by=f"device {device}")
    return f"{library} {version(library)} {device_kind(device)}"


def _choose_backend(backend: str | None, device: str) -> str:
    chosen = backend or ("openvino" if device == "cpu" else "torch")
    if chosen not in ("openvino", "torch") or (chosen == "openvino" and device != "cpu"):
        raise UsageError(f"backend {backend!r} on {device}: use openvino on the CPU, or torch")
    return chosen


def _padded(rows: Any, batch: int) -> Any:
    """Rows (n, ...) with rows of zeros appended, so that they are ``batch`` rows; an array or a tensor."""
    missing = batch - len(rows)
    if not missing:
        return rows
    if _is_tensor(rows):
        return sys.modules["torch"].cat([rows, rows.new_zeros((missing, *rows.shape[1:]))])
    return np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1))


def _is_tensor(array: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)
