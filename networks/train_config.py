"""Options of ``ig3d train-2d``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ..learn.config import MAX_SEED
from ..learn.options import Between, check_options


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Options of :func:`ig3d.networks.train.train_2d`.

    The entries below are also the help of the command line.

    Attributes
    ----------
    network : str
        Architecture, by its name in timm; nothing is downloaded. The default is timm's smallest ResNet (0.4 million
        weights), which a CPU trains on two thousand images in about two minutes.
    weights : path or None
        Checkpoint to start from, without its last layer; by default random weights.
    key : str
        Entry of the checkpoint that has the weights, such as model_state_dict.
    size : int
        Side of the network's input, pixels.
    task : ``classes``, ``va`` or None
        classes or va; by default detected from the labels.
    epochs : int
        Maximum number of epochs.
    patience : int
        Stop after this many epochs without a better validation score.
    batch_size : int
        Rows per batch.
    lr : float
        Highest learning rate of AdamW: linear warm-up during a tenth of the steps, then a half cosine to zero.
    weight_decay : float
        Weight decay of matrices and kernels; biases and norms have none.
    smoothing : float in [0, 1)
        Label smoothing, 0 to 1.
    balance : float in [0, 1]
        Sampling of classes: 1 draws all equally often, 0 by their number of rows.
    augment : float in [0, 2]
        Strength of augmentation (rotation, shift, brightness), 0 to 2.
    precision : str
        fp32, bf16 or fp16; auto is bf16 on GPUs that support it, else fp32.
    validation : float in (0, 0.5]
        Share of train rows for validation, if there is no val split.
    seed : int
        Seed of every random choice.
    crop : str or None
        See :func:`ig3d.networks.crop.choose_crops`.
    device : str
        Device: auto, cpu, cuda, cuda:1, ...
    jobs : int or None
        Reading threads; None is one for each core. It does not change results.
    """

    network: str = "test_resnet"
    weights: Path | None = None
    key: str = ""
    size: Annotated[int, Between(16, 1024)] = 64
    task: Literal["classes", "va"] | None = None
    epochs: Annotated[int, Between(1)] = 30
    patience: Annotated[int, Between(1)] = 10
    batch_size: Annotated[int, Between(2)] = 64
    lr: Annotated[float, Between(0, above=True)] = 5e-3
    weight_decay: Annotated[float, Between(0)] = 0.05
    smoothing: Annotated[float, Between(0, 1, below=True)] = 0.1
    balance: Annotated[float, Between(0, 1)] = 0.5
    augment: Annotated[float, Between(0, 2)] = 1.0
    precision: str = "auto"
    validation: Annotated[float, Between(0, 0.5, above=True)] = 0.15
    seed: Annotated[int, Between(0, MAX_SEED)] = 0
    crop: str | None = None
    device: str = "auto"
    jobs: int | None = None

    def __post_init__(self) -> None:
        check_options(self, skip=("weights",))
