"""What the networks of SMIRK, EMOCA and DECA share: encoders on a device, in a precision, in batches of one size.

On the processor they run in OpenVINO (:mod:`~ig3d.extract.regressors.compiled`), else in torch
(:mod:`~ig3d.extract.regressors.backbones`). Where an earlier start has converted them, torch is not even imported.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import RunError, UsageError

if TYPE_CHECKING:
    from .backbones import Eager, MobileEncoder, ResNetEncoder
    from .compiled import Compiled

log = logging.getLogger("ig3d")

# Of the backbones' arithmetic; pooling, heads and limits never go below float32.
PRECISIONS = ("fp32", "fp64", "bf16", "fp16")

# By device; powers of two. Four is the fastest on one core (benchmarks/README.md); on a GPU, few would leave it idle
# while the interpreter starts kernels.
IMAGES_AT_ONCE: Mapping[str, int] = {"cpu": 4, "cuda": 128}


@dataclass(frozen=True, slots=True)
class Mobile:
    """A MobileNetV3 "minimal" of timm's and one linear layer: each encoder of SMIRK's.

    Attributes
    ----------
    backbone : str
        Name of the timm model.
    head : str
        Name that the official checkpoint gives to the linear layer.
    outputs : int
    """

    backbone: str
    head: str
    outputs: int

    def build(self, tensors: Mapping[str, np.ndarray]) -> MobileEncoder:
        from .backbones import MobileEncoder

        return MobileEncoder(self.backbone, self.head, self.outputs)


@dataclass(frozen=True, slots=True)
class ResNet:
    """A ResNet-50 and two linear layers: each encoder of EMOCA's and DECA's.

    Attributes
    ----------
    outputs : int, or None for as many as its tensors have
    """

    outputs: int | None

    def build(self, tensors: Mapping[str, np.ndarray]) -> ResNetEncoder:
        from .backbones import ResNetEncoder

        return ResNetEncoder(len(tensors["layers.2.weight"]) if self.outputs is None else self.outputs)


class Encoders:
    """Some encoders on one device, fed batches of crops.

    Parameters
    ----------
    networks : name -> what the encoder is
    read : function that gives name -> (name of a tensor -> array)
        The same names as ``networks``; they must fit exactly. Not called where the encoders are converted already.
    what : str
        Opens every message: the regressor and the file.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
    precision : str
        One of :data:`PRECISIONS`, for the backbones.
    key : str
        Says which weights these are: the hash of their file.
    runtime : str
        ``torch``, or ``auto``: OpenVINO in float32 on the processor where it is installed, else torch.

    Attributes
    ----------
    device : str
        ``cpu`` or ``cuda``.
    widths : name -> outputs of the encoder

    Raises
    ------
    WeightsError : tensors are missing, unknown, of another shape or not finite.
    UsageError : there is no such device or precision.
    """

    def __init__(
        self,
        networks: Mapping[str, Mobile | ResNet],
        read: Callable[[], Mapping[str, Mapping[str, np.ndarray]]],
        *,
        what: str,
        device: str,
        precision: str,
        key: str,
        runtime: str = "auto",
    ) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.precision = precision
        self._names = tuple(networks)
        self._run: Compiled | Eager | None = None
        by_openvino = runtime == "auto" and precision == "fp32"
        if by_openvino and (device == "cpu" or (device == "auto" and not _has_cuda_driver())):
            self.device = self._where = "cpu"
            self._run = _compiled(self._names, key)
        if self._run is None:
            self._start(networks, read(), what, device, by_openvino, key)
        self._size = IMAGES_AT_ONCE[self.device]

    def _start(
        self,
        networks: Mapping[str, Mobile | ResNet],
        tensors: Mapping[str, Mapping[str, np.ndarray]],
        what: str,
        device: str,
        by_openvino: bool,
        key: str,
    ) -> None:
        """Build the networks; convert them where that is wanted."""
        import torch

        from ...features.device import choose_device
        from .backbones import Eager
        from .official import load_strictly

        place = choose_device(device)
        self.device, self._where = place.type, str(place)
        with torch.device("meta"):
            built = {name: network.build(tensors.get(name, {})) for name, network in networks.items()}
        load_strictly(built, tensors, what=what)
        if by_openvino and self.device == "cpu":
            self._run = _compiled(self._names, key, built)
        if self._run is not None:
            return
        try:
            self._run = Eager(built, place, self.precision)
        except (RuntimeError, MemoryError) as exc:
            if not _out_of_memory(exc):
                raise
            raise _no_memory(self._where, "the networks", exc) from exc

    @property
    def widths(self) -> Mapping[str, int]:
        return self._started.widths

    @property
    def _started(self) -> Compiled | Eager:
        if self._run is None:
            raise RuntimeError("encoders: expected to be started")
        return self._run

    def describe(self) -> dict[str, str]:
        """Runtime and precision, for the run's identity."""
        runtime = getattr(self._run, "runtime", None) or f"torch {version('torch')} {self.device}"
        return {"runtime": runtime, "precision": self.precision}

    def __call__(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs of every encoder.

        The networks always see batches of one size, the last one filled up with black: convolution libraries choose
        their algorithm by the batch's size, and then an image's last digits would depend on its company. Where memory
        runs out, that size is halved from then on, and a line is logged.

        Parameters
        ----------
        crops : (n, 224, 224, 3) uint8, or float32 in [0, 1]

        Returns
        -------
        name -> (n, outputs) float32, or float64 in fp64

        Raises
        ------
        RunError : memory does not suffice for one image.
        """
        parts: list[Mapping[str, Any]] = []
        start = 0
        while start < len(crops) or not parts:
            try:
                part = self._forward(_filled(crops[start : start + self._size], self._size))
            except (RuntimeError, MemoryError) as exc:
                if not _out_of_memory(exc):
                    raise
                self._halve(exc)
                continue
            parts.append(part)
            start += self._size
        # only here is a GPU waited for: until then the next part is copied while it calculates
        return {
            name: np.concatenate([_on_host(part[name]) for part in parts])[: len(crops)]
            for name in self._names
        }

    def _forward(self, crops: np.ndarray) -> Mapping[str, Any]:
        """Outputs of every encoder, where they were calculated: arrays, or tensors on the device."""
        return self._started(crops)

    def _halve(self, exc: BaseException) -> None:
        if self._size == 1:
            raise _no_memory(self._where, "one image", exc) from exc
        self._size //= 2
        if self.device == "cuda":
            sys.modules["torch"].cuda.empty_cache()
        log.warning(
            "out of memory on %s with %d images; going on with %d",
            self._where,
            2 * self._size,
            self._size,
        )


def _has_cuda_driver() -> bool:
    """Whether a CUDA device can be here at all; torch, which knows for sure, takes seconds to import."""
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return True
    return False


def _compiled(
    names: tuple[str, ...], key: str, networks: Mapping[str, MobileEncoder | ResNetEncoder] | None = None
) -> Compiled | None:
    """The networks compiled for the processor; None where that cannot be had.

    Without ``networks`` only where an earlier start has converted them.
    """
    try:
        from .compiled import start
    except ImportError:
        return None
    try:
        return start(names, key, IMAGES_AT_ONCE["cpu"], networks)
    except (RuntimeError, OSError) as exc:
        reason = (str(exc) or type(exc).__name__).splitlines()[0]
        log.warning("torch runs the networks, as OpenVINO cannot: %s", reason)
        return None


def _filled(crops: np.ndarray, size: int) -> np.ndarray:
    """``crops`` with black ones after them, ``size`` together."""
    missing = size - len(crops)
    return np.pad(crops, [(0, missing), (0, 0), (0, 0), (0, 0)]) if missing else crops


def _on_host(output: Any) -> np.ndarray:
    array: np.ndarray = output if isinstance(output, np.ndarray) else output.cpu().numpy()
    return array


def _no_memory(device: str, what: str, exc: BaseException) -> RunError:
    reason = (str(exc) or type(exc).__name__).splitlines()[0]
    return RunError(
        f"{device}: expected memory for {what}, got too little ({reason}); use --device cpu, or fewer --jobs"
    )


def _out_of_memory(exc: BaseException) -> bool:
    # by its name: torch may not be imported
    return (
        type(exc).__name__ == "OutOfMemoryError"
        or isinstance(exc, MemoryError)
        or "can't allocate memory" in str(exc)
    )
