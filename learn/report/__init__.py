"""What was found, for people: terminal, files, LaTeX and one HTML page, all from the record in ``metrics.json``.

record (of a result, or read from a folder) -> terminal | table.csv | table.tex | report.html. Nothing is computed anew
but the paired differences between runs (:mod:`.compare`), so a page can be made long after its run.
"""

from __future__ import annotations

from .compare import compare
from .files import FILES, check_out, write_report, write_result
from .record import FORMAT, FORMAT_VERSION, Run, read_run, read_runs, record_of
from .terminal import print_comparison, print_record, print_result

__all__ = [
    "FILES",
    "FORMAT",
    "FORMAT_VERSION",
    "Run",
    "check_out",
    "compare",
    "print_comparison",
    "print_record",
    "print_result",
    "read_run",
    "read_runs",
    "record_of",
    "write_report",
    "write_result",
]
