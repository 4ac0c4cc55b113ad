"""Checkpoint of a trained 2D network: safetensors with JSON metadata, which contain no code.

``network.*`` are the weights. ``seen.*`` are 8-byte hashes of the files of its training images, so that training images
are recognised under any name: the network is over-confident on them. The file has no date and no path, so that the same
training gives the same bytes.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from torch import nn

from ..errors import ModelError, UsageError, reason_of
from ..features.content import hash_contents
from ..features.samples import Listing, Split
from ..learn.training.tensors import (
    open_description,
    open_tensors,
    read_tensors,
    tensors_digest,
    write_tensors,
)

FORMAT = "ig3d-network"
FORMAT_VERSION = 2
TASKS = ("classes", "va")
VA_COLUMNS = ("valence", "arousal")


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """Description of a network in its checkpoint.

    Attributes
    ----------
    architecture : str
        Name in timm.
    task : str
        ``classes`` or ``va``.
    columns : tuple of str
        Names of the outputs, in order: canonical class names, or ``valence, arousal``.
    size : int
        Side of the square input, pixels; the full image is resized to it.
    mean, std : (3,) floats
        Normalisation of each RGB channel, for values in [0, 1].
    training : dict
        JSON: configuration, name of the dataset, rows, origin of the validation rows, scores, versions.
    """

    architecture: str
    task: str
    columns: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in TASKS or self.size < 1 or len(self.mean) != 3 or len(self.std) != 3:
            raise ModelError(
                f"network: task {self.task!r}, size {self.size}, mean {self.mean} and std {self.std} are not valid "
                f"(task {' or '.join(TASKS)}, size from 1, three means and standard deviations); train it again"
            )
        if len(self.columns) < 2 or len(set(self.columns)) < len(self.columns):
            raise ModelError(
                f"network: the outputs {self.columns} are not two or more distinct names; train it again"
            )


@dataclass(frozen=True, slots=True)
class Seen:
    """Training images of a network: sorted int64 hashes of the image files.

    Attributes
    ----------
    train : (n,) int64
        Images on which the network was fitted.
    held_out : (n,) int64
        Images of the train split on which its epoch was chosen.
    validation : (n,) int64
        Images of the val split on which its epoch was chosen.
    """

    train: np.ndarray
    held_out: np.ndarray
    validation: np.ndarray

    def with_start(self, start: Seen) -> Seen:
        """This record and that of the checkpoint from which the training started."""
        return Seen(
            np.union1d(self.train, start.train),
            np.union1d(self.held_out, start.held_out),
            np.union1d(self.validation, start.validation),
        )


def nothing_seen() -> Seen:
    """Empty record, for a network that does not record its training images."""
    return Seen(*(np.empty(0, np.int64) for _ in range(3)))


def seen_of(path: str | Path | None) -> Seen:
    """Record of the training images in a checkpoint of ig3d (``train-2d``, ``train-joint``); empty for other files."""
    try:
        described, tensors = ({}, {}) if path is None else open_tensors(path)
        if not str(described.get("format", "")).startswith("ig3d-"):
            return nothing_seen()
    except Exception:  # another format, or damaged: reading its weights raises the error
        return nothing_seen()
    nothing = torch.empty(0, dtype=torch.int64)
    return Seen(
        *(tensors.get(f"seen.{name}", nothing).numpy() for name in ("train", "held_out", "validation"))
    )


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """Loaded checkpoint; the network is in evaluation mode on the CPU."""

    module: nn.Module
    info: NetworkInfo
    seen: Seen
    source: str
    sha256: str


def check_architecture(name: str) -> None:
    """Raise an error if timm has no such network.

    Raises
    ------
    UsageError : the message has similar names, if there are any.
    """
    if not timm.is_model(name):
        similar = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=4)
        names = (
            f"similar names: {', '.join(similar)}"
            if similar
            else "names are, for example, resnet18 and convnext_tiny"
        )
        raise UsageError(
            f"network: timm has no network {name!r}; {names} (all: timm.list_models() in Python)"
        )


def build(architecture: str, *, outputs: int, size: int) -> nn.Module:
    """Build a timm network with random weights; nothing is downloaded.

    Raises
    ------
    UsageError : timm has no such network, or the network does not support this input size.
    """
    check_architecture(architecture)
    fixed = bool(
        (timm.get_pretrained_cfg(architecture, allow_unregistered=True) or _NO_CONFIG).fixed_input_size
    )
    sized: dict[str, Any] = {"img_size": size} if fixed else {}
    try:
        module = timm.create_model(architecture, pretrained=False, num_classes=outputs, **sized).eval()
        with torch.inference_mode():
            shape = tuple(module(torch.zeros(1, 3, size, size)).shape)
        if shape != (1, outputs):
            raise ValueError(f"outputs of shape {shape}")
    except (TypeError, ValueError, AssertionError, RuntimeError, AttributeError) as exc:
        raise UsageError(
            f"network {architecture}: it does not work with {size} x {size} pixels: "
            f"{str(exc).splitlines()[0] if str(exc) else type(exc).__name__}; choose another network or size"
        ) from exc
    return module.train()


@dataclass(frozen=True, slots=True)
class _NoConfig:
    fixed_input_size: bool = False


_NO_CONFIG = _NoConfig()


def normalisation(module: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each RGB channel, for values in [0, 1], from timm's configuration."""
    config = cast(dict[str, Any], module.pretrained_cfg)
    return tuple(map(float, config["mean"])), tuple(map(float, config["std"]))


