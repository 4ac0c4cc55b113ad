"""Run tasks in worker processes of this machine, or on a dask or ray cluster.

Used for the shards of an extraction and the cells of a study. If a worker dies, another one repeats its task; after
three dead workers, the task is given up. On a cluster, the cluster itself retries. If five tasks in a row are given up,
the run ends, because the tasks are probably not the cause.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from joblib import cpu_count
from joblib.externals.loky import ProcessPoolExecutor

from .errors import RunError, UsageError, require

log = logging.getLogger("ig3d")

BACKENDS = ("loky", "dask", "ray")
# A task is given up after this many dead workers.
MAX_DEATHS = 3
# Configuration of dask's local cluster. Workers may start processes. A worker that is not connected when the time-out
# (by default 15 s) has passed since its death is closed for good, even if it is just starting again.
DASK_CONFIG = {
    "distributed.worker.daemon": False,
    "distributed.deploy.lost-worker-timeout": "1000 days",
    "distributed.scheduler.allowed-failures": MAX_DEATHS - 1,
}
# The run ends after this many given-up tasks in a row: if a device fails, all tasks would be given up.
MAX_GIVEN_UP = 5
# A worker without a task exits after this time.
IDLE_SECONDS = 20
# Interval at which a worker checks whether the process that started it is still running.
WATCH_SECONDS = 1.0
# Longest wait for the executor to pass a submitted task to its worker; normally one or two milliseconds.
HANDED_OVER_SECONDS = 60
# Longest wait for a connection to a cluster, and for its first worker.
REACH_SECONDS = 10
# Time without a result after which the run checks whether the cluster still has workers.
QUIET_SECONDS = 60.0
# Numbers of threads that numerical libraries read from the environment when they are imported.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Ended:
    """Outcome of one task.

    Attributes
    ----------
    task : int
        Index of the task.
    result : object
        Return value of the function; None if the task was given up.
    given_up : bool
        Whether :data:`MAX_DEATHS` workers died while running the task (a running dask cluster has its own limit).
    """

    task: int
    result: Any
    given_up: bool = False


class _Workers(Protocol):
    """Workers of one backend.

    Attributes
    ----------
    size : int
        Number of tasks that run at the same time.
    max_deaths : int
        Dead workers after which a task is given up; 1 if the backend itself retries.
    """

    size: int
    max_deaths: int

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]: ...

    def release(self, future: Future[Any]) -> bool:
        """Free the worker of a finished future, or replace it if it died; returns whether it died."""
        ...

    def none_left(self) -> bool:
        """Whether no worker is running, and the backend does not start one."""
        return False


def run_tasks(
    function: Callable[..., Any],
    tasks: Iterable[tuple[Any, ...]],
    *,
    backend: str = "loky",
    jobs: int = 0,
    address: str | None = None,
    gpu: bool = False,
    environments: Sequence[Mapping[str, str]] = (),
) -> Generator[Ended, None, None]:
    """Run tasks on workers; yield results in order of completion.

    Parameters
    ----------
    function : callable
        Must be importable in the workers.
    tasks : iterable of tuples
        Positional arguments of each call. The next task is taken from the iterable when a worker is free.
    backend : {"loky", "dask", "ray"}
        Processes of this machine (loky), or workers of a cluster.
    jobs : int
        Number of tasks that run at the same time; 0 is one per core, or one per worker of the cluster.
    address : str, optional
        Address of a running cluster; by default, one is started on this machine.
    gpu : bool
        Whether each task on a cluster needs a GPU.
    environments : sequence of mappings, optional
        Environment variables of each local worker; replaces ``jobs``.

    Yields
    ------
    Ended

    Raises
    ------
    UsageError : the backend does not exist, or is ``loky`` and an address is passed.
    MissingExtra : dask or ray is not installed.
    RunError : no cluster answers at the address, it has no workers or no GPU, or it was shut down; or five tasks in a
        row were given up.
    Exception : any exception that a call of the function raises.
    """
    check_backend(backend, address)
    if backend == "loky":
        opened = _processes(environments or [{}] * (jobs or cpu_count()))
    else:
        opened = (_dask if backend == "dask" else _ray)(jobs, address, gpu)
    with opened as workers:
        yield from _run(function, tasks, workers)


def check_backend(backend: str, address: str | None) -> None:
    """Refuse a backend that does not exist, and an address for local processes.

    Raises
    ------
    UsageError
    """
    if backend not in BACKENDS:
        raise UsageError(f"backend: there is no {backend!r}; choose one of {', '.join(BACKENDS)}")
    if backend == "loky" and address is not None:
        raise UsageError(f"address: --address {address} needs --backend dask or ray, not loky")


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables that limit the threads of numerical libraries; the user's own values are kept."""
    return {name: os.environ.get(name, str(threads)) for name in _THREADS}


