"""``ig3d predictions check``: whether files of predictions join, and what they were understood to be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import stdout
from ..features.inputs import Inputs
from .options import Blocks, Force, Labels, MaybeStores, Task, ThreeD, TwoDClasses, TwoDIds, joined


def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="2D predictions: .npz, .npy, .csv or .parquet.", metavar="FILE...", show_default=False
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
        bool, typer.Option("--allow-missing", help="Rows of one side that the other lacks are no problem.")
    ] = False,
    force: Force = False,
) -> None:
    """Check that predictions join a store: ids, form, order of rows and classes, coverage. Exit 1 if not."""
    from ..features.check import check_predictions, print_check

    inputs = Inputs(files, stores, three_d=three_d, labels=labels, ids=ids, classes=classes, task=task)
    notes, outcomes = check_predictions(
        inputs, blocks=joined(blocks, "full"), allow_missing=allow_missing, force=force
    )
    print_check(notes, outcomes, stdout())
    if any(outcome.problems for outcome in outcomes):
        raise typer.Exit(1)
