"""Boosting that starts from the recalibrated 2D network and learns from the codes only what corrects it."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ...features.predictions import log_softmax
from ..folds import held_out, strata_of
from ..trees import HELD_PART, grow, raw_scores
from .base import Rule
from .calibrate import with_unseen
from .columns import Columns
from .objective import row_weights
from .stack import Stack, matched, standard_error


class Boost(Rule):
    """Gradient-boosted trees over the codes with the 2D network's log-probabilities as their initial score.

    The start is ``2d-recalibrated``, fitted to the same rows; with no trees the rule is that reference to the letter.
    Trees are grown on five sixths of the rows and stopped on the others, groups whole, from a start that has not seen
    these others. Valence and arousal: a model per dimension for what the recalibrated values leave.

    Parameters
    ----------
    task, objective : as in the configuration
    learning_rate : float
        Learning rate of LightGBM.
    max_rounds : int
        Most rounds of boosting.
    patience : int
        Rounds without gain on the held part after which boosting stops.
    num_leaves : int
        Leaves of a tree; few, because corrections are small.
    min_child_samples : int
        Least rows of a leaf.
    feature_fraction : float
        Share of the codes that a tree may use.
    reg_lambda : float
        L2 penalty of the leaves.
    max_bin : int
        Histogram bins of a code.
    num_threads : int, 0 for all cores; changes no number
    random_state : int

    Attributes
    ----------
    base_ : Stack, the recalibrated 2D network
    trees_ : list of str
        LightGBM's text, one for all classes or one per dimension; empty where trees did not help.
    rounds_ : list of int
    scale_, offset_ : (2,) arrays, for VA

    References
    ----------
    Friedman, Greedy function approximation: a gradient boosting machine, Annals of Statistics 29 (2001): boosting
    from an initial function. Ke et al., LightGBM, NeurIPS 2017.
    """

    needs_codes = True

    def __init__(
        self,
        *,
        task: str = "classes",
        objective: str = "accuracy",
        learning_rate: float = 0.1,
        max_rounds: int = 200,
        patience: int = 15,
        num_leaves: int = 7,
        min_child_samples: int = 20,
        feature_fraction: float = 0.3,
        reg_lambda: float = 5.0,
        max_bin: int = 63,
        num_threads: int = 1,
        random_state: int = 0,
    ) -> None:
        self.task = task
        self.objective = objective
        self.learning_rate = learning_rate
        self.max_rounds = max_rounds
        self.patience = patience
        self.num_leaves = num_leaves
        self.min_child_samples = min_child_samples
        self.feature_fraction = feature_fraction
        self.reg_lambda = reg_lambda
        self.max_bin = max_bin
        self.num_threads = num_threads
        self.random_state = random_state

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> Boost:
        """Fit to labels (n,) or targets (n, 2); groups (n,) stay whole where the trees are stopped."""
        self.base_ = self._base().fit(columns, y, groups=groups)
        held = held_out(strata_of(y, self.task), groups, HELD_PART, self.random_state)
        self.trees_: list[str] = []
        self.rounds_: list[int] = []
        if held.any() and len(self.base_.present_) != 1:
            start = self._base().fit(
                columns.take(~held), y[~held], groups=None if groups is None else groups[~held]
            )
            self._grow(np.asarray(columns.codes), start.apply(columns), y, held, groups)
        self.scale_, self.offset_ = np.ones(2), np.zeros(2)
        if self.task == "va" and self.objective == "ccc":
            self.scale_, self.offset_ = matched(self.base_.apply(columns), y)
            if any(self.trees_):
                # Of rows that trees were grown on their spread says too much.
                values = self._with_trees(start.apply(columns.take(held)), columns.take(held))
                self.scale_, self.offset_ = matched(values, y[held])
        return self

    def _base(self) -> Stack:
        objective = "rmse" if self.task == "va" else self.objective
        return Stack(task=self.task, use_3d=False, objective=objective, random_state=self.random_state)

    def _grow(
        self,
        codes: np.ndarray,
        start: np.ndarray,
        y: np.ndarray,
        held: np.ndarray,
        groups: np.ndarray | None,
    ) -> None:
        if self.task == "va":
            for d in range(y.shape[1]):
                residual = y[:, d] - start[:, d]
                self._train(codes, residual, held, groups, objective="regression", metric="l2")
            return
        present = self.base_.present_
        self._train(
            codes,
            np.searchsorted(present, y),
            held,
            groups,
            init=log_softmax(start[:, present]),
            weight=row_weights(y, self.task, self.objective),
            objective="multiclass",
            num_class=len(present),
            metric="multi_logloss",
        )

    def _train(
        self,
        codes: np.ndarray,
        y: np.ndarray,
        held: np.ndarray,
        groups: np.ndarray | None,
        *,
        init: np.ndarray | None = None,
        weight: np.ndarray | None = None,
        **objective: Any,
    ) -> None:
        """Trees stopped on held rows; none where they do not help there."""
        # What is left over has mean 0 already.
        text, rounds = grow(
            self, codes, y, held, weight=weight, init=init, boost_from_average=False, **objective
        )
        gain = _gains(self._raw(text, codes[held]), y[held], None if init is None else init[held])
        gain = gain if weight is None else gain * weight[held]
        # The least of many rounds lies below the start by luck too: trees are kept where the mean gain is more than
        # two of its standard errors, over groups where there are some.
        kept = gain.mean() > 2 * standard_error(gain[None], None if groups is None else groups[held])[0]
        self.trees_.append(text if kept else "")
        self.rounds_.append(rounds if kept else 0)

    def _raw(self, text: str, codes: np.ndarray) -> np.ndarray:
        return raw_scores(text, codes, threads=self.num_threads)

    def _with_trees(self, values: np.ndarray, columns: Columns) -> np.ndarray:
        """(n, 2) recalibrated valence and arousal, corrected."""
        corrected = values.copy()
        for d, text in enumerate(self.trees_):
            if text:
                corrected[:, d] += self._raw(text, np.asarray(columns.codes))
        return corrected

    def apply(self, columns: Columns) -> np.ndarray:
        """(n, k) fused log-probabilities or values."""
        check_is_fitted(self)
        logs = self.base_.apply(columns)
        if self.task == "va":
            return np.clip(self._with_trees(logs, columns) * self.scale_ + self.offset_, -1, 1)
        if not any(self.trees_):
            return logs
        present = self.base_.present_
        fused = logs.copy()
        fused[:, present] += self._raw(self.trees_[0], np.asarray(columns.codes))
        return (
            log_softmax(fused) if len(present) == logs.shape[1] else with_unseen(columns.two, fused, present)
        )

    def describe(self) -> dict[str, Any]:
        """What was fitted, for the record."""
        return {"rounds": list(self.rounds_), "base": self.base_.describe()}


def _gains(raw: np.ndarray, y: np.ndarray, init: np.ndarray | None) -> np.ndarray:
    """(m,) by how much trees lower the loss of each row: squared error, or log loss from an initial score."""
    if init is None:
        return np.asarray(y**2 - (y - raw) ** 2)
    rows = np.arange(len(y))
    return np.asarray(log_softmax(init + raw)[rows, y] - log_softmax(init)[rows, y])
