"""Workers: a dead worker is replaced and its task is retried; a closed worker ends at once and prints nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import joblib.externals.loky.process_executor as loky
import pytest

from ig3d.errors import RunError
from ig3d.workers import run_tasks, thread_variables


def kill_worker(name: str, lives: Path) -> str:
    """Kill the process that runs this, as often as a folder has files of that name to take."""
    for life in sorted(lives.glob(f"{name}*"))[:1]:
        life.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "error":
        raise ValueError("the task itself")
    return name


def test_a_task_is_retried_after_a_death_and_not_after_an_error(tmp_path: Path) -> None:
    for life in ("twice1", "twice2", "always1", "always2", "always3", "always4"):
        (tmp_path / life).touch()
    names = ("twice", "always", "calm")
    ended = {end.task: end for end in run_tasks(kill_worker, [(name, tmp_path) for name in names], jobs=2)}
    assert [(ended[task].result, ended[task].given_up) for task in range(3)] == [
        ("twice", False),
        (None, True),
        ("calm", False),
    ]
    assert [life.name for life in tmp_path.iterdir()] == ["always4"], "given up after three deaths"
    with pytest.raises(ValueError, match="the task itself"):
        list(run_tasks(kill_worker, [("error", tmp_path)], jobs=1))


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_the_cluster_of_a_run_gives_up_after_three_deaths_too(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed" if backend == "dask" else "ray")
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))  # the workers import kill_worker
    for life in ("always1", "always2", "always3", "always4"):
        (tmp_path / life).touch()
    (ended,) = run_tasks(kill_worker, [("always", tmp_path)], backend=backend, jobs=1)
    assert ended.given_up
    assert [life.name for life in tmp_path.iterdir()] == ["always4"]


def test_a_run_ends_when_the_workers_of_five_tasks_in_a_row_die(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a broken device; a task that ends well starts the count anew."""
    monkeypatch.setattr("ig3d.workers.MAX_DEATHS", 1)
    results = []
    with pytest.raises(RunError, match="the workers of 5 tasks in a row died"):
        for ended in run_tasks(die_if, [(number != 2,) for number in range(20)], jobs=1):
            results.append(ended.given_up)
    assert results == [True, True, False, True, True, True, True]


def die_if(dies: bool) -> None:
    if dies:
        os._exit(1)


def test_a_task_is_taken_from_the_iterator_when_a_worker_is_free() -> None:
    taken: list[int] = []

    def tasks() -> Iterator[tuple[int]]:
        for task in range(20):
            taken.append(task)
            yield (task,)

    ahead = [len(taken) - done for done, _ in enumerate(run_tasks(abs, tasks(), jobs=2), start=1)]
    assert taken == list(range(20))
    assert max(ahead) <= 2  # as many as there are workers


def die_later() -> int:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return os.getpid()


def test_a_worker_that_died_while_idle_is_replaced() -> None:
    def tasks() -> Iterator[tuple[()]]:
        yield ()
        time.sleep(1)
        yield ()

    first, second = (end.result for end in run_tasks(die_later, tasks(), jobs=1))
    assert first != second


def test_workers_stopped_during_their_tasks_print_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    exceptions = list[object]()
    monkeypatch.setattr(threading, "excepthook", exceptions.append)
    for _ in range(3):  # without the wait in close(), loky's thread fails in nine of ten cases
        ended = run_tasks(time.sleep, [(0,), (60,), (60,)], jobs=2)
        next(ended)
        begun = time.monotonic()
        ended.close()
        assert time.monotonic() - begun < 10
    assert not exceptions
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_cannot_be_started_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(pool: object) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(loky.ProcessPoolExecutor, "_adjust_process_count", refused)
    with pytest.raises(OSError, match="no memory"):
        list(run_tasks(abs, [(1,)], jobs=1))


def _grown(task: int) -> tuple[int, int]:
    """Make loky think that this worker's memory has grown more than it allows."""
    loky._MAX_MEMORY_LEAK_SIZE, loky._MEMORY_LEAK_CHECK_DELAY = -(10**18), -1.0
    return task, os.getpid()


def test_a_worker_whose_memory_has_grown_is_replaced_without_a_warning() -> None:
    pytest.importorskip("psutil", reason="psutil, with which loky measures memory, is not installed")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        done = [end.result for end in run_tasks(_grown, [(task,) for task in range(8)], jobs=1)]
    assert not caught
    assert [task for task, _ in done] == list(range(8))
    assert len({pid for _, pid in done}) > 1


def test_the_number_of_threads_reaches_the_worker_unless_the_environment_sets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    names = [("OMP_NUM_THREADS",), ("OPENBLAS_NUM_THREADS",)]
    ended = {end.task: end.result for end in run_tasks(os.getenv, names, environments=[thread_variables(3)])}
    assert ended == {0: "3", 1: "7"}, "the user's setting is kept"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to find the worker in")
def test_a_worker_of_a_killed_run_ends_within_seconds_during_its_task(tmp_path: Path) -> None:
    script = (
        "import test_workers as tests, pathlib, sys\n"
        "list(tests.run_tasks(tests.note_and_sleep, [(pathlib.Path(sys.argv[1]),)], jobs=1))\n"
    )
    note = tmp_path / "pid"
    run = subprocess.Popen([sys.executable, "-c", script, note], cwd=Path(__file__).parent)
    deadline = time.monotonic() + 60
    while not note.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    worker = int(note.read_text())
    assert is_running(worker)
    run.kill()
    run.wait()
    deadline = time.monotonic() + 10
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(worker)


def note_and_sleep(note: Path) -> None:
    made = note.with_suffix(".tmp")
    made.write_text(str(os.getpid()))
    made.replace(note)
    time.sleep(600)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
