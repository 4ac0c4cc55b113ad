"""``emoca``: DECA's codes with the expression of EMOCA's encoder, from an official checkpoint of version 1 or 2.

Danecek et al., "EMOCA: Emotion Driven Monocular Face Capture and Animation" (CVPR 2022); commit fef5472. The
versions differ only in their training; the outputs of the expression encoder follow from the checkpoint's shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...errors import WeightsError, listed
from ...features.atomic import file_sha256
from .deca import (
    COARSE_WIDTH,
    CROP,
    DETAIL_WIDTH,
    DETECTORS,
    LICENCE,
    SETS,
    checkpoint_parts,
    flame_blocks,
    split_coarse,
)
from .encoders import EncoderRegressor, ResNet
from .official import Checkpoint, find_checkpoint

_EXPRESSION = "EMOCA's exp, from E_expression"
# Number of outputs of the expression encoder -> block -> columns; 53 outputs need the model's configuration.
_LAYOUTS: Mapping[int, Mapping[str, slice]] = {
    50: {"expression": slice(0, 50)},
    56: {"expression": slice(0, 50), "pose": slice(50, 53), "jaw": slice(53, 56)},
}


class Emoca(EncoderRegressor):
    """EMOCA regressor: coarse, expression and detail encoders."""

    name = "emoca"
    needs = CROP
    detectors = DETECTORS
    weights = ("emoca",)
    licence = LICENCE
    sets = SETS
    blocks = flame_blocks("emoca", _EXPRESSION)
    encoders: ClassVar[dict[str, ResNet]] = {
        "E_flame": ResNet(COARSE_WIDTH),
        "E_expression": ResNet(None),
        "E_detail": ResNet(DETAIL_WIDTH),
    }

    def __init__(self, device: str = "cpu", precision: str = "fp32", *, backend: str | None = None) -> None:
        super().__init__(device, precision, backend=backend)
        self._layout = expression_layout(self._widths()["E_expression"], self._checkpoint)

    @classmethod
    def describe(cls, device: str = "cpu", precision: str = "fp32") -> dict[str, Any]:
        settings = settings_of(find_checkpoint(cls.name))
        used = {} if settings is None else {"settings_sha256": file_sha256(settings)}
        return {**super().describe(device, precision), **used}

    def split(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            **split_coarse(outputs["E_flame"]),
            **{block: outputs["E_expression"][:, columns] for block, columns in self._layout.items()},
            "detail": outputs["E_detail"],
        }

    def tensors(self, checkpoint: Checkpoint) -> Mapping[str, Mapping[str, Any]]:
        """Encoder -> its tensors; raises WeightsError if the expression encoder is not EMOCA's."""
        parts = checkpoint_parts(checkpoint.read(), what=checkpoint.what)
        if "E_expression" not in parts:
            raise WeightsError(
                f"{checkpoint.what}: this is a checkpoint of DECA, not EMOCA; use --regressor deca"
            )
        names = list(parts["E_expression"])
        others = [name for name in names if not name.startswith(("encoder.", "layers."))]
        last = parts["E_expression"].get("layers.2.weight")
        width = last.shape[0] if isinstance(last, np.ndarray) and last.ndim == 2 else 0
        if others or width not in (50, 53, 56):
            raise WeightsError(
                f"{checkpoint.what}: the expression encoder must be a separate ResNet with 50, 53 or 56 outputs; it "
                f"has {width} outputs and {len(others)} tensors of another network ({listed(others or names, 3)}); "
                "use a released EMOCA v1 or v2 model (50 outputs)"
            )
        return parts


class EmocaV1(Emoca):
    """EMOCA, first release."""

    name = "emoca_v1"
    weights = ("emoca_v1",)
    blocks = flame_blocks("emoca_v1", _EXPRESSION)


class EmocaV2Mp(Emoca):
    """EMOCA v2 without the lip-reading loss."""

    name = "emoca_v2_mp"
    weights = ("emoca_v2_mp",)
    blocks = flame_blocks("emoca_v2_mp", _EXPRESSION)


class EmocaV2Cos(Emoca):
    """EMOCA v2 with the lip-reading loss as a cosine."""

    name = "emoca_v2_cos"
    weights = ("emoca_v2_cos",)
    blocks = flame_blocks("emoca_v2_cos", _EXPRESSION)


def expression_layout(width: int, checkpoint: Checkpoint) -> Mapping[str, slice]:
    """Block -> columns of the expression encoder's output.

    Of 53 columns, three are the rotation of the head or of the jaw; ``cfg.yaml`` in a folder above the checkpoint
    specifies which.

    Parameters
    ----------
    width : 50, 53 or 56
    checkpoint : Checkpoint

    Raises
    ------
    WeightsError : ``cfg.yaml`` is needed but missing, or does not specify the columns.
    """
    if width in _LAYOUTS:
        return _LAYOUTS[width]
    import yaml

    settings = settings_of(checkpoint)
    if settings is not None:
        try:
            model = yaml.safe_load(settings.read_text())["detail"]["model"]
            head, jaw = bool(model["exp_deca_global_pose"]), bool(model["exp_deca_jaw_pose"])
        except Exception as exc:  # the parser raises many kinds for text that is not YAML
            raise WeightsError(
                f"{settings.name}: detail.model.exp_deca_global_pose or exp_deca_jaw_pose is missing "
                f"({type(exc).__name__}); use the file that came with the checkpoint"
            ) from exc
        if head != jaw:
            return {"expression": slice(0, 50), ("pose" if head else "jaw"): slice(50, 53)}
    raise WeightsError(
        f"{checkpoint.what}: 53 expression outputs need cfg.yaml in a folder above the checkpoint, where the "
        "kind of rotation is set; there is none; unpack the zip as it was distributed"
    )


def settings_of(checkpoint: Checkpoint) -> Path | None:
    """The model's configuration, ``cfg.yaml`` in a folder above the checkpoint; None if there is none."""
    files = (folder / "cfg.yaml" for folder in checkpoint.path.parents[:4])
    return next((file for file in files if file.is_file()), None)
