"""What is printed with: remarks and progress on stderr, results on stdout. Like ``errors`` it imports no room."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import some

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def counts(by_status: Mapping[str, int]) -> str:
    """``ok 310 · no_face 4``; nothing for what there is none of."""
    return " · ".join(f"{name} {count}" for name, count in by_status.items() if count)


def say(line: str) -> None:
    """A remark, on stderr."""
    print(line, file=sys.stderr)


def say_all(problems: tuple[str, ...], notes: tuple[str, ...]) -> None:
    """Images that could not be read, counted, and what else there is to know."""
    if problems:
        say(f"{len(problems)} images could not be read: {some(list(problems))}")
    for note in notes:
        say(note)


def stdout() -> Console:
    """Where results are printed; not cut to a narrow screen when it is no screen."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def stderr() -> Console:
    """Where progress is shown."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[Counter[str]], None]]:
    """A progress bar over rows, with their rate and their counts by status."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[counts]}"),
        console=stderr(),
    )
    task = bar.add_task(what, total=total, rate="", counts="")
    seen: Counter[str] = Counter()
    begun: list[float] = []

    def progress(done: Counter[str]) -> None:
        bar.start()  # not before there is something to show
        # the first call says what was there already, or comes before any work
        begun[:] = begun or [time.monotonic(), sum(done.values())]
        seen.update(done)
        speed = (sum(seen.values()) - begun[1]) / max(time.monotonic() - begun[0], 1e-3)
        bar.update(
            task, advance=sum(done.values()), counts=counts(seen), rate=f"{speed:.0f}/s" if speed else ""
        )

    try:
        yield progress
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def kept_when_interrupted(what: str) -> Iterator[None]:
    """Say what an interrupted command leaves, and that the same command goes on with it."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        say(f"interrupted; {what} are kept: repeat the command to go on")
        raise


@contextmanager
def progress_bar(*, shown: bool = True) -> Iterator[Progress]:
    """A progress bar whose tasks have a field ``said``; none is left where nothing was done, as before a refusal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[said]}"),
    )
    bar = Progress(*columns, console=stderr(), disable=not shown)
    if bar.console.is_interactive:
        bar.start()
    try:
        yield bar
    finally:
        done = any(task.completed for task in bar.tasks)
        bar.live.transient = not done
        if done:
            bar.start()  # a file gets the last state alone
        if bar.live.is_started:
            bar.stop()


@contextmanager
def counting_cells(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over a study's cells; the first call says how many were done before."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=stderr(),
    )
    task = bar.add_task(what, total=total)

    def progress(done: int) -> None:
        bar.start()
        bar.update(task, advance=done)

    try:
        yield progress
    finally:
        if bar.live.is_started:
            bar.stop()
