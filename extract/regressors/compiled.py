"""The processor's way to run encoders: OpenVINO, two to three times as fast as eager torch (benchmarks/README.md).

A network is converted once per weights file and compiled once per kind of processor; both are kept in the user's cache,
so that a worker starts in a fraction of a second.
"""

from __future__ import annotations

import hashlib
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

# One thread: a run has a worker for each core. Full float32, and the same digits in every run.
_SETTINGS = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
_SIDE = 224  # of every crop, pixels
RUNTIME = f"openvino {version('openvino')} cpu"


class Compiled:
    """Some encoders as one compiled graph, on one thread.

    Parameters
    ----------
    graph : path
        As :func:`converted` gives it.
    names : of the encoders, in order
    images : int
        How many crops there will be at once; other numbers are compiled when they come.
    """

    runtime = RUNTIME

    def __init__(self, graph: Path, names: tuple[str, ...], images: int) -> None:
        self._graph, self._names = graph, names
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
        kept = self._graph.with_name("x".join(map(str, shape)) + ".blob")
        try:
            # mapped, so that workers share it; "c", as OpenVINO wants memory that it could write to
            content = np.memmap(kept, np.uint8, "c")
            compiled = self._core.import_model(openvino.Tensor(content, shared_memory=True), "CPU", _SETTINGS)
        except (OSError, ValueError, RuntimeError):
            # not there, empty, cut short, or of another kind of processor: OpenVINO takes nothing but its own
            pass
        else:
            self._mapped.append(content)
            return compiled
        model = self._core.read_model(self._graph)
        model.reshape(list(shape))
        compiled = self._core.compile_model(model, "CPU", _SETTINGS)
        with suppress(OSError), replacing(kept) as temporary:
            temporary.write_bytes(compiled.export_model().getvalue())
        return compiled


def converted(
    names: tuple[str, ...], key: str, networks: Mapping[str, MobileEncoder | ResNetEncoder] | None = None
) -> Path | None:
    """The graph in OpenVINO's own format, from the cache; where it is not there, of ``networks``, or None.

    Parameters
    ----------
    names : of the encoders
    key : str
        Says which weights they hold.
    networks : name -> encoder in float32, on the processor
    """
    words = "\n".join([key, *names, version("openvino"), version("torch"), version("timm")])
    folder = cache_folder() / "compiled" / hashlib.sha256(words.encode()).hexdigest()[:24]
    if not (folder / "encoders.xml").exists():
        if networks is None:
            return None
        _put(networks, folder)
    return folder / "encoders.xml"


def _put(networks: Mapping[str, MobileEncoder | ResNetEncoder], folder: Path) -> None:
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
        model = front.convert(front.load(decoder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Several workers may start at once: each writes its own folder, and the first to be done names it.
    own = Path(tempfile.mkdtemp(prefix="new-", dir=folder.parent))
    try:
        openvino.save_model(model, own / "encoders.xml", compress_to_fp16=False)
        own.rename(folder)
    except OSError:
        if not (folder / "encoders.xml").exists():
            raise
    finally:
        shutil.rmtree(own, ignore_errors=True)
