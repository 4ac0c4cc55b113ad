"""The processor's way to run encoders: OpenVINO, two to three times as fast as eager torch (benchmarks/README.md).

A network is converted once per weights file, and kept in the user's cache; reading that takes a fraction of a second.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino

from ..places import cache_folder

if TYPE_CHECKING:
    from .backbones import MobileEncoder, ResNetEncoder

# One thread: a run has a worker for each core. Full float32, and the same digits in every run.
_SETTINGS = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
RUNTIME = f"openvino {version('openvino')} cpu"


class Compiled:
    """Some encoders as one compiled graph, on one thread.

    Parameters
    ----------
    graph : path
        As :func:`converted` gives it.
    names : of the encoders, in order
    """

    runtime = RUNTIME

    def __init__(self, graph: Path, names: tuple[str, ...]) -> None:
        self._names = names
        self._core = openvino.Core()
        self._model = self._core.read_model(graph)
        self._by_shape: dict[tuple[int, ...], Any] = {}

    def __call__(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> (n, outputs) float32 of (n, side, side, 3) crops, uint8 or float32 in [0, 1]."""
        scale = np.float32(255 if crops.dtype == np.uint8 else 1)
        fed = np.ascontiguousarray(crops.astype(np.float32) / scale)
        if fed.shape not in self._by_shape:
            self._model.reshape(list(fed.shape))
            self._by_shape[fed.shape] = self._core.compile_model(self._model, "CPU", _SETTINGS)
        results = self._by_shape[fed.shape]([fed])
        return {name: np.array(results[number]) for number, name in enumerate(self._names)}


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
    example = torch.zeros(1, 224, 224, 3)
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
