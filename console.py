"""Output: results on stdout, remarks and progress on stderr; data are printed as data, never as markup or control.

Imports nothing of the package but ``errors``.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from .errors import some

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TextColumn


# Control characters but for tab and newline, lone surrogates, line separators, and marks of the text's direction.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def plain(text: str) -> str:
    r"""A text whose control characters, direction marks and lone surrogates are escaped; tabs and newlines are kept.

    >>> plain("sad\x1b[31m"), plain("sad\u202e")
    ('sad\\x1b[31m', 'sad\\u202e')
    """
    return _UNSAFE.sub(lambda found: repr(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """A text as :func:`plain` gives it, on one line."""
    return plain(text).replace("\n", "\\n")


class Output:
    """A standard stream that escapes control characters of what is printed, and that a reader may close at any time.

    Parameters
    ----------
    stream : the stream to write to

    Attributes
    ----------
    failures : list of OSError
        Why something could not be written; a reader that has gone is no failure.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.failures: list[OSError] = []
        self._escape = True

    def unescaped(self) -> Output:
        """The same stream for rich, which writes control sequences of its own; its texts are escaped before."""
        twin = Output(self.stream)
        twin.failures, twin._escape = self.failures, False
        return twin

    def write(self, text: str) -> int:
        try:
            self.stream.write(plain(text) if self._escape else text)
        except OSError as exc:
            self._give_up(exc)
        return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as exc:
            self._give_up(exc)

    def _give_up(self, exc: OSError) -> None:
        """Send the rest nowhere: the work goes on, and its files are written."""
        if not isinstance(exc, BrokenPipeError):
            self.failures.append(exc)
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def standard_streams() -> Iterator[tuple[Output, Output]]:
    """Replace ``sys.stdout`` and ``sys.stderr`` by :class:`Output`; one that is closed becomes the null device."""
    before = sys.stdout, sys.stderr
    for _ in range(3):
        descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: a file must not become stdout
        if descriptor > 2:
            os.close(descriptor)
            break
    found = []
    for number, stream in enumerate(before, 1):
        if stream is None:
            stream = os.fdopen(number, "w", encoding="utf-8", closefd=False)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a dash loses no result
        found.append(Output(stream))
    sys.stdout, sys.stderr = found
    try:
        yield found[0], found[1]
    finally:
        for output in found:
            output.flush()
        sys.stdout, sys.stderr = before


def counts(by_status: Mapping[str, int]) -> str:
    """``ok 310 · no_face 4``; nothing for what there is none of."""
    return " · ".join(f"{name} {count}" for name, count in by_status.items() if count)


def say(line: str) -> None:
    """A remark, on stderr."""
    print(one_line(line), file=sys.stderr)


def say_all(problems: tuple[str, ...], notes: tuple[str, ...]) -> None:
    """Images that could not be read, counted, and what else there is to know."""
    if problems:
        say(f"{len(problems)} images could not be read: {some(list(problems))}")
    for note in notes:
        say(note)


def stdout() -> Console:
    """Where results are printed; not cut to a narrow screen when it is no screen."""
    return _console(sys.stdout, width=None if sys.stdout.isatty() else 120)


def stderr() -> Console:
    """Where progress is shown."""
    return _console(sys.stderr, width=None)


def _console(stream: Any, *, width: int | None) -> Console:
    from rich.console import Console

    class Literal(Console):
        """A console that prints every text as it is: no markup, no emoji codes, no control characters."""

        def render_str(self, text: str, **options: Any) -> Any:
            return super().render_str(plain(text), **options)

    raw: Any = stream.unescaped() if isinstance(stream, Output) else stream
    return Literal(file=raw, width=width, highlight=False, markup=False, emoji=False)


def _text(form: str) -> TextColumn:
    """A column of progress bars; names in it are data, as everywhere."""
    from rich.progress import Task, TextColumn
    from rich.text import Text

    class Plain(TextColumn):
        def render(self, task: Task) -> Text:
            return Text(one_line(form.format(task=task)))

    return Plain(form)


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[Counter[str]], None]]:
    """A progress bar over rows, with their rate and their counts by status."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        _text("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _text("{task.fields[rate]}"),
        TimeRemainingColumn(),
        _text("{task.fields[counts]}"),
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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (
        _text("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        _text("{task.fields[said]}"),
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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    bar = Progress(
        _text("{task.description}"),
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
