"""A worker's pipeline: the stages of :mod:`ig3d.extract.flow` on one shard, beside each other, and into its store.

Where the networks run on a GPU, threads read and decode ahead of them and cut crops (Pillow, OpenCV and numba's crop
let go of the interpreter); detection, the regressor and the writing have a thread each. On the processor a worker has
one core, which the networks fill: there the stages follow each other, without a thread. Order, batches and bytes are
the same either way.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from joblib import cpu_count
from threadpoolctl import threadpool_limits

from ..features.samples import files_of
from ..features.store.format import StoreInfo
from ..features.store.writer import StoreWriter
from ..features.values import Rows
from .boxes import FaceBoxes
from .config import BATCH_SIZE, ExtractConfig, build
from .flow import Batch, Ended, by_status, cuts, encode, find, gather, open_image
from .read import Image, bounded_images
from .sources.remote import is_remote

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
R = TypeVar("R")

# Decoded images that wait, in a batch or ahead of it: so large photographs do not fill the memory.
MOST_BYTES = 1 << 28
# Readers of a worker on the processor that wait for remote storage, and not for a core.
REMOTE_READERS = 8


def run_shard(
    path: Path,
    samples: pd.DataFrame,
    boxes: FaceBoxes,
    root: str,
    config: ExtractConfig,
    info: StoreInfo,
    workers: int = 1,
    threads: int | None = None,
) -> Counter[str]:
    """Run the flow over one shard and put it under its final name; returns its rows by status.

    Parameters
    ----------
    path : final name of the shard
    samples : rows of the sample table
    boxes : FaceBoxes
        Of the samples.
    root : folder of the dataset, or its address
    config : ExtractConfig, settled
    info : StoreInfo
    workers : int
        How many share this machine's cores.
    threads : int, optional
        Threads that read and cut; by default what fits the device, the cores and the storage.
    """
    regress, detect = build(config)  # first, so that the libraries whose threads are limited are there
    if threads is None:
        threads = threads_beside(regress, detect, root=root, workers=workers)
    blocks, needs, size = dict(regress.blocks), regress.needs, config.batch_size or BATCH_SIZE["cpu"]
    whole = detect.crop == "full image"
    counts: Counter[str] = Counter()
    with (
        threadpool_limits(1),
        _one_thread_each(),
        _exact(),
        bounded_images(),
        StoreWriter(path, info, samples, blocks) as writer,
        Crew(threads) as crew,  # gone before the writer closes, however this ends
    ):

        def found(batch: Batch) -> tuple[Batch, Iterator[Exception | None]]:
            find(batch, detect, needs)
            return batch, crew.each(lambda cut: cut(), cuts(batch, needs, whole=whole))

        def encoded(found: tuple[Batch, Iterator[Exception | None]]) -> tuple[int, Rows]:
            batch, ended = found
            return batch.start, encode(batch, ended, regress)

        def written(finished: tuple[int, Rows]) -> dict[str, int]:
            writer.write(*finished)
            return by_status(finished[1].status)

        opened = crew.ahead(
            partial(open_image, root=root), files_of(samples), most=size + 2 * threads, weight=_weight
        )
        spans = in_batches(opened, size)
        batches = (gather(start, some, boxes[start : start + len(some)], blocks) for start, some in spans)
        for of_batch in crew.behind(written, crew.behind(encoded, map(found, batches))):
            counts += Counter(of_batch)
    return counts


def threads_beside(*plugins: Any, root: str, workers: int) -> int:
    """Threads beside the one that runs the networks.

    Its share of the cores where they run on a GPU; none on the processor, whose cores have a worker each, but for
    storage that is waited for.
    """
    if any(getattr(plugin, "device", "cpu") != "cpu" for plugin in plugins):
        return max(1, cpu_count() // max(1, workers))
    return REMOTE_READERS if is_remote(root) else 0


class Crew:
    """Threads beside the caller's own; with none of them, everything is done in place and in the same order.

    Used as a context manager: at its end, calls that have not begun are dropped, and those under way are waited for.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "ig3d-read") if threads else None
        self._stages: list[ThreadPoolExecutor] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # the readers first: a stage that waits for one of their calls is told that it will not come
        for pool in filter(None, (self._pool, *self._stages)):
            pool.shutdown(wait=True, cancel_futures=True)

    def each(self, call: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """``call`` of every item, in order; the calls are under way when this returns."""
        return map(call, items) if self._pool is None else self._pool.map(call, items)

    def ahead(
        self, call: Callable[[T], R], items: Iterable[T], *, most: int, weight: Callable[[R], int]
    ) -> Iterator[R]:
        """``call`` of every item, in order, up to ``most`` of them before they are asked for.

        Fewer where what waits weighs more than :data:`MOST_BYTES`.
        """
        if self._pool is None:
            yield from map(call, items)
            return
        rest, waiting = iter(items), deque[Future[tuple[R, int]]]()
        load = _Load(guess=MOST_BYTES // (2 * self._threads))

        def weighed(item: T) -> tuple[R, int]:
            result = call(item)
            load.ended(held := weight(result))
            return result, held

        while True:
            while not waiting or (len(waiting) < most and load.expected < MOST_BYTES):
                try:
                    item = next(rest)
                except StopIteration:
                    break
                load.begun()
                waiting.append(self._pool.submit(weighed, item))
            if not waiting:
                return
            yield load.taken(waiting.popleft().result())

    def behind(self, call: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """``call`` of every item, in order, in a thread of its own while the next item is made."""
        if self._pool is None:
            yield from map(call, items)
            return
        stage = ThreadPoolExecutor(1, "ig3d-stage")
        self._stages.append(stage)
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(stage.submit(call, item))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()


class _Load:
    """What results weigh that nobody has taken yet; those that are to come, as much as the last large ones did.

    A call that raises does not end here: the run ends with it.
    """

    def __init__(self, *, guess: float) -> None:
        self._lock = Lock()
        self._held, self._to_come, self._typical = 0, 0, guess

    @property
    def expected(self) -> float:
        with self._lock:
            return self._held + self._to_come * self._typical

    def begun(self) -> None:
        with self._lock:
            self._to_come += 1

    def ended(self, weight: int) -> None:
        """By the thread that made the result, before anybody can take it."""
        with self._lock:
            self._to_come -= 1
            self._held += weight
            self._typical = max(weight, 0.9 * self._typical)

    def taken(self, weighed: tuple[R, int]) -> R:
        """What was made, of it and what it weighs."""
        with self._lock:
            self._held -= weighed[1]
        return weighed[0]


def in_batches(
    opened: Iterable[Image | Ended], size: int, most_bytes: int = MOST_BYTES
) -> Iterator[tuple[int, list[Image | Ended]]]:
    """Consecutive images, ``size`` together, or fewer where they are large; each with the row of the first.

    Where it is cut follows from the images alone, so that a run repeated cuts at the same places.
    """
    start, some, held = 0, list[Image | Ended](), 0
    for one in opened:
        weight = _weight(one)
        if some and (len(some) == size or held + weight > most_bytes):
            yield start, some
            start, some, held = start + len(some), [], 0
        some.append(one)
        held += weight
    if some:
        yield start, some


def _weight(one: Image | Ended) -> int:
    return one.pixels.nbytes if isinstance(one, Image) else 0


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """One thread for torch and OpenCV, where they are used: they set their own, past what threadpoolctl limits."""
    torch, cv2 = sys.modules.get("torch"), sys.modules.get("cv2")
    before = torch and torch.get_num_threads(), cv2 and cv2.getNumThreads()
    if torch:
        torch.set_num_threads(1)
    if cv2:
        cv2.setNumThreads(1)
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(before[0])
        if cv2:
            cv2.setNumThreads(before[1])


@contextmanager
def _exact() -> Iterator[None]:
    """Exact arithmetic around all stages: each sets it for itself, and would end it under another's calculation."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    from .engine import exact_arithmetic

    with exact_arithmetic(torch.device("cuda")):
        yield
