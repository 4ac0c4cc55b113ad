"""``ig3d fuse``: 2D predictions and 3D codes in, measured fusion out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import stdout, working
from ..features.inputs import Inputs
from .options import (
    Blocks,
    Draws,
    Folds,
    Force,
    Groups,
    HeadDevice,
    HeadJobs,
    Labels,
    MaybeStores,
    Seed,
    Task,
    ThreeD,
    TwoDClasses,
    TwoDIds,
    checked_device,
    joined,
    names,
    output_file,
    typed,
)


def fuse(
    two_d: Annotated[
        list[Path],
        typer.Option(
            "--2d-logits",
            help="2D predictions: .npz, .npy, .pt, .csv or .parquet. Repeated: further 2D networks, as controls.",
            show_default=False,
        ),
    ],
    stores: MaybeStores = None,
    three_d: ThreeD = None,
    labels: Labels = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for report.html, figures.csv, findings.json, predictions, the record and the model.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            help="Picture to write of what each rule adds (.png, .pdf, .svg).",
            callback=output_file,
        ),
    ] = None,
    ids: TwoDIds = None,
    classes: TwoDClasses = None,
    task: Task = None,
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rules",
            "--rule",
            help="By comma or repeated; all by default. best chooses among the others named, or among all, by "
            "calibration rows.",
            show_default=False,
        ),
    ] = None,
    primary: Annotated[
        str | None,
        typer.Option(
            "--primary",
            help="Rule of the primary comparison: stack by default, or the first of --rules without it.",
            show_default=False,
        ),
    ] = None,
    head: Annotated[
        str,
        typer.Option(
            "--head", help="What predicts from the codes: gbm, linear, mlp, residual or module:Class."
        ),
    ] = "gbm",
    device: HeadDevice = "auto",
    blocks: Blocks = None,
    groups: Groups = None,
    report: Annotated[
        str | None,
        typer.Option("--report", help="Rows to report: test, val, train or all; docs/protocol.md."),
    ] = None,
    fit_on: Annotated[
        str, typer.Option("--fit-on", help="auto, or reported to reproduce papers (figures are marked).")
    ] = "auto",
    calibration_rows: Annotated[
        int | None,
        typer.Option("--calibration-rows", help="Fit the rules on at most so many rows; all by default."),
    ] = None,
    folds: Folds = 5,
    repeats: Annotated[
        int | None,
        typer.Option(
            "--repeats",
            help="Cross-fittings with other folds that figures are means over; 10 by default, 3 where heads are "
            "refitted each time. None with a split to fit on.",
            show_default=False,
        ),
    ] = None,
    on: Annotated[
        str, typer.Option("--on", help="mean, max and weighted on probabilities or logits.")
    ] = "probabilities",
    weights: Annotated[
        str,
        typer.Option(
            "--weights", help="weighted has one weight, or one per-class (dimension): one, per-class."
        ),
    ] = "one",
    stack_codes: Annotated[
        bool, typer.Option("--stack-codes", help="stack sees the codes beside both predictions.")
    ] = False,
    calibrate: Annotated[
        str,
        typer.Option(
            "--calibrate",
            help="Both predictions before every rule, fitted with it: none, temperature, or bias (temperature and an "
            "offset per class).",
        ),
    ] = "none",
    objective: Annotated[
        str | None, typer.Option("--objective", help="accuracy, balanced, logloss; for va rmse, ccc.")
    ] = None,
    draws: Draws = 10_000,
    seed: Seed = 0,
    jobs: HeadJobs = 0,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Repeat with permuted codes.")
    ] = True,
    out_of_fold: Annotated[
        bool,
        typer.Option("--2d-out-of-fold", help="The 2D predictions of the train split were made out of fold."),
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out rows with codes and no 2D prediction.")
    ] = False,
    force: Force = False,
) -> None:
    """Fuse 2D predictions with the 3D codes and measure what they add."""
    from ..learn.config import RULES
    from ..learn.fuse import FuseConfig, fuse_files
    from ..learn.report import check_out, print_result, write_result

    inputs = Inputs(two_d, stores, three_d=three_d, labels=labels, ids=ids, classes=classes, task=task)
    config = FuseConfig(
        rules=RULES if rules is None else names(rules),
        primary=primary,
        head=head,
        device=checked_device(device),
        blocks=joined(blocks, "full"),
        groups=groups,
        report=report,
        fit_on=fit_on,
        calibration_rows=calibration_rows,
        folds=folds,
        repeats=repeats,
        seed=seed,
        draws=draws,
        on=on,
        weights=weights,
        stack_codes=stack_codes,
        calibrate=calibrate,
        objective=objective,
        controls=controls,
        two_d_out_of_fold=out_of_fold,
        allow_missing=allow_missing,
        force=force,
        jobs=jobs or -1,
        model=out is not None,
    )
    if plot is not None:
        from ..learn.report.plots import check_plot, plot_result

        check_plot(plot)
    if out is not None:
        check_out(out)
    with working("fit and measure"):
        result = fuse_files(inputs, config)
    written = [] if out is None else write_result(result, out, command=typed())
    print_result(result, stdout())
    if out is not None:
        print(f"\n{out}: " + ", ".join(path.name for path in written))
    if plot is not None:
        plot_result(result, plot)
        print(f"\n{plot}: what every rule adds, with its intervals")
