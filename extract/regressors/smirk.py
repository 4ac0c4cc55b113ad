"""``smirk``: expression, pose and shape codes of SMIRK, from its official checkpoint.

Retsinas et al., "3D Facial Expressions through Analysis-by-Neural-Synthesis" (CVPR 2024); encoders and crop as in its
code (commit c7de404).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ...errors import UsageError
from ...features.values import Block, CropSpec, FaceBatch
from .encoders import Encoders, Mobile
from .official import Checkpoint, find_checkpoint, refuse_unknown, tensors_under

_ENCODERS = {
    "pose_encoder": Mobile("tf_mobilenetv3_small_minimal_100", "pose_cam_layers", 6),
    "shape_encoder": Mobile("tf_mobilenetv3_large_minimal_100", "shape_layers", 300),
    "expression_encoder": Mobile("tf_mobilenetv3_large_minimal_100", "expression_layers", 55),
}
_JAW_TURN = 0.2  # limit of the jaw's second and third angle, rad


class Smirk:
    """SMIRK's three encoders.

    Parameters
    ----------
    device, precision : str
        See :class:`~ig3d.extract.regressors.encoders.Encoders`.

    Raises
    ------
    WeightsError : the checkpoint is not there, or is not SMIRK's.
    UsageError : there is no such device or precision.
    """

    name = "smirk"
    needs = CropSpec(size=224, scale=1.4)
    detectors = ("landmarker", "facemesh")
    blocks: ClassVar[dict[str, Block]] = {
        "expression": Block(
            50, "1", "flame-2020", "First 50 expression coefficients of FLAME; SMIRK's expression_params."
        ),
        "pose": Block(
            3,
            "rad",
            "axis-angle",
            "Rotation of the head, FLAME's axes: x to the image's right, y up, z towards the camera; SMIRK's "
            "pose_params.",
            ("x", "y", "z"),
        ),
        "jaw": Block(
            3,
            "rad",
            "flame-2020",
            "Rotation of FLAME's jaw, axis-angle: x opens the mouth and is never below 0, y and z are within "
            f"{_JAW_TURN}; SMIRK's jaw_params.",
            ("x", "y", "z"),
        ),
        "eyelid": Block(
            2,
            "1",
            "smirk-eyelids",
            "Weights in [0, 1] of SMIRK's two eyelid blend shapes; SMIRK's eyelid_params.",
            ("left", "right"),
        ),
        "shape": Block(
            300, "1", "flame-2020", "Shape (identity) coefficients of FLAME; SMIRK's shape_params."
        ),
        "camera": Block(
            3,
            "1",
            "weak-perspective-crop",
            "Scale and translation: point of the crop, which spans [-1, 1], y up = scale * (point + (tx, ty)); "
            "SMIRK's cam.",
            ("scale", "tx", "ty"),
        ),
    }

    def __init__(self, device: str = "auto", precision: str = "fp32") -> None:
        self._checkpoint = find_checkpoint(self.name)
        self._encoders = Encoders(
            _ENCODERS,
            lambda: _tensors(self._checkpoint),
            what=self._checkpoint.what,
            device=device,
            precision=precision,
            key=self._checkpoint.sha256,
        )
        self.device = self._encoders.device

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": "1",
            **self._encoders.describe(),
            "weights_sha256": self._checkpoint.sha256,
        }

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        if faces.crops is None:
            raise UsageError("smirk: expected crops, got landmarks; prepare the faces with Smirk.needs")
        codes = split_outputs(self._encoders(faces.crops))
        return {name: codes[name].astype(np.float32) for name in self.blocks}


def split_outputs(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """SMIRK's blocks from what its encoders give: (n, 6), (n, 300) and (n, 55)."""
    pose, mixed = outputs["pose_encoder"], outputs["expression_encoder"]
    jaw = np.concatenate([mixed[:, 52:53].clip(0), mixed[:, 53:55].clip(-_JAW_TURN, _JAW_TURN)], axis=1)
    return {
        "expression": mixed[:, :50],
        "pose": pose[:, :3],
        "jaw": jaw,
        "eyelid": mixed[:, 50:52].clip(0, 1),
        "shape": outputs["shape_encoder"],
        "camera": pose[:, 3:6],
    }


def _tensors(checkpoint: Checkpoint) -> dict[str, dict[str, np.ndarray]]:
    """Encoder -> its tensors; the generator, which makes pictures for training, is left out."""
    prefixes = {name: f"smirk_encoder.{name}." for name in _ENCODERS}
    arrays = checkpoint.read()
    refuse_unknown(arrays, ("smirk_generator.", *prefixes.values()), what=checkpoint.what)
    return {name: tensors_under(arrays, prefix) for name, prefix in prefixes.items()}
