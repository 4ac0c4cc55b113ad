"""Resolve names of devices: ``auto``, ``cpu``, ``cuda``, ``cuda:1``. torch is imported only if needed."""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..errors import UsageError, require

if TYPE_CHECKING:
    import torch


def choose_device(name: str) -> torch.device:
    """The torch device of this name.

    Parameters
    ----------
    name : str
        ``auto`` (the first CUDA device, or the CPU without one), ``cpu``, ``cuda`` or ``cuda:1``.

    Raises
    ------
    UsageError : the name is unknown, or this machine does not have the device.

    Examples
    --------
    >>> choose_device("cpu")
    device(type='cpu')
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", 0) if count else torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise UsageError(f"device: unknown device {name!r}; choose auto, cpu, cuda or cuda:0")
    if kind == "cuda" and int(index or 0) >= count:
        raise UsageError(f"device: {name} is not available (CUDA devices: {count}); use auto or cpu")
    return torch.device("cpu") if kind == "cpu" else torch.device("cuda", int(index or 0))


def resolve_device(name: str) -> str:
    """Name of the concrete device of a name: ``cpu``, ``cuda:0``, ``cuda:1``.

    torch, whose import takes seconds, is imported only if there may be a GPU.

    Raises
    ------
    UsageError : the name is unknown, or this machine does not have the device.
    MissingExtra : a GPU needs torch.

    Examples
    --------
    >>> resolve_device("cpu")
    'cpu'
    """
    if name == "cpu" or (name == "auto" and not (_has_cuda_driver() and find_spec("torch"))):
        return "cpu"
    if name.startswith("cuda"):
        require("torch", wanted_by=f"device {name}")
    return str(choose_device(name))


def device_kind(device: str) -> str:
    """Kind of a concrete device: ``cpu`` or ``cuda``.

    >>> device_kind("cuda:1")
    'cuda'
    """
    return device.partition(":")[0]


def _has_cuda_driver() -> bool:
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return True
    return False
