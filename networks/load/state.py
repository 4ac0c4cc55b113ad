"""Load weights from a checkpoint into a module: safely and strictly."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import nn

from ...errors import ModelError, WeightsError, listed, plural
from ...features.safe_pickle import Foreign, read_arrays

State = dict[str, np.ndarray]
# Counter of batch normalisation, which inference does not use; older checkpoints do not have it.
_COUNTER = "num_batches_tracked"
# Names of tensors in checkpoints that do not belong to a network: losses, metrics, counters (torch's SWA, thop).
_EXTRA = re.compile(
    r"(\w+_)?(criterion|criteria|loss|losses|metrics?|acc|accuracy|auroc|auc|f1|precision|recall|confusion|confmat)"
    r"(_\w+)?(\..*)?|n_averaged|epoch|(global_)?step|class_weights?|(.*\.)?(total_ops|total_params|num_batches_tracked)",
    re.IGNORECASE,
)


def read_state(path: Path, key: str) -> State:
    """Read named arrays from a checkpoint: torch's formats, Lightning, safetensors, or a pickled module.

    Parameters
    ----------
    path : checkpoint file
    key : str
        Entry with the weights (``model_state_dict``, ``model.ema``); may be empty if only one is possible.

    Raises
    ------
    ModelError : the file is unreadable, the entry does not exist, or several entries are possible.
    """
    if not path.is_file():
        raise ModelError(f"{path}: the checkpoint does not exist")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else read_arrays(path)
    except WeightsError as exc:
        raise ModelError(str(exc)) from exc
    except Exception as exc:
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise ModelError(f"{path}: the file is not a valid safetensors file: {reason}") from exc
    parts = key.split(".") if key else []
    for depth, part in enumerate(parts):
        content = _entries(content)
        rest = ".".join(parts[depth:]) + "."
        if part not in content and any(str(name).startswith(rest) for name in content):
            content = {str(k).removeprefix(rest): v for k, v in content.items() if str(k).startswith(rest)}
            break
        if part not in content:
            raise ModelError(
                f"{path}: the entry {part!r} of --key {key} does not exist; there are "
                f"{listed(sorted(map(str, content)))}"
            )
        content = content[part]
    state = _as_state(content)
    if state is not None:
        return state
    candidates = {name: state for name, part in _entries(content).items() if (state := _as_state(part))}
    if len(candidates) == 1:
        return next(iter(candidates.values()))
    if candidates:
        raise ModelError(
            f"{path}: several entries have weights ({listed(sorted(candidates))}); choose with --key"
        )
    entries = listed(sorted(map(str, _entries(content)))) or "none"
    raise ModelError(f"{path}: no entry has named weights (entries: {entries}); choose with --key")


def _entries(content: Any) -> Mapping[Any, Any]:
    if isinstance(content, Foreign):
        content = content.state
    if isinstance(content, list | tuple):
        return {str(position): part for position, part in enumerate(content)}
    return content if isinstance(content, dict) else {}


def _as_state(content: Any) -> State | None:
    """Named arrays of a mapping or of a pickled module; None for other content."""
    if isinstance(content, Foreign):
        return _of_module(content) or None
    if not isinstance(content, dict) or not content:
        return None
    arrays = {str(name): value for name, value in content.items() if isinstance(value, np.ndarray)}
    plain = sum(isinstance(value, str | int | float | None) for value in content.values())
    shaped = any(value.ndim for value in arrays.values())
    return arrays if shaped and len(arrays) + plain == len(content) else None


def _of_module(module: Foreign, prefix: str = "") -> State:
    """Weights of a pickled module (``torch.save(model)``), with the names of its ``state_dict``."""
    parts = module.state if isinstance(module.state, dict) else {}
    excluded = parts.get("_non_persistent_buffers_set") or ()
    state: State = {}
    for table in ("_parameters", "_buffers"):
        for name, value in (parts.get(table) or {}).items():
            if isinstance(value, np.ndarray) and name not in excluded:
                state[prefix + str(name)] = value
    for name, child in (parts.get("_modules") or {}).items():
        if isinstance(child, Foreign):
            state |= _of_module(child, f"{prefix}{name}.")
    return state


def fit_state(module: nn.Module, state: State, *, source: str) -> tuple[str, ...]:
    """Load all weights of a module.

    An additional prefix of the names (``module.`` of DataParallel, ``model.`` of Lightning, ``_orig_mod.`` of
    torch.compile) is removed. Tensors of losses and metrics, counters, and tensors without this prefix are not used. A
    note names the prefix and the unused tensors.

    Returns
    -------
    notes

    Raises
    ------
    ModelError : names or shapes differ; the message has the counts and the first names.
    """
    needed = module.state_dict()
    stripped, prefix = _without_prefix(state, needed, source=source)
    unused = [name for name in stripped if name not in needed and _is_extra(name)]
    unused += [name for name in state if not name.startswith(prefix)]
    missing = [name for name in needed if name not in stripped and not name.endswith(_COUNTER)]
    unknown = [name for name in stripped if name not in needed and not _is_extra(name)]
    differing = [
        f"{name} {value.shape}, not {tuple(needed[name].shape)}"
        for name, value in stripped.items()
        if name in needed and tuple(needed[name].shape) != value.shape
    ]
    problems = []
    if differing:
        problems.append(f"{len(differing)} of another shape ({listed(differing, 2)})")
    if missing:
        problems.append(f"{len(missing)} missing ({listed(missing, 3)})")
    if unknown:
        problems.append(f"{len(unknown)} unknown ({listed(unknown, 3)})")
    if problems:
        raise ModelError(
            f"{source}: the weights do not fit the {len(needed)} tensors of the network: {'; '.join(problems)}; check "
            "the architecture, its number of outputs, and --key"
        )
    tensors = {
        name: torch.from_numpy(np.array(stripped[name])) if name in stripped else tensor
        for name, tensor in needed.items()
    }
    module.load_state_dict(tensors, strict=True)
    notes = []
    if prefix:
        notes.append(f"{source}: removed the prefix {prefix!r} from the names of the weights")
    if unused:
        notes.append(f"{source}: {plural(len(unused), 'tensor')} not used ({listed(unused, 3)})")
    return tuple(notes)


def fit_backbone(module: nn.Module, state: State, *, source: str) -> tuple[str, ...]:
    """Like :func:`fit_state`, but the last layer of a timm network keeps its present weights.

    Returns
    -------
    notes

    Raises
    ------
    ModelError : names or shapes of the other layers differ.
    """
    present = module.state_dict()
    layer = classifier_of(getattr(module, "pretrained_cfg", None)) + "."
    kept = {name: tensor.numpy() for name, tensor in present.items() if name.startswith(layer)}
    stripped, _ = _without_prefix(state, present, source=source)
    return fit_state(module, {**stripped, **kept}, source=source)


def classifier_of(config: Any) -> str:
    """Name of the last layer in timm's configuration of a network (an object or a dict)."""
    layer = config.get("classifier") if isinstance(config, dict) else getattr(config, "classifier", None)
    return layer if isinstance(layer, str) else layer[0] if layer else "fc"


