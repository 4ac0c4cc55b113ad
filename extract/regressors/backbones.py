"""Networks of SMIRK, EMOCA and DECA in torch.

An encoder is a timm backbone, global average pooling, and a head. The modules use the names of the official tensors, so
that a checkpoint needs no conversion. torch and timm take seconds to import, so
:mod:`ig3d.extract.regressors.encoders` imports this module only when it builds a network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext

import timm
import torch
from torch import nn

_HALF: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


class MobileEncoder(nn.Module):
    """Encoder of SMIRK: timm's "minimal" MobileNetV3 and one linear layer.

    Parameters
    ----------
    backbone : str
        Name of the timm model.
    head : str
        Name of the linear layer in the official checkpoint.
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
        """(n, channels, 7, 7) feature maps of (n, 3, 224, 224) images in [0, 1]."""
        last: torch.Tensor = self.encoder(images)[-1]
        return last

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """(n, outputs) codes of (n, channels) pooled features."""
        result: torch.Tensor = self.get_submodule(self._head)(pooled)
        return result


class ResNetEncoder(nn.Module):
    """Encoder of EMOCA and DECA: ResNet-50 and two linear layers.

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
        """(n, 2048, 7, 7) feature maps of (n, 3, 224, 224) images in [0, 1]."""
        last: torch.Tensor = self.encoder(images)
        return last

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """(n, outputs) codes of (n, 2048) pooled features."""
        result: torch.Tensor = self.layers(pooled)
        return result


class Encoders(nn.Module):
    """Several encoders applied to the same crops, (n, side, side, 3) uint8, or floats in [0, 1].

    Parameters
    ----------
    encoders : modules with float32 weights
    precision : str
        Arithmetic of the backbones.
    """

    def __init__(self, encoders: Iterable[MobileEncoder | ResNetEncoder], precision: str) -> None:
        super().__init__()
        self._kind = torch.float64 if precision == "fp64" else torch.float32
        self._half = _HALF.get(precision)
        self.encoders = nn.ModuleList(encoders).to(self._kind)

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
        images = crops.permute(0, 3, 1, 2).float()
        if crops.dtype == torch.uint8:
            images = images / 255
        images = images.to(self._kind)
        return tuple(self._encode(encoder, images) for encoder in self.encoders)

    def _encode(self, encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(images.device.type, self._half) if self._half else nullcontext():
            features = encoder.features(images)  # type: ignore[operator]
        pooled = features.to(self._kind).mean((2, 3))
        result: torch.Tensor = encoder.head(pooled)  # type: ignore[operator]
        return result
