"""``ig3d predictions check``: whether files of predictions join, and what they were understood to be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import stdout
from ..features.inputs import Inputs


def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="2D predictions: .npz, .npy, .csv or .parquet.", metavar="FILE...", show_default=False
        ),
    ],
    stores: Annotated[
        list[Path] | None, typer.Option("--3d-store", help="Store of ig3d extract; may be repeated.")
    ] = None,
    three_d: Annotated[
        Path | None, typer.Option("--3d-logits", help="Ready 3D predictions, instead of a store.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="CSV of truth by id, with --3d-logits or before the store's."),
    ] = None,
    ids: Annotated[
        list[Path] | None, typer.Option("--2d-ids", help="Ids of rows that come without; one for each file.")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--2d-classes",
            help="Order of the columns, before what the file says: a preset or names by comma; one for all files or "
            "one for each.",
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="classes or va; by default what the file is.")
    ] = None,
    blocks: Annotated[str, typer.Option("--blocks", help="full, short, or block names by comma.")] = "full",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Rows of one side that the other lacks are no problem.")
    ] = False,
) -> None:
    """Check that predictions join a store: ids, form, order of rows and classes, coverage. Exit 1 if not."""
    from ..features.check import check_predictions, print_check

    inputs = Inputs(files, stores, three_d=three_d, labels=labels, ids=ids, classes=classes, task=task)
    notes, outcomes = check_predictions(inputs, blocks=blocks, allow_missing=allow_missing)
    print_check(notes, outcomes, stdout())
    if any(outcome.problems for outcome in outcomes):
        raise typer.Exit(1)
