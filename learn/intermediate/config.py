"""Configuration of an intermediate fusion; stored as JSON with its results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from ...errors import UsageError
from ..config import MAX_DRAWS, check_seed
from ..options import Between, check_options

Module = Literal["linear", "gate", "film", "attention", "spp"]
Task = Literal["classes", "va", "both"]
MODULES, TASKS = get_args(Module), get_args(Task)
# with the codes; with all blocks masked (the null-input baseline); with permuted codes (the control)
CONDITIONS = ("codes", "null-input", "permuted")


@dataclass(frozen=True, slots=True)
class IntermediateConfig:
    """Options of :func:`ig3d.learn.intermediate.run.fuse_features`.

    The entries below are also the help of the command line.

    Attributes
    ----------
    module : ``linear``, ``gate``, ``film``, ``attention`` or ``spp``
        Fusion module: linear, gate, film, attention or spp.
    task : ``classes``, ``va``, ``both``, or None
        classes, va or both; by default detected from the 2D file. both trains for classes and valence-arousal at once.
    width : int or None
        Channels of the module; by default as many as the features. Other features are projected to it.
    seeds : tuple of int
        One training per seed: initial weights, batches and masks depend on it.
    controls : bool
        Also train the null-input baseline, and a control with permuted codes.
    epochs : int
        Maximum number of epochs.
    patience : int
        Number of epochs without a better validation score after which training stops.
    batch_size : int
        Rows per batch.
    lr : float
        Highest learning rate of AdamW: linear warm-up in a tenth of the steps, then a half cosine to zero.
    weight_decay : float
        Weight decay of matrices; biases, norms and learnt tokens have none.
    dropout, smoothing : float in [0, 1)
        Dropout in the module; label smoothing.
    balance : float in [0, 1]
        Sampling of classes: 1 draws all equally often, 0 by their number of rows.
    masking : float in [0, 1]
        Probability of masking all blocks of a training row; otherwise, each block is masked with this probability.
    va_weight : float
        Weight of MSE + (1 - CCC) relative to the cross-entropy, for ``both``.
    validation : float in (0, 0.5]
        Share of the train rows (whole groups) on which the epoch is chosen, if there is no val split for it.
    report : ``test``, ``val`` or None
        Split to report: test or val. Default: test, else val.
    draws : int
        Draws of the bootstrap and of the tests; at least 100.
    mixed : bool
        Whether to use mixed precision on a CUDA device.
    """

    module: Module = "attention"
    task: Task | None = None
    width: Annotated[int, Between(1)] | None = None
    seeds: tuple[int, ...] = (0,)
    controls: bool = True
    epochs: Annotated[int, Between(1)] = 30
    patience: Annotated[int, Between(1)] = 10
    batch_size: Annotated[int, Between(2)] = 128
    lr: Annotated[float, Between(0, above=True)] = 1e-3
    weight_decay: Annotated[float, Between(0)] = 0.05
    dropout: Annotated[float, Between(0, 1, below=True)] = 0.2
    smoothing: Annotated[float, Between(0, 1, below=True)] = 0.1
    balance: Annotated[float, Between(0, 1)] = 0.5
    masking: Annotated[float, Between(0, 1)] = 0.1
    va_weight: Annotated[float, Between(0)] = 1.0
    validation: Annotated[float, Between(0, 0.5, above=True)] = 0.15
    report: Literal["test", "val"] | None = None
    draws: Annotated[int, Between(100, MAX_DRAWS)] = 10_000
    mixed: bool = True

    def __post_init__(self) -> None:
        check_options(self, skip=("seeds",))
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UsageError(f"seeds: {self.seeds} is not a list of distinct whole numbers")
        for seed in self.seeds:
            check_seed(seed)

    @property
    def conditions(self) -> tuple[str, ...]:
        """Conditions that are trained with each seed."""
        return CONDITIONS if self.controls else CONDITIONS[:1]

    @property
    def trainings(self) -> tuple[tuple[str, int], ...]:
        """Condition and seed of each training, in order."""
        return tuple((condition, seed) for seed in self.seeds for condition in self.conditions)
