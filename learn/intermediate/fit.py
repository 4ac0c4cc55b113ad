"""Training of modules, on features or end to end, with the loop of :mod:`ig3d.learn.training.loop`.

All random numbers (initial weights, batches, masks, augmentation, dropout) depend on the seed. On one CPU with one
compute thread, the weights are the same bytes for one seed, also after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ...features.fusion_table import FusionTable
from ...features.predictions import log_softmax
from ..evaluate.metrics import measure
from ..training import loop
from ..training.loop import Fitted, Schedule, Watch, arithmetic
from ..training.losses import class_loss, va_loss
from ..training.schedule import batches_per_epoch, draw_batches, parameter_groups, warmup_cosine
from .config import IntermediateConfig
from .modules import FusionModule, ModuleSpec, make_module
from .plan import ModulePlan, codes_of
from .table import FeatureTable

# number of training rows whose features give mean and standard deviation
_STATISTICS_ROWS = 2048


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Inputs and truth of n rows under one condition; other arrays index these rows.

    Attributes
    ----------
    inputs : (rows, generator or None) -> features or pixels of these rows, on the device
        With a generator, augmented by its random numbers.
    codes : (n, d) float32 tensor
        Used only where ``present``.
    present : (n,) bool tensor
    blocks : columns of each block
    labels : (n,) int64 tensor, -1 for none
    targets : (n, 2) float32 tensor, NaN for none
    train, validation : (m,) int64 tensors
    classes : number of class outputs, 0 for valence-arousal alone
    va : whether valence and arousal are outputs, after those of the classes
    """

    inputs: Callable[[torch.Tensor, torch.Generator | None], torch.Tensor]
    codes: torch.Tensor
    present: torch.Tensor
    blocks: tuple[int, ...]
    labels: torch.Tensor
    targets: torch.Tensor
    train: torch.Tensor
    validation: torch.Tensor
    classes: int
    va: bool

    @property
    def outputs(self) -> int:
        return self.classes + 2 * self.va

    def blocks_present(self, rows: torch.Tensor) -> torch.Tensor:
        """(len(rows), blocks) bool."""
        return self.present[rows, None].expand(-1, len(self.blocks))


