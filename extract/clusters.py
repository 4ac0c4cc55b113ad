"""Workers on dask and ray clusters (``--backend dask``, ``--backend ray``), by address or started on this machine.

Images and shards must be in folders that every worker can access under the same path.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from joblib import cpu_count

from ..errors import RunError, UsageError, require
from ..workers import MOST_DEATHS, Lane, Process

# Function of a backend: context manager that yields its worker slots and stops them at the end
Backend = Callable[[int, str | None], AbstractContextManager[Sequence[Lane]]]
# Longest wait for a connection to a cluster.
REACH_SECONDS = 10


def lanes_of(backend: str, jobs: int, address: str | None) -> AbstractContextManager[Sequence[Lane]]:
    """Context manager that yields the worker slots of a backend.

    Parameters
    ----------
    backend : ``loky``, ``dask`` or ``ray``
    jobs : number of workers; 0 takes all of the cluster, or one for each core
    address : address of a running cluster; None starts one on this machine

    Raises
    ------
    UsageError : the backend does not exist, or is ``loky`` and an address is given.
    MissingExtra : dask or ray is not installed.
    RunError : no cluster answers at the address.
    """
    if backend not in _BACKENDS:
        raise UsageError(f"backend: there is no {backend!r}; choose one of {', '.join(_BACKENDS)}")
    if backend == "loky" and address is not None:
        raise UsageError(f"address: --address {address} needs --backend dask or ray, not loky")
    return _BACKENDS[backend](jobs, address)


@contextmanager
def _loky(jobs: int, address: str | None) -> Iterator[Sequence[Lane]]:
    yield [Process() for _ in range(jobs or cpu_count())]


@contextmanager
def _dask(jobs: int, address: str | None) -> Iterator[Sequence[Lane]]:
    distributed = require("distributed", wanted_by="backend dask")
    cluster = None
    # if the scheduler ends, the client prints a traceback, even when it is closed
    with _quiet("distributed.client"):
        try:
            if address is None:
                cluster = distributed.LocalCluster(
                    n_workers=jobs or cpu_count(),
                    threads_per_worker=1,
                    dashboard_address="localhost:0",  # the default is a fixed port, which may be in use
                    silence_logs=logging.CRITICAL,  # exceptions of tasks are reported by ig3d
                )
            client = distributed.Client(address if cluster is None else cluster)
        except (OSError, ValueError, TypeError) as exc:  # a timeout is an OSError
            raise RunError(
                f"backend dask: no scheduler answers {_at(address)} ({exc}); check the address"
            ) from exc
        try:
            workers = len(client.scheduler_info(n_workers=-1)["workers"])
            if not workers:
                raise RunError(f"backend dask: the scheduler {_at(address)} has no workers; start some")
            yield [_OnDask(client) for _ in range(jobs or workers)]
        except CancelledError as exc:
            raise RunError(
                f"backend dask: the cluster {_at(address)} was shut down during the run; finished shards are kept: "
                "repeat the command to continue"
            ) from exc
        finally:
            client.close()
            if cluster is not None:
                cluster.close()


class _OnDask:
    """Worker slot on a dask cluster; dask retries a task whose worker died, and raises after the last attempt."""

    deaths_told = MOST_DEATHS

    def __init__(self, client: Any) -> None:
        self._pool = client.get_executor(pure=False, retries=0)
        self._killed = require("distributed.scheduler", wanted_by="backend dask").KilledWorker

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = self._pool.submit(one_at_a_time, call, *arguments)
        return future

    def lost(self, error: BaseException) -> bool:
        return isinstance(error, self._killed)

    def renew(self) -> None:
        """Do nothing: the cluster starts new workers."""

    def close(self) -> None:
        self._pool.shutdown(wait=False)


@contextmanager
def _ray(jobs: int, address: str | None) -> Iterator[Sequence[Lane]]:
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
    try:
        yield [_OnRay(ray) for _ in range(jobs or int(ray.cluster_resources().get("CPU", 1)))]
    except ray.exceptions.RayTaskError as exc:
        raise exc.cause from exc  # the exception of the task, without ray's long traceback
    finally:
        if started:
            ray.shutdown()


def _at(address: str | None) -> str:
    return f"at {address}" if address else "on this machine"


def _check_reachable(address: str) -> None:
    """Refuse an address on which nothing listens: ray would try to connect for ever."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return  # no host and port, such as "auto"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as exc:
        raise RunError(f"backend ray: no cluster answers {_at(address)} ({exc}); check the address") from exc


class _OnRay:
    """Worker slot on a ray cluster; ray chooses the machine."""

    deaths_told = 1

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._task: Any = None

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        self._task = self._ray.remote(max_retries=0)(one_at_a_time).remote(call, *arguments)
        future: Future[Any] = self._task.future()
        return future

    def lost(self, error: BaseException) -> bool:
        errors = self._ray.exceptions
        return isinstance(error, (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError))

    def renew(self) -> None:
        """Do nothing: the cluster starts new workers."""

    def close(self) -> None:
        if self._task is not None:
            self._ray.cancel(self._task, force=True)


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Show only critical messages of a logger."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


_BACKENDS: Mapping[str, Backend] = {"loky": _loky, "dask": _dask, "ray": _ray}
_LOCK = threading.Lock()


def one_at_a_time(call: Callable[..., Any], *arguments: Any) -> Any:
    """Run a call under a lock: a cluster's workers may have several threads, and plug-ins are not thread-safe."""
    with _LOCK:
        return call(*arguments)
