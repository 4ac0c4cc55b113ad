"""``ig3d ablate``: a declared grid of fusions, read as one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import counting_cells, kept_when_interrupted, say, stdout
from ..errors import RunError, UsageError
from .options import typed


def ablate(
    config: Annotated[
        Path,
        typer.Argument(help="The study, in YAML (docs/ablation.md).", metavar="CONFIG", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Folder of the study; what is in it is not run again.", show_default=False
        ),
    ],
    two_d: Annotated[
        list[Path] | None,
        typer.Option("--2d-logits", help="2D predictions, in place of the study's; may be repeated."),
    ] = None,
    stores: Annotated[
        list[Path] | None, typer.Option("--3d-store", help="Store, in place of the study's; may be repeated.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="option=value for all cells, such as head=linear; may be repeated."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", help="Cells at a time; 0 is one per core.")] = 0,
) -> None:
    """Run every cell of a study, keep each, and compare them on the same rows."""
    from ..learn.ablation import print_study, run_study, write_study
    from ..learn.ablation.study import read_study

    if jobs < 0:
        raise UsageError(f"jobs: expected 0 (one per core) or more, got {jobs}")
    given: dict[str, Any] = dict(map(_setting, settings or []))
    given |= {
        name: [str(path) for path in paths]
        for name, paths in {"2d-logits": two_d, "3d-store": stores}.items()
        if paths
    }
    study = read_study(config)
    if given:
        study = study.with_options(given)
    with kept_when_interrupted("finished cells"):
        with counting_cells(study.name, len(study.cells)) as progress:
            result = run_study(study, out, jobs=jobs, progress=progress)
        if result.kept:
            say(f"{result.kept} of {len(result.cells)} cells were there already")
        written = write_study(result, out, command=typed())
    print_study(result, stdout())
    print(f"\n{out}: " + ", ".join(path.name for path in written))
    if result.failed:
        raise RunError(
            f"{config}: expected every cell to run, got {len(result.failed)} of {len(result.cells)} that did not"
        )


def _setting(text: str) -> tuple[str, Any]:
    """``option=value``, the value as YAML reads it."""
    import yaml

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"set: expected option=value, got {text!r}")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as exc:
        raise UsageError(f"set: expected option=value, got {text!r}") from exc
