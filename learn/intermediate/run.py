"""One intermediate fusion: every arm and seed trained, its predictions and checkpoints written, the arms compared.

The *codes* arm is the module; *masked* is the same module, steps and seeds with every code block masked, so that
training more is not credited to the codes; *permuted* has the rows of the codes exchanged. A :class:`Route` says what
is trained: a module on ready features here, a 2D network and a module end to end in :mod:`ig3d.networks.joint`.
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
from .record import figures_of_arms, tasks_of
from .rows import RowPlan, plan_rows
from .table import FeatureTable

# Called during training with condition, seed, number of epochs done (such as 2.25) and the latest epoch.
Watch = Callable[[str, int, float, Epoch | None], object]


@dataclass(frozen=True, slots=True)
class Trained:
    """One arm with one seed.

    Attributes
    ----------
    arm, seed
    values : (m, outputs) float64
        Class logits, then valence and arousal in [-1, 1], of the rows ``RowPlan.predicted``.
    """

    arm: str
    seed: int
    values: np.ndarray


@dataclass(frozen=True, slots=True)
class IntermediateResult:
    """What an intermediate fusion found.

    Attributes
    ----------
    table : FusionTable
    plan : RowPlan
    config : IntermediateConfig
    trained : one for each seed and arm
    figures : task (``classes``, ``va``) -> DataFrame (:func:`~..evaluate.figures.figures_of`)
    """

    table: FusionTable
    plan: RowPlan
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
    """Train a module on features and codes, its masked baseline and its permuted control, and compare them.

    Parameters
    ----------
    features : of :func:`~.table.load_feature_table`
    config : IntermediateConfig
    out : folder, optional
        Predictions and checkpoint of every arm and seed, predictions of the reported rows, figures and record.
        An interrupted run goes on from there.
    device : ``auto``, ``cpu``, ``cuda`` or ``cuda:0``
    restart : whether to throw away an earlier run in ``out``
    watch : callable, optional
        Called with arm, seed, number of epochs done and the latest epoch, after each batch and epoch.
    command : the command line as it was typed, for the record

    Raises
    ------
    ProtocolError : the store has no train split, or a part has too few rows.
    RunError : ``out`` holds another run.
    ModelError : training diverged, or a file cannot be written.
    """
    route = FeatureRoute(features, choose_device(device))
    return run(route, config, out, device=route.device, restart=restart, watch=watch, command=command)


def run(
    route: Route,
    config: IntermediateConfig,
    out: str | Path | None,
    *,
    device: torch.device,
    restart: bool,
    watch: Watch | None,
    command: str = "",
) -> IntermediateResult:
    """Train and compare what a route says; see :func:`fuse_features`."""
    table = route.table
    plan = plan_rows(table, route.there, config, what=route.what)
    folder = None if out is None else RunFolder(Path(out), _identity(route, config))
    if folder is not None:
        folder.open(config.trainings, restart=restart)
    trained = []
    for arm, seed in config.trainings:
        done = None if folder is None else _read_done(folder, arm, seed, table, plan)
        trained.append(done or _train(route, plan, config, arm, seed, folder, device, watch))
    every = tuple(trained)
    figures = {task: figures_of_arms(table, plan, config, every, task) for task in tasks_of(plan)}
    result = IntermediateResult(table, plan, config, every, figures)
    if folder is not None:
        folder.write_figures(result, command)
    return result


def _identity(route: Route, config: IntermediateConfig) -> dict[str, Any]:
    """All that decides the trained weights, but for the seeds after the first; those may be added later."""
    chosen = {
        name: value for name, value in asdict(config).items() if name not in ("draws", "seeds", "controls")
    }
    return {"route": route.name, "rows": route.digest, "first_seed": config.seeds[0], **chosen}


def _train(
    route: Route,
    plan: RowPlan,
    config: IntermediateConfig,
    arm: str,
    seed: int,
    folder: RunFolder | None,
    device: torch.device,
    watch: Watch | None,
) -> Trained:
    data = training_data(route, plan, arm, seed)
    with seeded(seed, device):
        model = route.build(data, config)
        fitted = fit(
            model,
            route.groups(model, config),
            data,
            config,
            seed=seed,
            device=device,
            keep=None if folder is None else folder.unfinished(arm, seed),
            watch=None if watch is None else lambda done, epoch: watch(arm, seed, done, epoch),
        )
    outputs = predict(
        fitted.model, data, torch.from_numpy(plan.predicted), device=device, batch_size=config.batch_size
    )
    trained = Trained(arm, seed, as_values(outputs, data))
    if folder is not None:
        ids = route.table.id[plan.predicted]
        path = folder.predictions(arm, seed)
        for file, predictions in split_outputs(trained.values, ids, plan.task, route.table.classes, path):
            predictions.save(file)
        _save(route, plan, config, trained, fitted, folder.checkpoint(arm, seed))
    return trained


def _save(
    route: Route, plan: RowPlan, config: IntermediateConfig, trained: Trained, fitted: Fitted, path: Path
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
            "arm": trained.arm,
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
        train=np.union1d(route.contents[plan.train], route.learnt),
        validation=route.contents[plan.validation],
        network=network,
    )


def _read_done(folder: RunFolder, arm: str, seed: int, table: FusionTable, plan: RowPlan) -> Trained | None:
    """What an earlier run of the same identity has finished; None where it has not."""
    if not folder.checkpoint(arm, seed).is_file():
        return None
    path = folder.predictions(arm, seed)
    paths = [path] if plan.task != "both" else [path, path.with_name(f"{path.stem}-va.npz")]
    tasks = ["classes", "va"] if plan.task == "both" else [plan.task]
    read = [load_predictions(file, task=task) for file, task in zip(paths, tasks, strict=True)]
    if any(part.ids is None or not np.array_equal(part.ids, table.id[plan.predicted]) for part in read):
        return None
    return Trained(arm, seed, np.hstack([part.values for part in read]))