def _run(
    function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], workers: _Workers
) -> Generator[Ended, None, None]:
    new = ((number, task, 0) for number, task in enumerate(tasks))
    retries = deque[tuple[int, tuple[Any, ...], int]]()
    running: dict[Future[Any], tuple[int, tuple[Any, ...], int]] = {}
    given_up_in_a_row = 0
    while True:
        while len(running) < workers.size and (item := retries.popleft() if retries else next(new, None)):
            running[workers.submit(function, *item[1])] = item
        if not running:
            return
        done = wait(running, timeout=QUIET_SECONDS, return_when=FIRST_COMPLETED).done
        if not done and workers.none_left():
            log.warning("the cluster has no worker; the run waits until one is started")
        for future in done:
            number, task, deaths = running.pop(future)
            if not workers.release(future):
                given_up_in_a_row = 0
                yield Ended(number, future.result())
            elif deaths + 1 >= workers.max_deaths:
                given_up_in_a_row += 1
                if given_up_in_a_row == MAX_GIVEN_UP:
                    raise RunError(
                        f"the workers of {given_up_in_a_row} tasks in a row died; look for a failing device or too "
                        "little memory; finished work is kept, and the same command continues"
                    )
                yield Ended(number, None, given_up=True)
            else:
                retries.append((number, task, deaths + 1))


# local processes


class _Process:
    """A worker: an executor with one process, so that its death affects no other task.

    The process is a new interpreter, not a fork, because a fork can hang after torch has run.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._start()

    def _start(self) -> None:
        self._pool = ProcessPoolExecutor(
            max_workers=1,
            timeout=IDLE_SECONDS,
            env=self._environment,
            initializer=_watch_parent,
            initargs=(os.getpid(),),
        )
        self._last: Future[Any] | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        try:
            self._last = self._pool.submit(function, *arguments)
        except BrokenProcessPool:  # the process died while it had no task
            self.replace()
            self._last = self._pool.submit(function, *arguments)
        return self._last

    def replace(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        """Stop the process, even during a task."""
        # wait until the pool has passed its task to the process: otherwise its thread prints a traceback at shutdown
        deadline = time.monotonic() + HANDED_OVER_SECONDS
        while self._last and not (self._last.running() or self._last.done()) and time.monotonic() < deadline:
            time.sleep(0.001)
        # a process without a task ends by itself, and its own child processes with it
        self._pool.shutdown(wait=True, kill_workers=bool(self._last and not self._last.done()))


class _Processes(_Workers):
    """Local workers, each of which runs one task at a time."""

    def __init__(self, environments: Sequence[Mapping[str, str]]) -> None:
        self.size, self.max_deaths = len(environments), MAX_DEATHS
        self.free = [_Process(environment) for environment in environments][::-1]
        self.busy: dict[Future[Any], _Process] = {}

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        process = self.free.pop()
        try:
            future = process.submit(function, *arguments)
        except BaseException:
            self.free.append(process)
            raise
        self.busy[future] = process
        return future

    def release(self, future: Future[Any]) -> bool:
        process = self.busy.pop(future)
        if not isinstance(future.exception(), BrokenProcessPool):
            self.free.append(process)
            return False
        self.free.insert(0, process)  # used only if no other is free: its device may be broken
        process.replace()
        return True


@contextmanager
def _processes(environments: Sequence[Mapping[str, str]]) -> Iterator[_Workers]:
    # loky warns when it replaces a worker whose memory has grown
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
    workers = _Processes(environments)
    try:
        yield workers
    finally:
        for process in (*workers.free, *workers.busy.values()):
            process.close()


def _watch_parent(parent: int) -> None:
    """In a worker: exit when the process that started it has died, even during a task."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, name="ig3d-watch", daemon=True).start()


# clusters


class _Dask(_Workers):
    """Workers of a dask cluster; dask itself retries the task of a dead worker."""

    max_deaths = 1

    def __init__(self, client: Any, size: int, *, gpu: bool) -> None:
        self.size, self._client = size, client
        needs = {"resources": {"GPU": 1}} if gpu else {}
        self._executor = client.get_executor(pure=False, retries=0, **needs)
        self._killed = require("distributed.scheduler", wanted_by="backend dask").KilledWorker

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = self._executor.submit(_one_at_a_time, function, *arguments)
        return future

    def release(self, future: Future[Any]) -> bool:
        return isinstance(future.exception(), self._killed)

    def none_left(self) -> bool:
        return not self._client.scheduler_info()["workers"]

    def close(self) -> None:
        self._executor.shutdown(wait=False)


