"""Load a 2D network of any kind as a callable: images in, named columns and features out.

``load_network`` recognises the kind of network, opens it (one module of this folder for each kind), runs it on random
noise to get the shapes of its outputs, and determines the meaning of its columns, before any image is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any

import torch

from ...errors import ModelError, UsageError
from ...features.classes import orders_of
from ..checkpoint import LoadedNetwork as Checkpoint
from ..checkpoint import Seen
from ..images import InputSpec
from ..options import NetworkSpec, kind_of
from ..presets import VALENCE_FIRST, NetworkPreset, preset
from .feature_hooks import NetworkCall, as_features, with_features
from .outputs import Columns, Meaning, choose_columns, choose_outputs, parse_order, side_by_side
from .values import Network, Opened, Outputs

__all__ = ["InputSpec", "Network", "NetworkSpec", "Outputs", "UserNetwork", "load_network"]

# Default normalisation of a network with one channel; the usual mean and standard deviation are for three channels.
_GREY = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
# Largest relative change of the outputs of an image between batches; rounding is about 1e-5.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class UserNetwork:
    """Network that is ready to run; a :class:`Network`.

    Attributes
    ----------
    opened : Opened
    input : InputSpec
    columns : Columns
    layer : str
        Layer of the features; empty without features.
    maps : bool
        Whether features are maps.
    device : torch.device
    """

    opened: Opened
    input: InputSpec
    columns: Columns
    layer: str
    maps: bool
    device: torch.device
    _call: NetworkCall

    @property
    def name(self) -> str:
        return self.opened.name

    @property
    def seen(self) -> Seen:
        return self.opened.seen

    @property
    def written(self) -> tuple[str, ...]:
        """Names of the outputs: classes, valence and arousal, features."""
        return (
            *self.columns.classes,
            *(VALENCE_FIRST if self.columns.va else ()),
            *(("features",) if self.layer else ()),
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Origin of the outputs as JSON without paths: name, content hash, input, columns, layer."""
        return {
            "network": self.opened.name,
            "sha256": self.opened.sha256,
            "input": asdict(self.input),
            "outputs": list(self.columns.outputs),
            "layer": self.layer,
        }

    def feature_network(self, crop: Mapping[str, Any]) -> str:
        """Identifier of the source of the features: equal only for the same network, layer, input and crop.

        Parameters
        ----------
        crop : mapping
            :attr:`ig3d.networks.crop.Crops.identity`.
        """
        record = json.dumps({**self.identity, **crop, "outputs": None, "maps": self.maps}, sort_keys=True)
        return f"{self.name} {self.layer} {hashlib.sha256(record.encode()).hexdigest()[:16]}"

    def __call__(self, images: torch.Tensor) -> Outputs:
        """Run on (n, 3, size, size) float32 images, n >= 1; rows do not affect each other.

        Raises
        ------
        ModelError : the network fails on these images, or its outputs are not finite.
        """
        with torch.inference_mode():
            outputs, features = _run_batches(self._call, images, self.opened)
            logits, va = self.columns.take(outputs)
            if features is not None:
                features = as_features(features, len(images), maps=self.maps)
        for name, values in (("outputs", logits), ("valence and arousal", va), ("features", features)):
            if values is not None and not bool(torch.isfinite(values).all()):
                raise ModelError(f"{self.name}: {name} are not finite; check size, mean, std and weights")
        return Outputs(logits, va, features)


def load_network(
    spec: NetworkSpec | Checkpoint, *, device: torch.device, dataset_classes: Sequence[str] = ()
) -> UserNetwork:
    """Open a network and determine the meaning of its columns.

    Parameters
    ----------
    spec : NetworkSpec, or a loaded checkpoint of ``ig3d train-2d``
    device : torch.device
    dataset_classes : class order for ``--classes dataset``

    Raises
    ------
    UsageError : options contradict each other or the network's outputs.
    ModelError : the file is missing, damaged or of another kind; the weights do not fit the network; the outputs of
        an image depend on other images of the batch, or are not finite.
    MissingExtra : a package is missing, such as onnxruntime for ONNX files.
    """
    if isinstance(spec, Checkpoint):
        opened = import_module(".own", __name__).opened(spec, device)
        spec, named = NetworkSpec(spec.source), None
    else:
        named = preset(spec.preset) if spec.preset else None
        opened = import_module(f".{kind_of(spec)}", __name__).open_network(spec, device)
    opened = _with_channels(opened, _input(spec, opened, named).size, device)
    view = _input(spec, opened, named)
    call, layer = with_features(opened, spec)
    noise = torch.randn((3, 3, view.size, view.size), generator=torch.Generator().manual_seed(0)).to(device)
    with torch.inference_mode():
        outputs, features = _run_batches(call, noise, opened)
        names = choose_outputs(
            outputs, spec.output or (named.output if named else ""), rows=3, source=opened.name
        )
        meaning = _meaning(spec, opened, named, dataset_classes)
        columns = choose_columns(names, side_by_side(outputs, names).shape[1], meaning, source=opened.name)
        if features is not None:
            as_features(features, 3, maps=spec.feature_maps)
    network = UserNetwork(opened, view, columns, layer, spec.feature_maps, device, call)
    _check_rows_independent(network, noise)
    return network


