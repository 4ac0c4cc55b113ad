"""The networks of SMIRK, EMOCA and DECA in torch, and how eager torch runs them on a device.

An encoder is a backbone of timm's, its last feature map averaged over its positions, and a head. The modules carry the
official tensors' names, so that a checkpoint loads as it is. torch and timm take seconds to import: only
:mod:`ig3d.extract.regressors.encoders` imports this, when it must.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import numpy as np
import timm
import torch
from torch import nn

from ..device import Upload, exact_arithmetic

# name -> type of the backbones' arithmetic; pooling, heads and limits never go below float32
_TYPES: Mapping[str, torch.dtype] = {
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
        self.outputs = outputs

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
        self.outputs = outputs

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 2048, 7, 7) of (n, 3, 224, 224) in [0, 1]."""
        last: torch.Tensor = self.encoder(images)
        return last

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """(n, outputs) of (n, 2048)."""
        result: torch.Tensor = self.layers(pooled)
        return result


class Together(nn.Module):
    """Some encoders on the same crops, (n, side, side, 3) float32."""

    def __init__(self, networks: Mapping[str, MobileEncoder | ResNetEncoder]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks.values())

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
        images = crops.permute(0, 3, 1, 2)
        return tuple(
            network.head(network.features(images).mean((2, 3)))  # type: ignore[operator]
            for network in self.networks
        )


class Eager:
    """Some encoders in eager torch on one device.

    Parameters
    ----------
    networks : name -> encoder, with its tensors
    device : torch.device
    precision : str
        Of the backbones.
    """

    def __init__(
        self, networks: Mapping[str, MobileEncoder | ResNetEncoder], device: torch.device, precision: str
    ) -> None:
        self._device, self._precision = device, precision
        self._upload = Upload(device)
        kind = torch.float64 if precision == "fp64" else torch.float32
        self._networks = {
            name: network.eval().to(device, kind, memory_format=torch.channels_last)  # type: ignore[call-overload]
            for name, network in networks.items()
        }
        self.widths = {name: network.outputs for name, network in networks.items()}

    def __call__(self, crops: np.ndarray) -> dict[str, torch.Tensor]:
        """Name -> (n, outputs) on the device, perhaps still to be calculated; of (n, 224, 224, 3) crops."""
        with exact_arithmetic(self._device), torch.inference_mode():
            images = self._upload(crops).permute(0, 3, 1, 2).float()
            if crops.dtype == np.uint8:
                images = images / 255
            if self._precision == "fp64":
                images = images.double()
            images = images.contiguous(memory_format=torch.channels_last)
            return {name: self._encode(network, images) for name, network in self._networks.items()}

    def _encode(self, network: MobileEncoder | ResNetEncoder, images: torch.Tensor) -> torch.Tensor:
        half = self._precision in ("bf16", "fp16")
        with torch.autocast(self._device.type, _TYPES[self._precision]) if half else nullcontext():
            features = network.features(images)
        if half:
            features = features.float()
        return network.head(features.mean((2, 3)))
