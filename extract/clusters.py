"""Workers on a cluster: ``--backend dask`` and ``--backend ray``, an address or a cluster of this machine's cores.

They read the images from, and write their shards to, folders that all of them see under the same path.
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

# backend -> what gives its lanes, in a context that ends with them
Backend = Callable[[int, str | None], AbstractContextManager[Sequence[Lane]]]
# A cluster answers, or nothing listens at its address.
REACH_SECONDS = 10


def lanes_of(backend: str, jobs: int, address: str | None) -> AbstractContextManager[Sequence[Lane]]:
    """Places for workers, opened by ``with``.

    Parameters
    ----------
    backend : ``loky``, ``dask`` or ``ray``
    jobs : how many; 0 takes what the cluster has
    address : of a running cluster; None starts one on this machine

    Raises
    ------
    UsageError : there is no such backend, or an address for ``loky``.
    MissingExtra : dask or ray is not installed.
    RunError : no cluster answers at the address.
    """
    if backend not in _BACKENDS:
        raise UsageError(f"backend: expected one of {', '.join(_BACKENDS)}, got {backend!r}")
    if backend == "loky" and address is not None:
        raise UsageError(f"address: expected --backend dask or ray with --address, got {address} for loky")
    return _BACKENDS[backend](jobs, address)


@contextmanager
def _loky(jobs: int, address: str | None) -> Iterator[Sequence[Lane]]:
    yield [Process() for _ in range(jobs or cpu_count())]


@contextmanager
def _dask(jobs: int, address: str | None) -> Iterator[Sequence[Lane]]:
    distributed = require("distributed", wanted_by="backend dask")
    cluster = None
    # the client tells a scheduler's end by a traceback, as late as when it is closed
    with _quiet("distributed.client"):
        try:
            if address is None:
                cluster = distributed.LocalCluster(
                    n_workers=jobs or cpu_count(),
                    threads_per_worker=1,
                    dashboard_address="localhost:0",  # else its own port, which another may have
                    silence_logs=logging.CRITICAL,  # what a task raises is told here
                )
            client = distributed.Client(address if cluster is None else cluster)
        except (OSError, ValueError, TypeError) as exc:  # a timeout is an OSError
            raise RunError(f"backend dask: expected a scheduler {_at(address)}, got none ({exc})") from exc
        try:
            workers = len(client.scheduler_info(n_workers=-1)["workers"])
            if not workers:
                raise RunError(f"backend dask: expected workers {_at(address)}, got a scheduler without any")
            yield [_OnDask(client) for _ in range(jobs or workers)]
        except CancelledError as exc:
            raise RunError(
                f"backend dask: expected the cluster {_at(address)} until the end, got none any more; what is "
                "finished is kept: repeat the command to go on"
            ) from exc
        finally:
            client.close()
            if cluster is not None:
                cluster.close()


class _OnDask:
    """One task at a time on a dask cluster; dask tries again by itself when a worker dies, and says so at the end."""

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
        """The cluster sees to it."""

    def close(self) -> None:
        self._pool.shutdown(wait=False)


@contextmanager
def _ray(jobs: int, address: str | None) -> Iterator[Sequence[Lane]]:
    ray = require("ray", wanted_by="backend ray")
    mine = not ray.is_initialized()
    if mine and address:
        _reach(address)
    if mine:
        # "local", as without an address ray joins whatever cluster it finds on this machine
        here = {"address": "local", "num_cpus": jobs or cpu_count(), "include_dashboard": False}
        where = {"address": address} if address else here
        try:
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
        except (ConnectionError, ValueError, RuntimeError, OSError) as exc:
            raise RunError(f"backend ray: expected a cluster {_at(address)}, got none ({exc})") from exc
    try:
        yield [_OnRay(ray) for _ in range(jobs or int(ray.cluster_resources().get("CPU", 1)))]
    except ray.exceptions.RayTaskError as exc:
        raise exc.cause from exc  # what the task raised, and not the page that ray makes of it
    finally:
        if mine:
            ray.shutdown()


def _at(address: str | None) -> str:
    return f"at {address}" if address else "on this machine"


def _reach(address: str) -> None:
    """Refuse an address where nothing listens: ray would try for ever."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return  # such as auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as exc:
        raise RunError(f"backend ray: expected a cluster {_at(address)}, got none ({exc})") from exc


class _OnRay:
    """One task at a time on a ray cluster, wherever ray puts it."""

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
        """The cluster sees to it."""

    def close(self) -> None:
        if self._task is not None:
            self._ray.cancel(self._task, force=True)


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Only the gravest of a logger's lines."""
    one = logging.getLogger(logger)
    before = one.level
    one.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        one.setLevel(before)


_BACKENDS: Mapping[str, Backend] = {"loky": _loky, "dask": _dask, "ray": _ray}
_ONE = threading.Lock()


def one_at_a_time(call: Callable[..., Any], *arguments: Any) -> Any:
    """The call, when no other runs in this process: a cluster's worker may have several threads, a plug-in has one."""
    with _ONE:
        return call(*arguments)
