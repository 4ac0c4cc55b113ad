"""LightGBM trees with early stopping, for the head ``gbm`` and the rule ``boost``.

Models are stored in LightGBM's text format, so that a model file contains no foreign objects. Trees and text do not
depend on the number of threads.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from joblib import cpu_count

from .progress import report_share
from .tree_text import END

HELD_PART = 6  # one in six rows is held out for early stopping
_CELLS_PER_THREAD = 100_000
_SETTINGS = ("learning_rate", "num_leaves", "min_child_samples", "reg_lambda", "max_bin")


def grow(
    settings: Any,
    X: np.ndarray,
    y: np.ndarray,
    held: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    init: np.ndarray | None = None,
    **objective: Any,
) -> tuple[str, int]:
    """Grow trees on the rows that are not held out, with early stopping on the held-out rows.

    Parameters
    ----------
    settings : estimator with LightGBM's ``learning_rate``, ``num_leaves``, ``min_child_samples``, ``feature_fraction``,
        ``reg_lambda``, ``max_bin`` and ``num_threads``, with ``max_rounds``, ``patience`` and ``random_state``
    X : (n, d) codes
    y : (n,) class indices, or values
    held : (n,) bool
        Held-out rows. If there are none, at most 50 rounds are run and all are kept.
    weight : (n,) float, optional
    init : (n, k) float, optional
        Initial scores.
    objective : ``objective``, ``metric`` and further parameters of LightGBM

    Returns
    -------
    The trees in LightGBM's text format, and the number of rounds.
    """
    import lightgbm

    parameters = {
        **{name: getattr(settings, name) for name in _SETTINGS},
        # At least eight columns, because with fewer a tree may get no informative one.
        "feature_fraction": max(settings.feature_fraction, min(1.0, 8 / X.shape[1])),
        "num_threads": threads_for(settings.num_threads, X.size),
        "seed": int(np.random.RandomState(settings.random_state).randint(2**31 - 1)),
        # The same trees with any number of threads.
        "deterministic": True,
        "force_col_wise": True,
        "verbosity": -1,
        **objective,
    }

    def part(rows: np.ndarray, reference: Any = None) -> Any:
        return lightgbm.Dataset(
            X[rows],
            y[rows],
            reference=reference,
            weight=None if weight is None else weight[rows],
            init_score=None if init is None else init[rows],
            params={"verbosity": -1, "max_bin": settings.max_bin},
        )

    training = part(~held)
    if held.any():
        booster = lightgbm.train(
            parameters,
            training,
            num_boost_round=settings.max_rounds,
            valid_sets=[part(held, training)],
            callbacks=[
                lightgbm.early_stopping(settings.patience, verbose=False),
                lambda state: report_share((state.iteration + 1) / settings.max_rounds),
            ],
        )
        rounds = int(booster.best_iteration)
    else:
        rounds = min(settings.max_rounds, 50)
        booster = lightgbm.train(parameters, training, num_boost_round=rounds)
    text = booster.model_to_string(num_iteration=rounds)
    return re.sub(r"^\[num_threads: \d+\]$", "[num_threads: 0]", text, flags=re.MULTILINE), rounds


def raw_scores(text: str, X: np.ndarray, *, threads: int) -> np.ndarray:
    """(n,) or (n, k) sums of leaf values; computed from the text, so that a saved model gives the same bytes."""
    import lightgbm

    # Parameters after the end are not passed on: prediction does not need them, and files are not trusted.
    trees = text.partition(END)[0]
    booster = lightgbm.Booster(model_str=f"{trees}{END}\npandas_categorical:null\n")
    return np.asarray(booster.predict(X, raw_score=True, num_threads=threads))


def threads_for(requested: int, cells: int) -> int:
    """Number of threads: fewer for small data, where synchronisation takes longer than the work."""
    return max(1, min(requested or cpu_count(), cells // _CELLS_PER_THREAD))
