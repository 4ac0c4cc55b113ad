"""What the heads share: seeds, strata, and the scale that codes are brought to."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..folds import strata_of


def seed_of(random_state: Any) -> int:
    """A whole number from what scikit-learn allows as a random state, without moving a generator on."""
    return int(random_state) if isinstance(random_state, int | np.integer) else 0


def numeric_strata(y: np.ndarray) -> np.ndarray:
    """Strata of a regression's targets: quadrants of two, or above and below the median of one."""
    return strata_of(y, "va") if y.shape[1] == 2 else (y[:, 0] > np.median(y[:, 0])).astype(int)


def scale_of(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread (d,) of each column; the spread of a column that does not vary is 1."""
    spread = X.std(axis=0, dtype=np.float64)
    # Rounding gives a large constant a small spread.
    still = spread <= 10 * np.finfo(X.dtype).eps * np.abs(X).max(axis=0, initial=0)
    return X.mean(axis=0, dtype=np.float64), np.where(still, 1.0, spread)
