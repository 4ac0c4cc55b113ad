"""All choices of a fusion run, in one object; stored as JSON with its results."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError, short

# In the order of the table.
RULES = ("mean", "max", "min", "product", "weighted", "stack", "boost", "gate", "best")
PRIMARY = "stack"
REPEATS, REPEATS_OF_HEADS = 10, 3  # cross-fittings by default; where each of them refits the heads
MOST_SEED = 2**32 - 1  # of NumPy's and scikit-learn's generators
MOST_DRAWS = 1_000_000
MOST_REPEATS = 1000
OBJECTIVES = {"classes": ("accuracy", "balanced", "logloss"), "va": ("rmse", "ccc")}
# objective -> metrics that something is fitted for: only gains in these are marked as significant
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
    if not 0 <= seed <= MOST_SEED:
        raise UsageError(f"{name}: expected 0 to {MOST_SEED}, got {short(str(seed))}")


@dataclass(frozen=True, slots=True)
class FuseConfig:
    """Choices of :func:`ig3d.learn.fuse.fuse_predictions`.

    Attributes
    ----------
    rules : names out of ``RULES``
        ``best`` chooses among the others that are named, or among all, by calibration rows.
    primary : name out of ``RULES``, or None
        The rule of the primary comparison; added to ``rules`` where it is missing. None: ``stack`` if it is among
        ``rules``, else the first of them.
    head : a name of :data:`~.heads.HEADS`, or ``module:Class``
        What predicts from the codes.
    device : ``auto``, ``cpu``, ``cuda`` or ``cuda:1``
        Where the heads ``mlp`` and ``residual`` are trained; auto is a CUDA device where there is one.
    blocks : which code blocks, when files are joined
    groups : regular expression over ids, or None
        Its first group names the person or video of a row, in place of the table's groups.
    report : ``train``, ``val``, ``test``, ``all`` or None
        Rows whose figures are reported; None chooses (docs/protocol.md).
    fit_on : ``auto`` or ``reported``
        ``reported`` fits the rules on the very rows that are reported, and marks every figure.
    calibration_rows : int or None
        At most so many rows with 3D fit the rules, drawn with groups whole; None takes all. More rows hold fewer.
    folds, seed, draws : int
        Draws of the bootstrap and of the permutation tests.
    repeats : int or None
        Cross-fittings with other folds that figures are means over, where rules are fitted in folds; None: 10, or 3
        where the heads are refitted each time.
    on : ``probabilities`` or ``logits``
        What ``mean``, ``max`` and ``weighted`` work on (classes).
    weights : ``one`` or ``per-class``
        Whether ``weighted`` has one weight, or one for each class (dimension of valence and arousal).
    stack_codes : bool
        Whether ``stack`` sees the codes themselves beside both predictions.
    calibrate : ``none``, ``temperature`` or ``bias``
        What is done to both predictors before every rule, fitted on the rows that the rule is fitted on (classes).
    objective : what fitted rules are fitted for, None for the task's first: accuracy, balanced, logloss; rmse, ccc
    controls : bool
        Whether every rule is repeated with the rows of the codes permuted.
    permutations : int
        Of the codes among rows with similar 2D predictions, over all repeats: the control of the primary rule.
    two_d_out_of_fold : bool
        The user declares that 2D predictions of the train split were made out of fold.
    allow_missing : bool
        Rows with codes and no 2D prediction are left out and counted, instead of refused.
    force : bool
        Go on where the order of rows or classes is likely wrong.
    jobs : int
        Threads of heads and rules; -1 for all cores. Changes no figure.
    model : bool
        Whether to refit everything on all calibration rows, for a model file.
    """

    rules: tuple[str, ...] = RULES
    primary: str | None = None
    head: str = "gbm"
    device: str = "auto"
    blocks: str = "full"
    groups: str | None = None
    report: str | None = None
    fit_on: str = "auto"
    calibration_rows: int | None = None
    folds: int = 5
    repeats: int | None = None
    seed: int = 0
    draws: int = 10_000
    on: str = "probabilities"
    weights: str = "one"
    stack_codes: bool = False
    calibrate: str = "none"
    objective: str | None = None
    controls: bool = True
    permutations: int = 20
    two_d_out_of_fold: bool = False
    allow_missing: bool = False
    force: bool = False
    jobs: int = -1
    model: bool = True

    def __post_init__(self) -> None:
        asked = (*self.rules, *([] if self.primary is None else [self.primary]))
        object.__setattr__(self, "rules", tuple(dict.fromkeys(asked)))
        unknown = [name for name in self.rules if name not in RULES and name != self.primary]
        if unknown or not self.rules:
            raise UsageError(
                f"rules: expected some of {', '.join(RULES)}, got {', '.join(unknown) or 'none'}"
            )
        if self.primary is not None and self.primary not in RULES:
            raise UsageError(f"primary: expected one of {', '.join(RULES)}, got {self.primary!r}")
        for name, choices in {
            "report": (None, "train", "val", "test", "all"),
            "fit_on": ("auto", "reported"),
            "on": ("probabilities", "logits"),
            "weights": ("one", "per-class"),
            "calibrate": ("none", "temperature", "bias"),
            "objective": (None, *OBJECTIVES["classes"], *OBJECTIVES["va"]),
        }.items():
            if getattr(self, name) not in choices:
                words = ", ".join(choice for choice in choices if choice is not None)
                raise UsageError(
                    f"{name.replace('_', '-')}: expected one of {words}, got {getattr(self, name)!r}"
                )
        if self.calibration_rows is not None and self.calibration_rows < 1:
            raise UsageError(f"calibration-rows: expected at least 1, got {self.calibration_rows}")
        if self.repeats is not None and not 1 <= self.repeats <= MOST_REPEATS:
            raise UsageError(f"repeats: expected 1 to {MOST_REPEATS}, got {short(str(self.repeats))}")
        ranges = {"folds": (2, 1000), "draws": (100, MOST_DRAWS), "permutations": (1, MOST_REPEATS)}
        for name, (least, most) in ranges.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"{name}: expected {least} to {most}, got {short(str(getattr(self, name)))}")
        check_seed(self.seed)

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
            raise UsageError(
                f"objective: expected one of {', '.join(choices)} for {task}, got {self.objective!r}"
            )
        return self.objective

    def primary_rule(self) -> str:
        """The rule of the primary comparison: a choice of names alone, made before any figure."""
        if self.primary is not None:
            return self.primary
        return PRIMARY if PRIMARY in self.rules else self.rules[0]
