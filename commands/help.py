"""Help of the commands in sections, and the option ``--verbose`` of all commands."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..console import say
from ..errors import Terminated

# Section of the help -> its options, in the order in which they are listed. Other options are listed under Options.
SECTIONS: dict[str, tuple[str, ...]] = {
    title: tuple(f"--{name}" for name in names.split())
    for title, names in {
        "Inputs": "2d-logits 3d-store features dataset like manifest split splits split-seed groups label-map labels "
        "val fps classes 3d-logits 2d-ids 2d-classes from codes columns va rows blocks root allow-missing force "
        "allow-code",
        "Faces and codes": "regressor detector faces boxes also",
        "Network": "network weights preset key output size colour mean std interpolation crop crop-scale "
        "feature-maps",
        "Fitting": "task head rules rule primary module seeds calibration-rows folds repeats objective calibrate "
        "priors on set stack-codes 2d-out-of-fold balanced epochs lr network-lr patience weight-decay smoothing "
        "augment balance masking width validation out-of-fold apply seed",
        "Statistics": "report draws controls permutations",
        "Output": "out plot csv parquet npz smooth obj ply frontal json verify count test-share mesh animate renderer "
        "restart retry-failed part",
        "Machine": "jobs device batch-size precision backend address",
    }.items()
}
_OTHER = "Options"
# Section of the list of commands -> its commands. Other commands are listed last.
COMMANDS: dict[str, tuple[str, ...]] = {
    "Everything in one command": ("run",),
    "Codes of a dataset": (
        "extract",
        "join",
        "inspect",
        "preview",
        "export",
        "import",
        "split",
        "datasets",
    ),
    "2D networks": ("train-2d", "logits", "predictions"),
    "Fusion": ("fuse", "train", "predict", "fuse-features", "train-joint", "report", "ablate"),
    "Other": ("synth", "weights"),
}


class Command(TyperCommand):
    """Command whose options are listed in sections, and that has ``--verbose``."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.params.append(_verbose_option())

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, Terminated) as interruption:
            say("; ".join(["interrupted", *getattr(interruption, "__notes__", [])]))
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        has_fitting = any(
            "--seed" not in p.opts and _section(p.opts)[0] == "Fitting" for p in self.get_params(ctx)
        )
        sections: dict[str, list[tuple[int, tuple[str, str]]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                title, position = "Arguments", len(sections)
            else:
                title, position = _section(parameter.opts)
                panel = getattr(parameter, "rich_help_panel", None)
                if panel:  # an option whose name has another meaning in other commands
                    title, position = panel, len(SECTIONS[panel])
                if title == "Fitting" and not has_fitting:  # the seed of a drawing
                    title = "Output"
            sections.setdefault(title, []).append((position, record))
        for title in ("Arguments", *SECTIONS, _OTHER):
            if title in sections:
                records = [record for _, record in sorted(sections[title], key=lambda pair: pair[0])]
                with formatter.section(title):
                    formatter.write_dl(records)


class Group(TyperGroup):
    """Group whose commands are listed in sections."""

    command_class = Command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        listed = {name for names in COMMANDS.values() for name in names}
        rest = tuple(name for name in self.list_commands(ctx) if name not in listed)
        for title, names in {**COMMANDS, "Commands": rest}.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            records = [(name, command.get_short_help_str(200)) for name, command in commands if command]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def is_verbose() -> bool:
    """Whether this run prints details."""
    return logging.getLogger("ig3d").level == logging.DEBUG


def _section(names: Sequence[str]) -> tuple[str, int]:
    """Section of an option, and its position in it."""
    for title, options in SECTIONS.items():
        for name in names:
            if name in options:
                return title, options.index(name)
    return _OTHER, int("--verbose" in names) + 2 * int("--help" in names)


def _verbose_option() -> Any:
    """The option as Typer makes it, which takes no part in the command's function."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False)

    @app.command()
    def options(
        verbose: Annotated[
            bool,
            typer.Option(
                "--verbose",
                help="Print details: versions, log messages, and tracebacks of errors.",
                callback=_verbose,
                is_eager=True,
                expose_value=False,
            ),
        ] = False,
    ) -> None: ...

    return typer.main.get_command(app).params[0]


def _verbose(context: typer.Context, value: bool) -> bool:
    """Print log messages of ig3d, and the versions."""
    if value and not context.resilient_parsing:
        logging.getLogger("ig3d").setLevel(logging.DEBUG)
        from importlib.metadata import version

        from .. import __version__

        say(
            f"ig3d {__version__}, Python {platform.python_version()}, NumPy {version('numpy')}, {platform.platform()}, "
            f"{sys.executable}"
        )
    return value
