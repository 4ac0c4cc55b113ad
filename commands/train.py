"""``ig3d train``: heads on 3D codes alone, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import say, stdout
from .options import (
    Blocks,
    Draws,
    Folds,
    Groups,
    HeadDevice,
    HeadJobs,
    Seed,
    Stores,
    checked_device,
    joined,
    names,
    typed,
)


def train(
    stores: Stores,
    head: Annotated[
        list[str] | None,
        typer.Option(
            "--head",
            help="gbm, linear, mlp, residual, all, or module:Class of an estimator; several by comma or repeated; gbm "
            "by default.",
            show_default=False,
        ),
    ] = None,
    device: HeadDevice = "auto",
    blocks: Blocks = None,
    task: Annotated[
        str | None, typer.Option("--task", help="classes or va; by default classes where there are some.")
    ] = None,
    groups: Groups = None,
    report: Annotated[
        str | None, typer.Option("--report", help="Rows to report: test, val, train or all; docs/heads.md.")
    ] = None,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Let classes weigh equally, however many rows they have.")
    ] = False,
    folds: Folds = 5,
    draws: Draws = 10_000,
    seed: Seed = 0,
    jobs: HeadJobs = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for predictions, figures.csv and report.html; --3d-logits takes the predictions.",
        ),
    ] = None,
) -> None:
    """Train on the 3D codes alone and measure what they say without a 2D network."""
    from ..learn.report import check_out, print_result, write_result
    from ..learn.train import HeadsConfig, train_files, write_predictions

    config = HeadsConfig(
        heads=names(joined(head, "gbm")),
        blocks=joined(blocks, "full"),
        groups=groups,
        report=report,
        balanced=balanced,
        device=checked_device(device),
        folds=folds,
        seed=seed,
        draws=draws,
        jobs=jobs or -1,
    )
    if out is not None:
        check_out(out)
    result = train_files(
        stores,
        config,
        task=task,
        after_head=lambda name, seconds: say(f"{name}: fitted in {seconds:.1f} s"),
    )
    written = (
        [] if out is None else [*write_result(result, out, command=typed()), *write_predictions(result, out)]
    )
    print_result(result, stdout())
    if out is not None:
        print(f"\n{out}: " + ", ".join(path.name for path in written))