def _without_prefix(state: State, wanted: Collection[str], *, source: str) -> tuple[State, str]:
    """Tensors of the network without their common prefix, and this prefix.

    Raises
    ------
    ModelError : several prefixes have different weights of the network.
    """
    needed = [name for name in wanted if not name.endswith(_COUNTER)]
    if not needed or all(name in state for name in needed):
        return state, ""
    counts: Counter[str] = Counter()
    for name in needed:
        # a prefix ends with a dot; few keys end with the same name
        counts.update(key.removesuffix(name) for key in state if key.endswith(f".{name}"))
    # a prefix of only a few names is a coincidence: the file contains another network
    if not counts or counts.most_common(1)[0][1] <= max(
        len(needed) // 2, sum(name in state for name in needed)
    ):
        return state, ""
    complete = [prefix for prefix, count in counts.items() if count == len(needed)]
    if any(
        not np.array_equal(state[complete[0] + name], state[prefix + name])
        for prefix in complete[1:]
        for name in needed
    ):
        keys = [prefix.removesuffix(".") for prefix in complete]
        raise ModelError(
            f"{source}: the file has {len(complete)} different sets of weights of the network ({listed(keys)}); choose "
            f"with --key {keys[0]}"
        )
    prefix = complete[0] if complete else counts.most_common(1)[0][0]
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }, prefix


def _is_extra(name: str) -> bool:
    """Whether a tensor belongs to a loss or metric, or is a counter."""
    return _EXTRA.fullmatch(name) is not None


def digest_module(module: nn.Module) -> str:
    """SHA-256 of the names, types, shapes and values of a module's tensors."""
    sha = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
