"""Tensors with a JSON description in one safetensors file: written all or nothing, read without executing anything."""

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
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except (OSError, SafetensorError) as exc:
        raise ModelError(
            f"{path}: expected to write there, got: {exc}; free space or choose another place"
        ) from exc


def read_tensors(
    path: str | Path, *, kind: str, version: int, what: str
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Description and tensors of a file of :func:`write_tensors` that states ``tensors_sha256``.

    Raises
    ------
    ModelError : missing, of another kind or version, cut short or changed.
    """
    source = Path(path)
    if not source.is_file():
        raise ModelError(f"{source}: expected {what}, found no file")
    try:
        with safe_open(source, framework="pt", device="cpu") as handle:
            described = json.loads((handle.metadata() or {}).get("ig3d", "{}"))
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError, ValueError) as exc:
        raise ModelError(
            f"{source}: expected {what}, got: {str(exc).splitlines()[0]}; the file is of another kind or damaged"
        ) from exc
    if not isinstance(described, dict) or described.get("format") != kind:
        raise ModelError(f"{source}: expected {what}, got a safetensors file of other origin")
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
