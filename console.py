"""Console output: results on stdout, notes and progress on stderr.

Control characters and markup in data are escaped. This module imports only ``errors`` from the package.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TextIO

from .errors import Terminated, listed, plural

if TYPE_CHECKING:
    from threading import Event

    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, Task, TaskID, TextColumn

LINE_SECONDS = 10.0  # shortest time between two lines of progress, if stderr is not a terminal

# Control characters except tab and newline, lone surrogates, line separators, and marks of text direction.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def plain(text: str) -> str:
    r"""Escape control characters, direction marks and lone surrogates; keep tabs and newlines.

    >>> plain("sad\x1b[31m"), plain("sad\u202e")
    ('sad\\x1b[31m', 'sad\\u202e')
    """
    return _UNSAFE.sub(lambda match: repr(match[0])[1:-1], text)


def one_line(text: str) -> str:
    """Like :func:`plain`, with newlines escaped too."""
    return plain(text).replace("\n", "\\n")


class Output:
    """Standard stream that escapes control characters and tolerates a reader that closes the pipe.

    Parameters
    ----------
    stream : the stream to write to

    Attributes
    ----------
    failures : list of OSError
        Errors of writing; a closed pipe is not counted.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.failures: list[OSError] = []
        self._escape = True

    def unescaped(self) -> Output:
        """The same stream without escaping, for rich: its texts are escaped before it adds control sequences."""
        raw = Output(self.stream)
        raw.failures, raw._escape = self.failures, False
        return raw

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
        """Discard further output; the command continues and writes its files."""
        if not isinstance(exc, BrokenPipeError):
            self.failures.append(exc)
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def standard_streams() -> Iterator[tuple[Output, Output]]:
    """Replace ``sys.stdout`` and ``sys.stderr`` by :class:`Output`; a closed stream becomes the null device."""
    before = sys.stdout, sys.stderr
    for _ in range(3):
        descriptor = os.open(
            os.devnull, os.O_RDWR
        )  # takes a closed descriptor 0 to 2, which an opened file would get otherwise
        if descriptor > 2:
            os.close(descriptor)
            break
    outputs = []
    for number, stream in enumerate(before, 1):
        if stream is None:
            stream = os.fdopen(number, "w", encoding="utf-8", closefd=False)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                errors="replace"
            )  # for terminals that cannot encode a character, such as a dash
        outputs.append(Output(stream))
    sys.stdout, sys.stderr = outputs
    try:
        yield outputs[0], outputs[1]
    finally:
        for output in outputs:
            output.flush()
        sys.stdout, sys.stderr = before


def counts(by_status: Mapping[str, int]) -> str:
    """Counts as text, such as ``ok 310 · no_face 4``; zeros are left out."""
    return " · ".join(f"{name} {count}" for name, count in by_status.items() if count)


def say(line: str) -> None:
    """Print a note on stderr, on one line."""
    print(one_line(line), file=sys.stderr)


def say_all(problems: tuple[str, ...], notes: tuple[str, ...]) -> None:
    """Print the number of unreadable images and the first of them, then the notes."""
    if problems:
        say(f"{plural(len(problems), 'image')} could not be read: {listed(list(problems))}")
    for note in notes:
        say(note)


def stdout() -> Console:
    """Console for results; 120 columns wide if stdout is not a terminal."""
    return _console(sys.stdout, width=None if sys.stdout.isatty() else 120)


def stderr() -> Console:
    """Console for progress bars."""
    return _console(sys.stderr, width=None)


def _console(stream: Any, *, width: int | None) -> Console:
    from rich.console import Console

    class Literal(Console):
        """Console that prints text literally: no markup, no emoji codes, no control characters."""

        def render_str(self, text: str, **options: Any) -> Any:
            return super().render_str(plain(text), **options)

    raw: Any = stream.unescaped() if isinstance(stream, Output) else stream
    return Literal(file=raw, width=width, highlight=False, markup=False, emoji=False)


def _text(template: str) -> TextColumn:
    """Text column of a progress bar, printed without markup."""
    from rich.progress import TextColumn
    from rich.text import Text

    class Plain(TextColumn):
        def render(self, task: Task) -> Text:
            return Text(one_line(template.format(task=task)))

    return Plain(template)


def _progress(*columns: ProgressColumn, shown: bool = True, transient: bool = False) -> Progress:
    """Progress bars on stderr; the speed is estimated from the last 1,000 steps, however long they take."""
    from rich.progress import Progress

    return Progress(
        *columns,
        console=stderr(),
        speed_estimate_period=math.inf,
        disable=not shown,
        transient=transient,
    )


@contextmanager
def _running(bar: Progress) -> Iterator[None]:
    """Stop a bar at the end; until then, write lines of progress if stderr is not a terminal."""
    from threading import Event, Thread

    ended = Event()
    writer = Thread(target=_write_lines, args=(bar, ended), daemon=True)
    if not bar.disable and not bar.console.is_interactive:
        writer.start()
    try:
        yield
    finally:
        ended.set()
        if writer.ident:
            writer.join()
        if bar.live.is_started:
            bar.stop()


