"""Workers: a dead worker is replaced and its task is retried; a closed worker ends at once and prints nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import joblib.externals.loky.process_executor as loky
import pytest
from toy_workers import InThisProcess

from ig3d import workers
from ig3d.workers import Process, spread


def test_a_task_is_retried_after_a_death_and_not_after_an_error() -> None:
    left = {"a": 2, "b": 99}

    def call(name: str) -> str:
        if left.get(name, 0) > 0:
            left[name] -= 1
            raise ConnectionError
        if name == "c":
            raise ValueError("c itself")
        return name

    slots = [InThisProcess(), InThisProcess()]
    ended = {end.task: end for end in spread([("a",), ("b",), ("d",)], slots, [call, call])}
    assert (ended[0].result, ended[0].deaths, ended[0].given_up) == ("a", 2, False)
    assert (ended[1].result, ended[1].deaths, ended[1].given_up) == (None, 3, True)
    assert ended[2].result == "d"
    assert sum(slot.renewed for slot in slots) == 5
    assert all(slot.closed for slot in slots)
    slots = [InThisProcess()]
    with pytest.raises(ValueError, match="c itself"):
        list(spread([("c",)], slots, [call]))
    assert slots[0].closed


def test_a_task_is_taken_from_the_iterator_when_a_worker_is_free() -> None:
    taken: list[int] = []

    def tasks() -> Iterator[tuple[int]]:
        for task in range(20):
            taken.append(task)
            yield (task,)

    slots = [InThisProcess(), InThisProcess()]
    ahead = [
        len(taken) - done for done, _ in enumerate(spread(tasks(), slots, [lambda task: task] * 2), start=1)
    ]
    assert taken == list(range(20))
    assert max(ahead) <= 2  # as many as there are workers


def test_each_worker_has_its_own_function() -> None:
    slots = [InThisProcess() for _ in range(3)]
    calls = [lambda x, slot=slot: (slot, x) for slot in range(3)]
    results = {end.result for end in spread([(i,) for i in range(3)], slots, calls)}
    assert results == {(0, 0), (1, 1), (2, 2)}


def test_a_worker_that_died_while_idle_is_replaced() -> None:
    slot = Process()
    try:
        pid = slot.submit(os.getpid).result()
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)
        assert [end.result for end in spread([(2, 3)], [slot], [pow])] == [8]
    finally:
        slot.close()


def test_a_worker_closed_just_after_a_task_was_submitted_prints_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exceptions = list[object]()
    monkeypatch.setattr(threading, "excepthook", exceptions.append)
    for _ in range(5):  # without the wait in close(), loky's thread fails in nine of ten cases
        slot = Process()
        slot.submit(pow, 2, 3).result()
        slot.submit(time.sleep, 60)
        slot.close()
    assert not exceptions


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("ending", ["worker dies", "worker died before", "no worker can be started"])
def test_a_broken_worker_is_closed_without_waiting(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    slot = Process()
    if ending == "no worker can be started":

        def refused(pool: object) -> None:
            raise OSError("no memory")

        with monkeypatch.context() as patch, pytest.raises(OSError, match="no memory"):
            patch.setattr(loky.ProcessPoolExecutor, "_adjust_process_count", refused)
            slot.submit(pow, 2, 3)
    else:
        with pytest.raises(BrokenProcessPool):
            slot.submit(_die).result()
    if ending == "worker died before":
        with pytest.raises(BrokenProcessPool):
            slot.submit(pow, 2, 3)

    def waits(seconds: float) -> None:
        raise AssertionError("close() waited although no task is pending")

    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=time.monotonic, sleep=waits))
    slot.close()


def _grown(task: int) -> tuple[int, int]:
    """Make loky think that this worker's memory has grown more than it allows."""
    loky._MAX_MEMORY_LEAK_SIZE, loky._MEMORY_LEAK_CHECK_DELAY = -(10**18), -1.0
    return task, os.getpid()


def test_a_worker_whose_memory_has_grown_is_replaced_without_a_warning() -> None:
    pytest.importorskip("psutil", reason="psutil, with which loky measures memory, is not installed")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        done = [end.result for end in spread([(task,) for task in range(8)], [Process()], [_grown])]
    assert not caught
    assert [task for task, _ in done] == list(range(8))
    assert len({pid for _, pid in done}) > 1


def test_the_number_of_threads_reaches_the_worker_unless_the_environment_sets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    slot = Process(threads=3)
    try:
        assert slot.submit(os.getenv, "OMP_NUM_THREADS").result() == "3"
        assert slot.submit(os.getenv, "OPENBLAS_NUM_THREADS").result() == "7", "the user's setting is kept"
    finally:
        slot.close()
