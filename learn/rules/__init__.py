"""Fusion rules over one table of named columns: scikit-learn estimators, one file each, and the table of their names.

Classes: the columns are scores (logits or log-probabilities), what comes out are log-probabilities (n, k). Valence and
arousal: values in, values in [-1, 1] out. A rule's ``fit(columns, y, groups=None)`` sees only the rows it is given and
chooses its hyper-parameters among them; ``apply(columns)`` fuses row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from .base import Choices, Rule, quietly
from .best import Best
from .boost import Boost
from .calibrate import Calibrated, Calibration
from .columns import Columns
from .fixed import FIXED, Fixed
from .gate import Gate
from .stack import Stack
from .weighted import Weighted

__all__ = [
    "FIXED",
    "NEEDS_CODES",
    "RECALIBRATED",
    "TYPES",
    "Choices",
    "Columns",
    "Rule",
    "fits",
    "make_rule",
    "quietly",
]

RECALIBRATED = "2d-recalibrated"
NEEDS_CODES = ("boost",)


def _fixed(name: str, choices: Choices) -> Rule:
    return Fixed(name, task=choices.task, on=choices.on)


def _weighted(choices: Choices) -> Rule:
    return Weighted(
        task=choices.task,
        on=choices.on,
        objective=choices.objective,
        per_class=choices.weights == "per-class",
    )


def _stack(choices: Choices, *, use_3d: bool) -> Rule:
    return Stack(
        task=choices.task,
        use_3d=use_3d,
        codes=use_3d and choices.stack_codes,
        objective=choices.objective,
        random_state=choices.seed,
    )


def _boost(choices: Choices) -> Rule:
    return Boost(
        task=choices.task,
        objective=choices.objective,
        num_threads=choices.threads,
        random_state=choices.seed,
    )


def _gate(choices: Choices) -> Rule:
    return Gate(task=choices.task, objective=choices.objective, random_state=choices.seed)


def _best(choices: Choices) -> Rule:
    # To leave the 3D out is a choice too.
    names = (RECALIBRATED, *choices.candidates)
    return Best(
        tuple((name, make_rule(name, choices)) for name in names),
        task=choices.task,
        objective=choices.objective,
        random_state=choices.seed,
    )


# Every rule by its name; "2d-recalibrated" is the stack with the 3D columns left out.
_MAKERS: Mapping[str, Callable[[Choices], Rule]] = {
    **{name: partial(_fixed, name) for name in FIXED},
    "weighted": _weighted,
    "stack": partial(_stack, use_3d=True),
    "boost": _boost,
    "gate": _gate,
    "best": _best,
    RECALIBRATED: partial(_stack, use_3d=False),
}
# What a saved model may hold of ours: the rules by the names that skops writes.
TYPES = tuple(
    f"{kind.__module__}.{kind.__qualname__}"
    for kind in (Best, Boost, Calibrated, Calibration, Fixed, Gate, Stack, Weighted)
)


def make_rule(name: str, choices: Choices) -> Rule:
    """A rule by its name, over calibrated predictions where that was asked for."""
    rule = _MAKERS[name](choices)
    if choices.calibrate == "none" or name == "best":
        return rule
    return Calibrated(rule, kind=choices.calibrate, objective=choices.objective)


def fits(name: str, calibrate: str) -> bool:
    """Whether anything is fitted to the calibration rows under this name, with this calibration before it."""
    return name not in FIXED or calibrate != "none"
