"""Folds: stratified, with groups kept whole, seeded; and one-off parts to choose hyper-parameters on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold


def strata_of(truth: np.ndarray, task: str) -> np.ndarray:
    """(n,) int strata: the labels, or the quadrant of valence and arousal."""
    if task == "va":
        return (truth[:, 0] >= 0) * 2 + (truth[:, 1] >= 0).astype(int)
    return truth.astype(int)


@contextmanager
def rare_classes_allowed() -> Iterator[None]:
    """Silence scikit-learn's warning of a class with fewer members than folds, which is sound here.

    Enter it also around threads that make folds: filters of single threads would undo each other.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
        yield


def folds_of(strata: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(n,) int fold of each row; a group is in one fold.

    Parameters
    ----------
    strata : (n,) int
        Spread evenly over the folds, as far as that goes.
    groups : (n,) int
    folds : int, at most the number of groups
    seed : int
    """
    n = len(strata)
    single = len(np.unique(groups)) == n
    # scikit-learn refuses to stratify when no class fills all folds; those few rows are then only shuffled.
    enough = np.unique(strata, return_counts=True)[1].max() >= folds
    options = {"n_splits": folds, "shuffle": True, "random_state": seed}
    if single:
        splitter = StratifiedKFold(**options) if enough else KFold(**options)
    else:
        splitter = StratifiedGroupKFold(**options) if enough else GroupKFold(**options)
    number = np.empty(n, np.intp)
    with rare_classes_allowed():
        parts = list(splitter.split(np.zeros(n), strata, None if single else groups))
    if any(len(held) == 0 for _, held in parts):
        # Few large groups can leave a stratified fold empty.
        parts = list(
            GroupKFold(n_splits=folds, shuffle=True, random_state=seed).split(np.zeros(n), None, groups)
        )
    for fold, (_, held) in enumerate(parts):
        number[held] = fold
    return number


def held_out(strata: np.ndarray, groups: np.ndarray | None, parts: int, seed: int) -> np.ndarray:
    """(n,) bool: about one in ``parts`` rows, groups whole, to stop or choose on; none where rows are too few."""
    n = len(strata)
    groups = np.arange(n) if groups is None else np.asarray(groups)
    if len(np.unique(groups)) < 2 * parts:
        return np.zeros(n, bool)
    held = folds_of(strata, groups, parts, seed) == 0
    # Every class has to stay among the rows that are fitted.
    missing = np.setdiff1d(strata[held], strata[~held])
    return np.asarray(held & ~np.isin(groups, groups[held & np.isin(strata, missing)]))
