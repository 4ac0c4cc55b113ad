"""Where tensors live: the one place in which a device that a user names is looked for. Imports torch when asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UsageError

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
        return torch.device("cuda" if found else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise UsageError(f"device: expected auto, cpu, cuda or cuda:0, got {name!r}; name one of them")
    if kind == "cuda" and int(index or 0) >= found:
        raise UsageError(f"device: expected {name}, got {found} CUDA devices; use auto or cpu")
    return torch.device("cpu" if kind == "cpu" else name)
