"""Workers: tasks spread over processes, here or on a cluster; one that dies is replaced, and its task run again.

Every room may use them: the shards of an extraction are such tasks, and so are the cells of a study. A *lane* is one
worker's place: it runs one task at a time and can be given another worker. So a death is that of one task, which is
known, and the other workers go on.
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

# A task whose worker has died this often is given up.
MOST_DEATHS = 3
# Workers whose run was killed outright notice it by having nothing to do.
IDLE_SECONDS = 20
# A task is passed on to its worker within a millisecond or two, and one that cannot be is done, with its error; so long
# is waited at most, where a machine is busy.
HANDED_OVER_SECONDS = 60
# What libraries read when they are imported, to know how many threads they may have.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Lane(Protocol):
    """One worker's place.

    Attributes
    ----------
    deaths_told : int
        How many deaths one lost task stands for: a cluster that tries again by itself has counted them all.
    """

    deaths_told: int

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]: ...

    def lost(self, error: BaseException) -> bool:
        """Whether an error says that the worker died, and not that the task went wrong."""
        ...

    def renew(self) -> None:
        """Put another worker in the place of one that died."""
        ...

    def close(self) -> None:
        """End the worker, whatever it is doing."""
        ...


@dataclass(frozen=True, slots=True)
class Ended:
    """How one task ended.

    Attributes
    ----------
    task : int
        How many came before it.
    result : what the call gave, or None where the task was given up
    deaths : int
        Workers that died at it.
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
    """Run every task in some lane; yields them as they end, in no order.

    Parameters
    ----------
    tasks : arguments of a call; each is asked for when a lane is free, and held until it is done
    lanes : where they run; closed at the end, however it comes
    calls : what each lane calls

    Raises
    ------
    Whatever a call raises; the lanes are closed then.
    """
    fresh = ((number, task, 0) for number, task in enumerate(tasks))
    again = deque[tuple[int, tuple[Any, ...], int]]()
    free = list(range(len(lanes)))[::-1]
    running: dict[Future[Any], tuple[int, int, tuple[Any, ...], int]] = {}
    try:
        while True:
            while free and (one := again.popleft() if again else next(fresh, None)) is not None:
                lane, (number, task, deaths) = free.pop(), one
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
                    again.append((number, task, deaths))
    finally:
        for each in lanes:
            each.close()


def _submitted(lane: Lane, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
    """The task's future; a worker that died with nothing to do is replaced first."""
    try:
        return lane.submit(call, *arguments)
    except Exception as error:
        if not lane.lost(error):
            raise
    lane.renew()
    return lane.submit(call, *arguments)


class Process:
    """A worker process on this machine: a fresh interpreter, as a fork after torch has run would hang.

    Parameters
    ----------
    threads : int, optional
        What libraries in it may have, where the environment does not say it; by default as many as they like.
    """

    deaths_told = 1

    def __init__(self, threads: int | None = None) -> None:
        self._env = {name: os.environ.get(name, str(threads)) for name in _THREADS} if threads else {}
        self._start()

    def _start(self) -> None:
        # a worker that has grown by much is replaced after its task: nothing is lost, and nothing is to be done
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        # a pool of one: when its worker dies, it is the pool that is broken, and no other
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
        # the pool's own thread fails, loudly, on a task that is taken from it before it has passed the task on
        latest = time.monotonic() + HANDED_OVER_SECONDS
        while self._last and not (self._last.running() or self._last.done()) and time.monotonic() < latest:
            time.sleep(0.001)
        self._pool.shutdown(wait=True, kill_workers=True)