def _with_channels(opened: Opened, size: int, device: torch.device) -> Opened:
    """Set the number of input channels; if the network does not record it, try 3, then 1."""
    channels = opened.channels
    if channels is None:
        accepted = [n for n in (3, 1) if _accepts(opened, torch.zeros((2, n, size, size), device=device))]
        channels = accepted[0] if accepted else 3
    opened = replace(opened, channels=channels)
    if channels == 3:
        return opened
    return replace(opened, input=opened.input | {"colour": "grey"}, fixed=(*opened.fixed, "colour"))


def _accepts(opened: Opened, images: torch.Tensor) -> bool:
    try:
        with torch.inference_mode():
            opened.call(images)
    except Exception:  # a user's network may raise any exception, which is reported when it is run
        return False
    return True


def _input(spec: NetworkSpec, opened: Opened, named: NetworkPreset | None) -> InputSpec:
    """Input settings: options override those of the network, which override those of the preset."""
    options = {
        name: value
        for name in ("size", "mean", "std", "colour", "interpolation")
        if (value := getattr(spec, name)) is not None
    }
    for name in opened.fixed:
        if options.get(name) not in (None, opened.input[name]):
            raise UsageError(
                f"{name}: {opened.name} accepts only {opened.input[name]}, not {options[name]}; leave out --{name}"
            )
    named = named or NetworkPreset({})
    defaults = {**_GREY, **named.input, **named.grey} if opened.channels == 1 else named.input
    view = InputSpec(**{**defaults, **opened.input, **options})
    if opened.channels == 1 and (len(set(view.mean)) > 1 or len(set(view.std)) > 1):
        raise UsageError(
            f"mean, std: {opened.name} has one grey channel and needs one number each, not {view.mean} and {view.std}"
        )
    return view


def _meaning(
    spec: NetworkSpec, opened: Opened, named: NetworkPreset | None, dataset_classes: Sequence[str]
) -> Meaning:
    """Meaning of the columns, from options, network and preset."""
    orders: tuple[tuple[str, ...], ...] = ()
    if named is not None and (opened.classes or opened.va):
        raise UsageError(f"preset: {opened.name} defines its own columns; leave out --preset {spec.preset}")
    if spec.classes:
        orders = (parse_order(spec.classes, dataset_classes),)
        if opened.classes and orders[0] != opened.classes:
            raise UsageError(
                f"classes: the network defines its classes ({', '.join(opened.classes)}), not "
                f"{', '.join(orders[0])}; leave out --classes"
            )
    elif named is not None:
        orders = orders_of(spec.preset)
    elif opened.classes:
        orders = (opened.classes,)
    after = VALENCE_FIRST if opened.va else named.va_after if named else ()
    return Meaning(orders, spec.columns, spec.va, after)


def _run_batches(
    call: NetworkCall, images: torch.Tensor, opened: Opened
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """Run on any number of rows; a network with a fixed batch size gets the rows in parts.

    A batch has at least two rows, because code that squeezes its outputs would remove the axis of a single row.
    """
    rows = opened.fixed_rows or max(len(images), 2)
    parts = []
    for first in range(0, len(images), rows):
        part = images[first : first + rows]
        padded = torch.cat([part, part[-1:].expand(rows - len(part), -1, -1, -1)])
        parts.append((_run(call, padded, opened), len(part)))
    outputs = {
        name: torch.cat(
            [values[name][:n] if len(values[name]) == rows else values[name] for (values, _), n in parts]
        )
        for name in parts[0][0][0]
        if parts[0][0][0][name].ndim
    }
    features = [values[:n] for (_, values), n in parts if values is not None]
    return outputs, torch.cat(features) if features else None


def _run(
    call: NetworkCall, images: torch.Tensor, opened: Opened
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """Call the network once; every exception becomes a one-line error."""
    try:
        return call(images[:, : opened.channels])
    except (ModelError, UsageError):
        raise
    except Exception as exc:  # a user's network may raise any exception
        reason = (str(exc).strip().splitlines() or [""])[0][:200]
        raise ModelError(
            f"{opened.name}: the network fails on images {tuple(images.shape)} with {type(exc).__name__}: {reason}; "
            "check --size and the network"
        ) from exc


def _check_rows_independent(network: UserNetwork, images: torch.Tensor) -> None:
    """Raise an error if outputs for an image depend on the other images of a batch, or are random."""
    batch, single = network(images), network(images[:1])
    for name in ("logits", "va", "features"):
        of_batch, of_single = getattr(batch, name), getattr(single, name)
        if of_batch is None:
            continue
        scale = max(1.0, float(of_batch.abs().max()))
        difference = float((of_batch[:1] - of_single).abs().max())
        if difference > _TOLERANCE * scale:
            raise ModelError(
                f"{network.name}: {name} of an image change by {difference:.3g} with the other images of the batch, or "
                "between calls; use evaluation mode (running statistics) and no random operations"
            )
