"""``file.py:build``: a network built by a function or class in the user's Python file.

The file is executed, and a note reports this. Its folder is on ``sys.path`` while the file is imported and the network
is built, so that it can import other files of its repository.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ...errors import ModelError, Terminated, UsageError, listed
from ...features.atomic import file_sha256
from ..checkpoint import seen_of
from ..options import NetworkSpec
from .state import digest_module, fit_state, read_state
from .values import Opened

_SPEC = re.compile(r"(?P<file>.+\.py):(?P<call>[^/\\]+|.+\(.*\))", re.DOTALL)


def open_network(spec: NetworkSpec, device: torch.device) -> Opened:
    """Import the file, call the function or class, and load the weights."""
    path, name, arguments, named = parse(spec.network)
    with _on_path(path.parent):
        try:
            network = _find(path, name)(*arguments, **named)
        except (Terminated, UsageError):
            raise
        except (Exception, SystemExit) as exc:  # the user's code may raise any exception
            raise ModelError(
                f"{path}: {name} failed with {type(exc).__name__}: {(str(exc).splitlines() or [''])[0][:200]}; pass "
                f"arguments as file.py:{name}(key=value)"
            ) from exc
    if not callable(network):
        raise ModelError(f"{path}: {name} returns {type(network).__name__}, not a network")
    notes = [f"{path} was executed; use only code that you trust"]
    code = _digest_code(path)
    if not isinstance(network, nn.Module):
        if spec.weights is not None:
            raise UsageError(
                f"weights: --weights needs a torch module, but {name} returns {type(network).__name__}"
            )
        return Opened(call=network, name=f"{path.name}:{name}", sha256=code, notes=tuple(notes))
    if spec.weights is not None:
        notes += fit_state(network, read_state(spec.weights, spec.key), source=str(spec.weights))
    elif next(network.parameters(), None) is not None:
        notes.append(f"no --weights: the network has the weights that {name} set")
    network.eval().to(device)
    both = hashlib.sha256(
        f"{code} {digest_module(network)} {arguments} {sorted(named.items())}".encode()
    ).hexdigest()
    return Opened(
        call=network,
        name=f"{path.name}:{name}",
        sha256=both,
        module=network,
        seen=seen_of(spec.weights),
        notes=tuple(notes),
    )


def parse(text: str) -> tuple[Path, str, tuple[Any, ...], dict[str, Any]]:
    """Parse ``file.py:name(3, flag=False)``: file, name, arguments and keyword arguments (literals only).

    >>> parse("clone/net.py:Net(num_class=8)")[1:]
    ('Net', (), {'num_class': 8})

    Raises
    ------
    UsageError : the text does not have this form.
    """
    match = _SPEC.fullmatch(text)
    try:
        call = ast.parse(match["call"] if match else "", mode="eval").body
        target = call.func if isinstance(call, ast.Call) else call
        if match is None or not isinstance(target, ast.Name):
            raise ValueError
        values = call.args if isinstance(call, ast.Call) else []
        arguments = tuple(ast.literal_eval(value) for value in values)
        pairs = call.keywords if isinstance(call, ast.Call) else []
        named = {str(pair.arg): ast.literal_eval(pair.value) for pair in pairs}
    except (ValueError, SyntaxError, TypeError) as exc:
        raise UsageError(
            f"network: {text!r} is not of the form file.py:name or file.py:name(key=value) with literal values"
        ) from exc
    return Path(match["file"]), target.id, arguments, named


def _find(path: Path, name: str) -> Callable[..., Any]:
    """Execute the file and return one of its attributes.

    Raises
    ------
    UsageError : it has no such attribute.
    """
    # a separate package for the folder makes relative imports work and avoids name conflicts
    package = ModuleType(f"ig3d_user_{hashlib.sha256(str(path.resolve().parent).encode()).hexdigest()[:12]}")
    package.__path__ = [str(path.resolve().parent)]
    module_spec = importlib.util.spec_from_file_location(f"{package.__name__}.{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise ImportError("no Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules.update({package.__name__: package, module_spec.name: module})
    module_spec.loader.exec_module(module)
    if not hasattr(module, name):
        own = [
            key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
        ]
        raise UsageError(f"network: {path} has no {name}; it defines {listed(own, 20) or 'nothing'}")
    attribute: Callable[..., Any] = getattr(module, name)
    return attribute


def _digest_code(path: Path) -> str:
    """SHA-256 of the file and of the files in its folder that it imported; installed packages are not included."""
    folder, sha = path.resolve().parent, hashlib.sha256()
    loaded = {
        Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))
    }
    imported = {
        file
        for file in loaded
        if folder in file.parents and "site-packages" not in file.parts and file.is_file()
    }
    for file in sorted({path.resolve(), *imported}):
        sha.update(f"{file.relative_to(folder).as_posix()} {file_sha256(file)}\n".encode())
    return sha.hexdigest()


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """Put ``folder`` first on ``sys.path``; restore the path afterwards."""
    before = list(sys.path)
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path[:] = before
