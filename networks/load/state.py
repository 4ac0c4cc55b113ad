"""Weights out of a checkpoint into a module: read without executing anything, fitted strictly, refused with counts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import nn

from ...errors import ModelError, WeightsError, some
from ...features.unpickle import Foreign, read_arrays

State = dict[str, np.ndarray]
# Older checkpoints do without this counter, which evaluation never reads.
_COUNTER = "num_batches_tracked"


def read_state(path: Path, key: str) -> State:
    """Arrays by name out of a checkpoint: torch's formats, Lightning's, safetensors, or a whole pickled module.

    Parameters
    ----------
    path : the file
    key : str
        Entry that holds them (``model_state_dict``, ``model.ema``); empty where there is one choice.

    Raises
    ------
    ModelError : unreadable, or no such entry, or several to choose from.
    """
    if not path.is_file():
        raise ModelError(f"{path}: expected a checkpoint, found no file")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else read_arrays(path)
    except (SafetensorError, ValueError) as exc:
        raise ModelError(f"{path}: expected a safetensors file, got: {str(exc).splitlines()[0]}") from exc
    except WeightsError as exc:
        raise ModelError(str(exc)) from exc
    for part in key.split(".") if key else ():
        content = _entries(content)
        if part not in content:
            raise ModelError(
                f"{path}: expected the entry {part!r} of --key {key}, got {some(sorted(map(str, content)))}"
            )
        content = content[part]
    found = _as_state(content)
    if found is not None:
        return found
    inside = {name: state for name, part in _entries(content).items() if (state := _as_state(part))}
    if len(inside) == 1:
        return next(iter(inside.values()))
    what = (
        f"several: {some(sorted(inside))}" if inside else some(sorted(map(str, _entries(content)))) or "none"
    )
    raise ModelError(f"{path}: expected weights by name, got {what}; choose with --key")


def _entries(content: Any) -> Mapping[Any, Any]:
    if isinstance(content, Foreign):
        content = content.state
    return content if isinstance(content, dict) else {}


def _as_state(content: Any) -> State | None:
    """Arrays by name where ``content`` is such a mapping, or a pickled module; else None."""
    if isinstance(content, Foreign):
        found = _of_module(content)
        return found or None
    if not isinstance(content, dict) or not content:
        return None
    arrays = {str(name): value for name, value in content.items() if isinstance(value, np.ndarray)}
    return arrays if len(arrays) == len(content) else None


def _of_module(module: Foreign, prefix: str = "") -> State:
    """Weights of a module that was pickled whole (``torch.save(model)``), as its ``state_dict`` would name them."""
    parts = module.state if isinstance(module.state, dict) else {}
    apart = parts.get("_non_persistent_buffers_set") or ()
    state: State = {}
    for table in ("_parameters", "_buffers"):
        for name, value in (parts.get(table) or {}).items():
            if isinstance(value, np.ndarray) and name not in apart:
                state[prefix + str(name)] = value
    for name, child in (parts.get("_modules") or {}).items():
        if isinstance(child, Foreign):
            state |= _of_module(child, f"{prefix}{name}.")
    return state


def fit_state(module: nn.Module, state: State, *, source: str) -> tuple[str, ...]:
    """Put weights into a module, all of them and nothing else.

    A first part that all names share and the module does not have (``module.`` of DataParallel, ``model.`` of
    Lightning) is taken off, and said.

    Returns
    -------
    notes

    Raises
    ------
    ModelError : names or shapes differ; the message counts them and shows the first.
    """
    wanted = module.state_dict()
    fitting, taken = _without_prefix(state, set(wanted))
    lacking = [name for name in wanted if name not in fitting and not name.endswith(_COUNTER)]
    extra = [name for name in fitting if name not in wanted]
    wrong = [
        f"{name} {tuple(wanted[name].shape)} got {value.shape}"
        for name, value in fitting.items()
        if name in wanted and tuple(wanted[name].shape) != value.shape
    ]
    faults = []
    if wrong:
        faults.append(f"{len(wrong)} of another shape ({some(wrong, 2)})")
    if lacking:
        faults.append(f"{len(lacking)} missing ({some(lacking, 3)})")
    if extra:
        faults.append(f"{len(extra)} unknown ({some(extra, 3)})")
    if faults:
        raise ModelError(
            f"{source}: expected the {len(wanted)} tensors of the network, got {'; '.join(faults)}; check the "
            "architecture, its number of outputs, and --key"
        )
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in fitting.items()}
    missing = {name: tensor for name, tensor in wanted.items() if name not in tensors}
    module.load_state_dict(tensors | missing, strict=True)
    return (f"{source}: {taken!r} was taken off the names of the weights",) if taken else ()


def fit_backbone(module: nn.Module, state: State, *, source: str) -> tuple[str, ...]:
    """As :func:`fit_state`, but the last layer of a timm network keeps the weights it has, whatever the file holds.

    Returns
    -------
    notes

    Raises
    ------
    ModelError : the other names or shapes differ.
    """
    own = module.state_dict()
    layer = classifier_of(getattr(module, "pretrained_cfg", None)) + "."
    kept = {name: tensor.numpy() for name, tensor in own.items() if name.startswith(layer)}
    stripped, _ = _without_prefix(state, set(own))
    return fit_state(module, {**stripped, **kept}, source=source)


def classifier_of(config: Any) -> str:
    """Name of the last layer in timm's configuration of a network, an object or a dict."""
    said = config.get("classifier") if isinstance(config, dict) else getattr(config, "classifier", None)
    return said if isinstance(said, str) else said[0] if said else "fc"


def _without_prefix(state: State, wanted: set[str]) -> tuple[State, str]:
    taken = ""
    while not wanted & set(state):
        firsts = {name.partition(".")[0] for name in state}
        if len(firsts) != 1 or any("." not in name for name in state):
            break
        first = firsts.pop() + "."
        taken += first
        state = {name.removeprefix(first): value for name, value in state.items()}
    return state, taken


def digest_module(module: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of a module's tensors."""
    sha = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
