"""The user's 2D network, whatever it is made of, as one callable: images in, named columns and features out.

``load_network`` finds out what kind of network is meant, opens it (a file of this folder for each kind), runs it on
noise to see what it gives, and settles which of its columns mean what; all before an image is read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ...errors import ModelError, UsageError
from ...features.classes import orders_of
from ..checkpoint import LoadedNetwork as Checkpoint
from ..checkpoint import Seen
from ..images import InputSpec
from ..presets import VALENCE_FIRST, NetworkPreset, preset
from .outputs import Columns, Meaning, choose_columns, choose_outputs, parse_order, side_by_side
from .taps import Asked, as_features, with_features
from .values import Network, NetworkSpec, Opened, Outputs

__all__ = ["InputSpec", "Network", "NetworkSpec", "Outputs", "UserNetwork", "load_network"]

# How a network is named -> the file of this folder that opens it; the first that fits.
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
# Input of a network of one channel, unless something else is known: the usual mean and deviation are of three.
_GREY = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
# How far the outputs of one image may move with what stands beside it, in units of their own size; rounding is 1e-5.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class UserNetwork:
    """A network that is ready to run; a :class:`Network`.

    Attributes
    ----------
    opened : Opened
    input : InputSpec
    columns : Columns
    layer : str
        Where the features come from; empty without.
    maps : bool
        Features are maps.
    device : torch.device
    """

    opened: Opened
    input: InputSpec
    columns: Columns
    layer: str
    maps: bool
    device: torch.device
    _ask: Asked

    @property
    def name(self) -> str:
        return self.opened.name

    @property
    def seen(self) -> Seen:
        return self.opened.seen

    @property
    def written(self) -> tuple[str, ...]:
        """Names of what it gives: its classes, valence and arousal, features."""
        return (
            *self.columns.classes,
            *(VALENCE_FIRST if self.columns.va else ()),
            *(("features",) if self.layer else ()),
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What made the outputs: name, hash of the contents, input, columns, layer; JSON, no paths."""
        return {
            "network": self.opened.name,
            "sha256": self.opened.sha256,
            "input": asdict(self.input),
            "outputs": list(self.columns.outputs),
            "layer": self.layer,
        }

    def feature_network(self, crop: Mapping[str, Any]) -> str:
        """Name for the source of the features: equal only for the same network, layer, input and crop.

        Parameters
        ----------
        crop : mapping
            :attr:`ig3d.networks.crop.Crops.identity`.
        """
        record = json.dumps({**self.identity, **crop, "outputs": None, "maps": self.maps}, sort_keys=True)
        return f"{self.name} {self.layer} {hashlib.sha256(record.encode()).hexdigest()[:16]}"

    def __call__(self, images: torch.Tensor) -> Outputs:
        """Ask (n, 3, size, size) float32 images, n >= 1; every row is as if it were alone.

        Raises
        ------
        ModelError : the network cannot be run on them, or its outputs are not finite.
        """
        with torch.inference_mode():
            outputs, features = _ask(self._ask, images, self.opened)
            logits, va = self.columns.take(outputs)
            if features is not None:
                features = as_features(features, len(images), maps=self.maps)
        for what, values in (("outputs", logits), ("valence and arousal", va), ("features", features)):
            if values is not None and not bool(torch.isfinite(values).all()):
                raise ModelError(
                    f"{self.name}: expected finite {what}, got others; check size, mean and std, or its weights"
                )
        return Outputs(logits, va, features)


def load_network(
    spec: NetworkSpec | Checkpoint, *, device: torch.device, dataset_classes: Sequence[str] = ()
) -> UserNetwork:
    """Open a network and settle what its columns are.

    Parameters
    ----------
    spec : NetworkSpec, or a checkpoint of ours that was read already
    device : torch.device
    dataset_classes : what ``--classes dataset`` stands for

    Raises
    ------
    UsageError : what was said does not fit together, or does not fit the network's outputs.
    ModelError : the file is missing, damaged or of another kind; the weights do not fit; the outputs of an image
        depend on the images beside it, or are not finite.
    MissingExtra : ONNX needs onnxruntime.
    """
    if isinstance(spec, Checkpoint):
        opened = import_module(".own", __name__).opened(spec, device)
        spec, known = NetworkSpec(spec.source), None
    else:
        known = preset(spec.preset) if spec.preset else None
        opened = import_module(f".{kind_of(spec)}", __name__).open_network(spec, device)
    opened = _with_channels(opened, _input(spec, opened, known).size, device)
    given = _input(spec, opened, known)
    ask, layer = with_features(opened, spec)
    noise = torch.randn((3, 3, given.size, given.size), generator=torch.Generator().manual_seed(0)).to(device)
    with torch.inference_mode():
        outputs, features = _ask(ask, noise, opened)
        names = choose_outputs(
            outputs, spec.output or (known.output if known else ""), rows=3, source=opened.name
        )
        meaning = _meaning(spec, opened, known, dataset_classes)
        columns = choose_columns(names, side_by_side(outputs, names).shape[1], meaning, source=opened.name)
        if features is not None:
            as_features(features, 3, maps=spec.feature_maps)
    network = UserNetwork(opened, given, columns, layer, spec.feature_maps, device, ask)
    _check_alone(network, noise)
    return network


