"""The gate: how much of the 3D prediction enters is decided sample by sample."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.utils.validation import check_is_fitted

from .base import Rule
from .columns import TINY, Columns, log_of, probabilities
from .objective import inner_folds, row_weights
from .solver import minimised

_INNER_FOLDS = 3
_PENALTIES = (1.0, 0.1, 0.01, 0.001)  # the strongest first: it wins where they are equal
_STEEPEST = 8.0  # of the logit of the weight: within .0003 and .9997


class Gate(Rule):
    """(1 - g) 2D + g 3D with a weight g for each row, from both confidences and the quality of the face.

    g = sigmoid(a + b · z), with z, standardised: of each predictor its greatest probability, the margin to the
    second, and the entropy (classes); the intensity of each prediction and how far they are apart (valence and
    arousal); the face's quality where the store has it (an unknown column counts as average). a and b are those of
    the least smooth loss of the mixture: log loss (``balanced``: all classes weighing the same), squared error, or
    1 - CCC; with a penalty on b that inner folds choose. With b = 0 this is ``weighted`` with one w.

    Parameters
    ----------
    task, objective : as in the configuration
    random_state : int
        Of the inner folds.

    Attributes
    ----------
    coefficients_ : (1 + f,) float64: a, b
    names_ : f names of z
    penalty_ : float

    References
    ----------
    Jacobs, Jordan, Nowlan and Hinton, Adaptive mixtures of local experts, Neural Computation 3 (1991): a gate that is
    fitted by the loss of the mixture; here with both experts given.
    """

    repeated = True

    def __init__(self, *, task: str = "classes", objective: str = "accuracy", random_state: int = 0) -> None:
        self.task = task
        self.objective = objective
        self.random_state = random_state

    def _prepared(self, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
        if self.task == "va":
            return columns.two, columns.three
        return probabilities(columns.two), probabilities(columns.three)

    def _known(self, columns: Columns) -> tuple[np.ndarray, tuple[str, ...]]:
        """(n, f) what the gate may go by, and its names."""
        two, three = self._prepared(columns)
        if self.task == "va":
            known = [np.linalg.norm(two, axis=1), np.linalg.norm(three, axis=1), *np.abs(two - three).T]
            names: tuple[str, ...] = ("2d:intensity", "3d:intensity", "apart:valence", "apart:arousal")
        else:
            known = [*_confidence(two), *_confidence(three)]
            names = tuple(
                f"{source}:{what}" for source in ("2d", "3d") for what in ("top", "margin", "entropy")
            )
        if columns.quality is not None:
            known.extend(columns.quality.T)
            names += columns.quality_columns
        return np.column_stack(known), names

    def _standardised(self, known: np.ndarray) -> np.ndarray:
        z = (known - self.mean_) / self.spread_
        # Beyond four deviations the fitting rows say nothing more.
        return np.clip(np.where(np.isfinite(z), z, 0.0), -4, 4)

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> Gate:
        """Fit to labels (n,) or targets (n, 2); groups (n,) stay whole in the inner folds."""
        self.failures_: list[str] = []
        known, self.names_ = self._known(columns)
        there = np.isfinite(known)
        count = np.maximum(there.sum(axis=0), 1)
        self.mean_ = np.where(there, known, 0).sum(axis=0) / count
        spread = np.sqrt((np.where(there, known - self.mean_, 0) ** 2).sum(axis=0) / count)
        self.spread_ = np.where(spread > TINY, spread, np.inf)  # a constant tells nothing
        z = self._standardised(known)
        two, three = self._prepared(columns)
        self.penalty_ = self._choose(z, two, three, y, groups)
        self.coefficients_ = self._descend(z, two, three, y, self.penalty_)
        return self

    def _choose(
        self, z: np.ndarray, two: np.ndarray, three: np.ndarray, y: np.ndarray, groups: np.ndarray | None
    ) -> float:
        fold = inner_folds(y, self.task, groups, _INNER_FOLDS, self.random_state)
        if fold is None:
            return _PENALTIES[0]
        losses = np.zeros(len(_PENALTIES))
        for held in range(_INNER_FOLDS):
            rows, out = fold != held, fold == held
            for number, penalty in enumerate(_PENALTIES):
                found = self._descend(z[rows], two[rows], three[rows], y[rows], penalty)
                loss = self._loss(two[out], three[out], y[out])
                losses[number] += out.sum() * loss(expit(_steps(z[out], found)))[0]
        return _PENALTIES[int(np.argmin(losses))]

    def _descend(
        self, z: np.ndarray, two: np.ndarray, three: np.ndarray, y: np.ndarray, penalty: float
    ) -> np.ndarray:
        """(1 + f,) coefficients, by L-BFGS."""
        of_mixture = self._loss(two, three, y)

        def loss(found: np.ndarray) -> tuple[float, np.ndarray]:
            steps = _steps(z, found)
            g = expit(steps)
            value, slope = of_mixture(g)
            slope = slope * g * (1 - g) * (np.abs(steps) < _STEEPEST)
            along = np.concatenate([[slope.sum()], slope @ z + 2 * penalty * found[1:]])
            return value + penalty * float((found[1:] ** 2).sum()), along

        return minimised(loss, np.zeros(1 + z.shape[1]), self.failures_)

    def _loss(
        self, two: np.ndarray, three: np.ndarray, y: np.ndarray
    ) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """The function of weights g (n,) that gives the mean loss of the mixture, and its slope (n,) in g."""
        step = three - two
        if self.task == "va":
            of_values = partial(_concordance_loss if self.objective == "ccc" else _squared, y=y)

            def of_both(g: np.ndarray) -> tuple[float, np.ndarray]:
                value, slope = of_values(two + g[:, None] * step)
                return value, (slope * step).sum(axis=1)

            return of_both
        rows = np.arange(len(y))
        weights = row_weights(y, self.task, self.objective) / len(y)
        true, step = two[rows, y], step[rows, y]  # no other class enters the log loss

        def of_classes(g: np.ndarray) -> tuple[float, np.ndarray]:
            mixed = np.maximum(true + g * step, TINY)
            return -float((weights * np.log(mixed)).sum()), -weights * step / mixed

        return of_classes

    def weights(self, columns: Columns) -> np.ndarray:
        """(n,) weight of the 3D prediction in each row."""
        check_is_fitted(self)
        return np.asarray(expit(_steps(self._standardised(self._known(columns)[0]), self.coefficients_)))

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        g = self.weights(columns)[:, None]
        two, three = self._prepared(columns)
        mixed = two + g * (three - two)
        return np.clip(mixed, -1, 1) if self.task == "va" else log_of(mixed)

    def describe(self) -> dict[str, Any]:
        """What was fitted, for the record; coefficients are of standardised values."""
        a, b = self.coefficients_[0], self.coefficients_[1:]
        return {
            "w_of_an_average_row": float(expit(a)),
            "coefficients": dict(zip(self.names_, b.tolist(), strict=True)),
            "penalty": self.penalty_,
        }


def _confidence(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Greatest probability, margin to the second, entropy; (n,) each."""
    ranked = np.sort(p, axis=1)
    return ranked[:, -1], ranked[:, -1] - ranked[:, -2], -(p * np.log(np.maximum(p, TINY))).sum(axis=1)


def _steps(z: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    return np.clip(coefficients[0] + z @ coefficients[1:], -_STEEPEST, _STEEPEST)


def _squared(mixed: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean squared error, and its slope (n, 2)."""
    error = mixed - y
    return float((error**2).mean()), 2 * error / error.size


def _concordance_loss(mixed: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """1 - the mean CCC of both dimensions (population moments), and its slope (n, 2)."""
    n, apart = len(y), mixed.mean(axis=0) - y.mean(axis=0)
    m, t = mixed - mixed.mean(axis=0), y - y.mean(axis=0)
    # Constant rows have no concordance; the little below keeps their slope finite.
    together, below = (m * t).mean(axis=0), (m**2).mean(axis=0) + (t**2).mean(axis=0) + apart**2 + TINY
    slope = (2 * t * below - 2 * together * (2 * m + 2 * apart)) / (n * below**2)
    return 1 - float((2 * together / below).mean()), -slope / y.shape[1]
