"""2D networks without their last layer: the start of joint training, and loading of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from ..errors import ModelError, PredictionsError, UsageError
from ..features.network_features import describe_network, made_by_of, network_differences
from ..learn.intermediate.checkpoint import LoadedModule, load_module
from .images import InputSpec
from .load.feature_hooks import channels_first
from .load.values import Opened
from .options import NetworkSpec, kind_of

_KINDS = ("own", "timm_name")


@dataclass(frozen=True, slots=True)
class Start:
    """2D network at the start of joint training.

    Attributes
    ----------
    module : nn.Module
        The network without its last layer.
    architecture : str
        Name in timm.
    sha256 : str
        Hash of the weights.
    view : InputSpec
    seen : (n,) int64 hashes of the images on which the 2D network was trained
    trained_with : see :class:`~ig3d.networks.load.values.Opened`
    """

    module: nn.Module
    architecture: str
    sha256: str
    view: InputSpec
    seen: np.ndarray
    trained_with: Mapping[str, Any] = field(default_factory=dict)


def features_of(network: Any, pixels: torch.Tensor, *, maps: bool) -> torch.Tensor:
    """(n, c, h, w) feature maps, or the (n, d) input of the last layer."""
    features = network.forward_features(pixels)
    return channels_first(features, network) if maps else network.forward_head(features, pre_logits=True)


def open_network(spec: NetworkSpec) -> Start:
    """Open a 2D network with timm's interface and its weights, for further training.

    Raises
    ------
    UsageError : the network is of another kind, or does not support the image size.
    """
    kind = kind_of(spec)
    if kind not in _KINDS:
        raise UsageError(
            f"network: {spec.network} is no checkpoint of ig3d train-2d and no timm:NAME with --weights; write its "
            "features with ig3d logits and train on them with ig3d fuse-features"
        )
    opened: Opened = import_module(f".load.{kind}", __package__).open_network(spec, torch.device("cpu"))
    view = InputSpec(**opened.input | ({} if spec.size is None else {"size": spec.size}))
    network: Any = opened.module
    try:
        network.reset_classifier(0)
        with torch.no_grad():
            noise = torch.randn((1, 3, view.size, view.size), generator=torch.Generator().manual_seed(0))
            features_of(network, noise, maps=False)
    except (AttributeError, TypeError, ValueError, RuntimeError, AssertionError) as exc:
        raise UsageError(
            f"network {opened.name}: it gives no features for {view.size} x {view.size} pixels: "
            f"{(str(exc).splitlines() or [''])[0]}; choose another network or --size"
        ) from exc
    seen = np.union1d(opened.seen.train, opened.seen.held_out)
    return Start(network, opened.name, opened.sha256, view, seen, opened.trained_with)


def check_predictions(path: Path, start: Start, crop: Mapping[str, Any], *, force: bool = False) -> list[str]:
    """Check that predictions belong to the network from which training starts, if the file records its network.

    Parameters
    ----------
    path : file of the predictions
    start : Start
    crop : :attr:`ig3d.networks.crop.Crops.identity` of the training
    force : bool
        Continue with a warning if they belong to another network.

    Returns
    -------
    A warning if the network, its input or the crop of the images differs, if any.

    Raises
    ------
    PredictionsError : they belong to another network, so that ``2d`` would not be the network that is trained.
    """
    made_by = made_by_of(path)
    sha256 = str(made_by.get("sha256", start.sha256))
    if sha256 == start.sha256:
        training = {**made_by, "input": asdict(start.view), **crop}
        differences = network_differences(describe_network(made_by), describe_network(training))
        if not differences:
            return []
        return [
            f"WARNING {path.name}: the predictions were computed with other input: {'; '.join(differences)}"
        ]
    mismatch = (
        f"{path.name}: the predictions are of {made_by.get('network')} {sha256[:12]}, not of the network that is "
        f"trained ({start.architecture} {start.sha256[:12]})"
    )
    if not force:
        raise PredictionsError(
            f"{mismatch}; write them with ig3d logits and the same --network, or pass --force"
        )
    return [f"WARNING {mismatch}; continued because of --force"]


def load_joint(path: str | Path) -> tuple[LoadedModule, Start]:
    """Read a checkpoint of a joint training: module and network.

    Raises
    ------
    ModelError : the file is missing or damaged, or contains a module trained on features.
    """
    loaded = load_module(path)
    described = loaded.info.joint
    if not described:
        raise ModelError(
            f"{path}: the checkpoint is a module trained on features; apply it with ig3d fuse-features"
        )
    try:
        name, settings = described["architecture"], described["input"]
        view = InputSpec(**settings | {key: tuple(settings[key]) for key in ("mean", "std")})
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        sized: dict[str, Any] = (
            {"img_size": view.size} if config is not None and config.fixed_input_size else {}
        )
        with torch.random.fork_rng(devices=[]):
            network = timm.create_model(name, pretrained=False, num_classes=0, **sized)
        network.load_state_dict(loaded.network, strict=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as exc:
        raise ModelError(
            f"{path}: the weights do not fit {described.get('architecture')} in timm {timm.__version__} (trained with "
            f"timm {described.get('timm')}); install that version, or train again"
        ) from exc
    return loaded, Start(network.eval(), name, loaded.info.network, view, np.zeros(0, np.int64), described)
