"""Tensors with a JSON description in one safetensors file: written all or nothing, read without executing anything.

Trained 2D networks, trained modules and unfinished trainings are such files. Imports torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ...errors import ModelError
from ...features.atomic import replacing


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], described: Mapping[str, Any]) -> None:
    """Write under a temporary neighbour's name, flush to disk, rename. The same content gives the same bytes.

    Raises
    ------
    ModelError : the file cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        content = save(plain, metadata={"ig3d": json.dumps(described, sort_keys=True)})
        with replacing(path) as temporary:  # save_file would make a file for its owner only
            temporary.write_bytes(content)
    except (OSError, SafetensorError) as exc:
        raise ModelError(
            f"{path}: expected to write there, got: {exc}; free space or choose another place"
        ) from exc


def open_description(path: str | Path) -> Any:
    """What a file says of its tensors, which are not read; ``{}`` where it says nothing.

    Raises
    ------
    SafetensorError, OSError, ValueError : no such file, or a damaged one.
    """
    with safe_open(path, framework="pt", device="cpu") as handle:
        return _described(handle)


def open_tensors(path: str | Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Description and tensors as they lie in a file, unchecked; raises as :func:`open_description`."""
    with safe_open(path, framework="pt", device="cpu") as handle:
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118  (no mapping)
        return _described(handle), tensors


def _described(handle: Any) -> Any:
    return json.loads((handle.metadata() or {}).get("ig3d", "{}"))


def read_tensors(
    path: str | Path, *, kind: str, version: int, what: str, absent: str = "", foreign: str = ""
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Description and tensors of a file of :func:`write_tensors` that states ``tensors_sha256``.

    Parameters
    ----------
    kind, version : that the description must state as ``format`` and ``format_version``
    what : the file in words
    absent, foreign : what to do where there is no file, and where it is of other origin

    Raises
    ------
    ModelError : missing, of another kind or version, cut short or changed.
    """
    source = Path(path)
    if not source.is_file():
        raise ModelError(f"{source}: expected {what}, found no file{absent and f'; {absent}'}")
    try:
        described, tensors = open_tensors(source)
    except Exception as exc:
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise ModelError(
            f"{source}: expected {what}, got: {reason}; the file is of another kind or damaged"
        ) from exc
    if not isinstance(described, dict) or described.get("format") != kind:
        raise ModelError(
            f"{source}: expected {what}, got a safetensors file of other origin{foreign and f'; {foreign}'}"
        )
    if described.get("format_version") != version:
        raise ModelError(
            f"{source}: expected format version {version}, got {described.get('format_version')}; use the ig3d that "
            "wrote it, or train again"
        )
    if tensors_digest(tensors) != described.get("tensors_sha256"):
        raise ModelError(
            f"{source}: expected the tensors that were written, got others; the file is damaged: train again"
        )
    return described, tensors


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().contiguous().numpy()
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()
