"""Inference engine: runs a network on a device, NumPy in and out, in batches of one fixed size.

OpenVINO runs networks on the CPU, torch on a GPU. torch is imported only where it runs or converts something.
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

# Raised when .tflite graphs are built in another way, so that what was compiled before is not used.
_TFLITE_VERSION = 1


class Session(Protocol):
    """A network for batches of one size: arrays to arrays, or to tensors on a device."""

    @property
    def runtime(self) -> str: ...
    @property
    def shapes(self) -> Sequence[tuple[int, ...]] | None:
        """Of a row of each output; None where only a run shows them."""

    def __call__(self, inputs: Sequence[np.ndarray]) -> Sequence[Any]: ...


_SINGLE = ContextVar("single rows", default=False)


@contextmanager
def single_rows() -> Iterator[None]:
    """Inside, a network that gets one row computes one row, instead of a batch of a fixed size.

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
    start : function
        Makes a session for batches of a size.
    name : str
        For messages.
    batch : int
        Rows of each call of the session; halved where memory does not suffice.
    types : names of NumPy types
        Of the inputs, in turn.
    device : str
        ``cpu``, ``cuda``, ``cuda:1``.

    Raises
    ------
    RunError : memory does not suffice for the network.
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

        The session always gets ``batch`` rows, the last ones zero: libraries choose algorithms by the size of a batch,
        and the last digits of a row would depend on the others.

        Parameters
        ----------
        *inputs : (n, ...) arrays, or torch tensors on the device

        Returns
        -------
        (n, ...) arrays

        Raises
        ------
        RunError : memory does not suffice for one row.
        """
        return self.start(*inputs)()

    def start(self, *inputs: Any) -> Callable[[], tuple[np.ndarray, ...]]:
        """Start computing; the returned function waits for the outputs of :meth:`__call__`."""
        # types are repeated: a graph's inputs may all be of one
        arrays = [
            array if _is_tensor(array) else np.asarray(array, kind)
            for array, kind in zip(inputs, cycle(self._types), strict=False)
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
        """Outputs of one batch; None if memory does not suffice: then the batch was halved."""
        try:
            if self._session is None:
                self._session = self._start(self.batch)
            return self._session(rows)
        except (RuntimeError, MemoryError) as exc:
            if not is_out_of_memory(exc):
                raise
            if self.batch == 1:
                raise self._no_memory("one image", exc) from exc
            # not here: the exception's traceback still holds the tensors
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
    """Function that waits for all copies from a device that were started so far."""
    if not device.startswith("cuda"):
        return lambda: None
    import torch

    event = torch.cuda.current_stream(torch.device(device)).record_event()
    wait: Callable[[], None] = event.synchronize
    return wait


class Torch:
    """A torch module on a device.

    Parameters
    ----------
    module : nn.Module
        Arrays' tensors to a tensor or a tuple of tensors.
    device : str
    """

    shapes = None

    def __init__(self, module: nn.Module, device: str) -> None:
        import torch

        self._device = torch.device(device)
        self._module = module.eval().to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.runtime = f"torch {version('torch')} {self._device.type}"

    def __call__(self, inputs: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        """Tensors in host memory; from a GPU, they are still being copied."""
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
        Of the file.
    name : str
        For messages.
    batch : int
        Rows of each call of the runtime.
    device : str
        As :func:`resolve_device` takes it.
    backend : {"openvino", "torch"}, optional
        By default OpenVINO on the CPU and torch on a GPU.
    threads : int
        Of OpenVINO. One for the workers of a run, which are as many as cores.

    Raises
    ------
    ModelError : damaged, another kind of file, or with an unknown operator.
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
        Makes the module with its weights, on the CPU. Not called where it was converted before.
    key : str
        Identifies the module and its weights: what is equal in all starts and different for other numbers.
    name : str
        For messages.
    inputs : (shape of a row, name of the NumPy type) of each input
    batch : int
        Rows of each call of the runtime.
    device : str
        As :func:`resolve_device` takes it.
    backend : {"openvino", "torch"}, optional
        By default OpenVINO on the CPU and torch on a GPU. Where OpenVINO cannot convert the module, torch runs it with
        a warning.
    """
    device = resolve_device(device)

    def by_torch(_: int) -> Session:
        require("torch", wanted_by=name)
        return Torch(build(), device)

    def by_openvino(size: int) -> Session:
        from .compiled import Compiled, converted

        examples = [np.zeros((1, *shape), kind) for shape, kind in inputs]
        whole = f"module {list(inputs)} {key}"
        return Compiled(whole, size, lambda: converted(whole, build, examples, size))

    def either(size: int) -> Session:
        try:
            return by_openvino(size)
        except (ImportError, RuntimeError) as exc:
            if is_out_of_memory(exc):
                raise
            if backend:
                raise ModelError(f"{name}: OpenVINO cannot run the network ({reason(exc)})") from exc
            log.warning("%s: torch runs the network, because OpenVINO cannot (%s)", name, reason(exc))
            return by_torch(size)

    start = either if _choose_backend(backend, device) == "openvino" else by_torch
    return Network(start, name=name, batch=batch, types=[kind for _, kind in inputs], device=device)


def runtime_of(device: str, backend: str | None = None) -> str:
    """Library that runs networks on a device, with its version: ``openvino 2025.3.0 cpu``, ``torch 2.9.0 cuda``.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda:0``, ...
    backend : {"openvino", "torch"}, optional
        Default: OpenVINO on the CPU and torch on a GPU.

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
    """An array or a tensor with rows of zeros up to the batch."""
    missing = batch - len(rows)
    if not missing:
        return rows
    if _is_tensor(rows):
        return sys.modules["torch"].cat([rows, rows.new_zeros((missing, *rows.shape[1:]))])
    return np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1))


def _is_tensor(array: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)
