"""``ig3d weights``: list, add and fetch the weights files of detectors and regressors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import say, stderr


def weights(context: typer.Context) -> None:
    """List, download (get) or add the weights files of detectors and regressors."""
    if context.invoked_subcommand is not None:
        return
    from ..extract.weights import WEIGHTS_FILES, check_weights, folders

    for name in WEIGHTS_FILES:
        status = check_weights(name)
        print(f"{name}: {status.state}" + (f" · {status.path}" if status.path else ""))
        print(f"  licence: {status.entry.licence}")
        if status.message:
            print(f"  {'get it' if status.state == 'missing' else 'note'}: {status.message}")
    searched = ", ".join(map(str, folders()))
    say(f"searched: {searched or 'no folder: IG3D_WEIGHTS is not set, and this user has no home'}")


def add(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Checkpoints, pickles, zips or wheels as distributed, or folders of them.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option("--as", help="Name of the file in the list, for a release that is not recognised."),
    ] = None,
) -> None:
    """Recognise weights files by their content and copy them to the weights folder."""
    from ..extract.weights_add import add_weights

    for file in files:
        for added in add_weights(file, name=name):
            print(f"{added.name}: {added.path} (sha256 {added.sha256})")


def get(
    name: Annotated[
        str,
        typer.Argument(
            help="Name in the list, or package.module:Class of a plug-in with one file.", show_default=False
        ),
    ],
    mirror: Annotated[
        str | None,
        typer.Option("--from", help="URL of a folder that has the file, instead of the official one."),
    ] = None,
) -> None:
    """Download a weights file that needs no account, and check its hash."""
    from rich.progress import DownloadColumn, Progress

    from ..extract.weights import weights_sha256
    from ..extract.weights_fetch import get_weights

    bar = Progress(*Progress.get_default_columns(), DownloadColumn(), console=stderr())
    task = bar.add_task(name, total=None)

    def progress(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total or None)

    try:
        path = get_weights(name, base_url=mirror, progress=progress)
    finally:
        if bar.live.is_started:
            bar.stop()
    print(f"{name}: {path} (sha256 {weights_sha256(path)})")
