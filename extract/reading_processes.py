"""Processes that read, detect and crop for a process with a GPU: torch's DataLoader.

They are started once by each process with a GPU, and are used for all of its shards and tasks. If the detector runs on
the GPU, they only read, and the process with the GPU detects and crops.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from ..errors import Ig3dError
from ..features.device import device_kind
from ..features.values import CropSpec, LandmarkSpec
from . import stages
from .batches import Batch, Shard, batches_of
from .boxes import FaceBoxes
from .config import ExtractConfig
from .detectors import Detector, load_detector
from .read import bounded_images
from .regressors import find_regressor
from .runtime import one_thread

# Largest number of images in a batch. Each batch costs time of the process with the GPU, so there should be few.
MAX_BATCH = 64
# The same if batches have decoded images, which are larger than crops.
DECODED_BATCH = 8
# Batches that each process prepares in advance.
AHEAD = 2
# Folder of the shared memory through which crops are passed; in containers it is often small.
SHARED_MEMORY = "/dev/shm"


def read_ahead(
    shards: Sequence[Shard],
    root: str,
    detector: Detector,
    needs: CropSpec | LandmarkSpec,
    config: ExtractConfig,
    processes: int,
) -> Iterator[Batch]:
    """Batches of shards after the first three stages, in order, prepared by other processes.

    Parameters
    ----------
    shards : sequence of Shard
    root : folder of the dataset, or its address
    detector : Detector
        Detector in this process; used only if it runs on the GPU.
    needs : CropSpec or LandmarkSpec
        Input of the regressor.
    config : ExtractConfig
    processes : int
        Number of reading processes; 0 reads in this process.
    """
    on_gpu = detector.device != "cpu"
    if multiprocessing.current_process().daemon:
        processes = 0  # a daemonic process cannot have child processes
    loader, sampler = _loader(root, config, processes, on_gpu)
    sampler.batches = batches_of(shards, DECODED_BATCH if on_gpu else _batch_size(needs, processes))
    for batch in loader:
        if isinstance(batch, Ig3dError):
            raise batch
        if on_gpu:
            faces = stages.detect(batch, batch.images, detector, needs)
            stages.crop(batch, batch.images, faces, detector, needs)
            batch.images.clear()
        yield batch


def _batch_size(needs: CropSpec | LandmarkSpec, processes: int) -> int:
    """Number of images in a batch; the batches of all processes fit into half of the free shared memory."""
    if isinstance(needs, LandmarkSpec):
        return MAX_BATCH
    crop = needs.size**2 * 3 * (4 if needs.floats else 1)
    with suppress(AttributeError, OSError):  # only Linux has this folder
        space = os.statvfs(SHARED_MEMORY)
        batches = (AHEAD + 1) * max(1, processes)
        return max(1, min(MAX_BATCH, space.f_bavail * space.f_frsize // 2 // (batches * crop)))
    return MAX_BATCH


class _Sampler(Sampler[Batch]):
    """Batches of the current task; the loader takes the next one when a process is free."""

    batches: Iterator[Batch] = iter(())

    def __iter__(self) -> Iterator[Batch]:
        return self.batches


class _Stages(Dataset[Any]):
    """Runs the first stages of a batch in a reading process, which builds its own detector."""

    def __init__(self, root: str, config: ExtractConfig, *, read_only: bool) -> None:
        self._root, self._config, self._read_only = root, config, read_only
        self._detector: Detector | None = None

    def __getitem__(self, batch: Batch) -> Batch | Ig3dError:
        try:
            if self._read_only:
                for images in stages.read(batch, self._root):
                    batch.images.update(images)
                return batch
            regressor = find_regressor(self._config.regressor)
            if self._detector is None:
                name = self._config.detector or regressor.detectors[0]
                self._detector = load_detector(name, device="cpu")
                if get_worker_info() is not None:
                    _entered.enter_context(one_thread())  # for the libraries that the detector has imported
            batch = stages.read_detect_crop(batch, self._root, self._detector, regressor.needs)
        except Ig3dError as error:
            return error  # if it were raised here, torch would add a traceback to its message
        if batch.faces is not None and batch.faces.crops is not None:
            batch.faces = replace(batch.faces, crops=torch.from_numpy(batch.faces.crops))
        # not needed any more, so that less is passed to the other process
        batch.files, batch.boxes = [], FaceBoxes.unknown(0)
        return batch


@lru_cache(maxsize=1)
def _loader(
    root: str, config: ExtractConfig, processes: int, read_only: bool
) -> tuple[DataLoader[Any], _Sampler]:
    """The loader and its sampler; both are created once, so that all tasks use the same reading processes."""
    if multiprocessing.get_start_method(allow_none=True) == "loky":
        # in a worker of ig3d.workers: child processes would get this start method, which they do not know
        multiprocessing.set_start_method("spawn", force=True)
    sampler = _Sampler()
    loader = DataLoader(
        _Stages(root, config, read_only=read_only),
        sampler=sampler,
        batch_size=None,
        num_workers=processes,
        pin_memory=device_kind(config.device) == "cuda",
        prefetch_factor=AHEAD if processes else None,
        persistent_workers=processes > 0,
        multiprocessing_context="spawn" if processes else None,
        worker_init_fn=_prepare_process,
        collate_fn=_unchanged,
    )
    return loader, sampler


_entered = ExitStack()


def _prepare_process(number: int) -> None:
    """Set up a reading process: ignore Ctrl-C, which the process with the GPU handles, and refuse huge images."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _entered.enter_context(bounded_images())


def _unchanged(batch: Any) -> Any:
    return batch
