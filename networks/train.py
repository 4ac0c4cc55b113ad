"""``ig3d train-2d``: train a small 2D network on the train split of a dataset.

``plan`` (rows) → ``images`` (decoded once) → ``fit`` (training loop) → ``checkpoint`` (one file). Images of the test
split are never opened.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from .. import __version__
from ..console import progress_bar
from ..errors import DatasetError, plural
from ..features.atomic import file_sha256
from ..features.content import hash_contents
from ..features.device import choose_device
from ..features.samples import Listing
from ..learn.training.loop import Fitted, seeded
from ..learn.training.state import Epoch
from .checkpoint import (
    NetworkInfo,
    Seen,
    build,
    check_place,
    check_replaceable,
    make_seen,
    normalisation,
    save_network,
    seen_of,
)
from .crop import Crops, choose_crops
from .fit import Data, fit
from .images import InputSpec, Pictures, load_pictures
from .load.state import fit_backbone, read_state
from .plan import Plan, plan_training
from .train_config import TrainConfig


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Summary of a training.

    Attributes
    ----------
    path : Path
        The checkpoint.
    info : NetworkInfo
    best : Epoch
        Best epoch; its scores are optimistic, because it was chosen on the same validation rows.
    history : tuple of Epoch
    rows_train, rows_validation : int
        Numbers of rows that were used.
    problems : tuple of str
        ``id: reason`` for each unreadable image.
    notes : tuple of str
        Notes for the user, one line each.
    """

    path: Path
    info: NetworkInfo
    best: Epoch
    history: tuple[Epoch, ...]
    rows_train: int
    rows_validation: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows and images of a training.

    Attributes
    ----------
    plan : Plan
        Only readable rows.
    pictures : Pictures
    crops : Crops
    start : Seen
        Training images of the checkpoint from which the training starts.
    device : torch.device
    """

    plan: Plan
    pictures: Pictures
    crops: Crops
    start: Seen
    device: torch.device

    def trained_before(self, rows: np.ndarray) -> int:
        """Number of rows on whose images the checkpoint from which the training starts was trained."""
        read = np.isin(self.pictures.rows, rows)
        known = np.union1d(self.start.train, self.start.held_out)
        return int(np.isin(hash_contents(self.pictures.digests[read]), known).sum())


def train_2d(
    listing: Listing,
    config: TrainConfig,
    out: str | Path,
    *,
    prepared: Prepared | None = None,
    progress: bool = False,
) -> TrainResult:
    """Train a 2D network on the train split and write its checkpoint.

    Parameters
    ----------
    listing : Listing
        From :func:`ig3d.extract.datasets.list_samples`.
    config : TrainConfig
    out : path of the checkpoint (``.safetensors``); an existing checkpoint is replaced, but no other file
    prepared : result of :func:`prepare` for the same listing and configuration, optional
    progress : bool
        Show progress bars on stderr.

    Raises
    ------
    DatasetError : the train split has too few readable, labelled images.
    UsageError : the network, task or device does not exist, or the path cannot be written or is another kind of file.
    ModelError : training diverged, or the file cannot be written.
    """
    check_place(out, suffix=".safetensors")
    check_replaceable(out)
    prepared = prepared or prepare(listing, config, progress=progress)
    plan, pictures = prepared.plan, prepared.pictures
    fitted = train_one(plan, pictures, config, device=prepared.device, progress=progress)
    mean, std = normalisation(fitted.model)
    info = NetworkInfo(
        architecture=config.network,
        task=plan.task,
        columns=plan.columns,
        size=config.size,
        mean=mean,
        std=std,
        training=_describe(listing, plan, config, fitted) | prepared.crops.identity,
    )
    seen = make_seen(listing, pictures.rows, pictures.digests, train=plan.train, validation=plan.validation)
    save_network(out, fitted.model, info, seen.with_start(prepared.start))
    return TrainResult(
        path=Path(out),
        info=info,
        best=fitted.best,
        history=fitted.history,
        rows_train=len(plan.train),
        rows_validation=len(plan.validation),
        problems=pictures.problems,
        notes=(
            *prepared.crops.notes,
            f"validation: {plan.validation_from}",
            *plan.notes,
            *_start_notes(prepared, config),
            *_loss_notes(fitted.best, plan),
        ),
    )


def _start_notes(prepared: Prepared, config: TrainConfig) -> list[str]:
    """Notes on the training images of the checkpoint from which the training started."""
    start, plan = prepared.start, prepared.plan
    count = len(np.unique(np.concatenate([start.train, start.held_out, start.validation])))
    if not count or config.weights is None:
        return []
    name = config.weights.name
    notes = [f"{name} records {plural(count, 'image')} of its training; the new checkpoint records them too"]
    if before := prepared.trained_before(plan.validation):
        notes.append(
            f"WARNING {name} was trained on {before} of {plural(len(plan.validation), 'validation row')}: the scores "
            "that chose the epoch are too high"
        )
    return notes


def _loss_notes(best: Epoch, plan: Plan) -> list[str]:
    """Warning if the loss is far above that of a network without training."""
    chance = math.log(len(plan.columns)) if plan.task == "classes" else 1.0
    if best.loss < 10 * chance:
        return []
    return [
        f"WARNING the training diverged: its loss is {best.loss:.3g}, that of chance about {chance:.3g}; use a lower "
        "--lr"
    ]


def prepare(listing: Listing, config: TrainConfig, *, progress: bool = False) -> Prepared:
    """Choose the rows of a training and decode their images; parameters and errors are those of :func:`train_2d`."""
    device = choose_device(config.device)
    plan = plan_training(listing, task=config.task, fraction=config.validation, seed=config.seed)
    with seeded(config.seed, device):  # errors of the network are raised before images are read
        start(config, outputs=len(plan.columns))
    crops = choose_crops(listing, config.crop)
    with progress_bar(shown=progress) as bar:
        rows = np.concatenate([plan.train, plan.validation])
        task = bar.add_task("reading", total=len(rows), detail="")
        pictures = load_pictures(
            listing,
            rows,
            view=InputSpec(size=config.size),
            boxes=crops.boxes,
            jobs=config.jobs,
            advance=lambda n: bar.advance(task, n),
        )
    return Prepared(_readable(listing, plan, pictures), pictures, crops, seen_of(config.weights), device)


def _readable(listing: Listing, plan: Plan, pictures: Pictures) -> Plan:
    """The plan without unreadable rows; raises DatasetError if too few remain."""
    kept = plan.keep(pictures.rows)
    classes = len(np.unique(plan.targets[kept.train])) if plan.task == "classes" else 2
    if len(kept.train) < 2 or classes < 2 or not len(kept.validation):
        raise DatasetError(
            f"{listing.dataset}: too few readable images: {len(kept.train)} of {len(plan.train)} for training and "
            f"{len(kept.validation)} of {len(plan.validation)} for validation ({'; '.join(pictures.problems[:3])}); "
            "check the files"
        )
    return kept


def train_one(
    plan: Plan,
    pictures: Pictures,
    config: TrainConfig,
    *,
    device: torch.device,
    progress: bool,
    title: str = "training",
) -> Fitted:
    """Build a network with the seed's random weights and train it, with a progress bar that shows the scores."""
    index_of = {int(row): index for index, row in enumerate(pictures.rows)}
    train, validation = (
        Data(
            pictures.pixels,
            torch.tensor([index_of[int(row)] for row in rows]),
            torch.from_numpy(plan.targets[rows]),
        )
        for rows in (plan.train, plan.validation)
    )
    with seeded(config.seed, device), progress_bar(shown=progress) as bar:
        module = start(config, outputs=len(plan.columns))
        mean, std = normalisation(module)
        task = bar.add_task(title, total=config.epochs, detail="")
        fitted = fit(
            module,
            train,
            validation,
            config,
            mean=mean,
            std=std,
            device=device,
            watch=lambda done, epoch: bar.update(task, completed=done, detail=_brief(epoch)),
        )
        bar.update(task, detail=f"best {_brief(fitted.best)}")
    return fitted


