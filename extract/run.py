"""The run: images to a store. The one place where the flow is written and images are looped over.

``read → detect → crop → regress → write``, on one shard of the frozen sample list at a time. A shard is the unit
of work, of resuming and of spreading over processes; see :mod:`ig3d.extract.shards`.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from threadpoolctl import threadpool_limits

from ..errors import Ig3dError, MissingExtra, RunError, UsageError, WeightsError
from ..features.store import CodeStore, StoreInfo
from ..features.store_writer import StoreWriter
from ..features.values import CropSpec, Face, FaceBatch, LandmarkSpec, Rows, Sample, SampleList, Status
from . import shards
from .crop import prepare
from .detectors import Detector, choose_face, load_detector
from .read import Image, Unreadable, bounded_images, read_image
from .regressors import Regressor, load_regressor

MAX_JOBS_ON_GPU = 4
# Workers whose run was killed outright notice it by having nothing to do.
IDLE_SECONDS = 20

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ExtractConfig:
    """What decides the codes; all of it is part of the run's identity.

    Attributes
    ----------
    regressor : str
        Name of a regressor.
    detector : str or None
        Name of a detector; None takes the regressor's first choice.
    also : tuple of str
        Blocks that the regressor writes on request only.
    batch_size : int
        Images per call of detector and regressor.
    device : str
        Where the networks of regressor and detector run: ``auto`` (CUDA where there is some), ``cpu``, ``cuda``,
        ``cuda:1``. The identity holds the kind of device that was found, not this wish.
    precision : str
        Arithmetic of the regressor's networks: ``fp32``, ``fp64``, ``bf16``, ``fp16``.
    """

    regressor: str = "facemesh"
    detector: str | None = None
    also: tuple[str, ...] = ()
    batch_size: int = 32
    device: str = "auto"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch size: expected at least 1, got {self.batch_size}")


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
    config, notes = settle(config)
    regress, detect = build(config)
    if say:
        for note in (
            *notes,
            f"detector {detect.name}, regressor {regress.name}: blocks {', '.join(regress.blocks)}",
        ):
            say(note)
    identity = shards.identity(samples, config, regress.describe(), detect.describe())
    run = shards.Run(Path(out), samples, identity)
    with run.locked():
        if run.finished(restart=restart):
            with CodeStore(out) as store:
                counts = _count(store.samples.status)
            return Summary(Path(out), counts, 0.0, len(samples))
        todo = run.begin(restart=restart)
        resumed = sum(run.counts.values())
        if progress:
            progress(run.counts)
        info = _info(samples, regress, detect, identity)
        workers = min(jobs or _default_jobs(regress, detect), max(1, len(todo)))
        counts = Counter(run.counts)
        for done in _work(run, todo, config, info, workers):
            counts += done
            if progress:
                progress(done)
        run.join(info, dict(regress.blocks))
    return Summary(Path(out), dict(counts), time.monotonic() - started, resumed)


def _default_jobs(*plugins: Regressor | Detector) -> int:
    """One per core; fewer where each holds its own copy of the networks on a GPU."""
    on_gpu = any(getattr(plugin, "device", "cpu") == "cuda" for plugin in plugins)
    return min(cpu_count(), MAX_JOBS_ON_GPU) if on_gpu else cpu_count()


# A process builds a plug-in once, not for every shard.
_regressor = lru_cache(maxsize=1)(load_regressor)
_detector = lru_cache(maxsize=1)(load_detector)


def _regressor_of(config: ExtractConfig) -> Regressor:
    return _regressor(config.regressor, config.also, device=config.device, precision=config.precision)


def settle(config: ExtractConfig) -> tuple[ExtractConfig, list[str]]:
    """The configuration with its detector named, and what to say about the choice.

    Raises
    ------
    WeightsError, MissingExtra : none of the regressor's detectors can be had; says what the first one lacks.
    """
    if config.detector is not None:
        return config, []
    preferred = _regressor_of(config).detectors
    lacking: list[Ig3dError] = []
    for name in preferred:
        try:
            _detector(name, device=config.device)
        except (WeightsError, MissingExtra) as error:
            lacking.append(error)
            continue
        notes = [f"{config.regressor}: {name} stands in for {preferred[0]} ({lacking[0]})"] if lacking else []
        return replace(config, detector=name), notes
    raise lacking[0]


def build(config: ExtractConfig) -> tuple[Regressor, Detector]:
    """The regressor and the detector of a settled configuration, fitting each other.

    Raises
    ------
    UsageError : the regressor needs landmarks and the detector is ``none``.
    """
    regress = _regressor_of(config)
    if config.detector == "none" and isinstance(regress.needs, LandmarkSpec):
        raise UsageError(
            f"detector none: expected a regressor that takes crops, got {regress.name}, which needs landmarks; "
            f"use --detector {regress.detectors[0]}"
        )
    return regress, _detector(config.detector or regress.detectors[0], device=config.device)


def _info(samples: SampleList, regress: Regressor, detect: Detector, identity: dict[str, Any]) -> StoreInfo:
    needs = regress.needs
    crop: dict[str, Any] = {}
    if isinstance(needs, CropSpec):
        crop = {**asdict(needs), "whole_image": detect.name == "none"}
    return StoreInfo(
        dataset=samples.dataset,
        root=str(Path(samples.root).resolve()),
        classes=samples.classes,
        regressor=regress.describe(),
        detector=detect.describe(),
        crop=crop,
        config=identity,
    )


def _work(
    run: shards.Run, todo: Sequence[int], config: ExtractConfig, info: StoreInfo, workers: int
) -> Iterable[Counter[str]]:
    """Run the shards, here or in worker processes; yields the counts of each as it is finished."""
    tasks = [(run.shard_path(shard), run.shard_samples(shard)) for shard in todo]
    if workers == 1:
        for path, part in tasks:
            yield run_shard(path, part, run.samples.root, config, info)
        return
    try:
        # loky: fresh interpreters. A fork after MediaPipe or torch has run would hang.
        yield from Parallel(
            n_jobs=workers,
            backend="loky",
            return_as="generator_unordered",
            batch_size=1,
            idle_worker_timeout=IDLE_SECONDS,
        )(delayed(run_shard)(path, part, run.samples.root, config, info) for path, part in tasks)
    except TerminatedWorkerError as exc:
        raise RunError(
            "extract: expected the workers to live, one was killed (out of memory?); finished shards are kept: "
            "repeat the command to go on, with fewer --jobs if memory is short"
        ) from exc


def run_shard(
    path: Path, samples: tuple[Sample, ...], root: str, config: ExtractConfig, info: StoreInfo
) -> Counter[str]:
    """Run the flow over one shard and put it under its final name; returns its rows by status."""
    regress, detect = build(config)  # first, so that the libraries whose threads are limited are there
    with threadpool_limits(1), _one_torch_thread(), bounded_images():
        blocks = dict(regress.blocks)
        counts: Counter[str] = Counter()
        with StoreWriter(path, info, samples, blocks) as writer:
            for start in range(0, len(samples), config.batch_size):
                rows = flow(
                    samples[start : start + config.batch_size],
                    Path(root),
                    detect,
                    regress,
                    whole=detect.name == "none",
                )
                writer.write(start, rows)
                counts += Counter(_count(rows.status))
    return counts


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """One thread for torch, where a plug-in uses it; torch sets its own number, past what threadpoolctl limits."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def flow(
    samples: Sequence[Sample], root: Path, detect: Detector, regress: Regressor, *, whole: bool = False
) -> Rows:
    """read → detect → crop → regress on one batch: one row per sample, always.

    Parameters
    ----------
    samples : n samples
    root : folder of the dataset
    detect, regress : the plug-ins
    whole : bool
        The face is the whole image, resized.

    Returns
    -------
    Rows of length n; NaN codes where the status is not ok.
    """
    rows = Rows.pending(len(samples), dict(regress.blocks))
    images = _read(samples, root, rows)
    found = _found(images, detect, rows)
    here = sorted(found)
    for row in here:
        rows.xyxy[row], rows.score[row] = found[row].xyxy, found[row].score

    def codes_of(chosen: Sequence[int]) -> list[tuple[FaceBatch, dict[str, np.ndarray]]]:
        batch = prepare(
            [images[row].pixels for row in chosen], [found[row] for row in chosen], regress.needs, whole=whole
        )
        codes = regress(batch)
        return [
            (batch[i : i + 1], {name: codes[name][i] for name in regress.blocks}) for i in range(len(chosen))
        ]

    results = _together_or_one_by_one(codes_of, here)
    for row, result in zip(here, results, strict=True):
        if isinstance(result, Exception):
            _end(rows, row, Status.failed, f"{type(result).__name__}: {result}")
            continue
        face, codes = result
        rows.transform[row] = face.transforms[0]
        bad = [name for name, values in codes.items() if not np.isfinite(values).all()]
        if bad:
            _end(rows, row, Status.failed, f"not finite: {', '.join(bad)}")
            continue
        rows.status[row] = Status.ok
        for name, values in codes.items():
            rows.codes[name][row] = values
    return rows


