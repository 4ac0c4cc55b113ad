"""One intermediate fusion: every arm and seed trained, its predictions and checkpoints written, the arms compared.

The *codes* arm is the module; *masked* is the same module, steps and seeds with every code block masked, so that
training more is not credited to the codes; *permuted* has the rows of the codes exchanged. A :class:`Route` says what
is trained: a module on ready features here, a 2D network and a module end to end in :mod:`ig3d.networks.joint`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ... import __version__
from ...errors import ProtocolError
from ...features.predictions import VA, Predictions, load_predictions, log_softmax
from ...features.table import FusionTable
from ...features.values import Split
from .checkpoint import LoadedModule, ModuleInfo, check_fits, save_module
from .config import IntermediateConfig
from .figures import compare
from .fit import Fitted, TrainingData, fit, parameter_groups, predict, seeded
from .folder import RunFolder
from .modules import FusionModule, ModuleSpec, make_module
from .state import Epoch
from .table import FeatureTable, RowPlan, codes_of, plan_rows

_STATISTICS_ROWS = 2048  # features of so many training rows give their mean and spread

Watch = Callable[[str, int, Epoch], object]


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
    """

    name: str
    what: str
    table: FusionTable
    there: np.ndarray
    contents: np.ndarray
    network: str
    digest: str

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
    figures : task (``classes``, ``va``) -> ``all`` or ``covered`` -> see :func:`~.figures.compare`
    notes : tuple of str
    """

    table: FusionTable
    plan: RowPlan
    config: IntermediateConfig
    trained: tuple[Trained, ...]
    figures: dict[str, dict[str, Any]]
    notes: tuple[str, ...]


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
        return parameter_groups(model, lr=config.lr, weight_decay=config.weight_decay)

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


def fuse_features(
    features: FeatureTable,
    config: IntermediateConfig,
    out: str | Path | None = None,
    *,
    device: str = "cpu",
    restart: bool = False,
    watch: Watch | None = None,
) -> IntermediateResult:
    """Train a module on features and codes, its masked baseline and its permuted control, and compare them.

    Parameters
    ----------
    features : of :func:`~.table.load_feature_table`
    config : IntermediateConfig
    out : folder, optional
        Predictions and checkpoint of every arm and seed, and ``metrics.json``. An interrupted run goes on from there.
    device : ``cpu``, ``cuda`` or ``cuda:0``
    restart : whether to throw away an earlier run in ``out``
    watch : callable, optional
        Told arm, seed and epoch after each epoch.

    Raises
    ------
    ProtocolError : the store has no train split, or a part has too few rows.
    RunError : ``out`` holds another run.
    ModelError : training diverged, or a file cannot be written.
    """
    route = FeatureRoute(features, torch.device(device))
    return run(route, config, out, device=route.device, restart=restart, watch=watch)


def run(
    route: Route,
    config: IntermediateConfig,
    out: str | Path | None,
    *,
    device: torch.device,
    restart: bool,
    watch: Watch | None,
) -> IntermediateResult:
    """Train and compare what a route says; see :func:`fuse_features`."""
    table = route.table
    plan = plan_rows(table, route.there, config, what=route.what)
    folder = None if out is None else RunFolder(Path(out), _identity(route, config))
    if folder is not None:
        folder.open(restart=restart)
    trained = []
    for seed in config.seeds:
        for arm in config.arms:
            done = None if folder is None else _read_done(folder, arm, seed, table, plan)
            trained.append(done or _train(route, plan, config, arm, seed, folder, device, watch))
    result = IntermediateResult(
        table,
        plan,
        config,
        tuple(trained),
        _figures(table, plan, config, trained),
        (*table.notes, *plan.notes),
    )
    if folder is not None:
        folder.write_figures(result.figures, plan.notes)
    return result


def _identity(route: Route, config: IntermediateConfig) -> dict[str, Any]:
    """All that decides the trained weights, but for the seeds after the first; those may be added later."""
    chosen = {
        name: value for name, value in asdict(config).items() if name not in ("draws", "seeds", "controls")
    }
    return {"route": route.name, "rows": route.digest, "first_seed": config.seeds[0], **chosen}


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
            after_epoch=None if watch is None else lambda epoch: watch(arm, seed, epoch),
        )
    outputs = predict(
        fitted.model, data, torch.from_numpy(plan.predicted), device=device, batch_size=config.batch_size
    )
    trained = Trained(arm, seed, _as_values(outputs, data))
    if folder is not None:
        ids = route.table.id[plan.predicted]
        path = folder.predictions(arm, seed)
        for file, predictions in split_outputs(trained.values, ids, plan.task, route.table.classes, path):
            predictions.save(file)
        _save(route, plan, config, trained, fitted, folder.checkpoint(arm, seed))
    return trained


def _as_values(outputs: np.ndarray, data: TrainingData) -> np.ndarray:
    """Outputs as predictions: valence and arousal clipped to [-1, 1]."""
    values = outputs.astype(np.float64)
    values[:, data.classes :] = np.clip(values[:, data.classes :], -1, 1)
    return values


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
        train=route.contents[plan.train],
        validation=route.contents[plan.validation],
        network=network,
    )


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


def _figures(
    table: FusionTable, plan: RowPlan, config: IntermediateConfig, trained: list[Trained]
) -> dict[str, dict[str, Any]]:
    """task -> part -> figures of the reported rows."""
    where = np.searchsorted(plan.predicted, plan.reported)
    figures: dict[str, dict[str, Any]] = {}
    for task in ("classes", "va") if plan.task == "both" else (plan.task,):
        k = len(table.classes)
        values: dict[str, list[np.ndarray]] = {}
        two_d = table.two_d[plan.reported]
        if table.task == task and np.isfinite(two_d).all():
            values["2d"] = [two_d if task == "va" else log_softmax(two_d)]
        for one in trained:
            own = one.values[where]
            own = log_softmax(own[:, :k]) if task == "classes" else own[:, -2:]
            values.setdefault(one.arm, []).append(own)
        covered = table.covered[plan.reported]
        parts = {"all": np.ones(len(where), bool)}
        if covered.any() and not covered.all():
            parts["covered"] = covered
        figures[task] = {
            part: _figures_of_part(values, table, plan.reported, rows, task, config)
            for part, rows in parts.items()
        }
    return figures


def _figures_of_part(
    values: dict[str, list[np.ndarray]],
    table: FusionTable,
    reported: np.ndarray,
    rows: np.ndarray,
    task: str,
    config: IntermediateConfig,
) -> dict[str, Any]:
    chosen = reported[rows]
    truth = table.targets[chosen] if task == "va" else table.labels[chosen].astype(np.int64)
    found = compare(
        {name: [array[rows] for array in arrays] for name, arrays in values.items()},
        truth,
        table.group_codes[chosen] if table.grouped else None,
        task=task,
        draws=config.draws,
        seed=config.seeds[0],
    )
    return {"rows": len(chosen), **found}


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
    check_fits(loaded, features.table, network=features.network, shape=features.values.shape[1:])
    where = torch.device(device)
    return ask(loaded, FeatureRoute(features, where), loaded.module.to(where), where)


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
    return Applied(table.id[rows], _as_values(outputs, data), loaded.info, tuple(notes))
