"""Progress of runs, and of fits of estimators whose ``fit`` has no argument for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Progress = Callable[[str, float, int], object]  # step, done (such as 1.5), total

_watch: ContextVar[Callable[[float], object] | None] = ContextVar("watch", default=None)


@contextmanager
def watching_fit(watch: Callable[[float], object], start: int = 0) -> Iterator[None]:
    """Call ``watch`` with ``start`` plus the share that is done, 0 to 1, of each fit in this block and thread."""
    token = _watch.set(lambda share: watch(start + share))
    try:
        yield
    finally:
        _watch.reset(token)


def report_share(done: float) -> None:
    """Report the share of the current fit that is done, 0 to 1."""
    if watch := _watch.get():
        watch(done)
