"""Lanes: a worker that dies is replaced and its task run again; one that is closed ends quietly and at once."""

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
from toy_lanes import HereAndNow

from ig3d import workers
from ig3d.workers import Process, spread


def test_a_death_is_told_from_an_error() -> None:
    left = {"a": 2, "b": 99}

    def call(name: str) -> str:
        if left.get(name, 0) > 0:
            left[name] -= 1
            raise ConnectionError
        if name == "c":
            raise ValueError("c itself")
        return name

    lanes = [HereAndNow(), HereAndNow()]
    ended = {one.task: one for one in spread([("a",), ("b",), ("d",)], lanes, [call, call])}
    assert (ended[0].result, ended[0].deaths, ended[0].given_up) == ("a", 2, False)
    assert (ended[1].result, ended[1].deaths, ended[1].given_up) == (None, 3, True)
    assert ended[2].result == "d"
    assert sum(lane.renewed for lane in lanes) == 5
    assert all(lane.closed for lane in lanes)
    lanes = [HereAndNow()]
    with pytest.raises(ValueError, match="c itself"):
        list(spread([("c",)], lanes, [call]))
    assert lanes[0].closed


def test_a_task_is_asked_for_when_a_lane_is_free() -> None:
    asked: list[int] = []

    def tasks() -> Iterator[tuple[int]]:
        for task in range(20):
            asked.append(task)
            yield (task,)

    lanes = [HereAndNow(), HereAndNow()]
    ahead = [
        len(asked) - done for done, _ in enumerate(spread(tasks(), lanes, [lambda task: task] * 2), start=1)
    ]
    assert asked == list(range(20))
    assert max(ahead) <= 2  # as many as there are lanes: the others are not made yet


def test_each_lane_has_its_own_call() -> None:
    lanes = [HereAndNow() for _ in range(3)]
    calls = [lambda x, lane=lane: (lane, x) for lane in range(3)]
    found = {one.result for one in spread([(i,) for i in range(3)], lanes, calls)}
    assert found == {(0, 0), (1, 1), (2, 2)}


def test_a_worker_that_died_with_nothing_to_do_is_replaced() -> None:
    lane = Process()
    try:
        pid = lane.submit(os.getpid).result()
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)
        assert [one.result for one in spread([(2, 3)], [lane], [pow])] == [8]
    finally:
        lane.close()


def test_a_lane_closed_just_after_a_task_was_given_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[object]()
    monkeypatch.setattr(threading, "excepthook", told.append)
    for _ in range(5):  # closed at such a moment, loky's own thread died with a traceback nine times in ten
        lane = Process()
        lane.submit(pow, 2, 3).result()
        lane.submit(time.sleep, 60)
        lane.close()
    assert not told


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("ending", ["worker dies", "worker died before", "no worker can be started"])
def test_a_lane_that_broke_is_closed_without_waiting(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    lane = Process()
    if ending == "no worker can be started":

        def refused(pool: object) -> None:
            raise OSError("no memory")

        with monkeypatch.context() as patch, pytest.raises(OSError, match="no memory"):
            patch.setattr(loky.ProcessPoolExecutor, "_adjust_process_count", refused)
            lane.submit(pow, 2, 3)
    else:
        with pytest.raises(BrokenProcessPool):
            lane.submit(_die).result()
    if ending == "worker died before":
        with pytest.raises(BrokenProcessPool):
            lane.submit(pow, 2, 3)

    def waits(seconds: float) -> None:
        raise AssertionError("waited for a task that is not on its way")

    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=time.monotonic, sleep=waits))
    lane.close()


def _grown(task: int) -> tuple[int, int]:
    """As where a worker has grown by more than loky allows, whatever it has."""
    loky._MAX_MEMORY_LEAK_SIZE, loky._MEMORY_LEAK_CHECK_DELAY = -(10**18), -1.0
    return task, os.getpid()


def test_a_worker_that_has_grown_is_replaced_quietly() -> None:
    pytest.importorskip("psutil", reason="psutil, by which loky sees it, is not installed")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        done = [one.result for one in spread([(task,) for task in range(8)], [Process()], [_grown])]
    assert not told
    assert [task for task, _ in done] == list(range(8))
    assert len({pid for _, pid in done}) > 1


def test_a_worker_is_told_how_many_threads_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    lane = Process(threads=3)
    try:
        assert lane.submit(os.getenv, "OMP_NUM_THREADS").result() == "3"
        assert lane.submit(os.getenv, "OPENBLAS_NUM_THREADS").result() == "7", "what the user said stays"
    finally:
        lane.close()
