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
from ..errors import DatasetError, UsageError
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
from .fit import Data, TrainOptions, fit
from .images import InputSpec, Pictures, load_pictures
from .load.state import fit_backbone, read_state
from .plan import Plan, plan_training


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Options of :func:`train_2d`.

    Attributes
    ----------
    network : str
        Name of an architecture in timm; nothing is downloaded. The default is timm's smallest ResNet (0.4 million
        weights), which a CPU trains on two thousand images in about two minutes.
    weights : path or None
        Checkpoint of the architecture to start from, such as ImageNet's; its last layer is not used. None means
        random weights.
    key : str
        Entry of the checkpoint with the weights.
    size : int
        Side of the square input, pixels.
    task : str or None
        ``classes``, ``va`` (valence-arousal), or None: classes if the dataset has them.
    epochs, patience, batch_size, lr, weight_decay, smoothing, balance, augment, precision, seed
        See :class:`ig3d.networks.fit.TrainOptions`. The seed also chooses the validation rows.
    validation : float in (0, 0.5]
        Fraction of the train rows for validation, if the dataset has no val split.
    crop : str or None
        See :func:`ig3d.networks.crop.choose_crops`.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:0``.
    jobs : int or None
        Reading threads; None is one for each core. It does not change results.
    """

    network: str = "test_resnet"
    weights: Path | None = None
    key: str = ""
    size: int = 64
    task: str | None = None
    epochs: int = 30
    patience: int = 10
    batch_size: int = 64
    lr: float = 5e-3
    weight_decay: float = 0.05
    smoothing: float = 0.1
    balance: float = 0.5
    augment: float = 1.0
    precision: str = "auto"
    validation: float = 0.15
    seed: int = 0
    crop: str | None = None
    device: str = "auto"
    jobs: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("patience", 1), ("batch_size", 2)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.size < 16 or self.size > 1024:
            raise UsageError(f"size is {self.size}; it must be from 16 to 1024 pixels")
        if not self.lr > 0 or not self.weight_decay >= 0:
            raise UsageError(
                f"lr is {self.lr} and must be above 0; weight_decay is {self.weight_decay} and must not be negative"
            )
        if not 0 <= self.smoothing < 1 or not 0 <= self.balance <= 1:
            raise UsageError(
                f"smoothing is {self.smoothing} and must be in [0, 1); balance is {self.balance} and must be in [0, 1]"
            )
        if not 0 <= self.augment <= 2:
            raise UsageError(f"augment is {self.augment}; it must be from 0 to 2")
        if not 0 < self.validation <= 0.5:
            raise UsageError(f"validation is {self.validation}; it must be above 0 and at most 0.5")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed is {self.seed}; it must be a whole number from 0")

    @property
    def options(self) -> TrainOptions:
        """Options of the training of a network."""
        return TrainOptions(
            epochs=self.epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            smoothing=self.smoothing,
            balance=self.balance,
            seed=self.seed,
            augment=self.augment,
            precision=self.precision,
        )


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
            config.options,
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