def kind_of(spec: NetworkSpec) -> str:
    """The file of this folder for a network.

    >>> kind_of(NetworkSpec("timm:resnet18")), kind_of(NetworkSpec("clone/net.py:Net"))
    ('timm_name', 'python_file')

    Raises
    ------
    UsageError : none fits, or weights are given to a network that has its own.
    """
    text = spec.network
    found = next((kind for form, kind in KINDS.items() if re.fullmatch(form, text, re.DOTALL)), None)
    if found is None:
        raise UsageError(
            "network: expected a file (.safetensors, .pt, .pt2, .onnx, .tflite), timm:NAME, file.py:build or fer, got "
            f"{text!r}"
        )
    if found not in ("timm_name", "python_file"):
        if spec.weights is not None or spec.key:
            raise UsageError(
                f"weights: expected --weights and --key with timm:NAME or file.py:build, got {text}"
            )
        if found != "fer" and not Path(text).is_file():
            raise ModelError(
                f"{text}: expected a network, found no file; make one with ig3d train-2d, or export yours"
            )
    return found


def _with_channels(opened: Opened, size: int, device: torch.device) -> Opened:
    """The network with its number of channels; one that does not record it is tried with 3, then with 1."""
    channels = opened.channels
    if channels is None:
        takes = [n for n in (3, 1) if _takes(opened, torch.zeros((2, n, size, size), device=device))]
        channels = takes[0] if takes else 3
    opened = replace(opened, channels=channels)
    if channels == 3:
        return opened
    return replace(opened, input=opened.input | {"colour": "grey"}, fixed=(*opened.fixed, "colour"))


def _takes(opened: Opened, images: torch.Tensor) -> bool:
    try:
        with torch.inference_mode():
            opened.call(images)
    except Exception:  # a user's network may raise anything; the error is reported when it is run
        return False
    return True


def _input(spec: NetworkSpec, opened: Opened, known: NetworkPreset | None) -> InputSpec:
    """What the user says goes before what the network says itself, and that before the preset."""
    said = {
        name: value
        for name in ("size", "mean", "std", "colour", "interpolation")
        if (value := getattr(spec, name)) is not None
    }
    for name in opened.fixed:
        if said.get(name) not in (None, opened.input[name]):
            raise UsageError(
                f"{name}: expected {opened.input[name]}, the only one that {opened.name} takes, got {said[name]}"
            )
    known = known or NetworkPreset({})
    usual = {**_GREY, **known.input, **known.grey} if opened.channels == 1 else known.input
    view = InputSpec(**{**usual, **opened.input, **said})
    if opened.channels == 1 and (len(set(view.mean)) > 1 or len(set(view.std)) > 1):
        raise UsageError(
            f"mean, std: expected one number each for {opened.name}, which takes one grey channel, got {view.mean} "
            f"and {view.std}"
        )
    return view


def _meaning(
    spec: NetworkSpec, opened: Opened, known: NetworkPreset | None, dataset_classes: Sequence[str]
) -> Meaning:
    orders: tuple[tuple[str, ...], ...] = ()
    if known is not None and (opened.classes or opened.va):
        raise UsageError(
            f"preset: expected none with {opened.name}, which says its columns itself, got {spec.preset}"
        )
    if spec.classes:
        orders = (parse_order(spec.classes, dataset_classes),)
        if opened.classes and orders[0] != opened.classes:
            raise UsageError(
                f"classes: expected those that the network says itself ({', '.join(opened.classes)}), got "
                f"{', '.join(orders[0])}; leave --classes out"
            )
    elif known is not None:
        orders = orders_of(spec.preset)
    elif opened.classes:
        orders = (opened.classes,)
    after = VALENCE_FIRST if opened.va else known.va_after if known else ()
    return Meaning(orders, spec.columns, spec.va, after)


def _ask(
    ask: Asked, images: torch.Tensor, opened: Opened
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """Run on any number of rows; a network that takes a fixed number gets them in parts.

    A lone row is never asked alone: code that squeezes its outputs would lose the axis.
    """
    rows = opened.fixed_rows or max(len(images), 2)
    parts = []
    for first in range(0, len(images), rows):
        part = images[first : first + rows]
        filled = torch.cat([part, part[-1:].expand(rows - len(part), -1, -1, -1)])
        parts.append((_run(ask, filled, opened), len(part)))
    outputs = {
        name: torch.cat([said[name][:n] if len(said[name]) == rows else said[name] for (said, _), n in parts])
        for name in parts[0][0][0]
        if parts[0][0][0][name].ndim
    }
    features = [said[:n] for (_, said), n in parts if said is not None]
    return outputs, torch.cat(features) if features else None


def _run(
    ask: Asked, images: torch.Tensor, opened: Opened
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """One call of the network; each exception becomes one line."""
    try:
        return ask(images[:, : opened.channels])
    except (ModelError, UsageError):
        raise
    except Exception as exc:  # a network of the user's may raise anything
        said = (str(exc).strip().splitlines() or [""])[0][:200]
        raise ModelError(
            f"{opened.name}: expected to take {tuple(images.shape)} images, got {type(exc).__name__}: {said}; "
            "check --size and the network"
        ) from exc


def _check_alone(network: UserNetwork, images: torch.Tensor) -> None:
    """Refuse a network whose outputs for an image depend on the images beside it, or change from call to call."""
    together, apart = network(images), network(images[:1])
    for name in ("logits", "va", "features"):
        first, again = getattr(together, name), getattr(apart, name)
        if first is None:
            continue
        scale = max(1.0, float(first.abs().max()))
        moved = float((first[:1] - again).abs().max())
        if moved > _TOLERANCE * scale:
            raise ModelError(
                f"{network.name}: expected the same outputs for an image whatever stands beside it, got {name} that "
                f"move by {moved:.3g}; normalise by running statistics (evaluation mode) and draw nothing at random"
            )
