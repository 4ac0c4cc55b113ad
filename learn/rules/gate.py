"""Gate: a weighted mean of both predictions with a separate weight for each row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
_PENALTIES = (1.0, 0.1, 0.01, 0.001)  # strongest first, so that the strongest of equally good ones is chosen
_MAX_LOGIT = 8.0  # limit of the logit of a weight: weights are between .0003 and .9997


@dataclass(kw_only=True, eq=False, repr=False)
class Gate(Rule):
    """(1 - g) 2D + g 3D with a weight g for each row, from both confidences and the quality of the face.

    g = sigmoid(a + b · z) with standardised inputs z. Inputs for classes: greatest probability, margin to the second
    greatest and entropy of each predictor. Inputs for valence-arousal: norm of each prediction, and abs(3D - 2D) in
    valence and in arousal. In both tasks also the quality of the face, if the store has it; missing values are set to
    the mean.

    a and b minimise the loss of the mixture: log loss (objectives ``accuracy`` and ``logloss``; ``balanced``: with
    equal weight of all classes), squared error (``rmse``) or 1 - CCC (``ccc``). The penalty on b is chosen in inner
    folds. With b = 0 this has the form of ``weighted`` with one w.

    Parameters
    ----------
    task, objective : as in the configuration
    random_state : int
        Seed of the inner folds.

    Attributes
    ----------
    coefficients_ : (1 + f,) float64, a and b
    names_ : f names of the inputs z
    penalty_ : float

    References
    ----------
    Jacobs, Jordan, Nowlan and Hinton, Adaptive mixtures of local experts, Neural Computation 3 (1991): a gate fitted
    with the loss of the mixture. Here, both experts are fixed.
    """

    repeated = True  # cross-fitted several times (--repeats)

    task: str = "classes"
    objective: str = "accuracy"
    random_state: int = 0

    def _prepared(self, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
        if self.task == "va":
            return columns.scores_2d, columns.scores_3d
        return probabilities(columns.scores_2d), probabilities(columns.scores_3d)

    def _inputs(self, columns: Columns) -> tuple[np.ndarray, tuple[str, ...]]:
        """(n, f) inputs of the gate before standardisation, and their names."""
        two, three = self._prepared(columns)
        if self.task == "va":
            inputs = [np.linalg.norm(two, axis=1), np.linalg.norm(three, axis=1), *np.abs(two - three).T]
            names: tuple[str, ...] = ("2d:norm", "3d:norm", "difference:valence", "difference:arousal")
        else:
            inputs = [*_confidence(two), *_confidence(three)]
            names = tuple(
                f"{source}:{measure}" for source in ("2d", "3d") for measure in ("top", "margin", "entropy")
            )
        if columns.quality is not None:
            inputs.extend(columns.quality.T)
            names += columns.quality_columns
        return np.column_stack(inputs), names

    def _standardised(self, inputs: np.ndarray) -> np.ndarray:
        z = (inputs - self.mean_) / self.spread_
        # Limited to four standard deviations, because few of the rows on which it is fitted lie beyond.
        return np.clip(np.where(np.isfinite(z), z, 0.0), -4, 4)

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> Gate:
        """Fit to labels (n,) or targets (n, 2); inner folds do not divide ``groups`` (n,)."""
        self.failures_: list[str] = []
        inputs, self.names_ = self._inputs(columns)
        finite = np.isfinite(inputs)
        count = np.maximum(finite.sum(axis=0), 1)
        self.mean_ = np.where(finite, inputs, 0).sum(axis=0) / count
        spread = np.sqrt((np.where(finite, inputs - self.mean_, 0) ** 2).sum(axis=0) / count)
        self.spread_ = np.where(spread > TINY, spread, np.inf)  # constant inputs become 0
        z = self._standardised(inputs)
        two, three = self._prepared(columns)
        self.penalty_ = self._choose(z, two, three, y, groups)
        self.coefficients_ = self._descend(z, two, three, y, self.penalty_)
        return self

    def _choose(
        self, z: np.ndarray, two: np.ndarray, three: np.ndarray, y: np.ndarray, groups: np.ndarray | None
    ) -> float:
        """The penalty with the smallest loss on held-out rows of inner folds."""
        fold = inner_folds(y, self.task, groups, _INNER_FOLDS, self.random_state)
        if fold is None:
            return _PENALTIES[0]
        losses = np.zeros(len(_PENALTIES))
        for number in range(_INNER_FOLDS):
            fitted, held_out = fold != number, fold == number
            for index, penalty in enumerate(_PENALTIES):
                coefficients = self._descend(z[fitted], two[fitted], three[fitted], y[fitted], penalty)
                loss = self._loss(two[held_out], three[held_out], y[held_out])
                losses[index] += held_out.sum() * loss(expit(_logits(z[held_out], coefficients)))[0]
        return _PENALTIES[int(np.argmin(losses))]

    def _descend(
        self, z: np.ndarray, two: np.ndarray, three: np.ndarray, y: np.ndarray, penalty: float
    ) -> np.ndarray:
        """(1 + f,) fitted coefficients, by L-BFGS."""
        mixture_loss = self._loss(two, three, y)

        def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
            logits = _logits(z, coefficients)
            g = expit(logits)
            value, slope = mixture_loss(g)
            slope = slope * g * (1 - g) * (np.abs(logits) < _MAX_LOGIT)
            gradient = np.concatenate([[slope.sum()], slope @ z + 2 * penalty * coefficients[1:]])
            return value + penalty * float((coefficients[1:] ** 2).sum()), gradient

        return minimised(loss, np.zeros(1 + z.shape[1]), self.failures_)

    def _loss(
        self, two: np.ndarray, three: np.ndarray, y: np.ndarray
    ) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """Function that maps weights g (n,) to the mean loss of the mixture and its gradient (n,)."""
        step = three - two
        if self.task == "va":
            of_values = partial(_concordance_loss if self.objective == "ccc" else _squared, y=y)

            def of_va(g: np.ndarray) -> tuple[float, np.ndarray]:
                value, slope = of_values(two + g[:, None] * step)
                return value, (slope * step).sum(axis=1)

            return of_va
        rows = np.arange(len(y))
        weights = row_weights(y, self.task, self.objective) / len(y)
        true, step = two[rows, y], step[rows, y]  # the log loss depends on the true class only

        def of_classes(g: np.ndarray) -> tuple[float, np.ndarray]:
            mixed = np.maximum(true + g * step, TINY)
            return -float((weights * np.log(mixed)).sum()), -weights * step / mixed

        return of_classes

    def weights(self, columns: Columns) -> np.ndarray:
        """(n,) weight of the 3D prediction in each row."""
        check_is_fitted(self)
        return np.asarray(expit(_logits(self._standardised(self._inputs(columns)[0]), self.coefficients_)))

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        g = self.weights(columns)[:, None]
        two, three = self._prepared(columns)
        mixed = two + g * (three - two)
        return np.clip(mixed, -1, 1) if self.task == "va" else log_of(mixed)

    def describe(self) -> dict[str, Any]:
        """Fitted parameters, for the record; coefficients belong to standardised inputs."""
        a, b = self.coefficients_[0], self.coefficients_[1:]
        return {
            "weight_at_mean_inputs": float(expit(a)),
            "coefficients": dict(zip(self.names_, b.tolist(), strict=True)),
            "penalty": self.penalty_,
        }


def _confidence(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Greatest probability, margin to the second, entropy; (n,) each."""
    ranked = np.sort(p, axis=1)
    return ranked[:, -1], ranked[:, -1] - ranked[:, -2], -(p * np.log(np.maximum(p, TINY))).sum(axis=1)


def _logits(z: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    return np.clip(coefficients[0] + z @ coefficients[1:], -_MAX_LOGIT, _MAX_LOGIT)


def _squared(mixed: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean squared error, and its gradient (n, 2)."""
    error = mixed - y
    return float((error**2).mean()), 2 * error / error.size


def _concordance_loss(mixed: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """1 minus the mean CCC of both dimensions (population moments), and its gradient (n, 2)."""
    n, shift = len(y), mixed.mean(axis=0) - y.mean(axis=0)
    m, t = mixed - mixed.mean(axis=0), y - y.mean(axis=0)
    # TINY keeps the gradient finite if all rows are constant and equal.
    product, total = (m * t).mean(axis=0), (m**2).mean(axis=0) + (t**2).mean(axis=0) + shift**2 + TINY
    slope = (2 * t * total - 2 * product * (2 * m + 2 * shift)) / (n * total**2)
    return 1 - float((2 * product / total).mean()), -slope / y.shape[1]
