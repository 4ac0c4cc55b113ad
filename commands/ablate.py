"""``ig3d ablate``: run a study, a grid of fusions, and compare its cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import kept_when_interrupted, say, stdout, steps
from ..errors import RunError, UsageError, plural
from .options import typed


def ablate(
    config: Annotated[
        Path,
        typer.Argument(
            help="Study in YAML (docs/ablation.md), or the name of a built-in study such as code_groups.",
            metavar="CONFIG",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Folder of the study; finished cells in it are not run again.", show_default=False
        ),
    ],
    two_d: Annotated[
        list[Path] | None,
        typer.Option("--2d-logits", help="2D predictions, instead of those of the study; may be repeated."),
    ] = None,
    stores: Annotated[
        list[Path] | None,
        typer.Option("--3d-store", help="Store, instead of those of the study; may be repeated."),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            "--features",
            help="Features of a 2D network for intermediate fusion, instead of those of the study.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Option of all cells, as OPTION=VALUE: head=linear. May be repeated."),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", help="Cells that run at the same time; 0 is one per core.")
    ] = 0,
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code", help="Allow heads and rules of the study as module:Class, which runs their code."
        ),
    ] = False,
) -> None:
    """Run all combinations (cells) of a YAML study and compare them on the same rows."""
    from ..learn.ablation import print_study, run_study, write_study
    from ..learn.ablation.optional_blocks import resolve_optional_blocks
    from ..learn.ablation.study import read_study

    if jobs < 0:
        raise UsageError(f"jobs: {jobs} is negative; pass a number of processes, or 0 for one per core")
    given = _settings(settings or [])
    given |= {
        name: [str(path) for path in paths]
        for name, paths in {"2d-logits": two_d, "3d-store": stores}.items()
        if paths
    }
    if features is not None:
        given["features"] = str(features)
    study, notes = resolve_optional_blocks(read_study(_study_file(config), given, allow_code=allow_code))
    for note in notes:
        say(note)
    with kept_when_interrupted("finished cells"):
        with steps(study.name, len(study.cells), delay=0) as progress:
            result = run_study(study, out, jobs=jobs, progress=progress)
        if result.kept:
            say(f"{result.kept} of {plural(len(result.cells), 'cell')} had finished before")
        written = write_study(result, out, command=typed())
    print_study(result, stdout())
    print(f"\n{out}: " + ", ".join(path.name for path in written))
    if result.failed:
        raise RunError(
            f"{config}: {len(result.failed)} of {plural(len(result.cells), 'cell')} failed; the reasons are above"
        )


def _study_file(config: Path) -> Path:
    """File of a study: the path itself, or the file of a built-in study.

    Raises
    ------
    UsageError : neither a file nor a built-in study has this name.
    """
    if config.exists() or config.suffix or len(config.parts) > 1:
        return config
    own = {path.stem: path for path in sorted((Path(__file__).parents[1] / "ablations").glob("*.yaml"))}
    if config.name not in own:
        raise UsageError(
            f"{config}: neither a file nor a built-in study; built-in studies are {', '.join(own) or 'not installed'}"
        )
    return own[config.name]


def _settings(texts: list[str]) -> dict[str, Any]:
    """Option -> value from texts ``OPTION=VALUE``; values are read as YAML.

    Raises
    ------
    UsageError : a text of another form, or an option that is given twice.
    """
    from ..learn.ablation.study import relative_to_folder
    from ..learn.ablation.yaml_reader import read_yaml

    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"set: {text!r} is not OPTION=VALUE")
        if name in values:
            raise UsageError(
                f"set: {name} is given twice; pass several values as a list, such as {name}=[a, b]"
            )
        values[name] = read_yaml(value, source="set", content=f"{name}=VALUE with a value in YAML")
    return relative_to_folder(values, Path())
