"""``smirk``: expression, pose and shape codes of SMIRK, from its official checkpoint.

Retsinas et al., "3D Facial Expressions through Analysis-by-Neural-Synthesis" (CVPR 2024); encoders and crop as in the
official code (commit c7de404).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ...features.values import Block, CropSpec
from .encoders import EncoderRegressor, Mobile
from .official import Checkpoint, refuse_unknown, tensors_under

_JAW_LIMIT = 0.2  # of the jaw's second and third angle, rad


class Smirk(EncoderRegressor):
    """SMIRK regressor: pose, shape and expression encoders."""

    name = "smirk"
    needs = CropSpec(size=224, scale=1.4)
    detectors = ("facemesh-smirk",)
    weights = ("smirk",)
    licence = "MIT (SMIRK's repository)"
    # the feature sets of the paper: 353 and 358 columns
    sets: ClassVar[dict[str, tuple[str, ...]]] = {
        "short": ("pose", "shape", "expression"),
        "full": ("pose", "shape", "expression", "eyelid", "jaw"),
    }
    encoders: ClassVar[dict[str, Mobile]] = {
        "pose_encoder": Mobile("tf_mobilenetv3_small_minimal_100", "pose_cam_layers", 6),
        "shape_encoder": Mobile("tf_mobilenetv3_large_minimal_100", "shape_layers", 300),
        "expression_encoder": Mobile("tf_mobilenetv3_large_minimal_100", "expression_layers", 55),
    }
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
            f"{_JAW_LIMIT}; SMIRK's jaw_params.",
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

    def split(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return split_outputs(outputs)

    def tensors(self, checkpoint: Checkpoint) -> dict[str, dict[str, np.ndarray]]:
        """Encoder -> its tensors; the generator, which is only used in training, is left out."""
        prefixes = {name: f"smirk_encoder.{name}." for name in self.encoders}
        arrays = checkpoint.read()
        refuse_unknown(arrays, ("smirk_generator.", *prefixes.values()), what=checkpoint.what)
        return {name: tensors_under(arrays, prefix) for name, prefix in prefixes.items()}


def split_outputs(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Split the outputs of SMIRK's encoders, (n, 6), (n, 300) and (n, 55), into blocks."""
    pose, mixed = outputs["pose_encoder"], outputs["expression_encoder"]
    jaw = np.concatenate([mixed[:, 52:53].clip(0), mixed[:, 53:55].clip(-_JAW_LIMIT, _JAW_LIMIT)], axis=1)
    return {
        "expression": mixed[:, :50],
        "pose": pose[:, :3],
        "jaw": jaw,
        "eyelid": mixed[:, 50:52].clip(0, 1),
        "shape": outputs["shape_encoder"],
        "camera": pose[:, 3:6],
    }
