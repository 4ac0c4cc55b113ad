"""Configuration of an intermediate fusion; stored as JSON with its results."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from ...errors import UsageError
from ..config import MAX_DRAWS, check_seed

MODULES = ("linear", "gate", "film", "attention", "spp")
TASKS = ("classes", "va", "both")
# with the codes; with all blocks masked (the null-input baseline); with permuted codes (the control)
CONDITIONS = ("codes", "null-input", "permuted")


@dataclass(frozen=True, slots=True)
class IntermediateConfig:
    """Options of :func:`ig3d.learn.intermediate.run.fuse_features`.

    Attributes
    ----------
    module : ``linear``, ``gate``, ``film``, ``attention`` or ``spp``
    task : ``classes``, ``va``, ``both``, or None
        None is the task of the 2D network. ``both`` trains for classes and valence-arousal at once.
    width : int or None
        Channels of the module; None is the number of channels of the features. Other features are projected to it.
    seeds : tuple of int
        One training per seed: initial weights, batches and masks depend on it.
    controls : bool
        Whether to train the null-input baseline and the control with permuted codes too.
    epochs, patience : int
        Maximum number of epochs; training stops after ``patience`` epochs without a better validation score.
    batch_size : int
    lr : float
        Peak learning rate of AdamW: linear warm-up in a tenth of the steps, then a half cosine to zero.
    weight_decay : float
        Weight decay of matrices; biases, norms and learnt tokens have none.
    dropout, smoothing : float in [0, 1)
        Dropout in the module; label smoothing.
    balance : float in [0, 1]
        A class of n rows is drawn in proportion to n^(1 - balance): 1 draws all classes equally often.
    masking : float in [0, 1]
        Probability that all blocks of a training row are masked; otherwise, probability for each block.
    va_weight : float
        Weight of MSE + (1 - CCC) relative to the cross-entropy, for ``both``.
    validation : float in (0, 0.5]
        Share of the train rows (whole groups) on which the epoch is chosen, if there is no val split for it.
    report : ``test``, ``val`` or None
        Reported split; None is test, else val.
    draws : int
        Number of bootstrap draws.
    mixed : bool
        Whether to use mixed precision on a CUDA device.
    """

    module: str = "attention"
    task: str | None = None
    width: int | None = None
    seeds: tuple[int, ...] = (0,)
    controls: bool = True
    epochs: int = 30
    patience: int = 10
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.05
    dropout: float = 0.2
    smoothing: float = 0.1
    balance: float = 0.5
    masking: float = 0.1
    va_weight: float = 1.0
    validation: float = 0.15
    report: str | None = None
    draws: int = 10_000
    mixed: bool = True

    def __post_init__(self) -> None:
        for name, choices in {
            "module": MODULES,
            "task": (None, *TASKS),
            "report": (None, "test", "val"),
        }.items():
            if getattr(self, name) not in choices:
                words = ", ".join(choice for choice in choices if choice is not None)
                raise UsageError(f"{name}: expected one of {words}, got {getattr(self, name)!r}")
        for name, least in {"epochs": 1, "patience": 1, "batch_size": 2, "draws": 100}.items():
            if getattr(self, name) < least:
                raise UsageError(
                    f"{name.replace('_', '-')}: expected {least} or more, got {getattr(self, name)}"
                )
        if self.draws > MAX_DRAWS:
            raise UsageError(f"draws: expected at most {MAX_DRAWS}, got {self.draws}")
        if self.width is not None and self.width < 1:
            raise UsageError(f"width: expected 1 or more, got {self.width}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UsageError(f"seeds: expected distinct whole numbers, got {self.seeds}")
        for seed in self.seeds:
            check_seed(seed)
        for name in ("dropout", "smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name}: expected within [0, 1), got {getattr(self, name)}")
        for name in ("balance", "masking"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name}: expected within [0, 1], got {getattr(self, name)}")
        if not 0 < self.lr < inf:
            raise UsageError(f"lr: expected above 0, got {self.lr}")
        for name in ("weight_decay", "va_weight"):
            if not 0 <= getattr(self, name) < inf:
                raise UsageError(f"{name.replace('_', '-')}: expected 0 or more, got {getattr(self, name)}")
        if not 0 < self.validation <= 0.5:
            raise UsageError(f"validation: expected a share within (0, 0.5], got {self.validation}")

    @property
    def conditions(self) -> tuple[str, ...]:
        """Conditions that are trained with each seed."""
        return CONDITIONS if self.controls else CONDITIONS[:1]

    @property
    def trainings(self) -> tuple[tuple[str, int], ...]:
        """Condition and seed of each training, in order."""
        return tuple((condition, seed) for seed in self.seeds for condition in self.conditions)
