"""Tensors with a JSON description in one safetensors file, which is read without executing anything.

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

from ...errors import ModelError, reason_of
from ...features.atomic import replacing


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], described: Mapping[str, Any]) -> None:
    """Write to a temporary name, flush to disk, rename. The same content gives the same bytes.

    Raises
    ------
    ModelError : the file cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        content = save(plain, metadata={"ig3d": json.dumps(described, sort_keys=True)})
        with replacing(path) as temporary:  # safetensors' save_file would set permissions for the owner only
            temporary.write_bytes(content)
    except (OSError, SafetensorError) as exc:
        raise ModelError(
            f"{path}: cannot be written: {reason_of(exc)}; free disk space, or choose another folder"
        ) from exc


def open_description(path: str | Path) -> Any:
    """Description in a file, without reading the tensors; ``{}`` if there is none.

    Raises
    ------
    SafetensorError, OSError, ValueError : the file does not exist or is damaged.
    """
    with safe_open(path, framework="pt", device="cpu") as handle:
        return _described(handle)


def open_tensors(path: str | Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Description and tensors of a file, unchecked; raises as :func:`open_description`."""
    with safe_open(path, framework="pt", device="cpu") as handle:
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118  (no mapping)
        return _described(handle), tensors


def _described(handle: Any) -> Any:
    return json.loads((handle.metadata() or {}).get("ig3d", "{}"))


def read_tensors(
    path: str | Path, *, kind: str, version: int, what: str, absent: str = "", foreign: str = ""
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Description and tensors of a file of :func:`write_tensors`, checked against ``tensors_sha256``.

    Parameters
    ----------
    kind, version : required ``format`` and ``format_version`` of the description
    what : name of the kind of file, for messages
    absent, foreign : advice if the file does not exist, and if it is of another kind

    Raises
    ------
    ModelError : the file is missing, of another kind or version, truncated or changed.
    """
    source = Path(path)
    if not source.is_file():
        raise ModelError(f"{source}: the file does not exist; name {what}{absent and f', or {absent}'}")
    try:
        described, tensors = open_tensors(source)
    except Exception as exc:
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise ModelError(
            f"{source}: cannot be read as {what} ({reason}); the file is damaged or of another kind"
        ) from exc
    if not isinstance(described, dict) or described.get("format") != kind:
        raise ModelError(f"{source}: this safetensors file is not {what}{foreign and f'; {foreign}'}")
    if described.get("format_version") != version:
        raise ModelError(
            f"{source}: has format version {described.get('format_version')}, this ig3d reads version {version}; use "
            "the version of ig3d that wrote it, or train again"
        )
    if tensors_digest(tensors) != described.get("tensors_sha256"):
        raise ModelError(
            f"{source}: the tensors do not match their hash; the file is damaged: copy it again, or train again"
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
