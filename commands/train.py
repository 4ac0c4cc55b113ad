"""``ig3d train``: fit and evaluate heads on the 3D codes alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import progress_when_slow, stdout
from ..learn.config import HeadsConfig
from .options import Blocks, Stores, checked_device, joined, print_written, typed, with_options


@with_options(HeadsConfig, flags={"heads": ("--head",)})
def train(
    stores: Stores,
    blocks: Blocks = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="classes or va; by default classes, if the store has class labels."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for predictions (for --3d-logits of ig3d fuse), figures.csv and report.html.",
        ),
    ] = None,
    **options: Any,
) -> None:
    """Train and evaluate heads: models that predict from the 3D codes alone, without a 2D network."""
    from ..learn.report import check_out, print_result, write_result
    from ..learn.train import train_files, write_predictions

    checked_device(options["device"])
    if "heads" in options:
        options["heads"] = joined(options["heads"])
    config = HeadsConfig(**options, blocks=joined(blocks, "full"))
    if out is not None:
        check_out(out)
    with progress_when_slow() as progress:
        result = train_files(stores, config, task=task, progress=progress)
        written = []
        if out is not None:
            progress("report", 0, 1)
            written = [*write_result(result, out, command=typed()), *write_predictions(result, out)]
            progress("report", 1, 1)
    print_result(result, stdout())
    if out is not None:
        print_written(out, written)
