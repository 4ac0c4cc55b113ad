"""What the networks of SMIRK, EMOCA and DECA share: encoders, devices, precision, batches.

An encoder is a backbone of timm's, its last feature map averaged over its positions, and a head. The modules carry the
official tensors' names, so that a checkpoint loads as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import timm
import torch
from torch import nn

from ...errors import RunError, UsageError
from ..device import Upload, choose_device, exact_arithmetic
from .official import load_strictly

if TYPE_CHECKING:
    from .compiled import Compiled

log = logging.getLogger("ig3d")

# name -> type of the backbones' arithmetic; pooling, heads and limits never go below float32
PRECISIONS: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "fp64": torch.float64,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

# By device; powers of two. Four is the fastest on one core (benchmarks/README.md); on a GPU, few would leave it idle
# while the interpreter starts kernels.
IMAGES_AT_ONCE: Mapping[str, int] = {"cpu": 4, "cuda": 128}


class MobileEncoder(nn.Module):
    """A MobileNetV3 "minimal" of timm's and one linear layer: each of SMIRK's three.

    Parameters
    ----------
    backbone : str
        Name of the timm model.
    head : str
        Name that the official checkpoint gives to the linear layer.
    outputs : int
    """

    def __init__(self, backbone: str, head: str, outputs: int) -> None:
        super().__init__()
        self.encoder = timm.create_model(backbone, features_only=True, pretrained=False)
        self._head = head
        width = self.encoder.feature_info.channels()[-1]  # type: ignore[operator, union-attr]
        self.add_module(head, nn.Sequential(nn.Linear(width, outputs)))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(n, channels, 7, 7) of (n, 3, 224, 224) in [0, 1]."""
        last: torch.Tensor = self.encoder(images)[-1]
        return last

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """(n, outputs) of (n, channels)."""
        result: torch.Tensor = self.get_submodule(self._head)(pooled)
        return result


class ResNetEncoder(nn.Module):
    """A ResNet-50 and two linear layers: each encoder of EMOCA and DECA.

    Parameters
    ----------
    outputs : int
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.encoder = timm.create_model("resnet50", num_classes=0, global_pool="", pretrained=False)
        self.layers = nn.Sequential(nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, outputs))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 2048, 7, 7) of (n, 3, 224, 224) in [0, 1]."""
        last: torch.Tensor = self.encoder(images)
        return last

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """(n, outputs) of (n, 2048)."""
        result: torch.Tensor = self.layers(pooled)
        return result


class Encoders:
    """Some encoders on one device, fed batches of crops.

    Parameters
    ----------
    networks : name -> encoder, built on the meta device
    tensors : name -> (name of a tensor -> array)
        The same names as ``networks``; they must fit exactly.
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

    Raises
    ------
    WeightsError : tensors are missing, unknown, of another shape or not finite.
    UsageError : there is no such device or precision.
    """

    def __init__(
        self,
        networks: Mapping[str, MobileEncoder | ResNetEncoder],
        tensors: Mapping[str, Mapping[str, np.ndarray]],
        *,
        what: str,
        device: str,
        precision: str,
        key: str,
        runtime: str = "auto",
    ) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.device = choose_device(device)
        self.precision = precision
        self._size = IMAGES_AT_ONCE[self.device.type]
        self._upload = Upload(self.device)
        load_strictly(networks, tensors, what=what)
        kind = torch.float64 if precision == "fp64" else torch.float32
        try:
            self._networks = {
                name: network.eval().to(self.device, kind, memory_format=torch.channels_last)  # type: ignore[call-overload]
                for name, network in networks.items()
            }
        except (RuntimeError, MemoryError) as exc:
            if not _out_of_memory(exc):
                raise
            raise _no_memory(self.device, "the networks", exc) from exc
        self._compiled = None
        self._names = tuple(networks)
        if runtime == "auto" and self.device.type == "cpu" and precision == "fp32":
            self._compiled = _compile(self._networks, key)
        if self._compiled is not None:
            self._networks = {}  # the graph holds the weights

    def describe(self) -> dict[str, str]:
        """Runtime and precision, for the run's identity."""
        if self._compiled is not None:
            from .compiled import RUNTIME

            return {"runtime": RUNTIME, "precision": self.precision}
        return {"runtime": f"torch {version('torch')} {self.device.type}", "precision": self.precision}

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
        parts: list[Mapping[str, torch.Tensor | np.ndarray]] = []
        start = 0
        with exact_arithmetic(self.device):
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

    def _forward(self, crops: np.ndarray) -> Mapping[str, torch.Tensor | np.ndarray]:
        """Outputs of every encoder, where they were calculated."""
        if self._compiled is not None:
            scale = np.float32(255 if crops.dtype == np.uint8 else 1)
            return self._compiled(np.ascontiguousarray(crops.astype(np.float32) / scale))
        with torch.inference_mode():
            images = self._upload(crops).permute(0, 3, 1, 2).float()
            if crops.dtype == np.uint8:
                images = images / 255
            if self.precision == "fp64":
                images = images.double()
            images = images.contiguous(memory_format=torch.channels_last)
            return {name: self._encode(network, images) for name, network in self._networks.items()}

    def _encode(self, network: MobileEncoder | ResNetEncoder, images: torch.Tensor) -> torch.Tensor:
        half = self.precision in ("bf16", "fp16")
        with torch.autocast(self.device.type, PRECISIONS[self.precision]) if half else nullcontext():
            features = network.features(images)
        if half:
            features = features.float()
        return network.head(features.mean((2, 3)))

    def _halve(self, exc: BaseException) -> None:
        if self._size == 1:
            raise _no_memory(self.device, "one image", exc) from exc
        self._size //= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "ig3d: out of memory on %s with %d images; going on with %d",
            self.device,
            2 * self._size,
            self._size,
        )


def _compile(networks: Mapping[str, MobileEncoder | ResNetEncoder], key: str) -> Compiled | None:
    """The networks compiled for the processor; None where that cannot be had, and torch runs them."""
    try:
        from .compiled import Compiled

        return Compiled(networks, key=key)
    except ImportError:
        return None
    except (RuntimeError, OSError) as exc:
        log.warning(
            "ig3d: OpenVINO cannot take these networks, torch runs them: %s", str(exc).splitlines()[0]
        )
        return None


def _filled(crops: np.ndarray, size: int) -> np.ndarray:
    """``crops`` with black ones after them, ``size`` together."""
    missing = size - len(crops)
    return np.pad(crops, [(0, missing), (0, 0), (0, 0), (0, 0)]) if missing else crops


def _on_host(output: torch.Tensor | np.ndarray) -> np.ndarray:
    return output if isinstance(output, np.ndarray) else output.cpu().numpy()


def _no_memory(device: torch.device, what: str, exc: BaseException) -> RunError:
    reason = (str(exc) or type(exc).__name__).splitlines()[0]
    return RunError(
        f"{device}: expected memory for {what}, got too little ({reason}); use --device cpu, or fewer --jobs"
    )


def _out_of_memory(exc: BaseException) -> bool:
    return isinstance(exc, (torch.cuda.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(exc)
