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
from pathlib import Path
from typing import Any

from joblib import cpu_count

from ..errors import UsageError
from ..features.samples import Listing
from ..features.store import CodeStore
from ..features.store.format import StoreInfo
from ..features.values import CropSpec, by_status
from ..workers import MOST_DEATHS, check_backend, limit_threads, run_tasks
from . import shards
from .batches import Shard
from .boxes import BoxSource, box_source
from .config import ExtractConfig, blocks_of, describe, detector_of, settle
from .detectors import Detector, find_detector
from .identity import identity_of
from .parts import write_joined
from .regressors import Regressor, find_regressor
from .sources.remote import is_remote
from .stages import extract_in_worker, extract_shards

# Shards that a worker with a GPU gets at a time, so that it rarely waits for the first images of the next ones.
SHARDS_ON_GPU = 16
# Processes that read images for a worker of a cluster with a GPU.
READERS_IN_CLUSTER = 8


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended.

    Attributes
    ----------
    store : Path
    counts : status name -> rows
    seconds : float
        Duration of this call; 0 if the store was complete before it.
    resumed : int
        Rows that were finished before this call.
    """

    store: Path
    counts: dict[str, int]
    seconds: float
    resumed: int


# Called after each task (a shard, or with a GPU up to 16) with its rows by status; first with those of an earlier run.
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
    say: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Extract the codes of a dataset into a store; the same call goes on where an interrupted one stopped.

    Parameters
    ----------
    listing : Listing
    out : path of the store
    config : ExtractConfig, optional
    jobs : int
        On this machine: workers, or with GPUs the processes that read images for them; 0 is one per core. On a cluster:
        workers; 0 is as many as it has.
    backend : str
        Place of the workers: ``loky`` (processes of this machine), ``dask`` or ``ray``.
    address : str, optional
        Address of a running dask or ray cluster; by default, one is started on this machine.
    part : (k, n), optional
        Only the k-th of n parts of the dataset, from 1; :func:`ig3d.extract.parts.join_parts` joins their stores.
    restart : bool
        Discard the shards of an earlier run; a finished store is replaced once the new one is complete.
    retry_failed : bool
        Repeat the shards with failed rows, whether the run is finished or interrupted; the others are kept. A call that
        is interrupted and repeated with ``restart`` or ``retry_failed`` continues, and discards nothing again.
    progress : function of a Counter of status names, optional
    say : function of a line of text, optional
        Receives the choice of detector and blocks, and warnings.

    Raises
    ------
    RunError : another run is writing this store, or an earlier one had another identity.
    MissingExtra, WeightsError, UsageError : a regressor or detector is unknown, or its packages or weights are missing.
    StoreError : the disk is full, or the file at ``out`` is not a valid store.
    """
    config = config or ExtractConfig()
    if jobs < 0:
        raise UsageError(f"jobs: expected 0 (one per core) or more, got {jobs}")
    if restart and retry_failed:
        raise UsageError("extract: expected --restart or --retry-failed, got both; leave one of them out")
    started = time.monotonic()

    # Configuration: regressor, detector, devices, stored face boxes. Nothing is built.
    regressor = find_regressor(config.regressor)
    full_image = config.detector is not None and find_detector(config.detector).crop == "full image"
    boxes = box_source(listing, "none" if full_image else config.boxes, regressor.needs)
    config, notes = settle(config, all_known=boxes.complete)
    detector, blocks = detector_of(config), blocks_of(config)
    described, found_by = describe(config)
    if boxes.detector and not detector.detects:
        found_by = boxes.detector
    for note in (
        *notes,
        f"detector {detector.name}, regressor {regressor.name}: blocks {', '.join(blocks)}",
    ):
        say(note)
    workers = _workers(jobs, backend, address, config.devices)
    identity = identity_of(listing, config, described, found_by, boxes.identity)
    if part is not None:
        rows = rows_of_part(part, len(listing))
        listing, boxes = replace(listing, samples=listing.samples[rows]), boxes.part(rows)
        identity["part"] = "{}/{}".format(*part)
    info = _info(listing, regressor, detector, identity)

    run = shards.Run(Path(out), listing, identity, blocks)
    with run.locked():
        if run.finished(restart=restart, retry_failed=retry_failed):
            with CodeStore(out) as store:
                counts = by_status(store.status)
            return Summary(Path(out), counts, 0.0, len(listing))
        # Shards: those that an interrupted run finished are kept.
        todo = run.begin(restart=restart, retry_failed=retry_failed)
        resumed = sum(run.counts.values())
        if progress:
            progress(run.counts)
        counts = Counter(run.counts)
        if len(todo) == 1 and not workers.readers:
            workers = _Workers(None)  # no process needs to be started
        for numbers, rows_by_status in _extract(run, todo, boxes, info, config, workers):
            if rows_by_status is None:  # given up
                why = f"its shard's worker died {MOST_DEATHS} times (out of memory?)"
                rows_by_status = run.give_up(numbers[0], info, blocks, why)
                lost = sum(rows_by_status.values())
                say(f"WARNING shard {numbers[0]}: its {lost} rows are marked as failed: {why}")
            counts += rows_by_status
            if progress:
                progress(rows_by_status)
        # Join: one store of all rows, in the order of the samples.
        paths = [run.shard_path(shard) for shard in range(run.shards)]
        write_joined(run.out, info, listing.samples, blocks, paths)
        run.forget()
    return Summary(Path(out), dict(counts), time.monotonic() - started, resumed)


