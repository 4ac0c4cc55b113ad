"""Base class of SMIRK, EMOCA and DECA: encoders with the weights of an official checkpoint, applied to crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...features.device import device_kind
from ...features.values import CropSpec
from ..engine import load_module, runtime_of
from .network import NetworkRegressor
from .official import Checkpoint, find_checkpoint, load_strictly

if TYPE_CHECKING:
    from torch import nn

    from .backbones import MobileEncoder, ResNetEncoder

# Batch size by device, a power of two. Four is fastest on one core (benchmarks/README.md); on a GPU, small batches
# leave it idle while Python starts kernels.
IMAGES_AT_ONCE: Mapping[str, int] = {"cpu": 4, "cuda": 128}

SIDE = 224  # side of every crop, pixels


@dataclass(frozen=True, slots=True)
class Mobile:
    """Architecture of SMIRK's encoders: timm's "minimal" MobileNetV3 and one linear layer.

    Attributes
    ----------
    backbone : str
        Name of the timm model.
    head : str
        Name of the linear layer in the official checkpoint.
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
    """Architecture of the encoders of EMOCA and DECA: ResNet-50 and two linear layers.

    Attributes
    ----------
    outputs : int or None
        None takes the number of the checkpoint.
    """

    outputs: int | None

    def build(self, tensors: Mapping[str, np.ndarray]) -> ResNetEncoder:
        from .backbones import ResNetEncoder

        return ResNetEncoder(len(tensors["layers.2.weight"]) if self.outputs is None else self.outputs)


class EncoderRegressor(NetworkRegressor):
    """Regressor that runs encoders on crops.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda:0``, ...
    precision : str
        Of the backbones; pooling and heads use at least float32.
    backend : {"openvino", "torch"}, optional
        Default: OpenVINO for float32 on the CPU, else torch.

    Attributes
    ----------
    encoders : name -> architecture

    Raises
    ------
    WeightsError : the checkpoint is missing or is not the official one.
    """

    needs: ClassVar[CropSpec]
    precisions = ("fp32", "fp64", "bf16", "fp16")
    encoders: ClassVar[Mapping[str, Mobile | ResNet]]

    def __init__(self, device: str = "cpu", precision: str = "fp32", *, backend: str | None = None) -> None:
        super().__init__(device, precision)
        self._checkpoint = find_checkpoint(self.name)
        self._network = load_module(
            self._build,
            key="\n".join([self._checkpoint.sha256, *self.encoders]),
            name=self._checkpoint.what,
            inputs=[((SIDE, SIDE, 3), "float32" if self.needs.floats else "uint8")],
            batch=IMAGES_AT_ONCE[device_kind(device)],
            device=device,
            backend=backend or _backend(device, precision),
        )

    @classmethod
    def runtime(cls, device: str, precision: str) -> str:
        return runtime_of(device, _backend(device, precision))

    @classmethod
    def describe(cls, device: str = "cpu", precision: str = "fp32") -> dict[str, Any]:
        return {**super().describe(device, precision), "precision": precision}

    def codes(self, outputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        split = self.split(dict(zip(self.encoders, outputs, strict=True)))
        return {name: split[name].astype(np.float32) for name in self.blocks}

    def split(self, outputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Split the outputs of the encoders, (n, width) by name, into blocks."""
        raise NotImplementedError

    def tensors(self, checkpoint: Checkpoint) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Encoder -> its tensors by name."""
        raise NotImplementedError

    def _run(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self.encoders, self._network(crops), strict=True))

    def _widths(self) -> dict[str, int]:
        """Encoder -> its number of outputs."""
        return {name: output.shape[1] for name, output in self._run(np.zeros((0, SIDE, SIDE, 3))).items()}

    def _build(self) -> nn.Module:
        import torch

        from .backbones import Encoders

        tensors = self.tensors(self._checkpoint)
        with torch.device("meta"):
            built = {name: encoder.build(tensors.get(name, {})) for name, encoder in self.encoders.items()}
        load_strictly(built, tensors, what=self._checkpoint.what)
        return Encoders(built.values(), self.precision)


def _backend(device: str, precision: str) -> str:
    return "openvino" if device == "cpu" and precision == "fp32" else "torch"
