"""Read the declarations of options: fields or constructor parameters, their types, and their docstring entries.

Command-line options, study files, checks and the tables in docs use these declarations. An option is a field
of a configuration (:class:`ig3d.learn.config.FuseConfig`), or a keyword-only parameter of a fusion rule.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import UsageError, one_of, shorten

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Between:
    """Range of a number, for an annotation such as ``Annotated[int, Between(2, 1000)]``.

    Attributes
    ----------
    least, most : limits; ``most`` None is no limit
    above, below : whether ``least`` or ``most`` itself is excluded
    """

    least: float
    most: float | None = None
    above: bool = False
    below: bool = False

    def __contains__(self, value: Any) -> bool:
        low = value > self.least if self.above else value >= self.least
        most = math.inf if self.most is None else self.most
        return low and (value < most or (value == self.most and not self.below))

    def __str__(self) -> str:
        if self.most is not None and not self.above and not self.below:
            return f"{self.least} to {self.most}"
        low = f"{'above' if self.above else 'at least'} {self.least}"
        return low if self.most is None else f"{low} and {'below' if self.below else 'at most'} {self.most}"


@dataclass(frozen=True, slots=True)
class Option:
    """One declared option.

    Attributes
    ----------
    parameter : name in Python
    name : name on the command line and in study files
    kind : bool, int, float, str, or tuple for a list of texts
    default : value if the option is not set
    optional : whether None is allowed
    choices : allowed values; empty if any value is allowed
    between : range of a number; None if any value is allowed
    help : entry of the option in the docstring
    """

    parameter: str
    name: str
    kind: type
    default: Any
    optional: bool
    choices: tuple[str, ...]
    between: Between | None
    help: str

    def checked(self, value: Any) -> Any:
        """The value, checked against the type, choices and range of the option.

        Raises
        ------
        UsageError : another type, not one of the choices, or out of range.
        """
        if value is None and self.optional:
            return None
        if self.kind is tuple:
            return self._texts(value)
        if self.kind is int and isinstance(value, Integral) and not isinstance(value, bool):
            value = int(value)  # for integers of NumPy
        if self.kind is float and isinstance(value, Real) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not self.kind:
            wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
            raise UsageError(f"{self.name}: {shorten(repr(value))} is not {wanted[self.kind]}")
        if self.choices and value not in self.choices:
            raise UsageError(f"{self.name}: {value!r} does not exist; choose {one_of(self.choices)}")
        if self.between is not None and value not in self.between:
            raise UsageError(f"{self.name}: {shorten(str(value))} is out of range; choose {self.between}")
        return value

    def parsed(self, text: str) -> Any:
        """The value of a text of the command line, checked.

        Raises
        ------
        UsageError : see :meth:`checked`.
        """
        value: Any = text
        if self.kind is bool:
            value = _WORDS.get(text.lower(), text)
        elif self.kind in (int, float):
            with suppress(ValueError):
                value = self.kind(text)
        return self.checked(value)

    def _texts(self, value: Any) -> tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise UsageError(f"{self.name}: {value!r} is not a list of names; separate names with commas")
        return tuple(str(part).strip() for part in parts if str(part).strip())


def options_of(kind: type, *, skip: Iterable[str] = (), prefix: str = "") -> tuple[Option, ...]:
    """Options of a class: the keyword parameters of its constructor, with the help in its docstring.

    Parameters
    ----------
    kind : class with a numpydoc docstring; of a dataclass, its fields are the parameters
    skip : names of parameters that are not options
    prefix : prefix of the names, such as ``stack.``; with a prefix, names keep their underscores
    """
    declared: Any = kind
    if not hasattr(kind, "__dataclass_fields__"):
        declared = declared.__init__
    hints = get_type_hints(declared, include_extras=True)
    texts = entries_of(inspect.getdoc(kind) or "")
    options = []
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in skip or name not in hints:
            continue
        hint, between = hints[name], None
        optional = get_origin(hint) in (Union, UnionType)
        if optional:
            (hint,) = (part for part in get_args(hint) if part is not NoneType)
        if get_origin(hint) is Annotated:
            hint, *extras = get_args(hint)
            between = next((extra for extra in extras if isinstance(extra, Between)), None)
        literal = get_origin(hint) is Literal
        options.append(
            Option(
                parameter=name,
                name=f"{prefix}{name}" if prefix else name.replace("two_d", "2d").replace("_", "-"),
                kind=str if literal else get_origin(hint) or hint,
                default=parameter.default,
                optional=optional,
                choices=get_args(hint) if literal else (),
                between=between,
                help=texts.get(name, ""),
            )
        )
    return tuple(options)


def entries_of(docstring: str) -> dict[str, str]:
    """Name -> text of the entries under ``Parameters`` and ``Attributes`` of a numpydoc docstring, without markup."""
    entries: dict[str, str] = {}
    lines = docstring.splitlines()
    section = ""
    names: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if following.startswith("---"):
            section, names = line, []
        elif section in ("Parameters", "Attributes") and line and not line.startswith(("-", " ")):
            listed, _, kind = line.partition(" : ")
            names = [name.strip() for name in listed.split(",")]
            entries |= dict.fromkeys(names, "")
            # An entry of one line describes its value after the colon.
            if not following.startswith(" "):
                entries |= dict.fromkeys(names, kind)
        elif line.startswith(" ") and names:
            for name in names:
                entries[name] = f"{entries[name]} {line.strip()}".strip()
        elif not line:
            names = [] if section not in ("Parameters", "Attributes") else names
    return {name: text.replace("``", "").replace(":data:", "") for name, text in entries.items()}


def check_options(config: Any, *, skip: Iterable[str] = ()) -> None:
    """Replace the fields of a frozen dataclass by their checked values, except those named in ``skip``.

    Raises
    ------
    UsageError : see :meth:`Option.checked`.
    """
    for option in options_of(type(config), skip=skip):
        if not issubclass(option.kind, Mapping):
            object.__setattr__(config, option.parameter, option.checked(getattr(config, option.parameter)))
