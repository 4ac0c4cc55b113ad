"""The run: a dataset to a store. Settles what is to be done, knows a run again, spreads its shards, joins them.

A shard of the frozen sample list is the unit of work, of resuming and of spreading over processes; see
:mod:`ig3d.extract.shards`. What happens within one is :mod:`ig3d.extract.flow`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ..errors import RunError, UsageError
from ..features.store import CodeStore, StoreInfo
from ..features.values import CropSpec, SampleList
from . import shards
from .boxes import Known, known_faces
from .config import ExtractConfig, build, regressor_of, settle
from .detectors import Detector
from .flow import by_status, run_shard
from .regressors import Regressor
from .sources.remote import is_remote

MAX_JOBS_ON_GPU = 4
# Workers whose run was killed outright notice it by having nothing to do.
IDLE_SECONDS = 20


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
    samples: SampleList,
    out: str | Path,
    config: ExtractConfig | None = None,
    *,
    jobs: int = 0,
    restart: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Summary:
    """Extract the codes of a dataset into a store; the same call goes on where an interrupted one stopped.

    Parameters
    ----------
    samples : SampleList
    out : path of the store
    config : ExtractConfig, optional
    jobs : int
        Worker processes; 0 is one per core, at most four where they share a GPU.
    restart : bool
        Throw away what an earlier run left, or the finished store.
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
    started = time.monotonic()
    known = known_faces(
        samples, "none" if config.detector == "none" else config.boxes, regressor_of(config).needs
    )
    config, notes = settle(config, all_known=known.complete)
    regress, detect = build(config)
    found_by = known.detector if known.detector and detect.name == "boxes" else detect.describe()
    if say:
        for note in (
            *notes,
            f"detector {detect.name}, regressor {regress.name}: blocks {', '.join(regress.blocks)}",
        ):
            say(note)
    identity = shards.identity(samples, config, regress.describe(), found_by, known.identity)
    run = shards.Run(Path(out), samples, identity)
    with run.locked():
        if run.finished(restart=restart):
            with CodeStore(out) as store:
                counts = by_status(store.samples.status)
            return Summary(Path(out), counts, 0.0, len(samples))
        todo = run.begin(restart=restart)
        resumed = sum(run.counts.values())
        if progress:
            progress(run.counts)
        info = _info(samples, regress, found_by, identity)
        workers = min(jobs or _default_jobs(regress, detect), max(1, len(todo)))
        counts = Counter(run.counts)
        for done in _work(run, todo, known.samples, config, info, workers):
            counts += done
            if progress:
                progress(done)
        run.join(info, dict(regress.blocks))
    return Summary(Path(out), dict(counts), time.monotonic() - started, resumed)


def _default_jobs(*plugins: Regressor | Detector) -> int:
    """One per core; fewer where each holds its own copy of the networks on a GPU."""
    on_gpu = any(getattr(plugin, "device", "cpu") == "cuda" for plugin in plugins)
    return min(cpu_count(), MAX_JOBS_ON_GPU) if on_gpu else cpu_count()


def _info(
    samples: SampleList, regress: Regressor, detector: dict[str, Any], identity: dict[str, Any]
) -> StoreInfo:
    needs = regress.needs
    crop: dict[str, Any] = {}
    if isinstance(needs, CropSpec):
        crop = {**asdict(needs), "whole_image": detector["name"] == "none"}
    return StoreInfo(
        dataset=samples.dataset,
        root=samples.root if is_remote(samples.root) else str(Path(samples.root).resolve()),
        classes=samples.classes,
        regressor=regress.describe(),
        detector=detector,
        crop=crop,
        config=identity,
    )


def _work(
    run: shards.Run,
    todo: Sequence[int],
    known: tuple[Known | None, ...],
    config: ExtractConfig,
    info: StoreInfo,
    workers: int,
) -> Iterable[Counter[str]]:
    """Run the shards, here or in worker processes; yields the counts of each as it is finished."""
    tasks = [(run.shard_path(shard), run.shard_samples(shard), known[run.rows_of(shard)]) for shard in todo]
    if workers == 1:
        for task in tasks:
            yield run_shard(*task, run.samples.root, config, info)
        return
    try:
        # loky: fresh interpreters. A fork after MediaPipe or torch has run would hang.
        yield from Parallel(
            n_jobs=workers,
            backend="loky",
            return_as="generator_unordered",
            batch_size=1,
            idle_worker_timeout=IDLE_SECONDS,
        )(delayed(run_shard)(*task, run.samples.root, config, info) for task in tasks)
    except TerminatedWorkerError as exc:
        raise RunError(
            "extract: expected the workers to live, one was killed (out of memory?); finished shards are kept: "
            "repeat the command to go on, with fewer --jobs if memory is short"
        ) from exc
