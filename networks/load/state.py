"""Weights out of a checkpoint into a module: read without executing anything, fitted strictly, refused with counts."""

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

from ...errors import ModelError, WeightsError, number, some
from ...features.safe_pickle import Foreign, read_arrays

State = dict[str, np.ndarray]
# A counter of batch normalisation that evaluation does not read; older checkpoints do not have it.
_COUNTER = "num_batches_tracked"
# Tensors beside a network's own, by name: of losses and metrics, and counters (those of torch's SWA, of thop).
_EXTRA = re.compile(
    r"(\w+_)?(criterion|criteria|loss|losses|metrics?|acc|accuracy|auroc|auc|f1|precision|recall|confusion|confmat)"
    r"(_\w+)?(\..*)?|n_averaged|epoch|(global_)?step|class_weights?|(.*\.)?(total_ops|total_params|num_batches_tracked)",
    re.IGNORECASE,
)


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
    except WeightsError as exc:
        raise ModelError(str(exc)) from exc
    except Exception as exc:
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise ModelError(f"{path}: expected a safetensors file, got: {reason}") from exc
    parts = key.split(".") if key else []
    for depth, part in enumerate(parts):
        content = _entries(content)
        rest = ".".join(parts[depth:]) + "."
        if part not in content and any(str(name).startswith(rest) for name in content):
            content = {str(k).removeprefix(rest): v for k, v in content.items() if str(k).startswith(rest)}
            break
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
    if isinstance(content, list | tuple):
        return {str(position): part for position, part in enumerate(content)}
    return content if isinstance(content, dict) else {}


def _as_state(content: Any) -> State | None:
    """Arrays by name where ``content`` is such a mapping, or a pickled module; else None."""
    if isinstance(content, Foreign):
        found = _of_module(content)
        return found or None
    if not isinstance(content, dict) or not content:
        return None
    arrays = {str(name): value for name, value in content.items() if isinstance(value, np.ndarray)}
    plain = sum(isinstance(value, str | int | float | None) for value in content.values())
    shaped = any(value.ndim for value in arrays.values())
    return arrays if shaped and len(arrays) + plain == len(content) else None


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
    """Load weights into a module, all that it has.

    A prefix of the names that the module does not have (``module.`` of DataParallel, ``model.`` of Lightning,
    ``_orig_mod.`` of torch.compile) is removed. Tensors of losses and metrics, counters, and tensors outside of that
    prefix are not used; a note names the prefix and these.

    Returns
    -------
    notes

    Raises
    ------
    ModelError : names or shapes differ; the message counts them and shows the first.
    """
    wanted = module.state_dict()
    fitting, prefix = _without_prefix(state, wanted, source=source)
    unused = [name for name in fitting if name not in wanted and _is_extra(name)]
    unused += [name for name in state if not name.startswith(prefix)]
    missing = [name for name in wanted if name not in fitting and not name.endswith(_COUNTER)]
    unknown = [name for name in fitting if name not in wanted and not _is_extra(name)]
    wrong = [
        f"{name} {tuple(wanted[name].shape)} got {value.shape}"
        for name, value in fitting.items()
        if name in wanted and tuple(wanted[name].shape) != value.shape
    ]
    faults = []
    if wrong:
        faults.append(f"{len(wrong)} of another shape ({some(wrong, 2)})")
    if missing:
        faults.append(f"{len(missing)} missing ({some(missing, 3)})")
    if unknown:
        faults.append(f"{len(unknown)} unknown ({some(unknown, 3)})")
    if faults:
        raise ModelError(
            f"{source}: expected the {len(wanted)} tensors of the network, got {'; '.join(faults)}; check the "
            "architecture, its number of outputs, and --key"
        )
    tensors = {
        name: torch.from_numpy(np.array(fitting[name])) if name in fitting else tensor
        for name, tensor in wanted.items()
    }
    module.load_state_dict(tensors, strict=True)
    notes = []
    if prefix:
        notes.append(f"{source}: removed the prefix {prefix!r} from the names of the weights")
    if unused:
        notes.append(f"{source}: {number(len(unused), 'tensor')} not used ({some(unused, 3)})")
    return tuple(notes)


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
    stripped, _ = _without_prefix(state, own, source=source)
    return fit_state(module, {**stripped, **kept}, source=source)


def classifier_of(config: Any) -> str:
    """Name of the last layer in timm's configuration of a network, an object or a dict."""
    said = config.get("classifier") if isinstance(config, dict) else getattr(config, "classifier", None)
    return said if isinstance(said, str) else said[0] if said else "fc"


def _without_prefix(state: State, wanted: Collection[str], *, source: str) -> tuple[State, str]:
    """The tensors whose names start with the prefix under which the network's own stand, and that prefix.

    Raises
    ------
    ModelError : different weights of the network stand under several prefixes.
    """
    needed = [name for name in wanted if not name.endswith(_COUNTER)]
    if not needed or all(name in state for name in needed):
        return state, ""
    counts: Counter[str] = Counter()
    for name in needed:
        # a prefix ends at a dot; the names of one tensor under several prefixes are few
        counts.update(key.removesuffix(name) for key in state if key.endswith(f".{name}"))
    # a prefix of a few names is a coincidence: the file has another network
    if not counts or counts.most_common(1)[0][1] <= max(
        len(needed) // 2, sum(name in state for name in needed)
    ):
        return state, ""
    whole = [prefix for prefix, count in counts.items() if count == len(needed)]
    if any(
        not np.array_equal(state[whole[0] + name], state[prefix + name])
        for prefix in whole[1:]
        for name in needed
    ):
        keys = [prefix.removesuffix(".") for prefix in whole]
        raise ModelError(
            f"{source}: the network's weights stand there {len(whole)} times and differ ({some(keys)}); choose with "
            f"--key {keys[0]}"
        )
    prefix = whole[0] if whole else counts.most_common(1)[0][0]
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }, prefix


def _is_extra(name: str) -> bool:
    """Whether a tensor belongs to a loss or a metric, or is a counter."""
    return _EXTRA.fullmatch(name) is not None


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
