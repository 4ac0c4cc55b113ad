"""``ig3d train-2d``: train a small 2D network on the train split of a dataset.

``plan`` (rows) → ``images`` (decoded once) → ``fit`` (training loop) → ``checkpoint`` (one file). Images of the test
split are never opened.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn

from .. import __version__
from ..console import progress_bar
from ..errors import DatasetError
from ..features.atomic import file_sha256
from ..features.device import choose_device
from ..features.samples import Listing
from ..learn.training.loop import Fitted, seeded
from ..learn.training.state import Epoch
from .checkpoint import (
    NetworkInfo,
    build,
    check_place,
    check_replaceable,
    make_seen,
    normalisation,
    save_network,
)
from .crop import choose_crops
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


def train_2d(
    listing: Listing, config: TrainConfig, out: str | Path, *, progress: bool = False
) -> TrainResult:
    """Train a 2D network on the train split and write its checkpoint.

    Parameters
    ----------
    listing : Listing
        From :func:`ig3d.extract.datasets.list_samples`.
    config : TrainConfig
    out : path of the checkpoint (``.safetensors``); an existing checkpoint is replaced, but no other file
    progress : bool
        Show progress bars on stderr.

    Raises
    ------
    DatasetError : the train split has too few readable, labelled images.
    UsageError : the network, task or device does not exist, or the path cannot be written or is another kind of file.
    ModelError : training diverged, or the file cannot be written.
    """
    check_place(out, suffix=".safetensors")
    device = choose_device(config.device)
    plan = plan_training(listing, task=config.task, fraction=config.validation, seed=config.seed)
    check_replaceable(out)
    with seeded(config.seed, device):  # errors of the network are raised before images are read
        start(config, outputs=len(plan.columns))
    plan, pictures = read_planned(listing, plan, config, progress=progress)
    fitted = train_one(plan, pictures, config, device=device, progress=progress)
    mean, std = normalisation(fitted.model)
    info = NetworkInfo(
        architecture=config.network,
        task=plan.task,
        columns=plan.columns,
        size=config.size,
        mean=mean,
        std=std,
        training=_describe(listing, plan, config, fitted),
    )
    seen = make_seen(listing, pictures.rows, pictures.digests, train=plan.train, validation=plan.validation)
    save_network(out, fitted.model, info, seen)
    return TrainResult(
        path=Path(out),
        info=info,
        best=fitted.best,
        history=fitted.history,
        rows_train=len(plan.train),
        rows_validation=len(plan.validation),
        problems=pictures.problems,
        notes=(f"validation: {plan.validation_from}", *plan.notes),
    )


def read_planned(
    listing: Listing, plan: Plan, config: TrainConfig, *, progress: bool
) -> tuple[Plan, Pictures]:
    """Decode the images of a plan and remove unreadable ones from it.

    Raises
    ------
    DatasetError : too few images remain.
    """
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
    return _readable(listing, plan, pictures), pictures


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


def _describe(listing: Listing, plan: Plan, config: TrainConfig, fitted: Fitted) -> dict[str, object]:
    """Description of the training for the checkpoint, without paths, dates and number of threads."""
    omitted = ("device", "jobs", "weights", "key")
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
