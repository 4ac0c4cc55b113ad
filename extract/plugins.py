"""Plug-ins by name: a dict of ours, the entry points of other packages, or ``package.module:Class`` as it is."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from inspect import signature
from typing import Any

from ..errors import UsageError, absent


def names(kind: str, ours: Mapping[str, str]) -> list[str]:
    """All names of a kind (``dataset``, ``detector``, ``regressor``), ours first."""
    return [
        *ours,
        *sorted(point.name for point in entry_points(group=f"ig3d.{kind}s") if point.name not in ours),
    ]


def load(
    kind: str,
    name: str,
    ours: Mapping[str, str],
    *,
    where_taken: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Any:
    """Import the plug-in's class and make one; ``where_taken`` are arguments for those that know them.

    Raises
    ------
    UsageError : no plug-in of that kind has this name, its module has no such class, or that takes no such argument.
    MissingExtra : it needs a package that is not installed.
    """
    if name in ours:
        target = ours[name]
    elif ":" in name:
        target = name
    else:
        found = {point.name: point.value for point in entry_points(group=f"ig3d.{kind}s")}
        if name not in found:
            raise UsageError(f"{kind}: expected one of {', '.join(names(kind, ours))}, got {name!r}")
        target = found[name]
    module, _, attribute = target.partition(":")
    try:
        plugin = getattr(import_module(module), attribute)
    except AttributeError as exc:
        raise UsageError(f"{kind}: expected {attribute!r} in the module {module}, found none") from exc
    except ModuleNotFoundError as exc:
        raise absent(exc, wanted_by=f"{kind} {name}") from exc
    lacking = [argument for argument in arguments if not _takes(plugin, argument)]
    if lacking:
        raise UsageError(
            f"{kind} {name}: expected no --{lacking[0]}, got {arguments[lacking[0]]!r}; leave it out"
        )
    known = {argument: value for argument, value in (where_taken or {}).items() if _takes(plugin, argument)}
    return plugin(**arguments, **known)


def _takes(plugin: Any, argument: str) -> bool:
    parameters = signature(plugin).parameters.values()
    return any(one.name == argument or one.kind is one.VAR_KEYWORD for one in parameters)
