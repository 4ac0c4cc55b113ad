"""Settings of numerical libraries, and errors of devices and memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

from ..errors import DeviceError, RunError, shorten

# Parts of messages of torch, CUDA and OpenVINO.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "bad_alloc", "STATUS_ALLOC_FAILED")
_DEVICE_ERRORS = (
    "CUDA error",
    "cudaError",
    "CUDA driver error",
    "CUBLAS_STATUS",
    "CUDNN_STATUS",
    "CL_OUT_OF_RESOURCES",
    "device lost",
    "Device is lost",
    "DataLoader worker (pid",  # one that died; "DataLoader worker process" is an exception inside of one
    "Pin memory thread",
)


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Full float32 on CUDA and no choice of algorithms by timing; the process's own settings come back.

    Nothing changes if torch is not imported.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32)
    try:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32 = False, False, True, False
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32 = before


@contextmanager
def one_thread() -> Iterator[None]:
    """One compute thread in every library that is imported: a run has a worker for each core."""
    torch, cv2 = sys.modules.get("torch"), sys.modules.get("cv2")
    before = torch and torch.get_num_threads(), cv2 and cv2.getNumThreads()
    with threadpool_limits(1):
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
def device_errors(device: str) -> Iterator[None]:
    """Turn errors of a device, and the death of a process that reads for it, into DeviceError.

    Raises
    ------
    DeviceError : this process cannot use the device any more; another one may.
    RunError : the device has too little memory, outside of a network, whose batch would be halved.
    """
    try:
        yield
    except RuntimeError as exc:
        if not is_device_error(exc):
            if device != "cpu" and is_out_of_memory(exc):
                raise RunError(
                    f"{device}: too little memory ({reason(exc)}); choose a smaller --batch-size"
                ) from exc
            raise
        raise DeviceError(f"{device}: {reason(exc)}") from exc


def reason(exc: BaseException) -> str:
    """First line of an error's message, shortened."""
    lines = [line for line in str(exc).splitlines() if line.strip()]
    return shorten(lines[0] if lines else type(exc).__name__, 160)


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether an error means that memory did not suffice; a smaller batch may run."""
    # by its name: torch may not be imported
    return (
        type(exc).__name__ == "OutOfMemoryError"
        or isinstance(exc, MemoryError)
        or any(part in str(exc) for part in _OUT_OF_MEMORY)
    )


def is_device_error(exc: BaseException) -> bool:
    """Whether an error means that the device, or this process's use of it, is broken.

    CUDA errors stay: every later call fails too. So the process must end.
    """
    return (
        type(exc).__name__ == "AcceleratorError"
        or (isinstance(exc, RuntimeError) and any(part in str(exc) for part in _DEVICE_ERRORS))
    ) and not is_out_of_memory(exc)
