"""Lanes for tests that start no process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class HereAndNow:
    """A lane that runs a task where it is asked to, and dies when the task says so."""

    deaths_told = 1

    def __init__(self) -> None:
        self.renewed, self.closed = 0, False

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def lost(self, error: BaseException) -> bool:
        return isinstance(error, ConnectionError)

    def renew(self) -> None:
        self.renewed += 1

    def close(self) -> None:
        self.closed = True
