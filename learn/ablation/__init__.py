"""Ablation studies: a grid of fusion runs, compared on the same rows in one table.

study (YAML file or object) -> cells -> runs in parallel, stored in a cache -> table, heat map, LaTeX. Each cell is a
run as of ``ig3d fuse`` or ``ig3d fuse-features``; the study adds the differences between cells.
"""

from __future__ import annotations

from .report import print_study, write_study
from .run import StudyResult, run_study
from .study import Cell, Study

__all__ = ["Cell", "Study", "StudyResult", "print_study", "run_study", "write_study"]