@dataclass(frozen=True, slots=True)
class _Workers:
    """Where the shards are extracted.

    Attributes
    ----------
    options : dict or None
        Arguments of :func:`~ig3d.workers.run_tasks`; None if this process does the work itself.
    readers : int
        Processes that read for each worker with a GPU; 0 on the CPU.
    at_once : int
        Shards of a task.
    """

    options: dict[str, Any] | None
    readers: int = 0
    at_once: int = 1


def _workers(jobs: int, backend: str, address: str | None, devices: tuple[str, ...]) -> _Workers:
    """One worker per core, one per GPU, or those of a cluster."""
    check_backend(backend, address)
    on_gpu = devices[0] != "cpu"
    if backend != "loky":
        options = {"backend": backend, "jobs": jobs, "address": address, "gpu": on_gpu}
        return _Workers(options, READERS_IN_CLUSTER, SHARDS_ON_GPU) if on_gpu else _Workers(options)
    jobs = jobs or cpu_count()
    threads = limit_threads(1)
    if on_gpu:
        # workers, even for one GPU: its failure ends the process
        options = {"environments": [threads | environment_of(device) for device in devices]}
        return _Workers(options, max(1, jobs // len(devices)), SHARDS_ON_GPU)
    return _Workers({"environments": [threads] * jobs} if jobs > 1 else None)


def environment_of(device: str) -> dict[str, str]:
    """Environment of a worker that sees only one GPU, such as ``cuda:1``; empty for a device without a number."""
    _, _, index = device.partition(":")
    if not index:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[int(index)] if visible else index}


def rows_of_part(part: tuple[int, int], samples: int) -> slice:
    """The rows of the k-th of n parts of a dataset of so many samples.

    Raises
    ------
    UsageError : there is no such part.
    """
    k, n = part
    if not 1 <= k <= n <= samples:
        raise UsageError(f"part: expected K/N with 1 <= K <= N <= {samples} samples, got {k}/{n}")
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
    """Extract shards; yields the numbers of finished ones with their rows by status, or one that was given up and None.

    A group of shards that is given up is repeated as single shards, as only one of them may end its worker. If five
    tasks in a row are given up, :mod:`~ig3d.workers` ends the run.
    """
    # a worker sees only its own GPU, which is the first one for it
    config = replace(config, device="cpu" if config.devices[0] == "cpu" else "cuda:0")
    options: dict[str, Any] = {"root": info.root, "config": config, "info": info, "readers": workers.readers}

    def shards_of(numbers: Sequence[int]) -> list[Shard]:
        return [
            Shard(run.shard_path(shard).absolute(), run.shard_samples(shard), boxes.read(run.rows_of(shard)))
            for shard in numbers
        ]

    if workers.options is None:
        for shard in todo:
            yield [shard], extract_shards(shards_of([shard]), **options)
        return
    groups = [todo[start : start + workers.at_once] for start in range(0, len(todo), workers.at_once)]
    while groups:
        tasks = ((shards_of(group),) for group in groups)
        alone: list[Sequence[int]] = []
        with closing(run_tasks(partial(extract_in_worker, **options), tasks, **workers.options)) as results:
            for ended in results:
                group = groups[ended.task]
                if ended.given_up and len(group) > 1:
                    alone += [[shard] for shard in group]
                else:
                    yield group, None if ended.given_up else ended.result
        groups = alone
