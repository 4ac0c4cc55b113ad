"""``ig3d predictions``: check that prediction files fit a store, or smooth them over time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import stdout
from ..errors import plural
from ..features.inputs import Inputs
from .options import (
    Blocks,
    Force,
    Labels,
    MaybeStores,
    Task,
    ThreeD,
    TwoDClasses,
    TwoDIds,
    joined,
    output_with,
)


def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="2D predictions (.npz, .npy, .pt, .csv, .parquet).", metavar="FILE...", show_default=False
        ),
    ],
    stores: MaybeStores = None,
    three_d: ThreeD = None,
    labels: Labels = None,
    ids: TwoDIds = None,
    classes: TwoDClasses = None,
    task: Task = None,
    blocks: Blocks = None,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Accept rows that are only in the file, or only in the store."),
    ] = False,
    force: Force = False,
) -> None:
    """Check that predictions fit a store: ids, format, order of rows and classes, coverage. Exit 1 if not."""
    from ..features.check import check_predictions, print_check

    inputs = Inputs(files, stores, three_d=three_d, labels=labels, ids=ids, classes=classes, task=task)
    notes, outcomes = check_predictions(
        inputs, blocks=joined(blocks, "full"), allow_missing=allow_missing, force=force
    )
    print_check(notes, outcomes, stdout())
    if any(outcome.problems for outcome in outcomes):
        raise typer.Exit(1)


def smooth(
    file: Annotated[
        Path, typer.Argument(help="2D predictions of frames, with ids.", metavar="FILE", show_default=False)
    ],
    store: Annotated[Path, typer.Option("--3d-store", help="Store of the frames.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option("--out", help="File to write (.npz).", show_default=False, callback=output_with(".npz")),
    ],
    seconds: Annotated[
        float, typer.Option("--seconds", help="Standard deviation of the Gaussian weights, in seconds.")
    ] = 0.2,
) -> None:
    """Smooth predictions over time within each video: a control for codes of videos."""
    from ..features.smoothing import smooth_predictions

    smoothed = smooth_predictions(file, store, seconds)
    smoothed.save(out)
    print(f"{out}: {plural(len(smoothed), 'row')}, smoothed over {seconds:g} s")
