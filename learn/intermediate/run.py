"""Intermediate fusion: train each condition with each seed, write predictions and checkpoints, and compare.

There are three conditions: the module with the codes; the same module trained with all code blocks masked (null-input
baseline, which shows the gain of training a module without codes); the module with permuted codes (control). A
:class:`~.fit.Route` has the inputs and the model: a module on features here, a 2D network with a module in
:mod:`ig3d.networks.joint`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ... import __version__
from ...features.device import choose_device
from ...features.fusion_table import FusionTable
from ...features.predictions import load_predictions
from ..training.loop import Fitted, seeded
from ..training.state import Epoch
from .checkpoint import ModuleInfo, as_values, save_module, split_outputs
from .config import IntermediateConfig
from .fit import FeatureRoute, Route, fit, predict, training_data
from .folder import RunFolder
from .plan import ModulePlan, plan_modules
from .results import figures_of_task
from .table import FeatureTable

# Called during training with condition, seed, number of epochs done (such as 2.25) and the latest epoch.
Watch = Callable[[str, int, float, Epoch | None], object]


@dataclass(frozen=True, slots=True)
class Trained:
    """Predictions of one condition and seed.

    Attributes
    ----------
    condition, seed
    values : (m, outputs) float64
        Class logits, then valence and arousal in [-1, 1], of the rows ``ModulePlan.predicted``.
    epochs : int or None
        Number of epochs that were run; None for a training that an earlier run finished.
    """

    condition: str
    seed: int
    values: np.ndarray
    epochs: int | None = None


@dataclass(frozen=True, slots=True)
class IntermediateResult:
    """Result of an intermediate fusion.

    Attributes
    ----------
    table : FusionTable
    plan : ModulePlan
    config : IntermediateConfig
    trained : one for each condition and seed
    figures : task (``classes``, ``va``) -> DataFrame (:func:`~..evaluate.figures.figures_of`)
    """

    table: FusionTable
    plan: ModulePlan
    config: IntermediateConfig
    trained: tuple[Trained, ...]
    figures: dict[str, pd.DataFrame]


def fuse_features(
    features: FeatureTable,
    config: IntermediateConfig,
    out: str | Path | None = None,
    *,
    device: str = "cpu",
    restart: bool = False,
    watch: Watch | None = None,
    command: str = "",
) -> IntermediateResult:
    """Train a module on features and codes, its null-input baseline and its control, and compare them.

    Parameters
    ----------
    features : of :func:`~.table.load_feature_table`
    config : IntermediateConfig
    out : folder, optional
        Predictions and checkpoint of each condition and seed, and the files of every run. An interrupted run continues
        from there.
    device : ``auto``, ``cpu``, ``cuda`` or ``cuda:0``
    restart : whether to delete an earlier run in ``out``
    watch : callable, optional
        Called with condition, seed, number of epochs done and the latest epoch, after each batch and epoch.
    command : the command line, for the record

    Raises
    ------
    ProtocolError : the store has no train split, or a part has too few rows.
    RunError : ``out`` has another run.
    ModelError : training diverged, or a file cannot be written.
    """
    route = FeatureRoute(features, choose_device(device))
    return train_route(route, config, out, restart=restart, watch=watch, command=command)


def train_route(
    route: Route,
    config: IntermediateConfig,
    out: str | Path | None = None,
    *,
    restart: bool = False,
    watch: Watch | None = None,
    command: str = "",
) -> IntermediateResult:
    """Train and compare the conditions on a route, such as that of :func:`ig3d.networks.joint.open_route`.

    Other parameters and errors are those of :func:`fuse_features`.
    """
    table = route.table
    plan = plan_modules(table, route.has_input, config, input_name=route.input_name)
    folder = None if out is None else RunFolder(Path(out), _identity(route, config))
    if folder is not None:
        folder.open(config.trainings, restart=restart)
    trained = []
    for condition, seed in config.trainings:
        finished = None if folder is None else _read_finished(folder, condition, seed, table, plan)
        trained.append(finished or _train(route, plan, config, condition, seed, folder, watch))
    figures = {task: figures_of_task(table, plan, config, tuple(trained), task) for task in plan.tasks}
    result = IntermediateResult(table, plan, config, tuple(trained), figures)
    if folder is not None:
        folder.write_figures(result, command)
    return result


def _identity(route: Route, config: IntermediateConfig) -> dict[str, Any]:
    """Everything on which the trained weights depend, except seeds after the first, which may be added later."""
    excluded = ("draws", "seeds", "controls")
    options = {name: value for name, value in asdict(config).items() if name not in excluded}
    return {"route": route.name, "rows": route.digest, "first_seed": config.seeds[0], **options}


def _train(
    route: Route,
    plan: ModulePlan,
    config: IntermediateConfig,
    condition: str,
    seed: int,
    folder: RunFolder | None,
    watch: Watch | None,
) -> Trained:
    data, device = training_data(route, plan, condition, seed), route.device
    with seeded(seed, device):
        model = route.build(data, config)
        fitted = fit(
            model,
            route.groups(model, config),
            data,
            config,
            seed=seed,
            device=device,
            unfinished=None if folder is None else folder.unfinished(condition, seed),
            watch=None if watch is None else lambda done, epoch: watch(condition, seed, done, epoch),
        )
    outputs = predict(
        fitted.model, data, torch.from_numpy(plan.predicted), device=device, batch_size=config.batch_size
    )
    trained = Trained(condition, seed, as_values(outputs, data), len(fitted.history))
    if folder is not None:
        ids = route.table.id[plan.predicted]
        path = folder.predictions(condition, seed)
        for file, predictions in split_outputs(trained.values, ids, plan.task, route.table.classes, path):
            predictions.save(file)
        _save(route, plan, config, trained, fitted, folder.checkpoint(condition, seed))
    return trained


def _save(
    route: Route, plan: ModulePlan, config: IntermediateConfig, trained: Trained, fitted: Fitted, path: Path
) -> None:
    module, network = route.parts(fitted.model)
    table = route.table
    info = ModuleInfo(
        spec=module.spec,
        task=plan.task,
        classes=() if plan.task == "va" else table.classes,
        blocks=table.blocks,
        network=route.network,
        two_d=table.two_d_network,
        joint=route.describe(),
        training={
            "condition": trained.condition,
            "seed": trained.seed,
            "config": asdict(replace(config, seeds=(trained.seed,))),
            "rows_train": len(plan.train),
            "rows_validation": len(plan.validation),
            "best_epoch": fitted.best.number,
            "epochs_run": len(fitted.history),
            "best_scores": {name: float(f"{value:.9g}") for name, value in fitted.best.scores.items()},
            "versions": {"ig3d": __version__, "torch": torch.__version__},
        },
    )
    save_module(
        path,
        module,
        info,
        train=np.union1d(route.contents[plan.train], route.seen_by_network),
        validation=route.contents[plan.validation],
        network=network,
    )


def _read_finished(
    folder: RunFolder, condition: str, seed: int, table: FusionTable, plan: ModulePlan
) -> Trained | None:
    """Predictions of a training that an earlier run finished; None if there is none, or if it is of other rows."""
    if not folder.checkpoint(condition, seed).is_file():
        return None
    path = folder.predictions(condition, seed)
    paths = [path] if plan.task != "both" else [path, path.with_name(f"{path.stem}-va.npz")]
    tasks = ["classes", "va"] if plan.task == "both" else [plan.task]
    read = [load_predictions(file, task=task) for file, task in zip(paths, tasks, strict=True)]
    if any(part.ids is None or not np.array_equal(part.ids, table.id[plan.predicted]) for part in read):
        return None
    return Trained(condition, seed, np.hstack([part.values for part in read]))
