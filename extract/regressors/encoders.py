"""What the networks of SMIRK, EMOCA and DECA share: encoders, devices, precision, batches.

An encoder is a backbone of timm's, its last feature map averaged over its positions, and a head. The modules carry the
official tensors' names, so that a checkpoint loads as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.metadata import version

import numpy as np
import timm
import torch
from torch import nn

from ...errors import RunError, UsageError
from ..device import choose_device
from .official import load_strictly

log = logging.getLogger("ig3d")

# name -> type of the backbones' arithmetic; pooling, heads and limits never go below float32
PRECISIONS: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "fp64": torch.float64,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


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
    ) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.device = choose_device(device)
        self.precision = precision
        self._most = 1 << 30
        load_strictly(networks, tensors, what=what)
        kind = torch.float64 if precision == "fp64" else torch.float32
        self._networks = {
            name: network.eval().to(self.device, kind, memory_format=torch.channels_last)  # type: ignore[call-overload]
            for name, network in networks.items()
        }

    def describe(self) -> dict[str, str]:
        """Runtime and precision, for the run's identity."""
        return {"runtime": f"torch {version('torch')} {self.device.type}", "precision": self.precision}

    def __call__(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs of every encoder.

        Where memory runs out, the batch is halved from then on, and a line is logged.

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
        parts: list[dict[str, np.ndarray]] = []
        start = 0
        with exact_arithmetic(self.device):
            while start < len(crops) or not parts:
                part = crops[start : start + self._most]
                try:
                    parts.append(self._forward(part))
                    start += max(1, len(part))
                except (RuntimeError, MemoryError) as exc:
                    if not _out_of_memory(exc):
                        raise
                    self._halve(len(part), exc)
        return {name: np.concatenate([part[name] for part in parts]) for name in self._networks}

    def _forward(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(crops)).to(self.device).permute(0, 3, 1, 2).float()
            if crops.dtype == np.uint8:
                images = images / 255
            if self.precision == "fp64":
                images = images.double()
            images = images.contiguous(memory_format=torch.channels_last)
            return {
                name: self._encode(network, images).cpu().numpy() for name, network in self._networks.items()
            }

    def _encode(self, network: MobileEncoder | ResNetEncoder, images: torch.Tensor) -> torch.Tensor:
        half = self.precision in ("bf16", "fp16")
        with torch.autocast(self.device.type, PRECISIONS[self.precision]) if half else nullcontext():
            features = network.features(images)
        if half:
            features = features.float()
        return network.head(features.mean((2, 3)))

    def _halve(self, size: int, exc: BaseException) -> None:
        if size <= 1:
            raise RunError(
                f"{self.device.type}: expected memory for one image, got none ({str(exc).splitlines()[0]}); "
                "use --device cpu, or fewer --jobs"
            ) from exc
        self._most = size // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "ig3d: out of memory on %s with %d images; going on with %d", self.device, size, self._most
        )


def _out_of_memory(exc: BaseException) -> bool:
    return isinstance(exc, (torch.cuda.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(exc)


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Full float32 on CUDA and no choice of algorithms by timing; the process's own settings come back."""
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32)
    try:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32 = False, False, True, False
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32 = before
