"""``ig3d run``: extraction, checks, fusion and report in one command."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import say
from ..errors import RunError, UsageError
from ..learn.config import FuseConfig
from . import extract, fuse, predictions, report
from .help import Command
from .options import Dataset, Groups, Manifest, Root, SplitShares, TwoDClasses, TwoDLogits

_RECORD = "run.json"  # identity of the finished fusion
_steps = typer.Typer(rich_markup_mode=None, add_completion=False)
_steps.command("extract", cls=Command)(extract.extract)
_steps.command("check", cls=Command)(predictions.check)
_steps.command("fuse", cls=Command)(fuse.fuse)
_steps.command("report", cls=Command)(report.report)
_COMMANDS = typer.main.get_group(_steps).commands
_WITH_OPTIONS = ("extract", "check", "fuse")  # steps whose options --set sets


class RunCommand(Command):
    """Command whose error for an unknown option names the ``--set`` for an option of a step."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {name for option in self.get_params(ctx) for name in (*option.opts, *option.secondary_opts)}
        for place, word in enumerate(args):
            name, _, value = word.partition("=")
            value = value or next(iter(args[place + 1 :]), "")
            settings = [
                f"--set {step}.{name.removeprefix('--')}{'' if getattr(option, 'is_flag', False) else f'={value}'}"
                for step in _WITH_OPTIONS
                for option in _COMMANDS[step].params
                if name.startswith("--") and name in (*option.opts, *option.secondary_opts)
            ]
            if settings and name not in own:
                raise UsageError(f"run: {name} is an option of a step; pass {' or '.join(settings)}")
        return super().parse_args(ctx, args)


def run(
    root: Root,
    two_d: TwoDLogits,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Folder to write: codes.h5, and fused/ with the report.", show_default=False
        ),
    ],
    dataset: Dataset = "folder",
    manifest: Manifest = None,
    split: SplitShares = None,
    groups: Groups = None,
    classes: TwoDClasses = None,
    regressor: Annotated[
        str,
        typer.Option(
            "--regressor", help="Regressor: facemesh, smirk, emoca, deca, ... (docs/regressors.md)."
        ),
    ] = "facemesh",
    jobs: Annotated[int, typer.Option("--jobs", help="Workers and threads; 0 is one per core.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any other option of the steps extract, check and fuse, as STEP.OPTION=VALUE: extract.device=cpu, "
            "fuse.no-controls, fuse.set=stack.codes=true. May be repeated.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Extract codes, check the predictions, fuse and report; the same command resumes an interrupted run.

    If the check finds a problem, the run ends before the fusion.
    """
    store, fused = out / "codes.h5", out / "fused"
    extra = _options(settings or [])
    shared: list[str] = ["--jobs", str(jobs)]
    chosen = {"--dataset": dataset, "--manifest": manifest, "--split": split, "--groups": groups}
    listing = [str(word) for name, value in chosen.items() if value is not None for word in (name, value)]
    join = ["--3d-store", str(store), *(word for name in classes or [] for word in ("--2d-classes", name))]
    logits = [word for path in two_d for word in ("--2d-logits", str(path))]

    extraction = [root, "--out", str(store), "--regressor", regressor, *listing, *shared, *extra["extract"]]
    check = [*map(str, two_d), *join, *extra["check"]]
    options = [*logits, *join, *shared, *extra["fuse"]]
    _check(two_d, extract=extraction, check=check, fuse=options)

    say("1 of 3: extract")
    try:
        _step("extract", *extraction)
    except RunError as error:
        if "--restart" in str(error):
            raise RunError(f"{error} (with ig3d run: --set extract.restart)") from error
        raise
    say("2 of 3: check the predictions")
    _step("check", *check)
    say("3 of 3: fuse and report")
    identity = _identity(options, two_d, store)
    if _finished(out, identity):
        say("the fusion of these codes and predictions with these options has finished before")
        _step("report", str(fused))
        print(f"\n{fused / 'report.html'}: the report; open it in a browser")
    else:
        _step("fuse", *options, "--out", str(fused))
        (out / _RECORD).write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")


def _check(predictions: list[Path], **steps: list[str]) -> None:
    """Check the options of all steps and read the predictions, before hours of extraction.

    Raises
    ------
    UsageError, PredictionsError, typer.Exit : an option or a file is wrong.
    """
    from ..features.predictions import load_predictions

    contexts = {
        name: _COMMANDS[name].make_context(f"ig3d {name}", list(words)) for name, words in steps.items()
    }
    values = contexts["fuse"].params
    names = {"blocks", "of_rules", "stack_codes", "weights", *(field.name for field in fields(FuseConfig))}
    chosen = {
        name: values[name]
        for name in names & values.keys()
        if values[name] not in (None, ()) or name in ("blocks", "of_rules")
    }
    fuse.fuse_config(model=True, **chosen)
    for path in predictions:
        load_predictions(path, task=values["task"])


def _step(name: str, *arguments: str) -> None:
    """Run a command.

    Raises
    ------
    typer.Exit : the command ended with another exit code than 0.
    """
    code = _COMMANDS[name].main(list(arguments), prog_name=f"ig3d {name}", standalone_mode=False)
    if code:
        raise typer.Exit(code)


def _options(settings: list[str]) -> dict[str, list[str]]:
    """Step -> words of the command line from ``STEP.OPTION=VALUE`` or ``STEP.FLAG``.

    Raises
    ------
    UsageError : another form, or an option that ``ig3d run`` sets itself.
    """
    words: dict[str, list[str]] = {step: [] for step in _WITH_OPTIONS}
    for text in settings:
        target, equals, value = text.partition("=")
        step, dot, option = target.partition(".")
        if not dot or not option or step not in words:
            raise UsageError(
                f"set: {text!r} is not STEP.OPTION=VALUE with one of the steps {', '.join(words)}"
            )
        if option in ("out", "3d-store", "2d-logits"):
            raise UsageError(f"set: ig3d run sets {option} itself; pass it without --set, or run ig3d {step}")
        words[step] += [f"--{option}", value] if equals else [f"--{option}"]
    return words


def _identity(options: list[str], predictions: list[Path], store: Path) -> dict[str, object]:
    """Everything that the fusion depends on: options, contents of all files and the version."""
    import hashlib

    from .. import __version__
    from ..features.atomic import file_sha256
    from ..features.store import CodeStore

    with CodeStore(store) as opened:
        content = opened.content_sha256
    files = [file_sha256(path) for path in predictions]
    named = hashlib.sha256("\0".join(options).encode()).hexdigest()
    return {"ig3d": __version__, "options": named, "predictions": files, "codes": content}


def _finished(out: Path, identity: dict[str, object]) -> bool:
    """Whether the report of this fusion exists."""
    try:
        record = json.loads((out / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(record == identity) and (out / "fused" / "report.html").is_file()