def start(config: TrainConfig, *, outputs: int) -> nn.Module:
    """Build the network for training, with random weights or those of a checkpoint (except the last layer).

    Raises
    ------
    UsageError : timm has no such network, or the network does not support this input size.
    ModelError : the checkpoint cannot be read, or has another architecture.
    """
    module = build(config.network, outputs=outputs, size=config.size)
    if config.weights is not None:
        fit_backbone(module, read_state(config.weights, config.key), source=str(config.weights))
    else:
        open_branches(module)
    return module


def open_branches(module: nn.Module) -> None:
    """Set batch norms with zero weights to one, so that all residual branches are active from the start.

    timm initialises the last batch norm of residual branches to zero, which helps deep networks in long trainings. A
    small network then consists only of its shortcuts, and on few images it can stay at chance for many epochs.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.affine and not layer.weight.any():
            nn.init.ones_(layer.weight)


def _brief(epoch: Epoch | None) -> str:
    return "" if epoch is None else f"epoch {epoch.number}: loss {epoch.loss:.2f}, {_selection(epoch)}"


def _selection(epoch: Epoch) -> str:
    name = "macro F1" if "macro_f1" in epoch.scores else "mean CCC"
    return f"{name} {epoch.selection:.3f}"


def describe_epoch(epoch: Epoch) -> str:
    """One line such as ``epoch 3: loss 1.204, accuracy 0.612, ...``."""
    scores = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in epoch.scores.items())
    return f"epoch {epoch.number}: loss {epoch.loss:.3f}, {scores}"


def _describe(listing: Listing, plan: Plan, config: TrainConfig, fitted: Fitted) -> dict[str, Any]:
    """Description of the training for the checkpoint, without paths, dates and number of threads."""
    omitted = ("device", "jobs", "weights", "key", "crop")
    options = {key: value for key, value in asdict(config).items() if key not in omitted}
    options["weights_sha256"] = file_sha256(config.weights) if config.weights else None
    return {
        "dataset": listing.dataset,
        "config": options,
        "rows_train": len(plan.train),
        "rows_validation": len(plan.validation),
        "validation_from": plan.validation_from,
        "best": asdict(fitted.best),
        "epochs_run": len(fitted.history),
        "versions": {"ig3d": __version__, "torch": torch.__version__, "timm": timm.__version__},
    }
