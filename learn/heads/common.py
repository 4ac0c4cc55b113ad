"""What the heads share: strata of what they learn, and a seed out of what scikit-learn allows as one."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..folds import strata_of


def numeric_strata(y: np.ndarray) -> np.ndarray:
    """Strata of a regression's targets: quadrants of two, or above and below the median of one."""
    return strata_of(y, "va") if y.shape[1] == 2 else (y[:, 0] > np.median(y[:, 0])).astype(int)


def seed_of(random_state: Any) -> int:
    """A whole number from what scikit-learn allows as a random state, without moving a generator on."""
    return int(random_state) if isinstance(random_state, int | np.integer) else 0