def _read(samples: Sequence[Sample], root: Path, rows: Rows) -> dict[int, Image]:
    """Row -> image; rows that cannot be read end here."""
    images = {}
    for row, sample in enumerate(samples):
        try:
            image = read_image(root / sample.path)
        except FileNotFoundError:
            _end(rows, row, Status.missing, "no such file")
        except Unreadable as exc:
            _end(rows, row, Status.unreadable, str(exc))
        else:
            images[row] = image
            rows.digest[row] = image.digest
            rows.size_wh[row] = image.pixels.shape[1], image.pixels.shape[0]
    return images


def _found(images: dict[int, Image], detect: Detector, rows: Rows) -> dict[int, Face]:
    """Row -> the chosen face; rows without one end here."""
    chosen = {}
    here = list(images)

    def faces_in(some: Sequence[int]) -> list[list[Face]]:
        return detect([images[row].pixels for row in some])

    results = _together_or_one_by_one(faces_in, here)
    for row, faces in zip(here, results, strict=True):
        if isinstance(faces, Exception):
            _end(rows, row, Status.failed, f"{type(faces).__name__}: {faces}")
        elif not faces:
            _end(rows, row, Status.no_face, "no face found")
        else:
            rows.count[row] = len(faces)
            chosen[row] = choose_face(faces)
    return chosen


def _together_or_one_by_one(
    call: Callable[[Sequence[T]], list[R]], items: Sequence[T]
) -> list[R | Exception]:
    """``call`` over the batch; where that raises, over each item, so that one bad sample fails alone."""
    if not items:
        return []
    try:
        return list(call(items))
    except Ig3dError:
        raise  # a wrong setting, not a bad sample
    except Exception as exc:
        if len(items) == 1:
            return [exc]
        return [result for item in items for result in _together_or_one_by_one(call, [item])]


def _end(rows: Rows, row: int, status: Status, message: str) -> None:
    rows.status[row] = status
    rows.message[row] = " ".join(message.split())


def _count(status: np.ndarray) -> dict[str, int]:
    values, counts = np.unique(status, return_counts=True)
    return {Status(int(value)).name: int(count) for value, count in zip(values, counts, strict=True)}
