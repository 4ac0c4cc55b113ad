"""``ig3d predict``: predict new rows with a fitted model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import say
from ..errors import plural
from .options import Force, output_with


def predict(
    model: Annotated[
        Path,
        typer.Argument(
            help="File model.skops written by ig3d fuse --out, or its folder.",
            metavar="MODEL",
            show_default=False,
        ),
    ],
    two_d: Annotated[
        list[Path],
        typer.Option(
            "--2d-logits",
            help="2D predictions (.npz, .npy, .pt, .csv, .parquet) of the network with which the model was fitted.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Table to write (.csv).", show_default=False, callback=output_with(".csv")
        ),
    ],
    stores: Annotated[
        list[Path] | None,
        typer.Option(
            "--3d-store", help="Store written by ig3d extract with the same regressor; labels are not needed."
        ),
    ] = None,
    three_d: Annotated[
        Path | None,
        typer.Option(
            "--3d-logits", help="File of ready 3D predictions, if the model was fitted with such a file."
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            "--rule", help="Rule to apply. Default: selected, else stack, else the last rule of the model."
        ),
    ] = None,
    priors: Annotated[
        str,
        typer.Option(
            "--priors",
            help="Class shares of the new rows: fitted (no correction), uniform, estimate (from these "
            "rows), or a file of class,share (.csv or .json).",
        ),
    ] = "fitted",
    ids: Annotated[
        Path | None, typer.Option("--2d-ids", help="File with the ids of a 2D file that has none.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--2d-classes",
            help="Class order of the 2D columns, instead of that of the file: a preset or names separated by commas.",
        ),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out rows of the 2D file that match no sample.")
    ] = False,
    force: Force = False,
) -> None:
    """Predict new rows with a fitted fusion model; rows on which it was fitted are marked."""
    from ..errors import UsageError
    from ..learn.model import load_model
    from ..learn.predict_files import predict_files, write_predicted

    if len(two_d) > 1:  # otherwise, only the last one would be read
        raise UsageError(
            f"2d-logits: {len(two_d)} files are given, but a model fuses one 2D network; pass only the first file of "
            "ig3d fuse, because further networks were its controls"
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
        notify=say,
    )
    write_predicted(predicted, out)
    for note in predicted.notes:
        say(note)
    print(f"{out}: {plural(len(predicted.ids), 'row')}, predicted by {predicted.rule}")