class Route(Protocol):
    """Inputs and model of a training: a module on features here, with a 2D network in :mod:`ig3d.networks.joint`.

    Attributes
    ----------
    name : ``features`` or ``end to end``
    input_name : input of a row, for messages
    table : n samples
    has_input : (n,) bool, samples with this input
    contents : (n,) int64 hashes of the images
    network : name of the 2D network, by content
    digest : hash of all inputs of the training
    seen_by_network : (m,) int64 hashes of images on which the 2D network was trained before, if they are recorded
    """

    @property
    def name(self) -> str: ...
    @property
    def input_name(self) -> str: ...
    @property
    def table(self) -> FusionTable: ...
    @property
    def has_input(self) -> np.ndarray: ...
    @property
    def contents(self) -> np.ndarray: ...
    @property
    def network(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def seen_by_network(self) -> np.ndarray: ...
    @property
    def device(self) -> torch.device: ...

    def inputs(self, rows: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Features or pixels of rows, see :class:`TrainingData`."""

    def build(self, data: TrainingData, config: IntermediateConfig) -> nn.Module:
        """Model with initial weights from torch's random state."""

    def groups(self, model: nn.Module, config: IntermediateConfig) -> list[dict[str, object]]:
        """Its parameters with their learning rates."""

    def parts(self, model: nn.Module) -> tuple[FusionModule, dict[str, torch.Tensor]]:
        """The module, and the weights of the 2D network if they were trained too."""

    def describe(self) -> dict[str, Any]:
        """Description of the 2D network for the checkpoint, if its weights are part of it."""


@dataclass(frozen=True, slots=True)
class FeatureRoute:
    """A module on the frozen features of a table."""

    features: FeatureTable
    device: torch.device
    name: str = "features"
    input_name: str = "features"

    @property
    def table(self) -> FusionTable:
        return self.features.table

    @property
    def has_input(self) -> np.ndarray:
        return self.features.has_input

    @property
    def contents(self) -> np.ndarray:
        return self.features.table.content

    @property
    def network(self) -> str:
        return self.features.network

    @property
    def digest(self) -> str:
        return self.features.digest

    @property
    def seen_by_network(self) -> np.ndarray:
        return np.zeros(0, np.int64)

    def inputs(self, rows: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        values = self.features.values[self.features.row[rows.numpy()]]
        return torch.from_numpy(values).to(self.device, torch.float32)

    def build(self, data: TrainingData, config: IntermediateConfig) -> nn.Module:
        shape = self.features.values.shape[1:]
        spec = ModuleSpec(
            config.module, shape, data.blocks, config.width or shape[0], data.outputs, config.dropout
        )
        module = make_module(spec)
        subset = data.train[:: max(1, len(data.train) // _STATISTICS_ROWS)]
        module.positions.standardise_by(self.inputs(subset, None).cpu())
        module.tokens.standardise_by(available_codes(self.table, data.train))
        return module

    def groups(self, model: nn.Module, config: IntermediateConfig) -> list[dict[str, object]]:
        return module_groups(model, lr=config.lr, weight_decay=config.weight_decay)

    def parts(self, model: nn.Module) -> tuple[FusionModule, dict[str, torch.Tensor]]:
        assert isinstance(model, FusionModule)  # from build()
        return model, {}

    def describe(self) -> dict[str, Any]:
        return {}


def available_codes(table: FusionTable, rows: torch.Tensor) -> torch.Tensor:
    """(m, d) codes of those of ``rows`` that have codes, by which codes are standardised in every condition."""
    chosen = rows.numpy()
    assert table.codes is not None  # tables of a store have codes
    return torch.from_numpy(np.asarray(table.codes[chosen[table.covered[chosen]]], np.float32))


def training_data(route: Route, plan: ModulePlan, condition: str, seed: int) -> TrainingData:
    """Training data of one condition."""
    table = route.table
    others = np.setdiff1d(plan.predicted, plan.validation)
    codes, present = codes_of(table, condition, [plan.train, plan.validation, others], seed)
    return TrainingData(
        inputs=route.inputs,
        codes=torch.from_numpy(codes),
        present=torch.from_numpy(present),
        blocks=tuple(block.width for block in table.blocks),
        labels=torch.from_numpy(table.labels.astype(np.int64)),
        targets=torch.from_numpy(table.targets.astype(np.float32)),
        train=torch.from_numpy(plan.train),
        validation=torch.from_numpy(plan.validation),
        classes=0 if plan.task == "va" else len(table.classes),
        va=plan.task != "classes",
    )


class ModuleLearner:
    """Module, alone or with a 2D network, on rows of features or images and codes.

    Parameters
    ----------
    model : module called with (inputs, codes, present)
    data : TrainingData
    config : IntermediateConfig
    seed : int
        Seed of rows, masks and augmentation.
    device : torch.device
    """

    def __init__(
        self,
        model: nn.Module,
        data: TrainingData,
        config: IntermediateConfig,
        seed: int,
        device: torch.device,
    ) -> None:
        self.model, self.data, self.config, self.device = model.to(device), data, config, device
        self.generator = torch.Generator().manual_seed(seed)

    def batches(self) -> list[torch.Tensor]:
        data, config = self.data, self.config
        labels = data.labels[data.train] if data.classes else None
        drawn = draw_batches(
            len(data.train), labels, batch_size=config.batch_size, balance=config.balance,
            generator=self.generator,
        )  # fmt: skip
        return [data.train[batch] for batch in drawn]

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        data = self.data
        present = mask_blocks(data.blocks_present(rows), self.config.masking, self.generator)
        inputs = data.inputs(rows, self.generator)
        outputs: torch.Tensor = self.model(inputs, data.codes[rows].to(self.device), present.to(self.device))
        return outputs

    def loss(self, outputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Cross-entropy, or MSE + (1 - CCC), or the weighted sum of both."""
        data, parts = self.data, []
        if data.classes:
            truth = data.labels[rows].to(outputs.device)
            parts.append(class_loss(outputs[:, : data.classes], truth, smoothing=self.config.smoothing))
        if data.va:
            weight = self.config.va_weight if data.classes else 1.0
            truth = data.targets[rows].to(outputs.device)
            parts.append(weight * va_loss(outputs[:, data.classes :], truth))
        return torch.stack(parts).sum()

    def validate(self) -> np.ndarray:
        batch_size = self.config.batch_size
        return predict(self.model, self.data, self.data.validation, device=self.device, batch_size=batch_size)

    def score(self, outputs: np.ndarray) -> tuple[float, dict[str, float]]:
        """Macro-F1, the CCC of both dimensions in one vector, or the mean of both."""
        data, rows = self.data, self.data.validation
        scores: dict[str, float] = {}
        selection = []
        if data.classes:
            values = log_softmax(outputs[:, : data.classes].astype(np.float64))
            scores |= measure(values, data.labels[rows].numpy(), "classes")
            selection.append(scores["macro_f1"])
        if data.va:
            clipped = np.clip(outputs[:, data.classes :].astype(np.float64), -1, 1)
            scores |= measure(clipped, data.targets[rows].numpy().astype(np.float64), "va")
            # if truth and outputs are the same constant, the concordance is not defined
            selection.append(float(np.nan_to_num(scores["ccc_joint"])))
        return float(np.mean(selection)), scores


def module_groups(module: nn.Module, *, lr: float, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups of a module or network; learnt tokens have no weight decay."""
    return parameter_groups(
        module, lr=lr, weight_decay=weight_decay, no_decay=("absent", "place", "decision")
    )


def fit(
    model: nn.Module,
    groups: list[dict[str, object]],
    data: TrainingData,
    config: IntermediateConfig,
    *,
    seed: int,
    device: torch.device,
    unfinished: Path | None = None,
    watch: Watch | None = None,
) -> Fitted:
    """Train a model and keep the best epoch on the validation rows; call it inside ``seeded``.

    Parameters
    ----------
    model : module called with (inputs, codes, present)
    groups : from :func:`module_groups`
    unfinished, watch : see :func:`ig3d.learn.training.loop.train`

    Raises
    ------
    ModelError : the loss is not finite, or ``unfinished`` belongs to another training.
    """
    learner = ModuleLearner(model, data, config, seed, device)
    steps = config.epochs * batches_per_epoch(len(data.train), config.batch_size)
    schedule = Schedule(
        config.epochs,
        config.patience,
        lambda step: warmup_cosine(step, steps),
        arithmetic=arithmetic("auto" if config.mixed else "fp32", device),
    )
    optimiser = torch.optim.AdamW(groups, fused=True)
    return loop.train(learner, optimiser, schedule, device=device, unfinished=unfinished, watch=watch)


def predict(
    model: nn.Module,
    data: TrainingData,
    rows: torch.Tensor,
    *,
    device: torch.device,
    batch_size: int = 32,
) -> np.ndarray:
    """(m, outputs) float32 of these rows: class logits, then valence and arousal; no augmentation, no masks."""
    model.eval()
    parts = [np.empty((0, data.outputs), np.float32)]
    with torch.inference_mode():
        for batch in rows.split(batch_size):
            outputs = model(
                data.inputs(batch, None), data.codes[batch].to(device), data.blocks_present(batch).to(device)
            )
            parts.append(outputs.float().cpu().numpy())
    return np.concatenate(parts)


def mask_blocks(present: torch.Tensor, chance: float, generator: torch.Generator) -> torch.Tensor:
    """(n, blocks) bool; all blocks of a row are masked with probability ``chance``, otherwise each block is.

    Rows are masked as a whole too, so that the tokens of rows without a face are learnt even if all training rows have
    a face.
    """
    draws = torch.rand((len(present), present.shape[1] + 1), generator=generator)
    return present & (draws[:, :1] >= chance) & (draws[:, 1:] >= chance)
