"""Where a training end to end starts, and how it is opened again: a 2D network without its last layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
from .load import NetworkSpec, kind_of
from .load.taps import channels_first
from .load.values import Opened

_KINDS = ("own", "timm_name")


@dataclass(frozen=True, slots=True)
class Start:
    """A 2D network to begin with.

    Attributes
    ----------
    module : nn.Module
        Without its last layer.
    architecture : str
        timm's name.
    sha256 : str
        Of its weights.
    view : InputSpec
    seen : (n,) int64 hashes of the images it learnt from as a 2D network
    """

    module: nn.Module
    architecture: str
    sha256: str
    view: InputSpec
    seen: np.ndarray


def features_of(network: Any, pixels: torch.Tensor, *, maps: bool) -> torch.Tensor:
    """(n, c, h, w) maps, or (n, d) what the last layer was fed."""
    found = network.forward_features(pixels)
    return channels_first(found, network) if maps else network.forward_head(found, pre_logits=True)


def open_network(spec: NetworkSpec) -> Start:
    """A 2D network that can be trained on: one of timm's shape, with its weights.

    Raises
    ------
    UsageError : a network of another kind, or one that does not take this size.
    """
    kind = kind_of(spec)
    if kind not in _KINDS:
        raise UsageError(
            f"network: expected a checkpoint of ig3d train-2d, or timm:NAME with --weights, got {spec.network}; write "
            "its features with ig3d logits and train on them with ig3d fuse-features"
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
            f"network {opened.name}: expected one that gives features of {view.size} x {view.size} pixels, got: "
            f"{(str(exc).splitlines() or [''])[0]}; choose another network or --size"
        ) from exc
    learnt = np.union1d(opened.seen.train, opened.seen.held_out)
    return Start(network, opened.name, opened.sha256, view, learnt)


def check_predictions(path: Path, start: Start, crop: Mapping[str, Any], *, force: bool = False) -> str:
    """Check that predictions are those of the network that a training starts from, where the file records it.

    Parameters
    ----------
    path : file of the predictions
    start : Start
    crop : :attr:`ig3d.networks.crop.Crops.identity` of the training
    force : bool
        Continue with a warning where they are of another network.

    Returns
    -------
    A warning where the network, its input or the crop of the images differs; else an empty string.

    Raises
    ------
    PredictionsError : they are another network's: ``2d`` would not be what is trained further.
    """
    made_by = made_by_of(path)
    theirs = str(made_by.get("sha256", start.sha256))
    if theirs == start.sha256:
        ours = {**made_by, "input": asdict(start.view), **crop}
        differences = network_differences(describe_network(made_by), describe_network(ours))
        if not differences:
            return ""
        return (
            f"WARNING {path.name}: these predictions were made with another input: {'; '.join(differences)}"
        )
    wrong = (
        f"{path.name}: expected predictions of the network that is trained ({start.architecture} "
        f"{start.sha256[:12]}), got those of {made_by.get('network')} {theirs[:12]}"
    )
    if not force:
        raise PredictionsError(
            f"{wrong}; write them with ig3d logits and the same --network, or go on with --force"
        )
    return f"WARNING {wrong}; went on as forced"


def load_joint(path: str | Path) -> tuple[LoadedModule, Start]:
    """Read a checkpoint of :func:`train_joint`: the module, and the network that was trained with it.

    Raises
    ------
    ModelError : missing, damaged, or of a module on ready features.
    """
    loaded = load_module(path)
    described = loaded.info.joint
    if not described:
        raise ModelError(
            f"{path}: expected a network trained end to end, got a module on features; ask it with ig3d fuse-features"
        )
    try:
        name, given = described["architecture"], described["input"]
        view = InputSpec(**given | {key: tuple(given[key]) for key in ("mean", "std")})
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        sized: dict[str, Any] = (
            {"img_size": view.size} if config is not None and config.fixed_input_size else {}
        )
        with torch.random.fork_rng(devices=[]):
            network = timm.create_model(name, pretrained=False, num_classes=0, **sized)
        network.load_state_dict(loaded.network, strict=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as exc:
        raise ModelError(
            f"{path}: expected the weights of {described.get('architecture')}, got others (trained with timm "
            f"{described.get('timm')}, here {timm.__version__}); install that version, or train again"
        ) from exc
    return loaded, Start(network.eval(), name, loaded.info.network, view, np.zeros(0, np.int64))
