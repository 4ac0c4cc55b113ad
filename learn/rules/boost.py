"""Gradient boosting on the codes that starts from the recalibrated 2D network."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(kw_only=True, eq=False, repr=False)
class Boost(Rule):
    """Gradient-boosted trees over the codes, with 2d-recalibrated as their initial score.

    2d-recalibrated is fitted to the same rows; without trees, the rule is identical to it. Trees are grown on five
    sixths of the rows and stopped early on the others, in whole groups. Their initial score is then fitted without
    these others. Valence and arousal: one model per dimension, fitted to the residuals of the
    recalibrated values.

    Parameters
    ----------
    task, objective : as in the configuration
    learning_rate : float
        Learning rate of LightGBM.
    max_rounds : int
        Maximum number of boosting rounds.
    patience : int
        Boosting stops after this many rounds without improvement on the validation rows.
    num_leaves : int
        Maximum number of leaves of a tree.
    min_child_samples : int
        Minimum number of rows of a leaf.
    feature_fraction : float
        Share of the codes that each tree uses.
    reg_lambda : float
        L2 penalty of the leaf values.
    max_bin : int
        Maximum number of histogram bins of a code.
    num_threads : int, 0 for all cores; results do not depend on it
    random_state : int

    Attributes
    ----------
    base_ : Stack, the recalibrated 2D network
    trees_ : list of str
        Models in LightGBM's text format, one for all classes or one per dimension; empty if trees did not help.
    rounds_ : list of int
    scale_, offset_ : (2,) float64, correction of valence and arousal for the objective ``ccc``

    References
    ----------
    Friedman, Greedy function approximation: a gradient boosting machine, Annals of Statistics 29 (2001): boosting
    from an initial function. Ke et al., LightGBM, NeurIPS 2017.
    """

    needs_codes = True

    task: str = "classes"
    objective: str = "accuracy"
    learning_rate: float = 0.1
    max_rounds: int = 200
    patience: int = 15
    num_leaves: int = 7
    min_child_samples: int = 20
    feature_fraction: float = 0.3
    reg_lambda: float = 5.0
    max_bin: int = 63
    num_threads: int = 1
    random_state: int = 0

    def fit(self, columns: Columns, y: np.ndarray, groups: np.ndarray | None = None) -> Boost:
        """Fit to labels (n,) or targets (n, 2); early stopping does not divide ``groups`` (n,)."""
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
                # On the rows on which trees were grown, their predictions vary too much.
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
        """Add trees that are stopped early on held-out rows; none if they do not help there."""
        # boost_from_average=False: the residuals have mean 0 already.
        text, rounds = grow(
            self, codes, y, held, weight=weight, init=init, boost_from_average=False, **objective
        )
        gain = _gains(self._raw(text, codes[held]), y[held], None if init is None else init[held])
        gain = gain if weight is None else gain * weight[held]
        # The best of many rounds is better than the initial score by chance too. Trees are kept if the mean gain is
        # more than two standard errors (over groups, if there are any).
        kept = gain.mean() > 2 * standard_error(gain[None], None if groups is None else groups[held])[0]
        self.trees_.append(text if kept else "")
        self.rounds_.append(rounds if kept else 0)

    def _raw(self, text: str, codes: np.ndarray) -> np.ndarray:
        return raw_scores(text, codes, threads=self.num_threads)

    def _with_trees(self, values: np.ndarray, columns: Columns) -> np.ndarray:
        """(n, 2) recalibrated valence and arousal plus the predictions of the trees."""
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
            log_softmax(fused)
            if len(present) == logs.shape[1]
            else with_unseen(columns.scores_2d, fused, present)
        )

    def describe(self) -> dict[str, Any]:
        """Fitted parameters, for the record."""
        return {"rounds": list(self.rounds_), "base": self.base_.describe()}


def _gains(raw: np.ndarray, y: np.ndarray, init: np.ndarray | None) -> np.ndarray:
    """(m,) decrease of each row's loss by the trees: squared error, or log loss relative to an initial score."""
    if init is None:
        return np.asarray(y**2 - (y - raw) ** 2)
    rows = np.arange(len(y))
    return np.asarray(log_softmax(init + raw)[rows, y] - log_softmax(init)[rows, y])
