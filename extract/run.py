"""Extraction: images of a dataset to a store of codes.

:func:`extract_codes` chooses regressor, detector and device, divides the sorted samples into shards
(:mod:`ig3d.extract.shards`), runs :func:`ig3d.extract.stages.extract_shards` on them, in worker processes
(:mod:`ig3d.workers`) or in this one, and joins the small stores of the shards.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from joblib import cpu_count

from ..errors import UsageError, plural
from ..features.samples import Listing
from ..features.store import CodeStore
from ..features.store.format import StoreInfo
from ..features.values import CropSpec, by_status
from ..workers import MAX_DEATHS, check_backend, run_tasks, thread_variables
from . import shards
from .batches import Shard
from .boxes import BoxSource, box_source
from .config import ExtractConfig, blocks_of, describe, detector_of, resolve_config
from .detectors import Detector, find_detector
from .identity import identity_of
from .join import write_joined
from .regressors import Regressor, find_regressor
from .sources import FRAMES_PER_TASK, is_frame
from .sources.remote import is_remote
from .stages import extract_in_worker, extract_shards

# Shards of a task on a GPU. Tasks are long, because the GPU waits for images when a task begins.
GPU_SHARDS_PER_TASK = 16
# From this number of rows on, joining the shards takes seconds, and a line announces it.
_SLOW_JOIN = 20_000
# Reading processes of each cluster worker with a GPU.
CLUSTER_READERS = 8


@dataclass(frozen=True, slots=True)
class Summary:
    """Result of :func:`extract_codes`.

    Attributes
    ----------
    store : Path
    counts : dict of status name to number of rows
    seconds : float
        Duration of the call; 0 if the store was complete before.
    resumed : int
        Rows that were finished before the call.
    """

    store: Path
    counts: dict[str, int]
    seconds: float
    resumed: int


# Called after each task (one or several shards) with its rows by status; first with those of an interrupted run.
Progress = Callable[[Counter[str]], None]


def extract_codes(
    listing: Listing,
    out: str | Path,
    config: ExtractConfig | None = None,
    *,
    jobs: int = 0,
    backend: str = "loky",
    address: str | None = None,
    part: tuple[int, int] | None = None,
    restart: bool = False,
    retry_failed: bool = False,
    progress: Progress | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Extract the codes of a dataset into a store; repeating an interrupted call continues it.

    Parameters
    ----------
    listing : Listing
    out : path of the store
    config : ExtractConfig, optional
    jobs : int
        On this machine without a GPU: number of workers, 0 is one per core. With GPUs: total number of reading
        processes, divided among the GPUs, 0 is one per core. On a cluster: number of workers, 0 is all of them.
    backend : {"loky", "dask", "ray"}
        ``loky`` starts processes on this machine; the others use a cluster.
    address : str, optional
        Address of a running dask or ray cluster; by default, one is started on this machine.
    part : (k, n), optional
        Extract only part k (from 1) of n; :func:`ig3d.extract.join.join_parts` joins the stores of the parts.
    restart : bool
        Discard the shards of an earlier run. A finished store is replaced once the new one is complete.
    retry_failed : bool
        Repeat the shards with failed rows, whether the run is finished or interrupted, and keep the others. If a call
        with ``restart`` or ``retry_failed`` is interrupted, repeating it continues the run without discarding shards.
    progress : function of a Counter (status name -> rows), optional
        Called after each task, and first with the rows of an interrupted run.
    notify : function of a line of text, optional
        Called with the choice of detector and blocks, and with warnings.

    Raises
    ------
    RunError : another run is writing this store; the store or its shards are of a run with other options; ``out`` is
        another file; a cluster cannot be used; or five tasks in a row were given up, because their workers died.
    UsageError : an option is invalid, or the regressor or detector is unknown.
    MissingExtra, WeightsError : a package or a weights file is missing.
    StoreError : the disk is full, or a shard is damaged.
    """
    config = config or ExtractConfig()
    if jobs < 0:
        raise UsageError(f"jobs: {jobs} is out of range; choose 0 (one per core) or more")
    if restart and retry_failed:
        raise UsageError("extract: --restart and --retry-failed exclude each other; leave one of them out")
    started = time.monotonic()

    # Configuration: regressor, detector, devices, stored face boxes. No network is built.
    regressor = find_regressor(config.regressor)
    # if the detector takes the full image as the face, boxes of the dataset are not used
    full_image = config.detector is not None and find_detector(config.detector).crop == "full image"
    boxes = box_source(listing, "none" if full_image else config.boxes, regressor.needs)
    config, notes = resolve_config(config, all_boxes_known=boxes.complete)
    detector, blocks = detector_of(config), blocks_of(config)
    regressor_record, detector_record = describe(config)
    if boxes.detector and not detector.detects:
        # boxes of an earlier store: record the detector that found them
        detector_record = boxes.detector
    chosen = f"detector {detector.name}, regressor {regressor.name}: blocks {', '.join(blocks)}"
    for note in (*notes, chosen):
        notify(note)
    workers = _workers(jobs, backend, address, config.devices)
    identity = identity_of(listing, config, regressor_record, detector_record, boxes.identity)
    if part is not None:
        rows = rows_of_part(part, len(listing))
        listing, boxes = replace(listing, samples=listing.samples[rows]), boxes.part(rows)
        identity["part"] = "{}/{}".format(*part)
    info = _info(listing, regressor, detector, identity)

    run = shards.Run(Path(out), listing, identity, blocks)
    with run.locked():
        if run.nothing_to_do(restart=restart, retry_failed=retry_failed):
            with CodeStore(out) as store:
                counts = by_status(store.status)
            return Summary(Path(out), counts, 0.0, len(listing))
        # Shards: those that an interrupted run has finished are kept.
        todo = run.begin(restart=restart, retry_failed=retry_failed)
        resumed = sum(run.counts.values())
        if progress:
            progress(run.counts)
        counts = Counter(run.counts)
        if len(todo) == 1 and not workers.readers:
            workers = _Workers(None)  # no process needs to be started
        for numbers, rows_by_status in _extract(run, todo, boxes, info, config, workers):
            if rows_by_status is None:  # given up; such a task has a single shard
                why = f"the worker of this shard died {MAX_DEATHS} times (out of memory?)"
                rows_by_status = run.write_failed(numbers[0], info, why)
                lost = sum(rows_by_status.values())
                notify(f"WARNING shard {numbers[0]}: {plural(lost, 'row')} marked as failed: {why}")
            counts += rows_by_status
            if progress:
                progress(rows_by_status)
        # Join: one store of all rows, in the order of the samples.
        paths = [run.shard_path(number) for number in range(run.n_shards)]
        if len(listing) >= _SLOW_JOIN:
            notify(f"joining {plural(run.n_shards, 'shard')} to {out}")
        write_joined(run.out, info, listing.samples, blocks, paths)
        run.end()
    return Summary(Path(out), dict(counts), time.monotonic() - started, resumed)


