"""``ig3d weights``: the official files, listed, added and fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import say, stderr


def weights(context: typer.Context) -> None:
    """List the official files: which are here, whether they are sound, their licences, how to get them."""
    if context.invoked_subcommand is not None:
        return
    from ..extract.weights import OFFICIAL, check_weights, folders

    for name in OFFICIAL:
        found = check_weights(name)
        print(f"{name}: {found.state}" + (f" · {found.path}" if found.path else ""))
        print(f"  licence: {found.entry.licence}")
        if found.message:
            print(f"  {'get it' if found.state == 'missing' else 'note'}: {found.message}")
    searched = ", ".join(map(str, folders()))
    say(f"looked for in {searched or 'no folder: IG3D_WEIGHTS is not set, and this user has no home'}")


def add(
    files: Annotated[
        list[Path],
        typer.Argument(help="Checkpoints, pickles, zips as distributed, folders.", show_default=False),
    ],
    name: Annotated[
        str | None, typer.Option("--as", help="What it is, where its contents do not tell the release.")
    ] = None,
) -> None:
    """Recognise official files by what they hold, and copy them to where ig3d looks."""
    from ..extract.weights_add import add_weights

    for file in files:
        for added in add_weights(file, name=name):
            print(f"{added.name}: {added.path} (sha256 {added.sha256})")


def get(
    name: Annotated[str, typer.Argument(help="facemesh, sfd or fan2d.", show_default=False)],
    mirror: Annotated[
        str | None,
        typer.Option("--from", help="Address of a folder that has the file, instead of the official one."),
    ] = None,
) -> None:
    """Fetch an official file that needs no account, and check its hash."""
    from rich.progress import DownloadColumn, Progress

    from ..extract.weights_add import get_weights

    bar = Progress(*Progress.get_default_columns(), DownloadColumn(), console=stderr())
    task = bar.add_task(name, total=None)

    def progress(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total or None)

    try:
        added = get_weights(name, base_url=mirror, progress=progress)
    finally:
        if bar.live.is_started:
            bar.stop()
    print(f"{added.name}: {added.path} (sha256 {added.sha256})")
