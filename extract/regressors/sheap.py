"""``sheap`` and ``sheap_paper``: FLAME codes of SHeaP, from the TorchScript files of its authors.

The file contains code that torch's TorchScript interpreter runs. It cannot run Python or start programs, but can read
and write files: use only the files of the authors' release.

Schoneveld et al., "SHeaP: Self-Supervised Head Geometry Predictor Learned via 2D Gaussians" (ICCV 2025); repository
nlml/SHeaP, release v1.0.0. Crop as in its ``video_demo.py`` (margin 0.9, shift 0.5).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import WeightsError, shorten
from ...features.device import device_kind
from ...features.values import Block, CropSpec
from ..engine import load_module, runtime_of
from ..weights import find_weights, weights_sha256
from .network import NetworkRegressor

if TYPE_CHECKING:
    import torch
    from torch import nn

SIDE = 224
BATCH: Mapping[str, int] = {"cpu": 4, "cuda": 64}
_AXES = ("x", "y", "z")
# block -> outputs of the network that it contains, in order
OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "expression": ("expr",),
    "pose": ("torso_pose",),
    "jaw": ("jaw_pose",),
    "eyelid": ("eyelids",),
    "shape": ("shape_from_facenet",),
    "camera": ("cam_trans",),
    "neck": ("neck_pose",),
    "eyes": ("eye_l_pose", "eye_r_pose"),
}


class Sheap(NetworkRegressor):
    """SHeaP regressor, the "expressive" network.

    Raises
    ------
    WeightsError : the file is missing, or is no TorchScript network with SHeaP's outputs.
    """

    name = "sheap"
    licence = "CC BY-NC 4.0"
    packages = ("torch",)
    weights = ("sheap",)
    # the longer side of the box, 1.9 times; moved up by a quarter of the box
    needs = CropSpec(size=SIDE, scale=1.9, longer_side=True, points_shift=-0.25, box_shift=-0.25)
    detectors = ("sfd", "facemesh")
    sets: ClassVar[dict[str, tuple[str, ...]]] = {
        "short": ("expression", "pose", "jaw", "shape"),
        "full": ("expression", "pose", "jaw", "eyelid", "shape"),
    }
    blocks: ClassVar[dict[str, Block]] = {
        "expression": Block(100, "1", "flame-2020", "Expression coefficients of FLAME; SHeaP's expr."),
        "pose": Block(
            3, "rad", "axis-angle", "Rotation of FLAME's root; SHeaP's torso_pose, axes of its camera.", _AXES
        ),
        "jaw": Block(3, "rad", "flame-2020", "Rotation of FLAME's jaw, axis-angle; SHeaP's jaw_pose.", _AXES),
        "eyelid": Block(2, "1", "sheap-eyelids", "Weights of SHeaP's two eyelid blend shapes; eyelids."),
        "shape": Block(
            300, "1", "flame-2020", "Shape (identity) coefficients of FLAME; SHeaP's shape_from_facenet."
        ),
        "camera": Block(3, "1", "sheap-translation", "Translation of the head; SHeaP's cam_trans.", _AXES),
        "neck": Block(3, "rad", "flame-2020", "Rotation of FLAME's neck, axis-angle; neck_pose.", _AXES),
        "eyes": Block(
            6,
            "rad",
            "flame-2020",
            "Rotations of FLAME's eyeballs, axis-angle; eye_l_pose, eye_r_pose.",
            tuple(f"{side}_{axis}" for side in ("left", "right") for axis in _AXES),
        ),
    }

    def __init__(self, device: str = "cpu", precision: str = "fp32") -> None:
        super().__init__(device, precision)
        file = find_weights(self.weights[0])
        self._network = load_module(
            lambda: read_network(file),
            key=weights_sha256(file),
            name=f"{self.name} ({file.name})",
            inputs=[((SIDE, SIDE, 3), "uint8")],
            batch=BATCH[device_kind(device)],
            device=device,
            backend="torch",
        )

    @classmethod
    def runtime(cls, device: str, precision: str) -> str:
        return runtime_of(device, "torch")

    def codes(self, outputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(OUTPUTS, outputs, strict=True))


class SheapPaper(Sheap):
    """SHeaP regressor, the network of the paper's results."""

    name = "sheap_paper"
    weights = ("sheap_paper",)


def read_network(file: Path) -> nn.Module:
    """Module that maps (n, 224, 224, 3) uint8 crops to a tuple of blocks, in the order of :data:`OUTPUTS`.

    Raises
    ------
    WeightsError : the file is no TorchScript network, or has other outputs.
    """
    import torch

    class Blocks(torch.nn.Module):
        def __init__(self, network: Any) -> None:
            super().__init__()
            self.network = network

        def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
            outputs = self.network(crops.permute(0, 3, 1, 2).contiguous().float() / 255)
            expected = {name for names in OUTPUTS.values() for name in names}
            if not isinstance(outputs, dict) or (missing := expected - set(outputs)):
                got = f"no {', '.join(sorted(missing))}" if isinstance(outputs, dict) else "no names"
                raise WeightsError(
                    f"sheap ({file.name}): the network's output has {got}; use the authors' file"
                )
            return tuple(torch.cat([outputs[name] for name in names], 1) for names in OUTPUTS.values())

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch recommends torch.export
            warnings.simplefilter("ignore", DeprecationWarning)
            return Blocks(torch.jit.load(file, map_location="cpu"))
    except (RuntimeError, ValueError) as exc:
        reason = shorten(str(exc).strip().splitlines()[0], 100)
        raise WeightsError(
            f"sheap ({file.name}): the file is no TorchScript network ({reason}); use the authors' file"
        ) from exc
