"""OpenVINO models for the CPU, compiled once for each kind of processor and kept in the user's cache.

With the cache, a worker starts in a fraction of a second. Each file in the cache ends with its SHA-256; a damaged file
is written again, because OpenVINO would use it without an error.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino

from ..errors import RunError
from ..features.atomic import replacing
from .user_folders import cache_folder

if TYPE_CHECKING:
    from torch import nn

# Full float32, and the same digits in every run. By default, OpenVINO binds threads to cores, which would be the same
# core in all workers.
_SETTINGS = {
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "f32",
    "ENABLE_CPU_PINNING": False,
}
_DIGEST_BYTES = 32
_LENGTH_BYTES = 8
# Environment variable with the temporary folder, for workers: they are killed at the end of a run, and could not
# remove their own temporary folders.
_TEMPORARY = "IG3D_COMPILED"

_ISA = "ONEDNN_MAX_CPU_ISA"

log = logging.getLogger("ig3d")
_temporary_folders: list[tempfile.TemporaryDirectory[str]] = []  # removed when this process ends


class Compiled:
    """Session of a model that OpenVINO has compiled for the CPU.

    Parameters
    ----------
    key : str
        Identifies the model and its weights in the cache.
    batch : int
        Rows of each call.
    build : function without arguments
        Creates the model for batches of this size; called if it is not in the cache.
    threads : int
        Compute threads; 1 in an extraction, which has one worker per core.

    Raises
    ------
    RuntimeError : OpenVINO cannot compile the model.
    """

    runtime = f"openvino {version('openvino')} cpu"

    def __init__(
        self, key: str, batch: int, build: Callable[[], openvino.Model], *, threads: int = 1
    ) -> None:
        name = f"{_hashed(key)}-{batch}-{threads}.blob"
        settings = {**_SETTINGS, "INFERENCE_NUM_THREADS": threads}
        core = _core()
        compiled = self._from_cache(core, name, settings)
        if compiled is None:
            with _locked(name):  # if several workers start together, one compiles and the others wait
                compiled = self._from_cache(core, name, settings)
                if compiled is None:
                    with short_vectors():
                        compiled = core.compile_model(build(), "CPU", settings)
                    _write(name, compiled.export_model().getbuffer())
        self.shapes = [tuple(int(side) for side in port.shape)[1:] for port in compiled.outputs]
        self._request = compiled.create_infer_request()

    def _from_cache(
        self, core: openvino.Core, name: str, settings: dict[str, Any]
    ) -> openvino.CompiledModel | None:
        # kept as an attribute, because the compiled model may still read from this memory
        self._content = _read(name)
        if self._content is None:
            return None
        # OpenVINO raises an error for a model that was compiled for another kind of processor
        with suppress(RuntimeError), short_vectors():
            content = openvino.Tensor(self._content, shared_memory=True)
            return core.import_model(content, "CPU", settings)
        return None

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        arrays = [np.ascontiguousarray(array) for array in inputs]
        results = self._request.infer(arrays, share_inputs=True, share_outputs=True)
        return [np.array(results[number]) for number in range(len(results))]


@cache
def _core() -> openvino.Core:
    """The OpenVINO runtime, created once in a process.

    Its CPU plugin sets the signal stack of the thread, and at its end restores the one before. If several are created
    and end in another order, the restored stack has been freed, and the next signal, such as that of a child process
    that ends, kills this process.
    """
    return openvino.Core()


@contextmanager
def short_vectors() -> Iterator[None]:
    """In this context, OpenVINO uses AVX2 and not AVX-512 on AMD Zen 4, unless ``ONEDNN_MAX_CPU_ISA`` is set.

    The vector units of Zen 4 have 256 bits, and OpenVINO's AVX-512 convolutions are slow for few channels: the mesh
    takes 4.9 ms with AVX-512 and 3.2 ms with AVX2; SMIRK's backbone takes the same time with both. OpenVINO reads the
    variable at its first use in a process. It is removed afterwards, because torch would read it too.
    """
    if _ISA in os.environ or not _is_zen4():
        yield
        return
    os.environ[_ISA] = "AVX2"
    try:
        yield
    finally:
        os.environ.pop(_ISA, None)


@cache
def _is_zen4() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").partition("\n\n")[0]
    except OSError:
        return False
    fields = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())
    }
    return (fields.get("vendor_id"), fields.get("cpu family")) == ("AuthenticAMD", "25") and "avx512f" in text


def converted(
    key: str, build: Callable[[], nn.Module], examples: Sequence[np.ndarray], batch: int
) -> openvino.Model:
    """A torch module as an OpenVINO model, converted once.

    Parameters
    ----------
    key : str
        Identifies the module and its weights in the cache.
    build : function without arguments
        Creates the module; called if the converted model is not in the cache.
    examples : sequence of (1, ...) arrays
        One row of each input of the module.
    batch : int
        Rows of each call.
    """
    name = f"{_hashed(key)}.model"
    content = _read(name)
    if content is None:
        with _locked(name):
            content = _read(name)
            if content is None:
                converted_now = _serialised(_convert(build(), examples))
                _write(name, converted_now)
                content = np.frombuffer(converted_now, np.uint8)
    # read from the serialised bytes also after a conversion: else the last digits would differ between the first run
    # and later ones
    middle = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES].tobytes(), "little")
    weights = openvino.Tensor(content[middle:].copy())
    model = _core().read_model(content[_LENGTH_BYTES:middle].tobytes(), weights)
    shapes = [[batch, *array.shape[1:]] for array in examples]
    model.reshape(dict(zip(model.inputs, shapes, strict=True)))
    return model


def _convert(module: nn.Module, examples: Sequence[np.ndarray]) -> openvino.Model:
    # the same as openvino.convert_model, which sends usage data
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch recommends its newer exporter
        decoder = TorchScriptPythonDecoder(
            module.eval(),
            example_input=tuple(torch.from_numpy(array) for array in examples),
            trace_kwargs={"check_trace": False},
        )
        front = FrontEndManager().load_by_framework("pytorch")
        return front.convert(front.load(decoder))


def _serialised(model: openvino.Model) -> bytes:
    """Bytes of a model: length of its XML description, the description, the weights."""
    with tempfile.TemporaryDirectory(prefix="ig3d-") as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        description, weights = path.read_bytes(), path.with_suffix(".bin").read_bytes()
    return len(description).to_bytes(_LENGTH_BYTES, "little") + description + weights


def _hashed(key: str) -> str:
    return hashlib.sha256(f"{key}\n{version('openvino')}".encode()).hexdigest()[:24]


def _folder() -> Path:
    """Folder of the cache.

    Raises
    ------
    FileNotFoundError : the user has no home folder, and ``$XDG_CACHE_HOME`` is not set.
    """
    temporary = os.environ.get(_TEMPORARY)
    return Path(temporary) if temporary else cache_folder() / "compiled"


def _read(name: str) -> np.ndarray | None:
    """Content of a file in the cache as mapped memory, which workers share; None if it is missing or damaged."""
    try:
        # mode "c" (copy on write), because OpenVINO requires writable memory
        mapped = np.memmap(_folder() / name, np.uint8, "c")
    except (OSError, ValueError):
        return None
    content, digest = mapped[:-_DIGEST_BYTES], mapped[-_DIGEST_BYTES:]
    # this takes 0.2 s for EMOCA's 300 MB
    return content if hashlib.sha256(content.data).digest() == digest.tobytes() else None


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Lock on a file of the cache for the processes of this machine; without effect if the cache cannot be written."""
    from filelock import FileLock

    try:
        _folder().mkdir(parents=True, exist_ok=True)
        lock = FileLock(_folder() / f".{name}.lock")
        lock.acquire()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _write(name: str, content: bytes | memoryview) -> None:
    """Write a file to the cache, or to a temporary folder if the cache cannot be written."""
    try:
        _write_to(_folder() / name, content)
    except (OSError, RunError) as exc:
        folder = _temporary_folder(exc)
        with suppress(OSError):  # without the file, each process compiles again
            _write_to(folder / name, content)


def _write_to(path: Path, content: bytes | memoryview) -> None:
    # if several workers write it, each writes a temporary file, which is then renamed
    with replacing(path) as temporary, temporary.open("wb") as handle:
        handle.write(content)
        handle.write(hashlib.sha256(content).digest())


def _temporary_folder(why: Exception) -> Path:
    """Temporary folder of this process and the workers that it starts; logs a warning."""
    folder = tempfile.TemporaryDirectory(prefix="ig3d-", ignore_cleanup_errors=True)
    _temporary_folders.append(folder)
    os.environ[_TEMPORARY] = folder.name
    log.warning(
        "compiled networks cannot be cached (%s), so that each run compiles them again; set XDG_CACHE_HOME to a "
        "writable folder",
        why,
    )
    return Path(folder.name)
