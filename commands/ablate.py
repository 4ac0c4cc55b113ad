"""``ig3d ablate``: a declared grid of fusions, read as one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import kept_when_interrupted, say, stdout, steps
from ..errors import RunError, UsageError
from .options import typed


def ablate(
    config: Annotated[
        Path,
        typer.Argument(
            help="Study in YAML (docs/ablation.md), or the name of a study of ig3d such as code_groups.",
            metavar="CONFIG",
            show_default=False,
        ),
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
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code", help="Let the study name heads and rules as module:Class, which runs their code."
        ),
    ] = False,
) -> None:
    """Run every cell of a study, keep each, and compare them on the same rows."""
    from ..learn.ablation import print_study, run_study, write_study
    from ..learn.ablation.study import read_study

    if jobs < 0:
        raise UsageError(f"jobs: expected 0 (one per core) or more, got {jobs}")
    given = _settings(settings or [])
    given |= {
        name: [str(path) for path in paths]
        for name, paths in {"2d-logits": two_d, "3d-store": stores}.items()
        if paths
    }
    study = read_study(_study_file(config), given, allow_code=allow_code)
    with kept_when_interrupted("finished cells"):
        with steps(study.name, len(study.cells), delay=0) as progress:
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


def _study_file(config: Path) -> Path:
    """File of a study: the path itself, or the file of a study that comes with ig3d.

    Raises
    ------
    UsageError : there is neither such a file nor such a study.
    """
    if config.exists() or config.suffix or len(config.parts) > 1:
        return config
    own = {path.stem: path for path in sorted((Path(__file__).parents[1] / "ablations").glob("*.yaml"))}
    if config.name not in own:
        raise UsageError(
            f"{config}: no such file, and no such study; studies of ig3d are {', '.join(own) or 'not installed'}"
        )
    return own[config.name]


def _settings(texts: list[str]) -> dict[str, Any]:
    """``option=value`` of each, the value as YAML reads it.

    Raises
    ------
    UsageError : of another form, or an option given twice.
    """
    from ..learn.ablation.study import placed
    from ..learn.ablation.yaml_reader import read_yaml

    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"set: expected option=value, got {text!r}")
        if name in found:
            raise UsageError(
                f"set: expected each option once, got {name} twice; give several values as a list"
            )
        found[name] = read_yaml(value, where="set", wanted=f"{name}=value, the value in YAML")
    return placed(found, Path())
