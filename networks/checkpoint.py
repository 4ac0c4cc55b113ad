"""A trained 2D network in one file: safetensors with JSON metadata, read without executing anything.

``network.*`` are the weights. ``seen.*`` say which images it learnt from, as 8-byte hashes of the files' contents, so
that its logits can be told apart into honest and over-confident ones under whatever name an image comes again. The
file holds no date and no path: the same training gives the same bytes.
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

from ..errors import ModelError, UsageError
from ..features.samples import Listing, Split
from ..learn.training.tensors import open_description, read_tensors, tensors_digest, write_tensors

FORMAT = "ig3d-network"
FORMAT_VERSION = 2
TASKS = ("classes", "va")
VA_COLUMNS = ("valence", "arousal")


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """What a checkpoint says about its network.

    Attributes
    ----------
    architecture : str
        timm's name.
    task : str
        ``classes`` or ``va``.
    columns : tuple of str
        What the outputs are, in order: canonical class names, or ``valence, arousal``.
    size : int
        Side of the square input, pixels; the whole image is resized to it.
    mean, std : (3,) floats
        Per RGB channel, of values in [0, 1].
    training : dict
        JSON: the configuration, the dataset's name, rows, how validation was made, scores, versions.
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
                f"network: expected a task of {', '.join(TASKS)}, a size from 1 and three means and deviations, "
                f"got {self.task!r}, {self.size}, {self.mean} and {self.std}; train it again"
            )
        if len(self.columns) < 2 or len(set(self.columns)) < len(self.columns):
            raise ModelError(
                f"network: expected two or more distinct outputs, got {self.columns}; train it again"
            )


@dataclass(frozen=True, slots=True)
class Seen:
    """What a network learnt from: sorted int64 hashes of the contents of image files.

    Attributes
    ----------
    train : (n,) int64
        Images it was fitted on.
    held_out : (n,) int64
        Images out of the train split that chose its epoch.
    validation : (n,) int64
        Images of the val split that chose its epoch.
    """

    train: np.ndarray
    held_out: np.ndarray
    validation: np.ndarray


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A network ready to run, in evaluation mode on the processor."""

    module: nn.Module
    info: NetworkInfo
    seen: Seen
    source: str
    sha256: str


def build(architecture: str, *, outputs: int, size: int) -> nn.Module:
    """A timm network with random weights; never downloads.

    Raises
    ------
    UsageError : timm has no such network, or it cannot take this input size.
    """
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=4)
        hint = f"; near it: {', '.join(near)}" if near else "; timm.list_models() has them all"
        raise UsageError(f"network: expected the name of a timm network, got {architecture!r}{hint}")
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
            f"network {architecture}: expected one that takes {size} x {size} pixels, got: "
            f"{str(exc).splitlines()[0] if str(exc) else type(exc).__name__}; choose another network or size"
        ) from exc
    return module.train()


@dataclass(frozen=True, slots=True)
class _NoConfig:
    fixed_input_size: bool = False


_NO_CONFIG = _NoConfig()


def normalisation(module: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per RGB channel of values in [0, 1], from timm's configuration."""
    config = cast(dict[str, Any], module.pretrained_cfg)
    return tuple(map(float, config["mean"])), tuple(map(float, config["std"]))


def hash_contents(digests: np.ndarray) -> np.ndarray:
    """(n, 16) uint8 digests of files to (n,) int64."""
    return np.ascontiguousarray(digests[:, :8]).view("<i8").ravel().astype(np.int64)


def make_seen(
    listing: Listing, rows: np.ndarray, digests: np.ndarray, *, train: np.ndarray, validation: np.ndarray
) -> Seen:
    """What was learnt from.

    Parameters
    ----------
    listing : Listing
    rows : (n,) indices into it
        Of the pictures that were read.
    digests : (n, 16) uint8
        Of their files.
    train, validation : indices into ``samples``
        Rows the network was fitted on, and rows that chose its epoch.
    """
    hashes = hash_contents(digests)
    validated = np.isin(rows, validation)
    in_train = listing.splits[rows] == Split.train
    parts = (np.isin(rows, train), validated & in_train, validated & ~in_train)
    return Seen(*(np.unique(hashes[part]) for part in parts))


def check_place(path: str | Path, *, suffix: str) -> None:
    """Make the folder of a file to come; refuse a place that cannot take it before any work is done.

    Raises
    ------
    UsageError : the name does not end in ``suffix``, the place is a folder, or its folder cannot be made or written to.
    """
    target = Path(path)
    if target.suffix != suffix:
        raise UsageError(f"out: expected a name that ends in {suffix}, got {target}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UsageError(f"out: expected a place for {target}, got: {exc}; choose another") from exc
    if target.is_dir() or not os.access(target.parent, os.W_OK):
        what = "a folder" if target.is_dir() else "a folder that cannot be written to"
        raise UsageError(f"out: expected a place for the file {target}, got {what}; choose another")


def check_replaceable(path: str | Path) -> None:
    """Refuse to replace a file that is no checkpoint of any version of ours.

    Raises
    ------
    UsageError : there is such a file.
    """
    if not os.path.lexists(path):
        return
    try:
        described = open_description(path)
        ours = isinstance(described, dict) and described.get("format") == FORMAT
    except Exception:
        ours = False
    if not ours:
        raise UsageError(
            f"out: expected a new file or a network of ig3d train-2d to replace, got {path}, a file of another kind "
            "or a damaged one; choose another name"
        )


def save_network(path: str | Path, module: nn.Module, info: NetworkInfo, seen: Seen) -> str:
    """Write a checkpoint under a temporary neighbour's name, flush it to disk, and rename it.

    Returns
    -------
    str : SHA-256 of the tensors, which the file also states.
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
    ModelError : the file is missing, of another kind or version, cut short, changed, or does not fit its network.
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
            f"{source}: expected a whole description of the network, got none of {exc}; train again"
        ) from exc
    weights = {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
    module = _fitted(source, info, weights)
    return LoadedNetwork(module.eval(), info, seen, str(source), described["tensors_sha256"])


def _fitted(source: Path, info: NetworkInfo, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """The architecture with these weights in it."""
    try:
        with torch.random.fork_rng(devices=[]):
            module = build(info.architecture, outputs=len(info.columns), size=info.size)
        module.load_state_dict(dict(weights), strict=True)
    except UsageError as exc:
        raise ModelError(f"{source}: {exc} (this file may need another version of timm)") from exc
    except RuntimeError as exc:
        raise ModelError(
            f"{source}: expected the weights of {info.architecture} with {len(info.columns)} outputs, got others "
            f"(trained with timm {info.training.get('versions', {}).get('timm', '?')}, here {timm.__version__}); "
            "train again or install that version"
        ) from exc
    return module
