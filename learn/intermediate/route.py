"""What is trained: a module on ready features here; a network and a module end to end in :mod:`ig3d.networks.joint`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ...features.fusion_table import FusionTable
from .config import IntermediateConfig
from .fit import TrainingData, module_groups
from .modules import FusionModule, ModuleSpec, make_module
from .rows import RowPlan, codes_of
from .table import FeatureTable

_STATISTICS_ROWS = 2048  # features of so many training rows give their mean and spread


class Route(Protocol):
    """What is trained.

    Attributes
    ----------
    name : ``features`` or ``end to end``
    what : what a row needs, for messages
    table : n samples
    there : (n,) bool: those that have it
    contents : (n,) int64 hashes of the images
    network : name of the 2D network, by content
    digest : hash of all that a training sees
    learnt : (m,) int64 hashes of the images that the 2D network learnt from before, where it says so
    """

    @property
    def name(self) -> str: ...
    @property
    def what(self) -> str: ...
    @property
    def table(self) -> FusionTable: ...
    @property
    def there(self) -> np.ndarray: ...
    @property
    def contents(self) -> np.ndarray: ...
    @property
    def network(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def learnt(self) -> np.ndarray: ...

    def inputs(self, rows: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Features or pixels of rows, see :class:`~.fit.TrainingData`."""

    def build(self, data: TrainingData, config: IntermediateConfig) -> nn.Module:
        """A model with fresh weights, from torch's random state."""

    def groups(self, model: nn.Module, config: IntermediateConfig) -> list[dict[str, object]]:
        """Its parameters with their learning rates."""

    def parts(self, model: nn.Module) -> tuple[FusionModule, dict[str, torch.Tensor]]:
        """The module, and the weights of the 2D network where they were trained as well."""

    def describe(self) -> dict[str, Any]:
        """The 2D network, for the checkpoint, where it lies inside."""


@dataclass(frozen=True, slots=True)
class FeatureRoute:
    """A module on the frozen features of a table."""

    features: FeatureTable
    device: torch.device
    name: str = "features"
    what: str = "features"

    @property
    def table(self) -> FusionTable:
        return self.features.table

    @property
    def there(self) -> np.ndarray:
        return self.features.there

    @property
    def contents(self) -> np.ndarray:
        return self.features.contents

    @property
    def network(self) -> str:
        return self.features.network

    @property
    def digest(self) -> str:
        return self.features.digest

    @property
    def learnt(self) -> np.ndarray:
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
        few = data.train[:: max(1, len(data.train) // _STATISTICS_ROWS)]
        module.positions.standardise_by(self.inputs(few, None).cpu())
        module.tokens.standardise_by(known_codes(self.table, data.train))
        return module

    def groups(self, model: nn.Module, config: IntermediateConfig) -> list[dict[str, object]]:
        return module_groups(model, lr=config.lr, weight_decay=config.weight_decay)

    def parts(self, model: nn.Module) -> tuple[FusionModule, dict[str, torch.Tensor]]:
        assert isinstance(model, FusionModule)  # of build
        return model, {}

    def describe(self) -> dict[str, Any]:
        return {}


def known_codes(table: FusionTable, rows: torch.Tensor) -> torch.Tensor:
    """(m, d) codes of those of ``rows`` that have some: what they are standardised by, the same in every arm."""
    chosen = rows.numpy()
    assert table.codes is not None  # tables of a store have codes
    return torch.from_numpy(np.asarray(table.codes[chosen[table.covered[chosen]]], np.float32))


def training_data(route: Route, plan: RowPlan, arm: str, seed: int) -> TrainingData:
    """The rows as one arm sees them."""
    table = route.table
    others = np.setdiff1d(plan.predicted, plan.validation)
    codes, present = codes_of(table, arm, [plan.train, plan.validation, others], seed)
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
