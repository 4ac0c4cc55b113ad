"""The command line: the table of commands, and how a run of the program ends.

Results go to stdout, progress and remarks to stderr. Exit codes: 0 done, 1 error, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from . import __version__
from .commands import (
    ablate,
    datasets,
    extract,
    fuse,
    intermediate,
    networks,
    predict,
    predictions,
    report,
    store,
    train,
    weights,
)
from .console import one_line, standard_streams
from .errors import Ig3dError, Terminated, missing_part

app = typer.Typer(
    name="ig3d",
    help="What does the 3D face add to a 2D expression network? Extract codes, fuse, measure.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.command("extract")(extract.extract)
app.command("join")(extract.join)
app.command("inspect")(store.inspect)
app.command("preview")(store.preview)
app.command("synth")(extract.synth)
app.command("split")(datasets.split)
app.command("train-2d")(networks.train_2d)
app.command("logits")(networks.logits)
app.command("train")(train.train)
app.command("fuse")(fuse.fuse)
app.command("predict")(predict.predict)
app.command("fuse-features")(intermediate.fuse_features)
app.command("train-joint")(intermediate.train_joint)
app.command("report")(report.report)
app.command("ablate")(ablate.ablate)
app.command("import")(store.import_)
app.command("export")(store.export)

datasets_app = typer.Typer(no_args_is_help=False)
datasets_app.callback(invoke_without_command=True)(datasets.datasets)
datasets_app.command("check")(datasets.check)
app.add_typer(datasets_app, name="datasets")

predictions_app = typer.Typer(no_args_is_help=True, help="Files of predictions.")
predictions_app.command("check")(predictions.check)
app.add_typer(predictions_app, name="predictions")

weights_app = typer.Typer(no_args_is_help=False)
weights_app.callback(invoke_without_command=True)(weights.weights)
weights_app.command("add")(weights.add)
weights_app.command("get")(weights.get)
app.add_typer(weights_app, name="weights")


def main() -> None:
    """Run the program; every error of ours becomes one line on stderr and its exit code."""
    sys.argv[1:] = map(_at_home, sys.argv[1:])
    signal.signal(signal.SIGTERM, _terminated)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it is ignored in the background
        signal.signal(signal.SIGINT, _interrupted)
    with standard_streams() as (out, _):
        try:
            _run()
        finally:
            out.flush()
            if out.failures:
                why = out.failures[0].strerror or out.failures[0]
                _fail(f"standard output cannot be written: {why}; results were not printed", 1)


def _run() -> None:
    """Run the command; errors that are expected become one line."""
    try:
        app()
    except Ig3dError as error:
        _fail(str(error), error.exit_code)
    except (ImportError, OSError) as error:
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        if refusal := missing_part(error, wanted_by=command):
            _fail(str(refusal), refusal.exit_code)
        if isinstance(error, ImportError):
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}cannot be read or written: {error.strerror or error}", 1)


def _at_home(argument: str) -> str:
    """``--out=~/x`` with the user's home folder, which shells leave as it is after an equals sign."""
    before, value = "", argument
    if argument.startswith("--") and "=" in argument:
        name, _, value = argument.partition("=")
        before = f"{name}="
    return f"{before}{Path(value).expanduser()}" if f"{value}/".startswith("~/") else argument


def _terminated(number: int, frame: object) -> NoReturn:
    """SIGTERM ends like Ctrl-C: workers are stopped, what is done is kept."""
    raise Terminated(128 + number)


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Ctrl-C. While modules are imported nothing is under way, and many swallow an exception: end at once."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"interrupted\n")
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def _fail(line: str, code: int) -> NoReturn:
    print(f"ig3d: {one_line(line)}", file=sys.stderr)
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"ig3d {__version__}")
        raise typer.Exit


if __name__ == "__main__":
    main()
