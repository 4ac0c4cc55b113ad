"""A trained module in one file: safetensors with JSON metadata that says what it needs.

``module.*`` are the weights (and, trained end to end, ``network.*`` those of the 2D network); ``seen.*`` say which
images it learnt from, as 8-byte hashes of their contents. No date, no path: the same training gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import ModelError, UsageError, some
from ...features.fusion_table import BlockUse, FusionTable
from ...features.network_features import network_differences
from ..training.tensors import read_tensors, tensors_digest, write_tensors
from .config import TASKS
from .modules import FusionModule, ModuleSpec, make_module

FORMAT = "ig3d-fusion-module"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """What a module needs, and what came of its training.

    Attributes
    ----------
    spec : ModuleSpec
    task : ``classes``, ``va`` or ``both``
    classes : canonical names of the class outputs; empty for valence-arousal
    blocks : the code blocks it reads, in order, with basis
    network : str
        Names the network that made its features, by content.
    two_d : str
        Description of that network, its input and its crop; empty where the file of features has none.
    joint : dict
        Description of the 2D network whose weights lie in the same file; empty for a module on ready features.
    training : dict
        JSON: arm, seed, configuration, scores of the best epoch, versions.
    """

    spec: ModuleSpec
    task: str
    classes: tuple[str, ...]
    blocks: tuple[BlockUse, ...]
    network: str
    two_d: str = ""
    joint: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        outputs = len(self.classes) + 2 * (self.task != "classes")
        widths = tuple(block.width for block in self.blocks)
        if self.task not in TASKS or outputs != self.spec.outputs or widths != self.spec.blocks:
            raise ModelError(
                f"module: expected a task of {', '.join(TASKS)} whose outputs and blocks fit the module, got "
                f"{self.task!r}, {self.spec.outputs} outputs and blocks of {widths}; train it again"
            )


@dataclass(frozen=True, slots=True)
class LoadedModule:
    """A module ready to run, in evaluation mode on the processor.

    Attributes
    ----------
    module : FusionModule
    info : ModuleInfo
    train, validation : (n,) int64 hashes of image contents
        What it was fitted on, and what chose its epoch.
    network : weights of the 2D network by name; empty for a module on ready features
    source : str
    """

    module: FusionModule
    info: ModuleInfo
    train: np.ndarray
    validation: np.ndarray
    network: dict[str, torch.Tensor]
    source: str

    @property
    def blocks(self) -> str:
        """The code blocks that it reads, as ``--blocks`` names them."""
        return ",".join(block.name for block in self.info.blocks)

    @property
    def task(self) -> str:
        """The predictions that it is put beside: ``classes`` or ``va``."""
        return "va" if self.info.task == "va" else "classes"


def save_module(
    path: Path,
    module: FusionModule,
    info: ModuleInfo,
    *,
    train: np.ndarray,
    validation: np.ndarray,
    network: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a checkpoint, all or nothing."""
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {f"network.{name}": tensor for name, tensor in (network or {}).items()}
    tensors |= {
        "seen.train": torch.from_numpy(np.unique(train)),
        "seen.validation": torch.from_numpy(np.unique(validation)),
    }
    described = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tensors_sha256": tensors_digest(tensors),
        **asdict(info),
    }
    write_tensors(path, tensors, described)


def load_module(path: str | Path) -> LoadedModule:
    """Read a checkpoint.

    Raises
    ------
    ModelError : missing, of another kind or version, cut short, changed, or with weights of another module.
    """
    described, tensors = read_tensors(
        path, kind=FORMAT, version=FORMAT_VERSION, what="a module of ig3d fuse-features or train-joint"
    )
    try:
        spec = described["spec"]
        info = ModuleInfo(
            spec=ModuleSpec(**spec | {"shape": tuple(spec["shape"]), "blocks": tuple(spec["blocks"])}),
            task=described["task"],
            classes=tuple(described["classes"]),
            blocks=tuple(BlockUse(**block) for block in described["blocks"]),
            network=described["network"],
            two_d=described.get("two_d", ""),
            joint=dict(described["joint"]),
            training=dict(described["training"]),
        )
        train, validation = (tensors.pop(f"seen.{name}").numpy() for name in ("train", "validation"))
        with torch.random.fork_rng(devices=[]):
            module = make_module(info.spec)
        parts: dict[str, dict[str, torch.Tensor]] = {"module": {}, "network": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        module.load_state_dict(parts["module"], strict=True)
    except (KeyError, TypeError, ValueError, RuntimeError, UsageError) as exc:
        raise ModelError(
            f"{path}: expected a whole description of a module and its weights, got others "
            f"({str(exc).splitlines()[0]}); train it again"
        ) from exc
    return LoadedModule(module.eval(), info, train, validation, parts["network"], str(path))


def check_fits(
    loaded: LoadedModule, table: FusionTable, *, network: str, shape: tuple[int, ...]
) -> list[str]:
    """Refuse rows that a module was not made for.

    Parameters
    ----------
    table : the rows
    network, shape : name and shape of a row of their features

    Returns
    -------
    warnings : the crop or the pre-processing of the images differs

    Raises
    ------
    ModelError : features of another network or width, or codes of other blocks or another basis.
    """
    info = loaded.info
    if info.joint:
        raise ModelError(
            f"{loaded.source}: expected a module on features, got a network trained end to end; ask it with "
            "ig3d train-joint --apply"
        )
    if shape != info.spec.shape:
        raise ModelError(
            f"{loaded.source}: expected features of shape {_shape(info.spec.shape)}, got {_shape(shape)}; "
            "write them as those it was trained on (ig3d logits --features, or --feature-maps)"
        )
    warnings = input_warnings(info, table) if _layer(network) == _layer(info.network) else []
    if network != info.network and not warnings:
        raise ModelError(
            f"{loaded.source}: expected features of the network {_short(info.network)}, got those of "
            f"{_short(network)}; write them with the network, layer and input that it was trained on"
        )
    check_blocks(loaded, table)
    return warnings


def input_warnings(info: ModuleInfo, table: FusionTable) -> list[str]:
    """A warning where the 2D outputs of ``table`` are of the module's network, but of images prepared otherwise."""
    same = info.two_d.partition(";")[0] == table.two_d_network.partition(";")[0]
    differences = network_differences(info.two_d, table.two_d_network)
    return [input_warning(differences)] if same and differences else []


def input_warning(differences: Sequence[str]) -> str:
    """The warning for images that are cropped or scaled in another way than those of the training."""
    return (
        f"WARNING the module was trained with another input of the 2D network: {'; '.join(differences)}. "
        "Its outputs are likely worse; use the same options of ig3d logits."
    )


def check_blocks(loaded: LoadedModule, table: FusionTable) -> None:
    """Refuse codes of other blocks, or of another basis, than the module's."""
    wanted, got = (
        [f"{block.name} ({block.width}, {block.basis})" for block in blocks]
        for blocks in (loaded.info.blocks, table.blocks)
    )
    if wanted != got:
        raise ModelError(
            f"{loaded.source}: expected the code blocks {some(wanted, 8)}, got {some(got, 8)}; extract with the same "
            "regressor"
        )


def _layer(network: str) -> str:
    """Name and layer of a network: its name without the hash that ends it."""
    return network.rpartition(" ")[0]


def _short(network: str) -> str:
    """Name and layer of a network, and the beginning of the hash that ends its name."""
    name, _, digest = network.rpartition(" ")
    return f"{name} {digest[:12]}".strip()


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
