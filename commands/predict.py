"""``ig3d predict``: predictions of new rows by a fitted model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import say
from .options import Force, output_file


def predict(
    model: Annotated[
        Path, typer.Argument(help="A model.skops of ig3d fuse --out.", metavar="MODEL", show_default=False)
    ],
    two_d: Annotated[
        list[Path],
        typer.Option(
            "--2d-logits",
            help="2D predictions of the network that it was fitted with: .npz, .npy, .csv or .parquet.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Table to write (.csv).", show_default=False, callback=output_file)
    ],
    stores: Annotated[
        list[Path] | None,
        typer.Option(
            "--3d-store", help="Store of ig3d extract, by the same regressor; labels are not needed."
        ),
    ] = None,
    three_d: Annotated[
        Path | None, typer.Option("--3d-logits", help="Ready 3D predictions, for a model of such.")
    ] = None,
    rule: Annotated[
        str | None, typer.Option("--rule", help="A rule of the model; by default best, else stack.")
    ] = None,
    priors: Annotated[
        str,
        typer.Option(
            "--priors",
            help="Class shares that the probabilities are corrected for: fitted (none), uniform, estimate (from these "
            "rows), or a file of class,share (.csv or .json).",
        ),
    ] = "fitted",
    ids: Annotated[Path | None, typer.Option("--2d-ids", help="Ids of 2D rows that come without.")] = None,
    classes: Annotated[
        str | None,
        typer.Option("--2d-classes", help="Order of the 2D columns: a preset or names by comma."),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out 2D rows that no sample has the id of.")
    ] = False,
    force: Force = False,
) -> None:
    """Predict new rows with a fitted fusion model; rows that it was fitted on are marked."""
    from ..errors import UsageError
    from ..learn.model import load_model
    from ..learn.predict_files import predict_files, write_predicted

    if len(two_d) > 1:  # of an option that is given twice the last alone would be read
        raise UsageError(
            f"2d-logits: expected one file, of the network that the model was fitted with, got {len(two_d)}; give the "
            "first of ig3d fuse alone: further ones were its controls and are no part of a model"
        )
    predicted = predict_files(
        load_model(model),
        two_d[0],
        stores=stores or (),
        three_d=three_d,
        ids=ids,
        classes=classes,
        rule=rule,
        priors=priors,
        allow_missing=allow_missing,
        force=force,
    )
    write_predicted(predicted, out)
    for note in predicted.notes:
        say(note)
    print(f"{out}: {len(predicted.ids)} rows by {predicted.rule}")
