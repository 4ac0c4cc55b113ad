"""Command-line program: table of commands, signal handling and exit codes.

Results go to stdout, progress and notes to stderr. Exit codes: 0 done, 1 error, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import Annotated, ClassVar, NoReturn

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
    run,
    store,
    train,
    weights,
)
from .commands.help import Command, Group, is_verbose
from .console import one_line, standard_streams
from .errors import Ig3dError, Terminated, missing_part

# After this time a signal is sent again whose exception was lost.
_REPEAT_SECONDS = 0.05

app = typer.Typer(
    name="ig3d",
    help="Measure the gain of 3D face codes for a 2D expression network: extract codes, fuse, report.",
    no_args_is_help=True,
    cls=Group,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.command("run", cls=run.RunCommand)(run.run)
app.command("extract", cls=Command)(extract.extract)
app.command("join", cls=Command)(extract.join)
app.command("inspect", cls=Command)(store.inspect)
app.command("preview", cls=Command)(store.preview)
app.command("synth", cls=Command)(extract.synth)
app.command("split", cls=Command)(datasets.split)
app.command("train-2d", cls=Command)(networks.train_2d)
app.command("logits", cls=Command)(networks.logits)
app.command("train", cls=Command)(train.train)
app.command("fuse", cls=Command)(fuse.fuse)
app.command("predict", cls=Command)(predict.predict)
app.command("fuse-features", cls=Command)(intermediate.fuse_features)
app.command("train-joint", cls=Command)(intermediate.train_joint)
app.command("report", cls=Command)(report.report)
app.command("ablate", cls=Command)(ablate.ablate)
app.command("import", cls=Command)(store.import_)
app.command("export", cls=Command)(store.export)

datasets_app = typer.Typer(no_args_is_help=False)
datasets_app.callback(invoke_without_command=True)(datasets.datasets)
datasets_app.command("check", cls=Command)(datasets.check)
app.add_typer(datasets_app, name="datasets")

predictions_app = typer.Typer(no_args_is_help=True, help="Check or smooth prediction files.")
predictions_app.command("check", cls=Command)(predictions.check)
predictions_app.command("smooth", cls=Command)(predictions.smooth)
app.add_typer(predictions_app, name="predictions")

weights_app = typer.Typer(no_args_is_help=False)
weights_app.callback(invoke_without_command=True)(weights.weights)
weights_app.command("add", cls=Command)(weights.add)
weights_app.command("get", cls=Command)(weights.get)
app.add_typer(weights_app, name="weights")


def main() -> None:
    """Run the program; an expected error is printed as one line on stderr and sets the exit code."""
    sys.argv[1:] = map(_expand_home, sys.argv[1:])
    logging.getLogger("ig3d").setLevel(logging.NOTSET)  # --verbose sets DEBUG
    signal.signal(signal.SIGTERM, _terminated)
    if (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):  # shells ignore SIGINT for background jobs
        signal.signal(signal.SIGINT, _interrupted)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _hide_signals
    with standard_streams() as (out, _):
        try:
            _run()
        finally:
            _Signal.ended = True
            if _Signal.lost:  # the program may end before the signal is repeated
                sys.exit(128 + _Signal.lost[-1])
            out.flush()
            if out.failures:
                reason = out.failures[0].strerror or out.failures[0]
                _fail(f"standard output cannot be written: {reason}; results were not printed", 1)


def _run() -> None:
    """Run the command; expected errors become one line."""
    try:
        app(prog_name="ig3d")  # also of python -m ig3d: usage and completion name the command
    except Ig3dError as error:
        _fail(str(error), error.exit_code)
    except (ImportError, OSError) as error:
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        if missing := missing_part(error, wanted_by=command):
            _fail(str(missing), missing.exit_code)
        if isinstance(error, ImportError):
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}cannot be read or written: {error.strerror or error}", 1)


def _expand_home(argument: str) -> str:
    """Expand ``~`` in ``--out=~/x``; shells do not expand it after an equals sign."""
    prefix, value = "", argument
    if argument.startswith("--") and "=" in argument:
        name, _, value = argument.partition("=")
        prefix = f"{name}="
    return f"{prefix}{Path(value).expanduser()}" if f"{value}/".startswith("~/") else argument


class _Signal:
    """Base class of the exceptions of signals, which sends a signal again if its exception is lost.

    Python discards exceptions of destructors and callbacks; NumPy, those of attributes that it looks up, as when a
    number is compared with a member of an enum. An exception that is destroyed before the program ends was discarded.
    """

    number: ClassVar[int]
    lost: ClassVar[list[int]] = []
    ended = False

    def __del__(self) -> None:
        if not _Signal.ended:
            _Signal.lost.append(self.number)
            repeat = threading.Timer(_REPEAT_SECONDS, os.kill, (os.getpid(), self.number))
            repeat.daemon = True
            repeat.start()


class _Terminated(_Signal, Terminated):
    number = signal.SIGTERM


class _Interrupted(_Signal, KeyboardInterrupt):
    number = signal.SIGINT


def _terminated(number: int, frame: object) -> NoReturn:
    """On SIGTERM, end as after Ctrl-C: stop the workers and keep finished work."""
    raise _Terminated(128 + number)


def _interrupted(number: int, frame: FrameType | None) -> None:
    """On Ctrl-C, raise KeyboardInterrupt; during imports exit at once, because many modules catch exceptions there."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"interrupted\n")
            os._exit(130)
        frame = frame.f_back
    raise _Interrupted


def _hide_signals(lost: sys.UnraisableHookArgs) -> None:
    """Print exceptions that Python discards, except those of signals, which are repeated."""
    if not isinstance(lost.exc_value, _Signal):
        sys.__unraisablehook__(lost)


def _fail(line: str, code: int) -> NoReturn:
    """End with an error line; with ``--verbose``, after the traceback of the error."""
    if is_verbose() and sys.exc_info()[0] is not None:
        traceback.print_exc()
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
