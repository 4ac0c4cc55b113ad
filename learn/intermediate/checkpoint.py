"""Write, read and check checkpoints of trained modules, and apply them to new rows.

A checkpoint is one safetensors file with JSON metadata. ``module.*`` are the weights (and, trained end to end,
``network.*`` those of the 2D network); ``seen.*`` are 8-byte hashes of the images used in training. Without dates and
paths, the same training gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...errors import ModelError, ProtocolError, UsageError, listed, plural
from ...features.fusion_table import BlockUse, FusionTable
from ...features.network_features import network_differences
from ...features.predictions import VA, Predictions
from ...features.samples import Split
from ..training.tensors import read_tensors, tensors_digest, write_tensors
from .config import TASKS
from .fit import FeatureRoute, Route, TrainingData, predict, training_data
from .modules import FusionModule, ModuleSpec, make_module
from .plan import ModulePlan
from .table import FeatureTable

FORMAT = "ig3d-fusion-module"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """Description of a module: its inputs, outputs and training.

    Attributes
    ----------
    spec : ModuleSpec
    task : ``classes``, ``va`` or ``both``
    classes : canonical names of the class outputs; empty for valence-arousal
    blocks : the code blocks it reads, in order, with basis
    network : str
        Name of the network of its features, by content.
    two_d : str
        Description of that network, its input and its crop; empty where the file of features has none.
    joint : dict
        Description of the 2D network whose weights are in the same file; empty for a module on features.
    training : dict
        JSON: condition, seed, configuration, scores of the best epoch, versions.
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
                f"module: task {self.task!r} with {len(self.classes)} classes and blocks of {widths} columns does not "
                f"match a module with {self.spec.outputs} outputs and blocks of {self.spec.blocks}; train it again"
            )


@dataclass(frozen=True, slots=True)
class LoadedModule:
    """A module in evaluation mode on the CPU.

    Attributes
    ----------
    module : FusionModule
    info : ModuleInfo
    train, validation : (n,) int64 hashes of image contents
        Images on which it was fitted, and on which its epoch was chosen.
    network : weights of the 2D network by name; empty for a module on features
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
        """Its code blocks, in the notation of ``--blocks``."""
        return ",".join(block.name for block in self.info.blocks)

    @property
    def task(self) -> str:
        """Task of the 2D predictions with which it is compared: ``classes`` or ``va``."""
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
    """Write a checkpoint under a temporary name, then rename it."""
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
    ModelError : the file is missing, damaged, of another kind or version, or has weights of another module.
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
            f"{path}: the description and the weights of the module do not match ({str(exc).splitlines()[0]}); train "
            "it again"
        ) from exc
    return LoadedModule(module.eval(), info, train, validation, parts["network"], str(path))


def check_fits(
    loaded: LoadedModule, table: FusionTable, *, network: str, shape: tuple[int, ...]
) -> list[str]:
    """Refuse rows whose features or codes a module cannot use.

    Parameters
    ----------
    table : the rows
    network, shape : network of their features, and shape of the features of one row

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
            f"{loaded.source}: this is a network trained end to end, not a module on features; apply it with ig3d "
            "train-joint --apply"
        )
    if shape != info.spec.shape:
        raise ModelError(
            f"{loaded.source}: the features have shape {_shape(shape)}, those of the training "
            f"{_shape(info.spec.shape)}; write them with the same option as for training (ig3d logits "
            "--features, or --feature-maps)"
        )
    warnings = input_warnings(info, table) if _layer(network) == _layer(info.network) else []
    if network != info.network and not warnings:
        raise ModelError(
            f"{loaded.source}: the features are of the network {_short(network)}, those of the training of "
            f"{_short(info.network)}; write them with the network, layer and input of the training"
        )
    check_blocks(loaded, table)
    return warnings


def input_warnings(info: ModuleInfo, table: FusionTable) -> list[str]:
    """Warnings if the 2D outputs of ``table`` are from the module's network, but with another crop or scaling."""
    same = info.two_d.partition(";")[0] == table.two_d_network.partition(";")[0]
    differences = network_differences(info.two_d, table.two_d_network)
    if not (same and differences):
        return []
    return [
        f"WARNING the module was trained with another input of the 2D network: {'; '.join(differences)}. "
        "Its outputs are likely worse; use the same options of ig3d logits."
    ]