@contextmanager
def _dask(jobs: int, address: str | None, gpu: bool) -> Iterator[_Workers]:
    distributed = require("distributed", wanted_by="backend dask")
    config = require("dask", wanted_by="backend dask").config
    cluster = None
    # if the scheduler ends, the client prints a traceback, even when it is closed
    with _quiet("distributed.client"), config.set(DASK_CONFIG):
        try:
            if address is None:
                cluster = distributed.LocalCluster(
                    n_workers=jobs or (1 if gpu else cpu_count()),
                    threads_per_worker=1,
                    resources={"GPU": 1} if gpu else None,
                    dashboard_address="localhost:0",  # the default is a fixed port, which may be in use
                    silence_logs=logging.CRITICAL,  # exceptions of tasks are reported by ig3d
                )
            client = distributed.Client(address if cluster is None else cluster)
        except (OSError, ValueError, TypeError) as exc:  # a timeout is an OSError
            raise RunError(
                f"backend dask: no scheduler answers {_at(address)} ({exc}); check the address"
            ) from exc
        workers = None
        try:
            try:
                client.wait_for_workers(1, timeout=REACH_SECONDS)  # one that died may be starting again
            except TimeoutError as exc:
                raise RunError(
                    f"backend dask: the scheduler {_at(address)} has no workers; start some"
                ) from exc
            infos = client.scheduler_info(n_workers=-1)["workers"].values()
            with_gpu = [info for info in infos if info.get("resources", {}).get("GPU", 0) >= 1]
            if gpu and not with_gpu:
                raise RunError(
                    f"backend dask: no worker {_at(address)} has a GPU; start workers with --resources GPU=1"
                )
            workers = _Dask(client, jobs or len(with_gpu if gpu else infos), gpu=gpu)
            yield workers
        except CancelledError as exc:
            raise RunError(
                f"backend dask: the cluster {_at(address)} was shut down during the run; finished shards are kept: "
                "repeat the command to continue"
            ) from exc
        finally:
            if workers is not None:
                workers.close()
            client.close()
            if cluster is not None:
                cluster.close()


class _Ray(_Workers):
    """Workers of a ray cluster; ray itself retries the task of a dead worker."""

    max_deaths = 1

    def __init__(self, ray: Any, size: int, *, gpu: bool) -> None:
        self.size, self._ray = size, ray
        needs = {"num_cpus": 1, "num_gpus": int(gpu), "max_retries": MAX_DEATHS - 1}
        self._remote = ray.remote(**needs)(_one_at_a_time)
        self._running: dict[Future[Any], Any] = {}

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        task = self._remote.remote(function, *arguments)
        future: Future[Any] = task.future()
        self._running[future] = task
        return future

    def release(self, future: Future[Any]) -> bool:
        del self._running[future]
        errors = self._ray.exceptions
        deaths = (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError)
        return isinstance(future.exception(), deaths)

    def close(self) -> None:
        for task in self._running.values():
            self._ray.cancel(task, force=True)


@contextmanager
def _ray(jobs: int, address: str | None, gpu: bool) -> Iterator[_Workers]:
    ray = require("ray", wanted_by="backend ray")
    started = not ray.is_initialized()
    if started and address:
        _check_reachable(address)
    if started:
        # without "local", ray would join any cluster that runs on this machine
        local: dict[str, Any] = {
            "address": "local",
            "num_cpus": jobs or cpu_count(),
            "include_dashboard": False,
        }
        options = {"address": address} if address else local
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
        except (ConnectionError, ValueError, RuntimeError, OSError) as exc:
            raise RunError(
                f"backend ray: no cluster answers {_at(address)} ({exc}); check the address"
            ) from exc
    workers = None
    try:
        resources = ray.cluster_resources()
        if gpu and resources.get("GPU", 0) < 1:
            raise RunError(f"backend ray: the cluster {_at(address)} has no GPU; leave out --device cuda")
        workers = _Ray(ray, jobs or int(resources.get("GPU" if gpu else "CPU", 1)), gpu=gpu)
        yield workers
    except ray.exceptions.RayTaskError as exc:
        raise exc.cause from exc  # the exception of the task, without ray's long traceback
    except ray.exceptions.RayError as exc:
        raise RunError(
            f"backend ray: the cluster {_at(address)} failed during the run ({type(exc).__name__}); finished shards "
            "are kept: repeat the command to continue"
        ) from exc
    finally:
        if workers is not None:
            workers.close()
        if started:
            ray.shutdown()


def _at(address: str | None) -> str:
    return f"at {address}" if address else "on this machine"


def _check_reachable(address: str) -> None:
    """Refuse an address at which no process listens: ray would try to connect forever."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return  # no host and port, such as "auto"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as exc:
        raise RunError(f"backend ray: no cluster answers {_at(address)} ({exc}); check the address") from exc


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """In this context, only critical messages of a logger are shown."""
    quiet = logging.getLogger(logger)
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        quiet.setLevel(level)


_LOCK = threading.Lock()


def _one_at_a_time(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a task under a lock: a cluster's workers may have several threads, and plug-ins are not thread-safe."""
    with _LOCK:
        return function(*arguments)