def make_seen(
    listing: Listing, rows: np.ndarray, digests: np.ndarray, *, train: np.ndarray, validation: np.ndarray
) -> Seen:
    """Record of the training images.

    Parameters
    ----------
    listing : Listing
    rows : (n,) indices into the listing
        Images that were read.
    digests : (n, 16) uint8
        Digests of their files.
    train, validation : indices into the listing
        Rows on which the network was fitted, and rows on which its epoch was chosen.
    """
    hashes = hash_contents(digests)
    validated = np.isin(rows, validation)
    in_train = listing.splits[rows] == Split.train
    parts = (np.isin(rows, train), validated & in_train, validated & ~in_train)
    return Seen(*(np.unique(hashes[part]) for part in parts))


def check_place(path: str | Path, *, suffix: str) -> None:
    """Create the folder of an output file; refuse an unusable path before any work.

    Raises
    ------
    UsageError : the name does not end in ``suffix``, the path is a folder, or its folder cannot be created or written.
    """
    target = Path(path)
    if target.suffix != suffix:
        raise UsageError(f"out: the name must end in {suffix}: {target}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UsageError(
            f"out: the folder of {target} cannot be created: {reason_of(exc)}; choose another path"
        ) from exc
    if target.is_dir() or not os.access(target.parent, os.W_OK):
        reason = "it is a folder" if target.is_dir() else "its folder is not writable"
        raise UsageError(f"out: {target} cannot be written: {reason}; choose another path")


def check_replaceable(path: str | Path) -> None:
    """Refuse to replace a file that is no checkpoint of ``ig3d train-2d`` (of any version).

    Raises
    ------
    UsageError : the path is such a file.
    """
    if not os.path.lexists(path):
        return
    try:
        described = open_description(path)
        replaceable = isinstance(described, dict) and described.get("format") == FORMAT
    except Exception:
        replaceable = False
    if not replaceable:
        raise UsageError(
            f"out: {path} exists and is no checkpoint of ig3d train-2d, or is damaged; it is not replaced; choose "
            "another path"
        )


def save_network(path: str | Path, module: nn.Module, info: NetworkInfo, seen: Seen) -> str:
    """Write a checkpoint under a temporary name, flush it to disk, and rename it.

    Returns
    -------
    str : SHA-256 of the tensors, which is also in the file.
    """
    tensors = {f"network.{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {
        "seen.train": torch.from_numpy(seen.train),
        "seen.held_out": torch.from_numpy(seen.held_out),
        "seen.validation": torch.from_numpy(seen.validation),
    }
    digest = tensors_digest(tensors)
    described = {"format": FORMAT, "format_version": FORMAT_VERSION, "tensors_sha256": digest, **asdict(info)}
    write_tensors(Path(path), tensors, described)
    return digest


def load_network(path: str | Path) -> LoadedNetwork:
    """Read a checkpoint of ``ig3d train-2d``.

    Raises
    ------
    ModelError : the file is missing, damaged, of another kind or version, or its weights do not fit the network.
    """
    source = Path(path)
    described, tensors = read_tensors(
        source,
        kind=FORMAT,
        version=FORMAT_VERSION,
        what="a network of ig3d train-2d",
        absent="make one with ig3d train-2d",
        foreign="name its architecture (timm:NAME) and give the file as --weights",
    )
    try:
        info = NetworkInfo(
            architecture=described["architecture"],
            task=described["task"],
            columns=tuple(described["columns"]),
            size=int(described["size"]),
            mean=tuple(described["mean"]),
            std=tuple(described["std"]),
            training=dict(described["training"]),
        )
        seen = Seen(*(tensors.pop(f"seen.{name}").numpy() for name in ("train", "held_out", "validation")))
    except (KeyError, TypeError, ValueError) as exc:
        raise ModelError(
            f"{source}: the description of the network is incomplete ({exc}); train it again"
        ) from exc
    weights = {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
    module = _fitted(source, info, weights)
    return LoadedNetwork(module.eval(), info, seen, str(source), described["tensors_sha256"])


def _fitted(source: Path, info: NetworkInfo, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build the architecture and load the weights."""
    try:
        with torch.random.fork_rng(devices=[]):
            module = build(info.architecture, outputs=len(info.columns), size=info.size)
        module.load_state_dict(dict(weights), strict=True)
    except UsageError as exc:
        raise ModelError(f"{source}: {exc} (this file may need another version of timm)") from exc
    except RuntimeError as exc:
        raise ModelError(
            f"{source}: the weights do not fit {info.architecture} with {len(info.columns)} outputs in timm "
            f"{timm.__version__} (trained with timm {info.training.get('versions', {}).get('timm', '?')}); train "
            "again or install that version"
        ) from exc
    return module
