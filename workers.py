"""Run tasks in worker processes, on this machine or on a cluster; replace dead workers and retry their tasks.

Used for the shards of an extraction and the cells of a study. Each worker runs in a slot, :class:`Lane`, which takes
one task at a time. If a worker dies, its slot starts another one: the lost task is known and other workers continue.
"""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol

from joblib.externals.loky import ProcessPoolExecutor

# A task is given up after this many dead workers.
MOST_DEATHS = 3
# A worker without a task exits after this time, so that no worker outlives a killed run.
IDLE_SECONDS = 20
# Longest wait for the executor to pass a submitted task to its worker; normally one or two milliseconds.
HANDED_OVER_SECONDS = 60
# Numbers of threads that numerical libraries read from the environment when they are imported.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Lane(Protocol):
    """Slot for one worker.

    Attributes
    ----------
    deaths_told : int
        Number of worker deaths that one lost task counts as; a cluster that retries by itself reports several at once.
    """

    deaths_told: int

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]: ...

    def lost(self, error: BaseException) -> bool:
        """Whether an error means that the worker died, and not that the task failed."""
        ...

    def renew(self) -> None:
        """Start another worker after one died."""
        ...

    def close(self) -> None:
        """Stop the worker, even during a task."""
        ...


@dataclass(frozen=True, slots=True)
class Ended:
    """Result of one task.

    Attributes
    ----------
    task : int
        Index of the task.
    result : return value of the call; None if the task was given up
    deaths : int
        Workers that died while running it.
    """

    task: int
    result: Any
    deaths: int = 0

    @property
    def given_up(self) -> bool:
        return self.deaths >= MOST_DEATHS


def spread(
    tasks: Iterable[tuple[Any, ...]], lanes: Sequence[Lane], calls: Sequence[Callable[..., Any]]
) -> Iterator[Ended]:
    """Run tasks on workers; yield results in order of completion.

    Parameters
    ----------
    tasks : arguments of one call each; the next is taken when a worker is free, and kept until it is done
    lanes : worker slots; closed at the end and after an error
    calls : function that each slot calls

    Raises
    ------
    Exception : any exception that a call raises.
    """
    new = ((number, task, 0) for number, task in enumerate(tasks))
    retries = deque[tuple[int, tuple[Any, ...], int]]()
    free = list(range(len(lanes)))[::-1]
    running: dict[Future[Any], tuple[int, int, tuple[Any, ...], int]] = {}
    try:
        while True:
            while free and (item := retries.popleft() if retries else next(new, None)) is not None:
                lane, (number, task, deaths) = free.pop(), item
                running[_submitted(lanes[lane], calls[lane], task)] = lane, number, task, deaths
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                lane, number, task, deaths = running.pop(future)
                free.append(lane)
                error = future.exception()
                if error is None:
                    yield Ended(number, future.result(), deaths)
                    continue
                if not lanes[lane].lost(error):
                    raise error
                deaths += lanes[lane].deaths_told
                lanes[lane].renew()
                if deaths >= MOST_DEATHS:
                    yield Ended(number, None, deaths)
                else:
                    retries.append((number, task, deaths))
    finally:
        for slot in lanes:
            slot.close()


def _submitted(lane: Lane, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
    """Submit a task; a worker that died while idle is replaced first."""
    try:
        return lane.submit(call, *arguments)
    except Exception as error:
        if not lane.lost(error):
            raise
    lane.renew()
    return lane.submit(call, *arguments)


class Process:
    """Worker process on this machine; a new interpreter, because a fork can hang after torch has run.

    Parameters
    ----------
    threads : int, optional
        Threads of numerical libraries in the process, unless environment variables set them; by default no limit.
    """

    deaths_told = 1

    def __init__(self, threads: int | None = None) -> None:
        self._env = {name: os.environ.get(name, str(threads)) for name in _THREADS} if threads else {}
        self._start()

    def _start(self) -> None:
        # loky replaces a worker whose memory has grown, after its task: the user need not know
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        # one pool for each worker: a death breaks only this pool
        self._pool = ProcessPoolExecutor(max_workers=1, timeout=IDLE_SECONDS, env=self._env)
        self._last: Future[Any] | None = None

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        self._last = self._pool.submit(call, *arguments)
        return self._last

    def lost(self, error: BaseException) -> bool:
        return isinstance(error, BrokenProcessPool)

    def renew(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        # shutdown before the pool has passed on its task makes the pool's thread print a traceback
        deadline = time.monotonic() + HANDED_OVER_SECONDS
        while self._last and not (self._last.running() or self._last.done()) and time.monotonic() < deadline:
            time.sleep(0.001)
        self._pool.shutdown(wait=True, kill_workers=True)