def check_blocks(loaded: LoadedModule, table: FusionTable) -> None:
    """Refuse codes of other blocks, or of another basis, than the module's."""
    wanted, got = (
        [f"{block.name} ({block.width}, {block.basis})" for block in blocks]
        for blocks in (loaded.info.blocks, table.blocks)
    )
    if wanted != got:
        raise ModelError(
            f"{loaded.source}: the code blocks are {listed(got, 8)}, those of the training {listed(wanted, 8)}; "
            "extract with the same regressor"
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


def as_values(outputs: np.ndarray, data: TrainingData) -> np.ndarray:
    """Outputs as predictions: valence and arousal clipped to [-1, 1]."""
    values = outputs.astype(np.float64)
    values[:, data.classes :] = np.clip(values[:, data.classes :], -1, 1)
    return values


def split_outputs(
    values: np.ndarray, ids: np.ndarray, task: str, classes: tuple[str, ...], path: Path
) -> list[tuple[Path, Predictions]]:
    """Predictions of a module with their files: ``path``, and for ``both`` also ``-va`` for valence and arousal."""
    files = []
    if task != "va":
        logits = values[:, : len(classes)]
        files.append((path, Predictions(logits, "logits", classes, ids, str(path))))
    if task != "classes":
        other = path.with_name(f"{path.stem}-va.npz") if task == "both" else path
        files.append((other, Predictions(values[:, -2:], "va", VA, ids, str(other))))
    return files


@dataclass(frozen=True, slots=True)
class Applied:
    """Predictions of a trained module for rows on which it was not fitted.

    Attributes
    ----------
    ids : (m,) str
    values : (m, outputs) float64
        Class logits, then valence and arousal in [-1, 1].
    info : ModuleInfo
    notes : tuple of str
        Rows that were left out, and warnings.
    """

    ids: np.ndarray
    values: np.ndarray
    info: ModuleInfo
    notes: tuple[str, ...]

    def save(self, path: Path) -> list[Path]:
        """Write the predictions; see :func:`split_outputs`."""
        files = split_outputs(self.values, self.ids, self.info.task, self.info.classes, path)
        for file, predictions in files:
            predictions.save(file)
        return [file for file, _ in files]


def apply_module(
    loaded: LoadedModule,
    features: FeatureTable,
    *,
    device: str = "cpu",
    notify: Callable[[str], object] | None = None,
) -> Applied:
    """Predict rows with features, outside of the train split, on whose images the module was not fitted.

    Parameters
    ----------
    notify : callable, optional
        Called before the prediction with a warning if the 2D network got another input than in the training; without
        ``notify``, the warning is one of the notes.

    Raises
    ------
    ModelError : the features are of another network or shape, or the codes of other blocks, than the module's.
    ProtocolError : no row is left.
    """
    warnings = check_fits(loaded, features.table, network=features.network, shape=features.values.shape[1:])
    if notify is not None:
        for warning in warnings:
            notify(warning)
        warnings = []
    where = torch.device(device)
    applied = predict_new_rows(loaded, FeatureRoute(features, where), loaded.module.to(where), where)
    return replace(applied, notes=(*warnings, *applied.notes))


def predict_new_rows(loaded: LoadedModule, route: Route, model: nn.Module, device: torch.device) -> Applied:
    """Predict the rows of a route on which a checkpoint was not fitted."""
    table = route.table
    fitted = np.isin(route.contents, loaded.train) | (table.split == Split.train)
    rows = np.flatnonzero(route.has_input & ~fitted)
    if not len(rows):
        raise ProtocolError(
            f"{loaded.source}: no row left of {int(route.has_input.sum())}: all are of the train split, or of images "
            "on which it was fitted; pass other rows"
        )
    plan = ModulePlan.of(table, loaded.info.task, predicted=rows)
    data = training_data(route, plan, loaded.info.training.get("condition", "codes"), 0)
    notes = []
    left_out = int((route.has_input & fitted).sum())
    if left_out:
        notes.append(
            f"{plural(left_out, 'row')} left out: of the train split, or images the module was fitted on."
        )
    validation = int(np.isin(route.contents[rows], loaded.validation).sum())
    if validation:
        notes.append(
            f"{plural(validation, 'row')} chose the module's epoch; results on them are slightly optimistic."
        )
    outputs = predict(model, data, torch.from_numpy(rows), device=device)
    return Applied(table.id[rows], as_values(outputs, data), loaded.info, tuple(notes))
