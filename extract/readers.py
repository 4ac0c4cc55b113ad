"""Processes that read, detect and crop for a GPU: torch's DataLoader.

They are started once in each process that owns a GPU, and work on from shard to shard and from task to task. A detector
that itself needs the GPU runs in the process that owns it; then they only read.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from ..errors import Ig3dError
from ..features.device import device_kind
from .batches import Batch, Chunk, Shard, chunks_of
from .config import ExtractConfig
from .detectors import load_detector
from .read import bounded_images
from .regressors import find_regressor
from .runtime import one_thread

if TYPE_CHECKING:
    from .stages import Cropper

# Images that a process prepares together. Few, because batches for the network are formed later, and shared memory is
# small in containers.
AT_ONCE = 16
# The same for decoded images, which are larger than crops.
AT_ONCE_DECODED = 8
# Chunks that each process prepares in advance.
AHEAD = 2


def read_ahead(
    shards: Sequence[Shard], cropper: Cropper, config: ExtractConfig, processes: int
) -> Iterator[Batch]:
    """Batches of all chunks of shards, in order, prepared by other processes.

    Parameters
    ----------
    shards : sequence of Shard
    cropper : Cropper
        Of this process; used if the detector needs the GPU.
    config : ExtractConfig
    processes : int
    """
    on_gpu = cropper.detector is not None and cropper.detector.device != "cpu"
    loader, sampler = _loader(
        str(cropper.root), config, 0 if multiprocessing.current_process().daemon else processes, on_gpu
    )
    sampler.chunks = chunks_of(shards, AT_ONCE_DECODED if on_gpu else AT_ONCE)
    for batch in loader:
        if isinstance(batch, Ig3dError):
            raise batch
        if on_gpu:
            cropper.crop(batch)
        yield batch


class _Chunks(Sampler[Chunk]):
    """Chunks of the task at hand; the loader takes the next one when a process is free."""

    chunks: Iterator[Chunk] = iter(())

    def __iter__(self) -> Iterator[Chunk]:
        return self.chunks


class _Batches(Dataset[Any]):
    """Prepares chunks; the detector is built in the process that uses it."""

    def __init__(self, root: str, config: ExtractConfig, *, read_only: bool) -> None:
        self._root, self._config, self._read_only = root, config, read_only
        self._cropper: Cropper | None = None

    def __getitem__(self, chunk: Chunk) -> Batch | Ig3dError:
        from .stages import Cropper

        try:
            if self._cropper is None:
                regressor = find_regressor(self._config.regressor)
                name = self._config.detector or regressor.detectors[0]
                detector = None if self._read_only else load_detector(name, device="cpu")
                self._cropper = Cropper(self._root, detector, regressor.needs)
                if get_worker_info() is not None:
                    _entered.enter_context(one_thread())  # of the libraries that were just imported
            batch = self._cropper(chunk)
        except Ig3dError as error:
            return error  # as it is: raised here, torch would wrap it in a traceback
        if batch.faces is not None and batch.faces.crops is not None:
            batch.faces = replace(batch.faces, crops=torch.from_numpy(batch.faces.crops))
        return batch


@lru_cache(maxsize=1)
def _loader(
    root: str, config: ExtractConfig, processes: int, read_only: bool
) -> tuple[DataLoader[Any], _Chunks]:
    """The loader of this process and its sampler; its processes are kept from task to task."""
    if multiprocessing.get_start_method(allow_none=True) == "loky":
        # in a worker of ig3d.workers; new processes take over the method's name, which they do not find
        multiprocessing.set_start_method("spawn", force=True)
    sampler = _Chunks()
    loader = DataLoader(
        _Batches(root, config, read_only=read_only),
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
    """In a reading process: leave Ctrl-C to the process that owns the GPU; refuse absurdly large images."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _entered.enter_context(bounded_images())


def _unchanged(batch: Any) -> Any:
    return batch
