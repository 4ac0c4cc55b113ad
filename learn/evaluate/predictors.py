"""Predictions of one predictor under one condition on the reported rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

REAL, PERMUTED = "real", "permuted"
CONDITIONAL = "conditional"  # permuted among rows with similar 2D predictions
INTERMEDIATE, NULL_INPUT = "intermediate", "null-input"  # a module trained with codes, and with masked codes


@dataclass(frozen=True, slots=True)
class Predictor:
    """The reported predictions of one predictor under one condition.

    Attributes
    ----------
    name : str
    role : ``reference``, ``rule``, ``head`` or ``control``
    fits : bool
        Whether the predictor has parameters that are fitted to labels and 2D predictions.
    values : (n, k) float64 log-probabilities, or (n, 2) valence and arousal; NaN in rows without a prediction
    fitted : fitted parameters of each fold model, for the record
    repeats : predictions of further cross-fittings, permutations or trainings
        Of the shape of ``values``, with predictions in the same rows. Results are means over ``values`` and these.
    condition : ``real``, ``permuted``, ``conditional``, ``2d:NAME``, ``2d+NAME`` or ``2d+NAME repeated``
    trained : bool
        Whether ``repeats`` are trainings with other seeds, which are resampled like the rows.
    """

    name: str
    role: str
    fits: bool
    values: np.ndarray
    fitted: tuple[dict[str, Any], ...] = ()
    repeats: tuple[np.ndarray, ...] = ()
    condition: str = REAL
    trained: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Name and condition, which identify a predictor."""
        return self.name, self.condition

    @property
    def every(self) -> tuple[np.ndarray, ...]:
        """Predictions of all repeats, ``values`` first."""
        return (self.values, *self.repeats)

    @property
    def present(self) -> np.ndarray:
        """(n,) bool: rows that have a prediction."""
        return np.asarray(np.isfinite(self.values).all(axis=1))


def label_of(name: str, condition: str) -> str:
    """Name of a predictor in tables and plots: ``stack``, ``stack (permuted)``."""
    return name if condition == REAL else f"{name} ({condition})"


def control_of(name: str, keys: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """The control with permuted codes of a predictor, preferably the conditional one; None if not in ``keys``."""
    wanted = ((name, CONDITIONAL), (name, PERMUTED))
    available = set(keys)
    return next((key for key in wanted if key in available), None)


def repeated(condition: str) -> str:
    """The condition ``2d+NAME`` with the second 2D network once more in place of the 3D."""
    return f"{condition} repeated"


def find(predictors: Sequence[Predictor], name: str, condition: str = REAL) -> Predictor | None:
    """The predictor of this name and condition, if there is one."""
    return next((of for of in predictors if of.key == (name, condition)), None)
