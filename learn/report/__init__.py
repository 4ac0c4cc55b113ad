"""Reports of runs: terminal, findings, LaTeX and one HTML page, all selections of the run's tables.

result, or files of a run -> :class:`~.record.Run` -> :class:`~.view.View` -> findings and templates. Only the paired
differences between runs (:mod:`.compare`) are computed again, so that a page can be made from the files of a run.
"""

from __future__ import annotations

from .compare import compare
from .files import FILES, check_out, write_report, write_result
from .record import FORMAT, FORMAT_VERSION, Run, read_run, read_runs, run_of
from .terminal import print_comparison, print_result, print_run

__all__ = [
    "FILES",
    "FORMAT",
    "FORMAT_VERSION",
    "Run",
    "check_out",
    "compare",
    "print_comparison",
    "print_result",
    "print_run",
    "read_run",
    "read_runs",
    "run_of",
    "write_report",
    "write_result",
]
