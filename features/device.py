"""Devices that a user names: ``auto``, ``cpu``, ``cuda``, ``cuda:1``. Imports torch when it is needed."""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..errors import UsageError, require

if TYPE_CHECKING:
    import torch


def choose_device(name: str) -> torch.device:
    """The device that ``name`` asks for.

    Parameters
    ----------
    name : str
        ``auto`` (a CUDA device when there is one, else the processor), ``cpu``, ``cuda`` or ``cuda:1``.

    Raises
    ------
    UsageError : no such device, or it is not on this machine; never a silent fallback.

    Examples
    --------
    >>> choose_device("cpu")
    device(type='cpu')
    """
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", 0) if found else torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise UsageError(f"device: unknown device {name!r}; choose auto, cpu, cuda or cuda:0")
    if kind == "cuda" and int(index or 0) >= found:
        raise UsageError(f"device: {name} is not available (CUDA devices: {found}); use auto or cpu")
    return torch.device("cpu") if kind == "cpu" else torch.device("cuda", int(index or 0))


def resolve_device(name: str) -> str:
    """Concrete device for a device that a user names: ``cpu``, ``cuda:0``, ``cuda:1``.

    torch, which takes seconds to import, is only imported if there may be a GPU.

    Raises
    ------
    UsageError : no such device, or it is not on this machine.
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
