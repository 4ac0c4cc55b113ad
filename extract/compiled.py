"""OpenVINO models for the CPU, compiled once for each kind of processor and kept in the user's cache.

A worker then starts in a fraction of a second. Each file in the cache ends with its SHA-256, and one that does not
agree is made again: OpenVINO itself would compute with damaged numbers.
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

from ..features.atomic import replacing
from .user_folders import cache_folder

if TYPE_CHECKING:
    from torch import nn

# Full float32, and the same digits in every run. OpenVINO pins threads to cores by default, which would be the same
# core in every worker.
_SETTINGS = {
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "f32",
    "ENABLE_CPU_PINNING": False,
}
_DIGEST_BYTES = 32
_LENGTH_BYTES = 8
# Names the temporary folder to the run's workers, which are killed at its end and could not remove their own.
_TEMPORARY = "IG3D_COMPILED"

_ISA = "ONEDNN_MAX_CPU_ISA"

log = logging.getLogger("ig3d")
_temporary_folders: list[tempfile.TemporaryDirectory[str]] = []  # removed when this process ends


class Compiled:
    """A compiled model.

    Parameters
    ----------
    key : str
        Identifies the model and its weights.
    batch : int
    build : function
        Makes the model for batches of this size; called where it is not in the cache.
    threads : int
        One by default: a run has a worker per core.

    Raises
    ------
    RuntimeError : OpenVINO cannot compile it.
    """

    runtime = f"openvino {version('openvino')} cpu"

    def __init__(
        self, key: str, batch: int, build: Callable[[], openvino.Model], *, threads: int = 1
    ) -> None:
        name = f"{_hashed(key)}-{batch}-{threads}.blob"
        settings = {**_SETTINGS, "INFERENCE_NUM_THREADS": threads}
        core = openvino.Core()
        compiled = self._from_cache(core, name, settings)
        if compiled is None:
            with _locked(name):  # one of the workers that start together compiles, the others wait
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
        # kept, because a compiled model may still read from it
        self._content = _read(name)
        if self._content is None:
            return None
        with (
            suppress(RuntimeError),
            short_vectors(),
        ):  # of another kind of processor: OpenVINO accepts its own only
            content = openvino.Tensor(self._content, shared_memory=True)
            return core.import_model(content, "CPU", settings)
        return None

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        fed = [np.ascontiguousarray(array) for array in inputs]
        results = self._request.infer(fed, share_inputs=True, share_outputs=True)
        return [np.array(results[number]) for number in range(len(results))]


@contextmanager
def short_vectors() -> Iterator[None]:
    """AVX2 in place of AVX-512 for OpenVINO on AMD's Zen 4, unless ``ONEDNN_MAX_CPU_ISA`` is set.

    Its units are 256 bits wide, and OpenVINO's AVX-512 convolutions are slow for few channels: the face mesh takes 4.9
    ms with them and 3.2 with AVX2; SMIRK's backbone takes the same time. OpenVINO reads the variable at its first use
    in a process; it is removed afterwards, because torch would read it too.
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
        Identifies the module and its weights.
    build : function
        Makes the module; called where it was not converted before.
    examples : arrays (1, ...)
        Inputs of the module.
    batch : int
    """
    name = f"{_hashed(key)}.model"
    content = _read(name)
    if content is None:
        with _locked(name):
            content = _read(name)
            if content is None:
                made = _serialised(_convert(build(), examples))
                _write(name, made)
                content = np.frombuffer(made, np.uint8)
    # always of the same bytes: what was just converted would be compiled to other last digits
    middle = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES].tobytes(), "little")
    weights = openvino.Tensor(content[middle:].copy())
    model = openvino.Core().read_model(content[_LENGTH_BYTES:middle].tobytes(), weights)
    shapes = [[batch, *array.shape[1:]] for array in examples]
    model.reshape(dict(zip(model.inputs, shapes, strict=True)))
    return model


def _convert(module: nn.Module, examples: Sequence[np.ndarray]) -> openvino.Model:
    # openvino.convert_model does the same, and reports its use to its makers.
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch prefers its newer exporter
        decoder = TorchScriptPythonDecoder(
            module.eval(),
            example_input=tuple(torch.from_numpy(array) for array in examples),
            trace_kwargs={"check_trace": False},
        )
        front = FrontEndManager().load_by_framework("pytorch")
        return front.convert(front.load(decoder))


def _serialised(model: openvino.Model) -> bytes:
    """Length of the description, the description, the weights."""
    with tempfile.TemporaryDirectory(prefix="ig3d-") as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        description, weights = path.read_bytes(), path.with_suffix(".bin").read_bytes()
    return len(description).to_bytes(_LENGTH_BYTES, "little") + description + weights


def _hashed(key: str) -> str:
    return hashlib.sha256(f"{key}\n{version('openvino')}".encode()).hexdigest()[:24]


def _folder() -> Path:
    """Where compiled models are kept.

    Raises
    ------
    FileNotFoundError : the user has no home, and no other folder is named.
    """
    temporary = os.environ.get(_TEMPORARY)
    return Path(temporary) if temporary else cache_folder() / "compiled"


def _read(name: str) -> np.ndarray | None:
    """Content of a file in the cache, mapped, so that workers share it; None where it is absent or damaged."""
    try:
        # "c", as OpenVINO wants memory that it could write to
        mapped = np.memmap(_folder() / name, np.uint8, "c")
    except (OSError, ValueError):
        return None
    content, digest = mapped[:-_DIGEST_BYTES], mapped[-_DIGEST_BYTES:]
    # 0.2 s for the 300 MB of EMOCA
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
    """Keep a file in the cache, or in a temporary folder where the cache cannot be written to."""
    try:
        _write_to(_folder() / name, content)
    except OSError as exc:
        folder = _temporary_folder(exc)
        with suppress(OSError):  # each start then compiles again
            _write_to(folder / name, content)


def _write_to(path: Path, content: bytes | memoryview) -> None:
    # several workers may start at once: each writes a separate file, and the last to be done gives it its name
    with replacing(path) as temporary, temporary.open("wb") as handle:
        handle.write(content)
        handle.write(hashlib.sha256(content).digest())


def _temporary_folder(why: OSError) -> Path:
    """A folder for this process and the workers that it starts, with a warning."""
    made = tempfile.TemporaryDirectory(prefix="ig3d-", ignore_cleanup_errors=True)
    _temporary_folders.append(made)
    os.environ[_TEMPORARY] = made.name
    log.warning(
        "compiled networks cannot be kept (%s); each run compiles them again: set XDG_CACHE_HOME to a folder that can "
        "be written to",
        why,
    )
    return Path(made.name)
