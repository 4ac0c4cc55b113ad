"""Input of the fusion rules: the columns of the fusion table, and conversion of scores to probabilities."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from ...features.predictions import log_softmax

TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Columns:
    """Input of a rule for n rows.

    Attributes
    ----------
    scores_2d, scores_3d : (n, k) float64
        2D and 3D predictions: logits or log-probabilities of k classes, or valence and arousal.
    codes : (n, d) float32, finite; None if the 3D predictions are ready-made
    quality : (n, q) float64, quality of the face, NaN where missing; None if the store has none
    quality_columns : q names, such as ``quality:yaw``
    second_2d : (n, k) float64, scores of a second 2D network; None if there is none
    """

    scores_2d: np.ndarray
    scores_3d: np.ndarray
    codes: np.ndarray | None = None
    quality: np.ndarray | None = None
    quality_columns: tuple[str, ...] = ()
    second_2d: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores_2d)

    @property
    def covered(self) -> np.ndarray:
        """(n,) bool: rows with a 3D prediction."""
        return np.asarray(np.isfinite(self.scores_3d).all(axis=1))

    def take(self, rows: np.ndarray) -> Columns:
        """Select rows by a mask or indices."""
        return self._with_rows(rows, [field.name for field in fields(self)])

    def permuted(self, order: np.ndarray) -> Columns:
        """Row i keeps its 2D scores and gets the 3D scores, codes and quality of row ``order[i]``."""
        return self._with_rows(order, ["scores_3d", "codes", "quality"])

    def without_3d(self) -> Columns:
        """Columns for a rule that uses only the 2D scores; also valid for rows without 3D."""
        return replace(self, scores_3d=self.scores_2d)

    def _with_rows(self, rows: np.ndarray, names: list[str]) -> Columns:
        """Columns in which the arrays of these names are replaced by their ``rows``."""
        arrays = {name: getattr(self, name) for name in names}
        return replace(
            self, **{name: array[rows] for name, array in arrays.items() if isinstance(array, np.ndarray)}
        )


def probabilities(scores: np.ndarray) -> np.ndarray:
    """(n, k) probabilities from scores."""
    return np.exp(log_softmax(scores))


def log_of(weights: np.ndarray) -> np.ndarray:
    """Log-probabilities from non-negative weights (n, k), renormalised."""
    return log_softmax(np.log(np.maximum(weights, TINY)))


def centred(scores: np.ndarray) -> np.ndarray:
    """(n, k) log-probabilities minus their mean over the classes."""
    logs = log_softmax(scores)
    return logs - logs.mean(axis=1, keepdims=True)
