"""Find plug-ins by name: built-in ones, entry points of other packages, or ``package.module:Class``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from inspect import signature
from typing import Any

from ..errors import UsageError, absent


def names(kind: str, builtin: Mapping[str, str]) -> list[str]:
    """Names of all plug-ins of a kind (``dataset``, ``detector``, ``regressor``), built-in ones first."""
    return [
        *builtin,
        *sorted(point.name for point in entry_points(group=f"ig3d.{kind}s") if point.name not in builtin),
    ]


def load(
    kind: str,
    name: str,
    builtin: Mapping[str, str],
    *,
    optional: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Any:
    """Import a plug-in's class and create an instance.

    Parameters
    ----------
    kind : ``dataset``, ``detector`` or ``regressor``
    name : name of the plug-in, or ``package.module:Class``
    builtin : name -> ``module:Class`` of the built-in plug-ins
    optional : arguments that are passed only if the class accepts them
    arguments : arguments that the class must accept

    Raises
    ------
    UsageError : no plug-in has this name, its module has no such class, or the class does not accept an argument.
    MissingExtra : the plug-in needs a package that is not installed.
    """
    if name in builtin:
        target = builtin[name]
    elif ":" in name:
        target = name
    else:
        installed = {point.name: point.value for point in entry_points(group=f"ig3d.{kind}s")}
        if name not in installed:
            raise UsageError(f"{kind}: there is no {name!r}; choose one of {', '.join(names(kind, builtin))}")
        target = installed[name]
    module, _, attribute = target.partition(":")
    try:
        plugin = getattr(import_module(module), attribute)
    except AttributeError as exc:
        raise UsageError(
            f"{kind}: the module {module} has no {attribute!r}; correct the name in {target!r}"
        ) from exc
    except ModuleNotFoundError as exc:
        raise absent(exc, wanted_by=f"{kind} {name}") from exc
    refused = [argument for argument in arguments if not _accepts(plugin, argument)]
    if refused:
        raise UsageError(
            f"{kind} {name}: it has no option --{refused[0]} (got {arguments[refused[0]]!r}); leave it out"
        )
    accepted = {name: value for name, value in (optional or {}).items() if _accepts(plugin, name)}
    return plugin(**arguments, **accepted)


def _accepts(plugin: Any, argument: str) -> bool:
    parameters = signature(plugin).parameters.values()
    return any(
        parameter.name == argument or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters
    )
