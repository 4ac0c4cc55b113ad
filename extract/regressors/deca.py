"""``deca``: shape, expression, pose, texture, light and detail codes of DECA, from its official checkpoint.

EMOCA uses the crop, the blocks of the coarse encoder and the checkpoint layouts of this module too. Feng et al.,
 "Learning an Animatable Detailed 3D Face Model from In-The-Wild Images" (SIGGRAPH 2021); commit a11554a.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ...errors import WeightsError
from ...features.values import Block, CropSpec
from .encoders import EncoderRegressor, ResNet
from .official import Checkpoint, refuse_unknown, tensors_under

CROP = CropSpec(size=224, scale=1.25, points_factor=1.1, box_shift=0.12, floats=True)
# without 68 landmarks, EMOCA's official code uses MediaPipe's box
DETECTORS = ("sfd", "facemesh")
# the feature sets of the paper: 156 and 334 columns
SETS: Mapping[str, tuple[str, ...]] = {
    "short": ("expression", "pose", "jaw", "shape"),
    "full": ("expression", "pose", "jaw", "texture", "detail", "shape"),
}
LICENCE = "non-commercial scientific research only (Max Planck Gesellschaft)"
COARSE_WIDTH = 236
DETAIL_WIDTH = 128

# Parts of the released Lightning checkpoints that no code depends on: displacement decoder, FLAME, renderer, losses.
_UNNEEDED = (
    "deca.D_detail.",
    "deca.flame.",
    "deca.flametex.",
    "deca.render.",
    "deca.uv_",
    "deca.fixed_uv_dis",
    "deca.perceptual_loss.",
)
_DECA_ENTRIES = ("E_flame", "E_detail", "D_detail", "opt", "global_step", "batch_size")


def split_coarse(outputs: np.ndarray) -> dict[str, np.ndarray]:
    """Split the (n, 236) output of E_flame into blocks; values are not clipped."""
    return {
        "expression": outputs[:, 150:200],
        "pose": outputs[:, 200:203],
        "jaw": outputs[:, 203:206],
        "shape": outputs[:, :100],
        "camera": outputs[:, 206:209],
        "texture": outputs[:, 100:150],
        "light": outputs[:, 209:236],
    }


def checkpoint_parts(arrays: Mapping[str, Any], *, what: str) -> dict[str, Mapping[str, Any]]:
    """Encoder -> its tensors, from DECA's checkpoint layout or the Lightning layout of EMOCA.

    Parameters
    ----------
    arrays : content of the file, by name
    what : str
        Regressor and file, for messages.

    Raises
    ------
    WeightsError : the file has neither layout, or contains unknown tensors.
    """
    if isinstance(arrays.get("state_dict"), dict):
        flat = {str(key): value for key, value in arrays["state_dict"].items()}
        encoders = ("E_flame", "E_expression", "E_detail")
        refuse_unknown(flat, (*_UNNEEDED, *(f"deca.{name}." for name in encoders)), what=what)
        parts = {name: tensors_under(flat, f"deca.{name}.") for name in encoders}
        return {name: part for name, part in parts.items() if part or name != "E_expression"}
    if isinstance(arrays.get("E_flame"), dict):
        refuse_unknown(arrays, _DECA_ENTRIES, what=what)
        return {name: arrays.get(name) or {} for name in ("E_flame", "E_detail")}
    raise WeightsError(
        f"{what}: the file has neither state_dict (Lightning) nor E_flame (deca_model.tar), but "
        f"{', '.join(list(arrays)[:5]) or 'nothing'}; docs/regressors.md names the official file"
    )


def flame_blocks(regressor: str, expression: str) -> dict[str, Block]:
    """Blocks of DECA and EMOCA.

    Parameters
    ----------
    regressor : str
    expression : str
        Source of the expression codes, for the description of the block.
    """
    axes = ("x", "y", "z")
    return {
        "expression": Block(
            50, "1", "flame-2020", f"First 50 expression coefficients of FLAME; {expression}."
        ),
        "pose": Block(
            3,
            "rad",
            "axis-angle",
            "Rotation of the head, FLAME's axes: x to the image's right, y up, z towards the camera; pose 0:3 "
            "(E_flame 200:203).",
            axes,
        ),
        "jaw": Block(
            3,
            "rad",
            "flame-2020",
            "Rotation of FLAME's jaw, axis-angle: x opens the mouth, no limits; pose 3:6 (E_flame 203:206).",
            axes,
        ),
        "shape": Block(
            100,
            "1",
            "flame-2020",
            "First 100 shape (identity) coefficients of FLAME; shape (E_flame 0:100).",
        ),
        "camera": Block(
            3,
            "1",
            "weak-perspective-crop",
            "Scale and translation: point of the crop, which spans [-1, 1], y up = scale * (point + (tx, ty)); cam "
            "(E_flame 206:209).",
            ("scale", "tx", "ty"),
        ),
        "texture": Block(
            50, "1", "flame-texture", "Albedo coefficients of DECA's texture model; tex (E_flame 100:150)."
        ),
        "light": Block(
            27,
            "1",
            "spherical-harmonics",
            "Nine spherical harmonics, each red, green, blue; light (E_flame 209:236, read as 9 by 3).",
            tuple(f"{harmonic}{colour}" for harmonic in range(9) for colour in "rgb"),
        ),
        "detail": Block(
            DETAIL_WIDTH,
            "1",
            f"{regressor}-detail",
            "Latent code of the displacement decoder; detail (E_detail), on a scale of this checkpoint's own.",
        ),
    }


class Deca(EncoderRegressor):
    """DECA regressor: coarse and detail encoders."""

    name = "deca"
    needs = CROP
    detectors = DETECTORS
    weights = ("deca",)
    licence = LICENCE
    sets = SETS
    blocks = flame_blocks("deca", "DECA's exp, from E_flame")
    encoders: ClassVar[dict[str, ResNet]] = {
        "E_flame": ResNet(COARSE_WIDTH),
        "E_detail": ResNet(DETAIL_WIDTH),
    }

    def split(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**split_coarse(outputs["E_flame"]), "detail": outputs["E_detail"]}

    def tensors(self, checkpoint: Checkpoint) -> dict[str, Mapping[str, Any]]:
        parts = checkpoint_parts(checkpoint.read(), what=checkpoint.what)
        if "E_expression" in parts:
            raise WeightsError(
                f"{checkpoint.what}: this is a checkpoint of EMOCA, not DECA; use --regressor emoca"
            )
        return parts
