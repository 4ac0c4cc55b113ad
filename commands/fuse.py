"""``ig3d fuse``: fuse 2D predictions with 3D codes and evaluate the fusion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import progress_when_slow, stdout
from ..errors import UsageError
from ..features.inputs import Inputs
from ..learn.config import FuseConfig
from .options import (
    Blocks,
    Labels,
    MaybeStores,
    Task,
    ThreeD,
    TwoDClasses,
    TwoDIds,
    TwoDLogits,
    checked_device,
    joined,
    output_file,
    print_written,
    settings,
    typed,
    with_options,
)


@with_options(FuseConfig, skip=("model", "rule_options"), flags={"rules": ("--rules", "--rule")})
def fuse(
    two_d: TwoDLogits,
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
            help="Plot of the gain of each rule to write (.png, .pdf or .svg).",
            callback=output_file,
        ),
    ] = None,
    ids: TwoDIds = None,
    classes: TwoDClasses = None,
    task: Task = None,
    blocks: Blocks = None,
    of_rules: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="RULE.OPTION=VALUE",
            help="Option of a rule, such as stack.codes=true; repeatable. docs/protocol.md lists the options.",
            show_default=False,
        ),
    ] = None,
    stack_codes: Annotated[
        bool,
        typer.Option("--stack-codes", help="Let the rule stack also use the codes (--set stack.codes=true)."),
    ] = False,
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            help="Weights of the rule “weighted”: one for all classes, or per-class (the same as "
            "--set weighted.per_class=true).",
            rich_help_panel="Fitting",
        ),
    ] = "one",
    **options: Any,
) -> None:
    """Fuse 2D predictions with the 3D codes and measure the gain."""
    from ..learn.fuse import fuse_files
    from ..learn.report import check_out, print_result, write_result

    inputs = Inputs(two_d, stores, three_d=three_d, labels=labels, ids=ids, classes=classes, task=task)
    config = fuse_config(
        blocks=blocks,
        of_rules=of_rules,
        stack_codes=stack_codes,
        weights=weights,
        model=out is not None,
        **options,
    )
    if plot is not None:
        from ..learn.report.plots import check_plot, plot_result

        check_plot(plot)
    if out is not None:
        check_out(out)
    with progress_when_slow() as progress:
        result = fuse_files(inputs, config, progress=progress)
        written = []
        if out is not None:
            progress("report", 0, 1)
            written = write_result(result, out, command=typed())
            progress("report", 1, 1)
    print_result(result, stdout())
    if out is not None:
        print_written(out, written)
    if plot is not None:
        plot_result(result, plot)
        print(f"\n{plot}: differences of each rule relative to the references, with 95 % intervals")


def fuse_config(
    *,
    blocks: list[str] | None,
    of_rules: list[str] | None,
    stack_codes: bool,
    weights: str,
    model: bool,
    **options: Any,
) -> FuseConfig:
    """Choices of ``ig3d fuse`` from the values of its options.

    Raises
    ------
    UsageError : a value, rule or device does not exist, or an option belongs to a rule that is not run.
    """
    from ..learn.rules import RECALIBRATED, rule_options

    checked_device(options["device"])
    if "rules" in options:
        options["rules"] = joined(options["rules"])
    if weights not in ("one", "per-class"):
        raise UsageError(f"weights: {weights!r} is unknown; choose one or per-class")
    of_rules = [
        *(["stack.codes=true"] if stack_codes else []),
        *(["weighted.per_class=true"] if weights == "per-class" else []),
        *(of_rules or []),
    ]
    config = FuseConfig(
        **options,
        blocks=joined(blocks, "full"),
        rule_options=rule_options(settings(of_rules), text=True),
        model=model,
    )
    used = {*config.rules, RECALIBRATED}
    unused = [name for name in config.rule_options if name not in used]
    if unused and "selected" not in used:  # its candidates may have options
        raise UsageError(
            f"rules: options of {', '.join(unused)} have no effect with --rules {','.join(config.rules)}; add the "
            "rule, or leave its options out"
        )
    return config
