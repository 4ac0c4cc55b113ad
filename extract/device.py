"""How networks calculate on a device, and how arrays get there; :mod:`ig3d.features.device` chooses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Full float32 on CUDA and no choice of algorithms by timing; the process's own settings come back."""
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32)
    try:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32 = False, False, True, False
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32 = before


class Upload:
    """Arrays to a device; to a CUDA device through pinned memory and on a stream of its own.

    The caller does not wait, and what is calculated meanwhile is not held up; calculations begun later wait for it.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, array: np.ndarray) -> torch.Tensor:
        """A tensor of the array's shape and type on the device."""
        host = torch.from_numpy(np.ascontiguousarray(array))
        if self._stream is None:
            return host
        calculating = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            # torch keeps a pinned block until its copy is done, and uses it again then
            there = host.pin_memory().to(self._device, non_blocking=True)
        calculating.wait_stream(self._stream)
        there.record_stream(calculating)
        return there
