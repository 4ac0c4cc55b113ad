"""Result of a run of any kind: predictions and figures of the reported rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from .evaluate.predictions import ReportedPredictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(ReportedPredictions):
    """Result of a run; :mod:`.report` shows it.

    Attributes
    ----------
    figures : DataFrame, a line for each figure (:func:`~.evaluate.figures.figures_of`)
    protocol : which rows were fitted and reported
    config : the choices
    notes : tuple of str
        Assumptions and warnings, for the user.
    sources : input -> where it came from
    model : fitted on all calibration rows; None where nothing was
    seconds : step -> time it took; not part of any file
    """

    figures: pd.DataFrame
    protocol: Any
    config: Any
    notes: tuple[str, ...]
    sources: dict[str, str]
    model: Any = None
    seconds: dict[str, float] = field(default_factory=dict)
