"""The processor's way to run encoders: OpenVINO, two to three times as fast as eager torch (benchmarks/README.md).

A network is converted once per weights file and compiled once per kind of processor; both are kept in the user's cache,
so that a worker starts in a fraction of a second. Each file is kept with its SHA-256, and one that no longer agrees is
made anew: OpenVINO itself would calculate with whatever numbers it finds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino

from ...features.atomic import replacing
from ..places import cache_folder

if TYPE_CHECKING:
    from .backbones import MobileEncoder, ResNetEncoder

# One thread: a run has a worker for each core. Full float32, and the same digits in every run. Bound to a core, as is
# OpenVINO's default, that would be the same core in every worker.
_SETTINGS = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "f32",
    "ENABLE_CPU_PINNING": False,
}
_SIDE = 224  # of every crop, pixels
_FILES = ("encoders.xml", "encoders.bin")  # a graph, as OpenVINO writes it
_DIGESTS = "digests.json"
_DIGEST_BYTES = 32  # after the content of what was compiled
# Names the temporary folder to the run's workers, which are killed at its end and could not remove their own.
_TEMPORARY = "IG3D_COMPILED"
RUNTIME = f"openvino {version('openvino')} cpu"


log = logging.getLogger("ig3d")
_temporary_folders: list[tempfile.TemporaryDirectory[str]] = []  # removed when this process ends


class Compiled:
    """Some encoders as one compiled graph, on one thread.

    Parameters
    ----------
    folder : path
        Of the converted graph, and of what is compiled.
    names : of the encoders, in order
    images : int
        How many crops there will be at once; other numbers are compiled when they come.

    Raises
    ------
    OSError : nothing was compiled, and the graph is not there or not as it was written.
    """

    runtime = RUNTIME

    def __init__(self, folder: Path, names: tuple[str, ...], images: int) -> None:
        self._folder, self._names = folder, names
        self._core = openvino.Core()
        self._mapped: list[np.ndarray] = []  # what compiled graphs may still read from
        usual = (images, _SIDE, _SIDE, 3)
        self._by_shape: dict[tuple[int, ...], Any] = {usual: self._compiled(usual)}
        outputs = self._by_shape[usual].outputs
        self.widths = {name: int(output.shape[1]) for name, output in zip(names, outputs, strict=True)}

    def __call__(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> (n, outputs) float32 of (n, side, side, 3) crops, uint8 or float32 in [0, 1]."""
        scale = np.float32(255 if crops.dtype == np.uint8 else 1)
        fed = np.ascontiguousarray(crops.astype(np.float32) / scale)
        if fed.shape not in self._by_shape:
            self._by_shape[fed.shape] = self._compiled(fed.shape)
        results = self._by_shape[fed.shape]([fed])
        return {name: np.array(results[number]) for number, name in enumerate(self._names)}

    def _compiled(self, shape: tuple[int, ...]) -> Any:
        """As an earlier start left it, in a fifth of the time; else compiled now, and left for the next."""
        kept = self._folder / ("x".join(map(str, shape)) + ".blob")
        try:
            # mapped, so that workers share it; "c", as OpenVINO wants memory that it could write to
            mapped = np.memmap(kept, np.uint8, "c")
            content, digest = mapped[:-_DIGEST_BYTES], mapped[-_DIGEST_BYTES:]
            # 0.2 s for the 300 MB of EMOCA
            if hashlib.sha256(content.data).digest() != digest.tobytes():
                raise ValueError(f"{kept}: not as it was written")
            compiled = self._core.import_model(openvino.Tensor(content, shared_memory=True), "CPU", _SETTINGS)
        except (OSError, ValueError, RuntimeError):
            # not there, damaged, or of another kind of processor: OpenVINO takes nothing but its own
            pass
        else:
            self._mapped.append(content)
            return compiled
        if not _whole(self._folder):
            raise OSError(f"{self._folder}: expected a converted network there, got none that is whole")
        model = self._core.read_model(self._folder / _FILES[0])
        model.reshape(list(shape))
        compiled = self._core.compile_model(model, "CPU", _SETTINGS)
        with suppress(OSError), replacing(kept) as temporary, temporary.open("wb") as handle:
            exported = compiled.export_model().getbuffer()
            handle.write(exported)
            handle.write(hashlib.sha256(exported).digest())
        return compiled


