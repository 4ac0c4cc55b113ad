"""Choices of a fusion run; stored as JSON with its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ..errors import UsageError, one_of, shorten
from .heads import check_head
from .options import Between, check_options
from .rules import RULES, names

# Rules that run without --rules; `threshold` runs only if it is named.
DEFAULT_RULES = tuple(name for name in RULES if name != "threshold")
PRIMARY = "stack"
REPEATS, REPEATS_OF_HEADS = 10, 3  # cross-fittings by default; with heads that are refitted in each of them
MAX_SEED = 2**32 - 1  # of NumPy's and scikit-learn's generators
MAX_DRAWS = 1_000_000
MAX_REPEATS = 1000
OBJECTIVES = {"classes": ("accuracy", "balanced", "logloss"), "va": ("rmse", "ccc")}
# objective -> metrics that rules are fitted to improve: only gains in these have stars
FITTED_METRICS = {
    "accuracy": ("accuracy", "log_loss"),
    "balanced": ("balanced_accuracy",),
    "logloss": ("log_loss",),
    "rmse": ("rmse_joint", "rmse_valence", "rmse_arousal"),
    "ccc": ("ccc_joint", "ccc_valence", "ccc_arousal"),
}
# objective -> metric of the primary comparison
PRIMARY_METRICS = dict.fromkeys(OBJECTIVES["classes"], "log_loss") | {
    "rmse": "rmse_joint",
    "ccc": "ccc_joint",
}


def check_seed(seed: int, name: str = "seed") -> None:
    """Refuse a seed that the random generators do not take.

    Raises
    ------
    UsageError : below 0 or above 2^32 - 1.
    """
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"{name}: {shorten(str(seed))} is out of range; choose 0 to {MAX_SEED}")


@dataclass(frozen=True, slots=True)
class FuseConfig:
    """Choices of :func:`ig3d.learn.fuse.fuse_predictions`.

    The entries below are also the help of the command line and the table in docs/protocol.md.

    Attributes
    ----------
    rules : names out of ``RULES``, or ``module:Class``
        Fusion rules, separated by commas or repeated: mean, max, min, product, weighted, stack, boost, gate, threshold,
        selected, or module:Class. Default: all but threshold. selected chooses among the other rules of this list and
        2d-recalibrated, in inner folds of the rows on which rules are fitted. If selected is the only rule, it chooses
        among all default rules.
    primary : name out of ``RULES``, or None
        Rule of the primary comparison, added to the rules if it is not among them. Default: stack if it is among the
        rules, else the first of them.
    head : a name of :data:`~.heads.HEADS`, or ``module:Class``
        Estimator that predicts from the codes: gbm, linear, mlp, residual, or module:Class.
    device : str
        Device on which the heads mlp and residual are trained: auto, cpu, cuda, cuda:1, ...
    blocks : str
        Code blocks: the sets full (default) or short, or names of blocks, separated by commas or repeated.
        docs/regressors.md lists the blocks of both sets; full leaves out camera.
    groups : regular expression, or None
        Regular expression with one part in parentheses, which matches the person or video in an id. Its rows stay in
        one fold and are resampled together. Default: the groups of the store.
    report : ``train``, ``val``, ``test``, ``all`` or None
        Split to report: test, val, train or all. Default: test, else val, else the rows without a split, else all rows.
    calibration_rows : int or None
        Fit the rules on at most this many rows with codes, drawn in whole groups. Default: all.
    folds : int
        Number of folds of the reported rows. Rules are fitted in folds if there is no val split with 2D predictions,
        or if the val split itself is reported, unless --2d-out-of-fold is given.
    repeats : int or None
        Number of cross-fittings with new folds, whose results are averaged. Default: 10, or 3 if each also refits the
        heads because there is no train split. boost and selected are cross-fitted once. Not used without folds.
    seed : int
        Seed of all random numbers.
    draws : int
        Number of bootstrap samples, and of random exchanges for p-values.
    on : ``probabilities`` or ``logits``
        For classes: scale on which mean, max and weighted combine predictions, probabilities or logits.
    calibrate : ``none``, ``temperature`` or ``bias``
        Calibration of 2D and 3D predictions before every rule, fitted on the rows on which rules are fitted: none,
        temperature, or bias (a temperature and an offset per class).
    objective : str or None
        Objective: accuracy (default), balanced or logloss; for valence-arousal rmse (default) or ccc. weighted,
        threshold and selected optimise the objective itself; other rules minimise a smooth loss, such as log loss for
        accuracy.
    controls : bool
        Also fit each rule with permuted codes, as a control. Without controls, no claim is made.
    permutations : int
        Total number of permutations of the codes among rows with similar 2D predictions, for the control of the primary
        rule. Rounded up to a multiple of the number of cross-fittings.
    two_d_out_of_fold : bool
        Declare that the 2D predictions of the train split are out of fold. Rules are then fitted on the train split.
    allow_missing : bool
        Leave out and count (1) rows of the 2D file that match no sample, and (2) rows with codes but without a 2D
        prediction, if they are reported or rules are fitted on them. Train rows need no 2D predictions.
    force : bool
        Continue if the order of rows or classes looks wrong.
    jobs : int
        Number of threads of heads and rules; 0 is all cores. Does not affect results.
    model : bool
        Whether to refit everything on all rows on which rules are fitted, for a model file.
    rule_options : rule -> parameter -> value
        Options of single rules: ``{"stack": {"codes": True}}``; on the command line ``--set stack.codes=true``.
    """

    rules: tuple[str, ...] = DEFAULT_RULES
    primary: str | None = None
    head: str = "gbm"
    device: str = "auto"
    blocks: str = "full"
    groups: str | None = None
    report: Literal["train", "val", "test", "all"] | None = None
    calibration_rows: Annotated[int, Between(1)] | None = None
    folds: Annotated[int, Between(2, 1000)] = 5
    repeats: Annotated[int, Between(1, MAX_REPEATS)] | None = None
    seed: Annotated[int, Between(0, MAX_SEED)] = 0
    draws: Annotated[int, Between(100, MAX_DRAWS)] = 10_000
    on: Literal["probabilities", "logits"] = "probabilities"
    calibrate: Literal["none", "temperature", "bias"] = "none"
    objective: Literal["accuracy", "balanced", "logloss", "rmse", "ccc"] | None = None
    controls: bool = True
    permutations: Annotated[int, Between(1, MAX_REPEATS)] = 20
    two_d_out_of_fold: bool = False
    allow_missing: bool = False
    force: bool = False
    jobs: Annotated[int, Between(0)] = 0
    model: bool = True
    rule_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_options(self)
        for option, rules in (("rules", self.rules), ("primary", (self.primary or "mean",))):
            unknown = [name for name in rules if ":" not in name and name not in names()]
            if unknown or not rules:
                problem = f"unknown rule {', '.join(unknown)}" if unknown else "no rule is named"
                raise UsageError(f"{option}: {problem}; choose among {', '.join(names())}, or module:Class")
        rules = (*self.rules, *([] if self.primary is None else [self.primary]))
        object.__setattr__(self, "rules", tuple(dict.fromkeys(rules)))
        check_head(self.head)

    def objective_for(self, task: str) -> str:
        """The objective, checked against the task.

        Raises
        ------
        UsageError : it belongs to the other task.
        """
        choices = OBJECTIVES[task]
        if self.objective is None:
            return choices[0]
        if self.objective not in choices:
            raise UsageError(f"objective: {self.objective!r} is not for {task}; choose {one_of(choices)}")
        return self.objective

    def primary_rule(self) -> str:
        """The rule of the primary comparison, which follows from the options alone, not from results."""
        if self.primary is not None:
            return self.primary
        return PRIMARY if PRIMARY in self.rules else self.rules[0]


@dataclass(frozen=True, slots=True)
class HeadsConfig:
    """Choices of :func:`ig3d.learn.train.train_heads`.

    Attributes
    ----------
    heads : names of heads, or ``module:Class``
        Heads, separated by commas or repeated: gbm, linear, mlp, residual, all, or module:Class of an estimator. The
        others are compared with the first.
    blocks : str
        Code blocks: the sets full (default) or short, or names of blocks, separated by commas or repeated.
        docs/regressors.md lists the blocks of both sets; full leaves out camera.
    report : ``train``, ``val``, ``test``, ``all`` or None
        Split to report: test, val, train or all. Default: test, else val, else the rows without a split, else all rows.
    groups : regular expression, or None
        Regular expression with one part in parentheses, which matches the person or video in an id. Its rows stay in
        one fold and are resampled together. Default: the groups of the store.
    balanced : bool
        Give all classes the same weight in fitting.
    device : str
        Device on which the heads mlp and residual are trained: auto, cpu, cuda, cuda:1, ...
    folds : int
        Number of folds of the reported rows. Heads are fitted in folds if no other rows can be used for training.
    seed : int
        Seed of all random numbers.
    draws : int
        Number of bootstrap samples, and of random exchanges for p-values.
    jobs : int
        Number of threads of the heads; 0 is all cores. Does not affect results.
    """

    heads: tuple[str, ...] = ("gbm",)
    blocks: str = "full"
    report: Literal["train", "val", "test", "all"] | None = None
    groups: str | None = None
    balanced: bool = False
    device: str = "auto"
    folds: Annotated[int, Between(2, 1000)] = 5
    seed: Annotated[int, Between(0, MAX_SEED)] = 0
    draws: Annotated[int, Between(100, MAX_DRAWS)] = 10_000
    jobs: Annotated[int, Between(0)] = 0

    def __post_init__(self) -> None:
        check_options(self)
        if not self.heads:
            raise UsageError("head: no head is named; pass one, such as gbm")
        object.__setattr__(self, "heads", tuple(dict.fromkeys(self.heads)))

    def of_head(self, name: str) -> FuseConfig:
        """The same choices as those of a fusion run with one head."""
        return FuseConfig(
            head=name,
            report=self.report,
            objective="balanced" if self.balanced else None,
            device=self.device,
            folds=self.folds,
            seed=self.seed,
            draws=self.draws,
            jobs=self.jobs,
            model=False,
        )
