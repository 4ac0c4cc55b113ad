"""Inference engine: runs a network on a device, NumPy in and out, in batches of one fixed size."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError

# One thread: a run has a worker per core. Full float32, and the same digits in every run. OpenVINO pins threads to
# cores by default, which would be the same core in every worker.
_SETTINGS = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "f32",
    "ENABLE_CPU_PINNING": False,
}

Run = Callable[[Sequence[np.ndarray]], Sequence[Any]]


class Network:
    """A network that is ready to run.

    Attributes
    ----------
    name : str
    batch : int
        Rows of every call of the runtime.
    runtime : str
        Such as ``openvino 2026.4.1 cpu`` or ``torch 2.15.0 cuda``.
    """

    def __init__(self, run: Run, *, name: str, batch: int, runtime: str) -> None:
        self._run, self.name, self.batch, self.runtime = run, name, batch, runtime

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Outputs for n rows, n >= 0, in the order of the graph.

        The runtime always sees ``batch`` rows, the last ones zero: libraries choose algorithms by the size of a batch,
        and the last digits of a row would depend on the others.

        Parameters
        ----------
        *inputs : (n, ...) arrays

        Returns
        -------
        (n, ...) arrays
        """
        n = len(inputs[0])
        parts = [
            self._run([_padded(array[start : start + self.batch], self.batch) for array in inputs])
            for start in range(0, max(n, 1), self.batch)
        ]
        return tuple(np.concatenate(outputs)[:n] for outputs in zip(*parts, strict=True))


def _padded(rows: np.ndarray, batch: int) -> np.ndarray:
    missing = batch - len(rows)
    return np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1)) if missing else rows


def load_tflite(
    content: bytes, *, name: str, batch: int, device: str = "cpu", backend: str | None = None
) -> Network:
    """Load a ``.tflite`` graph.

    Parameters
    ----------
    content : bytes
        Of the file.
    name : str
        For messages.
    batch : int
        Rows of every call of the runtime.
    device : {"cpu", "cuda", "cuda:1", ...}
    backend : {"openvino", "torch"}, optional
        By default OpenVINO on the CPU and torch on a GPU.

    Raises
    ------
    ModelError : the graph is damaged or has an unknown operator.
    """
    import openvino

    core = openvino.Core()
    with tempfile.TemporaryDirectory(prefix="ig3d-") as folder:
        path = Path(folder) / "network.tflite"
        path.write_bytes(content)
        try:
            model = core.read_model(path)
        except RuntimeError as exc:
            raise ModelError(f"{name}: not a .tflite graph") from exc
        shapes = [[size.get_length() for size in list(port.partial_shape)[1:]] for port in model.inputs]
        rows = batch
        try:
            model.reshape({port: [batch, *shape] for port, shape in zip(model.inputs, shapes, strict=True)})
        except RuntimeError:
            rows = 1
        if rows == 1 or any(port.partial_shape[0] != batch for port in model.outputs):
            # a constant shape inside of the graph keeps it from taking a batch
            model, rows = core.read_model(path), 1
        request = core.compile_model(model, "CPU", _SETTINGS).create_infer_request()

    def call(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        parts = []
        for start in range(0, batch, rows):
            part = [np.ascontiguousarray(array[start : start + rows], np.float32) for array in inputs]
            results = request.infer(part)
            parts.append([np.array(results[k]).reshape(rows, *_row(k)) for k in range(len(model.outputs))])
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def _row(k: int) -> tuple[int, ...]:
        shape = tuple(int(size) for size in request.get_output_tensor(k).shape)
        return shape[1:] if len(shape) > 1 else shape

    return Network(call, name=name, batch=batch, runtime=f"openvino {version('openvino')} cpu")
