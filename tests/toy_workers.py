"""A worker for tests that starts no process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class InThisProcess:
    """Worker that runs a task in the calling process; a ConnectionError of the task counts as its death."""

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
