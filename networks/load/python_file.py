"""``file.py:build``: a function or class in the user's own Python file makes the network.

This runs that file, as ``python file.py`` would, and says so. Its folder is on ``sys.path`` while it is imported and
while the network is made, so that a clone's file finds its neighbours.
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

from ...errors import ModelError, Terminated, UsageError
from .state import digest_file, digest_module, fit_state, read_state
from .values import NetworkSpec, Opened

_SPEC = re.compile(r"(?P<file>.+\.py):(?P<call>[^/\\]+|.+\(.*\))", re.DOTALL)


def open_network(spec: NetworkSpec, device: torch.device) -> Opened:
    """Import the file, call what it names, and put the weights in."""
    path, name, arguments, named = parse(spec.network)
    if not path.is_file():
        raise UsageError(f"network: expected a Python file, found none at {path}")
    with _on_path(path.parent):
        try:
            made = _find(path, name)(*arguments, **named)
        except Terminated:
            raise
        except (Exception, SystemExit) as exc:  # the user's code may raise anything
            raise ModelError(
                f"{path}: expected {name} to make a network, got {type(exc).__name__}: "
                f"{(str(exc).splitlines() or [''])[0][:200]}; arguments go as file.py:{name}(key=value)"
            ) from exc
    if not callable(made):
        raise ModelError(f"{path}: expected {name} to return a network, got {type(made).__name__}")
    notes = [f"{path} was run: it is your own code, or that of a clone you trust"]
    code = _digest_code(path)
    if not isinstance(made, nn.Module):
        if spec.weights is not None:
            raise UsageError(
                f"weights: expected {name} to return a torch module for them, got {type(made).__name__}"
            )
        return Opened(call=made, name=f"{path.name}:{name}", sha256=code, notes=tuple(notes))
    if spec.weights is not None:
        notes += fit_state(made, read_state(spec.weights, spec.key), source=str(spec.weights))
    elif next(made.parameters(), None) is not None:
        notes.append(f"no --weights were given: the network has those that {name} gave it")
    made.eval().to(device)
    both = hashlib.sha256(
        f"{code} {digest_module(made)} {arguments} {sorted(named.items())}".encode()
    ).hexdigest()
    return Opened(call=made, name=f"{path.name}:{name}", sha256=both, module=made, notes=tuple(notes))


def parse(text: str) -> tuple[Path, str, tuple[Any, ...], dict[str, Any]]:
    """File, name, arguments and named arguments (plain values only) of ``file.py:name(3, flag=False)``.

    >>> parse("clone/net.py:Net(num_class=8)")[1:]
    ('Net', (), {'num_class': 8})

    Raises
    ------
    UsageError : it is not of this form.
    """
    found = _SPEC.fullmatch(text)
    try:
        call = ast.parse(found["call"] if found else "", mode="eval").body
        target = call.func if isinstance(call, ast.Call) else call
        if found is None or not isinstance(target, ast.Name):
            raise ValueError
        given = call.args if isinstance(call, ast.Call) else []
        arguments = tuple(ast.literal_eval(value) for value in given)
        pairs = call.keywords if isinstance(call, ast.Call) else []
        named = {str(pair.arg): ast.literal_eval(pair.value) for pair in pairs}
    except (ValueError, SyntaxError, TypeError) as exc:
        raise UsageError(
            f"network: expected file.py:name or file.py:name(key=value), with plain values, got {text!r}"
        ) from exc
    return Path(found["file"]), target.id, arguments, named


def _find(path: Path, name: str) -> Callable[..., Any]:
    """The attribute of the file, which is run."""
    # a package of its own over the file's folder: relative imports find its neighbours, and no name hides another
    package = ModuleType(f"ig3d_user_{hashlib.sha256(str(path.resolve().parent).encode()).hexdigest()[:12]}")
    package.__path__ = [str(path.resolve().parent)]
    described = importlib.util.spec_from_file_location(f"{package.__name__}.{path.stem}", path)
    if described is None or described.loader is None:
        raise ImportError("no Python file")
    module = importlib.util.module_from_spec(described)
    sys.modules.update({package.__name__: package, described.name: module})
    described.loader.exec_module(module)
    found: Callable[..., Any] = getattr(module, name)
    return found


def _digest_code(path: Path) -> str:
    """SHA-256 over the file and those of its neighbours that it imported; installed packages are no part of it."""
    folder, sha = path.resolve().parent, hashlib.sha256()
    loaded = {
        Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))
    }
    mine = {
        file
        for file in loaded
        if folder in file.parents and "site-packages" not in file.parts and file.is_file()
    }
    for file in sorted({path.resolve(), *mine}):
        sha.update(f"{file.relative_to(folder).as_posix()} {digest_file(file)}\n".encode())
    return sha.hexdigest()


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """``folder`` first on ``sys.path``; afterwards the path is as it was."""
    before = list(sys.path)
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path[:] = before