def _write_lines(bar: Progress, ended: Event) -> None:
    """Write lines about the current task: at most 20 for each task, and one every ten minutes."""
    before = -1, 0.0, 0.0  # task, per cent and time of the last line
    while not ended.wait(LINE_SECONDS):
        running = [task for task in bar.tasks if task.total and not task.finished]
        running = [
            task for task in running if (task.elapsed or 0) >= LINE_SECONDS / 10
        ]  # not one that has just begun
        now = time.monotonic()
        for task in running[-1:]:
            if task.id != before[0] or task.percentage - before[1] >= 5 or now - before[2] >= 600:
                before = task.id, task.percentage, now
                say(_line(task))


def _line(task: Task) -> str:
    """``extract 512/4800, 0:00:21 elapsed, 0:02:56 left, 24/s, ok 510``."""
    parts = [
        f"{task.description} {task.completed:.0f}/{task.total:.0f}",
        f"{timedelta(seconds=round(task.elapsed or 0))} elapsed",
    ]
    if task.time_remaining is not None:
        parts.append(f"{timedelta(seconds=round(task.time_remaining))} left")
    return ", ".join([*parts, *(text for text in task.fields.values() if text)])


@contextmanager
def counting(title: str, total: int) -> Iterator[Callable[[Counter[str]], None]]:
    """Progress bar over rows, with rows per second and counts by status."""
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    bar = _progress(
        _text("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _text("{task.fields[rate]}"),
        TimeRemainingColumn(),
        _text("{task.fields[counts]}"),
    )
    task = bar.add_task(title, total=total, rate="", counts="")
    by_status: Counter[str] = Counter()
    start: list[float] = []  # time and rows of the first call

    def progress(done: Counter[str]) -> None:
        bar.start()  # shown from the first call on
        # the first call reports the rows of an earlier run: they do not count for the rate
        start[:] = start or [time.monotonic(), sum(done.values())]
        by_status.update(done)
        rate = (sum(by_status.values()) - start[1]) / max(time.monotonic() - start[0], 1e-3)
        bar.update(
            task,
            advance=sum(done.values()),
            counts=counts(by_status),
            rate=f"{rate:.0f}/s" if rate else "",
        )

    with _running(bar):
        yield progress


@contextmanager
def kept_when_interrupted(kept: str) -> Iterator[None]:
    """If the command is interrupted, its message is completed: the finished part is kept, and how to continue."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as interruption:
        interruption.add_note(f"{kept} are kept: repeat the command to continue")
        raise


@contextmanager
def progress_bar(*, shown: bool = True) -> Iterator[Progress]:
    """Progress bar whose tasks have a text field ``detail``; it disappears if no task advanced, as before an error."""
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    bar = _progress(
        _text("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        _text("{task.fields[detail]}"),
        shown=shown,
    )
    if bar.console.is_interactive:
        bar.start()
    with _running(bar):
        try:
            yield bar
        finally:
            done = any(task.completed for task in bar.tasks)
            bar.live.transient = not done
            if done:
                bar.start()  # prints the final state if stderr is a file


@contextmanager
def steps(title: str, total: int, *, delay: float = 1.0) -> Iterator[Callable[[int], None]]:
    """Progress bar that appears after a delay (seconds), so that short tasks have none."""
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    bar = _progress(_text("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    task = bar.add_task(title, total=total)
    began = time.monotonic()

    def progress(done: int) -> None:
        if time.monotonic() - began >= delay:
            bar.start()
        bar.update(task, advance=done)

    with _running(bar):
        yield progress


@contextmanager
def working(title: str) -> Iterator[None]:
    """Elapsed time of a task without countable steps; shown on terminals only, and removed at its end."""
    from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

    bar = Progress(
        SpinnerColumn("line"),
        _text("{task.description}"),
        TimeElapsedColumn(),
        console=stderr(),
        transient=True,
    )
    if not bar.console.is_interactive:
        yield
        return
    bar.add_task(title, total=None)
    with bar:
        yield


@contextmanager
def progress_when_slow(delay: float = 2.0) -> Iterator[Callable[[str, float, int], None]]:
    """Progress bars of steps; shown on an interactive stderr once ``delay`` seconds have passed, then removed.

    The function that it yields takes the name of a step, and how many of how many parts are done, such as 1.5 of 5.
    """
    from threading import Timer

    from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn

    bar = _progress(
        _text("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        transient=True,
    )
    tasks: dict[str, TaskID] = {}
    timer = Timer(delay, bar.start)  # a first step may report nothing for a long time
    timer.daemon = True

    def progress(step: str, done: float, total: int) -> None:
        if step not in tasks:
            tasks[step] = bar.add_task(step, total=total)
        bar.update(tasks[step], completed=done, total=total)

    if bar.console.is_interactive:
        timer.start()
    with _running(bar):
        try:
            yield progress
        finally:
            timer.cancel()
            if timer.ident:
                timer.join()
