"""What a rule sees of some rows: the named columns of the fusion table, and how scores become probabilities."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from ...features.predictions import log_softmax

TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of n rows: ``2d:happy`` ..., ``3d:happy`` ..., ``code:expression:0`` ..., ``quality:yaw`` ...

    Attributes
    ----------
    two, three : (n, k) float64
        Scores (logits or log-probabilities) of the 2D and the 3D predictions; or valence and arousal.
    codes : (n, d) float32, finite; None where 3D predictions came ready
    quality : (n, q) float64, NaN where it is not known; None where there is none
    quality_columns : q names
    second : (n, k) float64, predictions of a second 2D network; None where there is none
    """

    two: np.ndarray
    three: np.ndarray
    codes: np.ndarray | None = None
    quality: np.ndarray | None = None
    quality_columns: tuple[str, ...] = ()
    second: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.two)

    @property
    def covered(self) -> np.ndarray:
        """(n,) bool: rows with a 3D prediction."""
        return np.asarray(np.isfinite(self.three).all(axis=1))

    def take(self, rows: np.ndarray) -> Columns:
        """The columns of some rows: a mask or indices."""
        return self._of(rows, [field.name for field in fields(self)])

    def permuted(self, order: np.ndarray) -> Columns:
        """Row i keeps its 2D scores and gets all that comes of the 3D face of row ``order[i]``."""
        return self._of(order, ["three", "codes", "quality"])

    def without_3d(self) -> Columns:
        """The columns for a rule that sees the 2D scores only; also of rows that have no others."""
        return replace(self, three=self.two)

    def _of(self, rows: np.ndarray, names: list[str]) -> Columns:
        arrays = {name: getattr(self, name) for name in names}
        return replace(
            self, **{name: array[rows] for name, array in arrays.items() if isinstance(array, np.ndarray)}
        )


def probabilities(scores: np.ndarray) -> np.ndarray:
    """(n, k) probabilities of scores."""
    return np.exp(log_softmax(scores))


def log_of(weights: np.ndarray) -> np.ndarray:
    """Logarithms of non-negative weights (n, k), renormalised to probabilities."""
    return log_softmax(np.log(np.maximum(weights, TINY)))


def centred(scores: np.ndarray) -> np.ndarray:
    """(n, k) log-probabilities less their mean over the classes."""
    logs = log_softmax(scores)
    return logs - logs.mean(axis=1, keepdims=True)
