"""What is measured: the reported predictions of one rule; and how a figure is named and written."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

PERMUTED = "-permuted"
CONDITIONAL = "-conditional"  # permuted among rows with similar 2D predictions


@dataclass(frozen=True, slots=True)
class RuleResult:
    """The reported predictions of one rule.

    Attributes
    ----------
    name : str
    kind : ``reference``, ``rule`` or ``control`` (the codes' rows permuted)
    fits : bool
        Whether anything was fitted to 2D predictions.
    values : (n, k) float64 log-probabilities, or (n, 2) valence and arousal; NaN where there is none
    fitted : what was fitted in each copy, for the record
    repeats : predictions of further cross-fittings, or of further permutations of a control
        Like ``values``, present in the same rows. Statistics of a row are means over all of them.
    """

    name: str
    kind: str
    fits: bool
    values: np.ndarray
    fitted: tuple[dict[str, Any], ...] = ()
    repeats: tuple[np.ndarray, ...] = ()

    @property
    def every(self) -> tuple[np.ndarray, ...]:
        """Predictions of all repeats, those of ``values`` first."""
        return (self.values, *self.repeats)

    @property
    def present(self) -> np.ndarray:
        """(n,) bool: rows that have a prediction of this rule."""
        return np.asarray(np.isfinite(self.values).all(axis=1))


def difference_key(reference: str) -> str:
    """Under what name a figure holds its difference to a reference: ``minus_2d_recalibrated``."""
    return f"minus_{reference}".replace("-", "_")


def control_of(name: str, names: Iterable[str]) -> str | None:
    """The control that repeats a rule with the codes permuted, if it is among ``names``; the conditional one first."""
    return next(
        (other for other in (f"{name}{CONDITIONAL}", f"{name}{PERMUTED}", "permuted") if other in names), None
    )


def plain(value: float) -> float | None:
    """A number for JSON: 12 significant digits, None where it is not defined."""
    return float(f"{value:.12g}") if math.isfinite(value) else None
