"""``ig3d report``: results of runs on the terminal, as a page, LaTeX and CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import say, stdout
from .options import print_written


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders written by ig3d fuse, train, fuse-features or train-joint; the first is compared with each "
            "other.",
            metavar="RUN...",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for report.html, table.tex, figures.csv and, with several runs, differences.csv.",
        ),
    ] = None,
) -> None:
    """Show or compare runs: on the terminal, and with --out as a page, LaTeX and CSV."""
    from ..learn.report import compare, print_comparison, print_run, read_runs, write_report
    from ..learn.report.record import predictions_name, sound_records

    read = read_runs(runs)
    with sound_records(read):
        written = [] if out is None else write_report(read, out)
        if len(read) == 1:
            predictions = read[0].folder / predictions_name(read[0].record)
            if not predictions.exists():
                say(f"{predictions}: does not exist; without it, this run cannot be compared with others")
            print_run(read[0], stdout())
        else:
            print_comparison(compare(read), stdout())
        if out is not None:
            print_written(out, written)
