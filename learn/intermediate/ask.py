"""Predictions of a trained module, for rows it was not fitted on, in files that ``ig3d fuse`` takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...errors import ProtocolError
from ...features.predictions import VA, Predictions
from ...features.samples import Split
from .checkpoint import LoadedModule, ModuleInfo, check_fits
from .fit import TrainingData, predict
from .route import FeatureRoute, Route, training_data
from .rows import RowPlan
from .table import FeatureTable


def as_values(outputs: np.ndarray, data: TrainingData) -> np.ndarray:
    """Outputs as predictions: valence and arousal clipped to [-1, 1]."""
    values = outputs.astype(np.float64)
    values[:, data.classes :] = np.clip(values[:, data.classes :], -1, 1)
    return values


def split_outputs(
    values: np.ndarray, ids: np.ndarray, task: str, classes: tuple[str, ...], path: Path
) -> list[tuple[Path, Predictions]]:
    """Outputs of a module as files: ``path``, and for ``both`` beside it ``-va`` for valence and arousal."""
    found = []
    if task != "va":
        logits = values[:, : len(classes)]
        found.append((path, Predictions(logits, "logits", classes, ids, str(path))))
    if task != "classes":
        other = path.with_name(f"{path.stem}-va.npz") if task == "both" else path
        found.append((other, Predictions(values[:, -2:], "va", VA, ids, str(other))))
    return found


@dataclass(frozen=True, slots=True)
class Applied:
    """What a trained module says of rows it was not fitted on.

    Attributes
    ----------
    ids : (m,) str
    values : (m, outputs) float64
        Class logits, then valence and arousal in [-1, 1].
    info : ModuleInfo
    notes : tuple of str
        What was left out.
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


def apply_module(loaded: LoadedModule, features: FeatureTable, *, device: str = "cpu") -> Applied:
    """Ask a trained module about rows with features, of no train split, whose images it was not fitted on.

    Raises
    ------
    ModelError : features of another network or shape, or codes of other blocks, than the module's.
    ProtocolError : no row is left.
    """
    warnings = check_fits(loaded, features.table, network=features.network, shape=features.values.shape[1:])
    where = torch.device(device)
    applied = ask(loaded, FeatureRoute(features, where), loaded.module.to(where), where)
    return replace(applied, notes=(*warnings, *applied.notes))


def ask(loaded: LoadedModule, route: Route, model: nn.Module, device: torch.device) -> Applied:
    """Predictions of those of a route's rows that a checkpoint was not fitted on."""
    table = route.table
    known = np.isin(route.contents, loaded.train) | (table.split == Split.train)
    rows = np.flatnonzero(route.there & ~known)
    if not len(rows):
        raise ProtocolError(
            f"{loaded.source}: expected rows that it was not fitted on, got none of {int(route.there.sum())}"
        )
    none = rows[:0]
    plan = RowPlan(loaded.info.task, none, none, none, rows, ())
    data = training_data(route, plan, loaded.info.training.get("arm", "codes"), 0)
    notes = []
    left = int((route.there & known).sum())
    if left:
        notes.append(f"{left} rows are left out: of the train split, or images the module was fitted on.")
    chose = int(np.isin(route.contents[rows], loaded.validation).sum())
    if chose:
        notes.append(f"{chose} rows chose the module's epoch: slightly optimistic as a result.")
    outputs = predict(model, data, torch.from_numpy(rows), device=device)
    return Applied(table.id[rows], as_values(outputs, data), loaded.info, tuple(notes))
