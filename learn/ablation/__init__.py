"""Ablations: a declared grid of runs, each kept by what it depends on, read together as one table.

study (a file or an object) -> cells -> runs in parallel, kept -> one table, one heat map, LaTeX. Nothing is measured
here that ``ig3d fuse`` does not measure; what is added is that cells are compared on the same rows.
"""

from __future__ import annotations

from .report import print_study, write_study
from .run import StudyResult, run_study
from .study import Cell, Study

__all__ = ["Cell", "Study", "StudyResult", "print_study", "run_study", "write_study"]
