"""The run: a dataset to a store. Settles what is to be done, knows a run again, spreads its shards, joins them.

A shard of the frozen sample list is the unit of work, of resuming and of spreading over processes; see
:mod:`ig3d.extract.shards`. What happens within one is :mod:`ig3d.extract.pipeline`.
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
from ..features.values import CropSpec, LandmarkSpec
from ..workers import MOST_DEATHS, check_backend, run_tasks
from . import shards
from .boxes import BoxSource, box_source
from .config import ExtractConfig, blocks_of, describe, detector_of, settle
from .detectors import Detector, find_detector
from .flow import by_status
from .identity import identity_of
from .parts import write_joined
from .pipeline import run_shard
from .regressors import find_regressor
from .sources.remote import is_remote

MAX_JOBS_ON_GPU = 4
RunShard = Callable[..., Counter[str]]


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended.

    Attributes
    ----------
    store : Path
    counts : status name -> rows
    seconds : float
        Of this call; 0 where the store was there already.
    resumed : int
        Rows that an earlier, interrupted run had finished.
    """

    store: Path
    counts: dict[str, int]
    seconds: float
    resumed: int


# Called after each shard with the rows it holds, by status; the first call holds what was found finished.
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
        Workers; 0 is one per core, at most four for each GPU, or as many as the cluster has.
    backend : str
        Where they are: ``loky`` (processes here), ``dask`` or ``ray``.
    address : str, optional
        Of a running dask or ray cluster; without, one is started on this machine.
    part : (k, n), optional
        Only the k-th of n parts of the dataset, from 1; :func:`ig3d.extract.parts.join_parts` joins their stores.
    restart : bool
        Throw away what an earlier run left; a finished store, when the new one is whole.
    retry_failed : bool
        Do the shards that hold failed rows again, of a finished store or an interrupted run; the others are kept.
        Like ``restart`` it does so once: repeated after an interruption, it goes on.
    progress : function of a Counter of status names, optional
    say : function of a line of text, optional
        Receives what was chosen.

    Raises
    ------
    RunError : another run is writing this store, or an earlier one had another identity.
    MissingExtra, WeightsError, UsageError : regressor or detector cannot be had.
    StoreError : the disk is full, or what lies at ``out`` is no sound store.
    """
    config = config or ExtractConfig()
    if jobs < 0:
        raise UsageError(f"jobs: expected 0 (one per core) or more, got {jobs}")
    if restart and retry_failed:
        raise UsageError("extract: expected --restart or --retry-failed, got both; leave one of them out")
    started = time.monotonic()
    regress = find_regressor(config.regressor)
    full_image = config.detector is not None and find_detector(config.detector).crop == "full image"
    boxes = box_source(listing, "none" if full_image else config.boxes, regress.needs)
    config, notes = settle(config, all_known=boxes.complete)
    detect, blocks = detector_of(config), blocks_of(config)
    described, found_by = describe(config)
    if boxes.detector and not detect.detects:
        found_by = boxes.detector
    for note in (
        *notes,
        f"detector {detect.name}, regressor {regress.name}: blocks {', '.join(blocks)}",
    ):
        say(note)
    workers = _workers(jobs, backend, address, config.devices)
    identity = identity_of(listing, config, described, found_by, boxes.identity)
    if part is not None:
        rows = rows_of_part(part, len(listing))
        listing, boxes = replace(listing, samples=listing.samples[rows]), boxes.part(rows)
        identity["part"] = "{}/{}".format(*part)
    run = shards.Run(Path(out), listing, identity, blocks)
    with run.locked():
        if run.finished(restart=restart, retry_failed=retry_failed):
            with CodeStore(out) as store:
                counts = by_status(store.status)
            return Summary(Path(out), counts, 0.0, len(listing))
        todo = run.begin(restart=restart, retry_failed=retry_failed)
        resumed = sum(run.counts.values())
        if progress:
            progress(run.counts)
        info = _info(listing, regress.needs, detect, identity)
        # a worker sees only its own GPU, which is the first one for it
        device = config.devices[0] if workers is None or config.device == "cpu" else "cuda:0"
        call = partial(run_shard, root=info.root, config=replace(config, device=device), info=info)
        counts = Counter(run.counts)
        for shard, done in _work(run, todo, boxes, call, workers if len(todo) > 1 else None):
            if done is None:
                why = f"its shard's worker died {MOST_DEATHS} times (out of memory?)"
                done = run.give_up(shard, info, blocks, why)
                say(f"WARNING shard {shard}: its {sum(done.values())} rows are marked as failed: {why}")
            counts += done
            if progress:
                progress(done)
        paths = [run.shard_path(shard) for shard in range(run.shards)]
        write_joined(run.out, info, listing.samples, blocks, paths)
        run.forget()
    return Summary(Path(out), dict(counts), time.monotonic() - started, resumed)


def _workers(jobs: int, backend: str, address: str | None, devices: tuple[str, ...]) -> dict[str, Any] | None:
    """Arguments of :func:`run_tasks`; None where this process does the work itself."""
    check_backend(backend, address)
    on_gpu = devices[0] != "cpu"
    if backend != "loky":
        return {"backend": backend, "jobs": jobs, "address": address, "gpu": on_gpu}
    # several on a GPU, to keep it busy while one opens or ends a shard; few, as each has its own networks there
    most = MAX_JOBS_ON_GPU * len(devices) if on_gpu else cpu_count()
    jobs = jobs or max(len(devices), min(cpu_count(), most))
    if jobs == 1:
        return None
    return {"environments": [environment_of(devices[slot % len(devices)]) for slot in range(jobs)]}


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
    listing: Listing, needs: CropSpec | LandmarkSpec, detect: type[Detector], identity: dict[str, Any]
) -> StoreInfo:
    crop: dict[str, Any] = {}
    if isinstance(needs, CropSpec):
        crop = {**asdict(needs), "whole_image": detect.crop == "full image"}
    return StoreInfo(
        dataset=listing.dataset,
        root=listing.root if is_remote(listing.root) else str(Path(listing.root).resolve()),
        classes=listing.classes,
        regressor=identity["regressor"],
        detector=identity["detector"],
        crop=crop,
        config=identity,
    )


def _work(
    run: shards.Run,
    todo: Sequence[int],
    boxes: BoxSource,
    call: RunShard,
    workers: dict[str, Any] | None,
) -> Iterator[tuple[int, Counter[str] | None]]:
    """Run the shards, here or in workers; yields the counts of each as it is finished, None for one given up."""
    tasks = (
        (run.shard_path(shard).absolute(), run.shard_samples(shard), boxes.read(run.rows_of(shard)))
        for shard in todo
    )
    if workers is None:
        for shard, task in zip(todo, tasks, strict=True):
            yield shard, call(*task)
        return
    with closing(run_tasks(call, tasks, **workers)) as results:
        for ended in results:
            yield todo[ended.task], None if ended.given_up else ended.result