def start(
    names: tuple[str, ...],
    key: str,
    images: int,
    networks: Mapping[str, MobileEncoder | ResNetEncoder] | None = None,
) -> Compiled | None:
    """The encoders from the cache; where they are not there, or damaged, of ``networks``, or None.

    Where the cache cannot be written to they are in a temporary folder as long as this process lives, and a line is
    logged.

    Parameters
    ----------
    names : of the encoders
    key : str
        Says which weights they hold.
    images : int
        How many crops there will be at once.
    networks : name -> encoder in float32, on the processor

    Raises
    ------
    RuntimeError : OpenVINO cannot take these networks.
    OSError : there is no place even for temporary files.
    """
    words = "\n".join([key, *names, version("openvino"), version("torch"), version("timm")])
    name = hashlib.sha256(words.encode()).hexdigest()[:24]
    if networks is None:
        try:
            return Compiled(_place() / name, names, images)
        except OSError:
            return None
    try:
        folder = _place() / name
    except FileNotFoundError as exc:
        folder = _temporary_folder(exc) / name
    if not _whole(folder):
        model = _convert(networks)
        try:
            _put(model, folder)
        except OSError as exc:
            folder = _temporary_folder(exc) / name
            _put(model, folder)
    return Compiled(folder, names, images)


def _place() -> Path:
    """Where the networks of all weights are kept.

    Raises
    ------
    FileNotFoundError : the user has no home, and no other place is named.
    """
    temporary = os.environ.get(_TEMPORARY)
    return Path(temporary) if temporary else cache_folder() / "compiled"


def _temporary_folder(why: OSError) -> Path:
    """A folder for this process and the workers that it starts; says so."""
    made = tempfile.TemporaryDirectory(prefix="ig3d-", ignore_cleanup_errors=True)
    _temporary_folders.append(made)
    os.environ[_TEMPORARY] = made.name
    log.warning(
        "converted networks: expected a folder to keep them in, got: %s; they are converted in each run "
        "(XDG_CACHE_HOME can name another place)",
        why,
    )
    return Path(made.name)


def _convert(networks: Mapping[str, MobileEncoder | ResNetEncoder]) -> openvino.Model:
    # openvino.convert_model does the same, and reports its use to its makers.
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    from .backbones import Together

    together = Together(networks).eval()
    example = torch.zeros(1, _SIDE, _SIDE, 3)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch would rather have its newer exporter used
        decoder = TorchScriptPythonDecoder(
            together, example_input=(example,), trace_kwargs={"check_trace": False}
        )
        front = FrontEndManager().load_by_framework("pytorch")
        return front.convert(front.load(decoder))


def _put(model: openvino.Model, folder: Path) -> None:
    """Write the graph and its digests, in the place of a damaged one.

    Raises
    ------
    OSError : it cannot be written there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Several workers may start at once: each writes its own folder, and the first to be done names it.
    own = Path(tempfile.mkdtemp(prefix="new-", dir=folder.parent))
    new = own / "new"
    try:
        new.mkdir()
        try:
            openvino.save_model(model, new / _FILES[0], compress_to_fp16=False)
        except RuntimeError as exc:  # a full disk
            raise OSError(str(exc).splitlines()[0]) from exc
        for name in _FILES:
            with (new / name).open("rb+") as handle:
                os.fsync(handle.fileno())
        with replacing(new / _DIGESTS) as temporary:
            temporary.write_text(json.dumps(_digests(new)))
        if folder.exists() and not _whole(folder):
            folder.rename(own / "damaged")
        new.rename(folder)
    except OSError:
        if not _whole(folder):
            raise
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for name in _FILES:
        with (folder / name).open("rb") as handle:
            found[name] = hashlib.file_digest(handle, "sha256").hexdigest()
    return found


def _whole(folder: Path) -> bool:
    """Whether a graph is there, as it was written."""
    try:
        return bool(json.loads((folder / _DIGESTS).read_bytes()) == _digests(folder))
    except (OSError, ValueError):
        return False