@dataclass(frozen=True, slots=True)
class _Workers:
    """Worker processes of a run.

    Attributes
    ----------
    options : dict or None
        Arguments of :func:`~ig3d.workers.run_tasks`; None if this process does the work itself.
    number : int
        Number of workers; 0 if it is not known, on a cluster.
    readers : int
        Reading processes of each worker with a GPU; 0 on the CPU.
    """

    options: dict[str, Any] | None
    number: int = 1
    readers: int = 0


def _workers(jobs: int, backend: str, address: str | None, devices: tuple[str, ...]) -> _Workers:
    """One worker per core, one per GPU, or those of a cluster."""
    check_backend(backend, address)
    on_gpu = devices[0] != "cpu"
    if backend != "loky":
        options = {"backend": backend, "jobs": jobs, "address": address, "gpu": on_gpu}
        return _Workers(options, jobs, CLUSTER_READERS if on_gpu else 0)
    jobs = jobs or cpu_count()
    threads = thread_variables(1)
    if on_gpu:
        # a worker even for a single GPU: an error of the GPU ends its process, and this one must survive
        options = {"environments": [threads | environment_of(device) for device in devices]}
        return _Workers(options, len(devices), max(1, jobs // len(devices)))
    return _Workers({"environments": [threads] * jobs}, jobs) if jobs > 1 else _Workers(None)


def _shards_per_task(todo: int, run: shards.Run, workers: _Workers) -> int:
    """Consecutive shards that a worker gets at a time.

    Decoding can only begin at a key frame of the video: a task decodes the frames from there to its first frame again,
    although they belong to the task before. Long tasks keep such frames few. Each worker gets the same number of tasks.
    """
    if workers.readers:
        return GPU_SHARDS_PER_TASK
    paths = run.listing.samples["path"]
    if not workers.number or not is_frame(paths.iat[0]):
        return 1
    rows = todo * shards.shard_size(len(paths))
    tasks = workers.number * ceil(rows / (workers.number * FRAMES_PER_TASK))
    return ceil(todo / tasks)


def environment_of(device: str) -> dict[str, str]:
    """Environment variables for a worker that uses one GPU, such as ``cuda:1``; none for a device without a number."""
    _, _, index = device.partition(":")
    if not index:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[int(index)] if visible else index}


def rows_of_part(part: tuple[int, int], samples: int) -> slice:
    """Rows of part k (from 1) of n of a dataset.

    Raises
    ------
    UsageError : the part does not exist.
    """
    k, n = part
    if not 1 <= k <= n <= samples:
        raise UsageError(
            f"part: {k}/{n} does not exist; choose K/N with 1 <= K <= N <= {samples} (the samples)"
        )
    return slice((k - 1) * samples // n, k * samples // n)


def _info(
    listing: Listing, regressor: type[Regressor], detector: type[Detector], identity: dict[str, Any]
) -> StoreInfo:
    crop: dict[str, Any] = {}
    if isinstance(regressor.needs, CropSpec):
        crop = {**asdict(regressor.needs), "whole_image": detector.crop == "full image"}
    return StoreInfo(
        dataset=listing.dataset,
        root=listing.root if is_remote(listing.root) else str(Path(listing.root).resolve()),
        classes=listing.classes,
        regressor={
            **identity["regressor"],
            "licence": regressor.licence,
            "sets": {name: list(of) for name, of in regressor.sets.items()},
        },
        detector=identity["detector"],
        crop=crop,
        config=identity,
    )


def _extract(
    run: shards.Run,
    todo: Sequence[int],
    boxes: BoxSource,
    info: StoreInfo,
    config: ExtractConfig,
    workers: _Workers,
) -> Iterator[tuple[Sequence[int], Counter[str] | None]]:
    """Extract shards; yields the numbers of the shards of a task and their rows by status, or None for a task given up.

    A task is given up if its worker dies three times. If it has several shards, each becomes a separate task, because
    one of them may be the cause; so a task that is yielded with None has one shard.
    """
    # in a worker with a GPU, no other GPU is visible, so its own is number 0
    config = replace(config, device="cpu" if config.devices[0] == "cpu" else "cuda:0")
    options: dict[str, Any] = {"root": info.root, "config": config, "info": info, "readers": workers.readers}

    def shards_of(numbers: Sequence[int]) -> list[Shard]:
        return [
            Shard(
                run.shard_path(number).absolute(), run.shard_samples(number), boxes.read(run.rows_of(number))
            )
            for number in numbers
        ]

    if workers.options is None:
        for number in todo:
            yield [number], extract_shards(shards_of([number]), **options)
        return
    size = _shards_per_task(len(todo), run, workers)
    groups = [todo[start : start + size] for start in range(0, len(todo), size)]
    while groups:
        tasks = ((shards_of(group),) for group in groups)
        single: list[Sequence[int]] = []
        with closing(run_tasks(partial(extract_in_worker, **options), tasks, **workers.options)) as results:
            for ended in results:
                group = groups[ended.task]
                if ended.given_up and len(group) > 1:
                    single += [[number] for number in group]
                else:
                    yield group, None if ended.given_up else ended.result
        groups = single
