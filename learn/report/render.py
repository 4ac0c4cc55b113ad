"""Jinja environments of the report: terminal and sentences as plain text, the page as HTML, tables as LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...console import plain
from ...errors import plural
from ..evaluate.figures import Figure
from ..evaluate.metrics import METRICS
from . import format

# Objectives of rules in words.
OBJECTIVES = {
    "accuracy": "accuracy",
    "balanced": "balanced accuracy",
    "logloss": "log loss",
    "rmse": "RMSE",
    "ccc": "CCC",
}
MINUS = "−"


@cache  # with its compiled templates
def text_environment() -> Environment:
    """Plain text."""
    return _environment(autoescape=False, finalize=None)


@cache
def html_environment() -> Environment:
    """HTML, every text escaped and without control characters."""
    return _environment(
        autoescape=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
        minus=MINUS,
        space="\N{NO-BREAK SPACE}",
    )


@cache
def tex_environment(escape: Callable[[str], str]) -> Environment:
    """LaTeX, every text escaped but those of type :class:`Tex`; ``<< value >>`` and ``<% block %>``."""
    return _environment(
        autoescape=False,
        finalize=lambda value: escape(str(value)) if not isinstance(value, Tex) else value,
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>",
    )


class Tex(str):
    """LaTeX source, which is not escaped again."""


def _environment(*, minus: str = "-", space: str = " ", **options: Any) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )

    def signed(text: str) -> str:
        return re.sub(r"-(?=[\d.])", minus, text)

    environment.filters |= {
        "title": lambda metric: METRICS[metric].title,
        "head": lambda metric: METRICS[metric].head,
        "percent": lambda metric: METRICS[metric].percent,
        "unit": format.unit_of,
        "lower_is_better": lambda metric: METRICS[metric].lower,
        "number": lambda value, metric: signed(format.number(_float(value), metric)),
        "difference": lambda value, metric: signed(format.difference(_float(value), metric)),
        "amount": lambda value, metric: (
            format.difference(_float(value), metric, sign=False)
            + (" points" if METRICS[metric].percent else "")
        ),
        "bound": lambda value, metric: format.bound(_float(value), metric),
        "interval": lambda of, metric: signed(format.interval(as_figure(of), metric)),
        "verb": lambda of: format.verb(_float(of["value"])),
        "size": lambda of, metric: signed(format.size(as_figure(of) or Figure(*[math.nan] * 5), metric)),
        "change": lambda of, metric: signed(format.change(as_figure(of), metric)),
        "stars": lambda of, metric: format.stars(as_figure(of), metric),
        "p": lambda value: format.p_value(_float(value)),
        "p_is": lambda value: format.p_is(_float(value)).replace(" ", space),
        "objective": lambda name: OBJECTIVES[name],
        "counted": plural,
        "capital": capital,
        "signed": signed,
        "flat": flat,
        "lines": lines,
        "leak": leak,
    }
    return environment


def lines_of(notes: Iterable[str], diagnostics: Iterable[Mapping[str, Any]]) -> list[str]:
    """Notes, and diagnostics as sentences; those that begin with ``WARNING`` first."""
    sentence = text_environment().get_template("diagnostics.j2").module.diagnostic  # type: ignore[attr-defined]
    lines = [*notes, *(("WARNING " if of["warning"] else "") + flat(sentence(of)) for of in diagnostics)]
    return sorted(lines, key=lambda line: not line.startswith("WARNING"))


def flat(text: str) -> str:
    """A text on one line; markup stays markup."""
    return type(text)(" ".join(text.split()))


def lines(text: str) -> str:
    """A text without its empty lines."""
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def capital(text: str) -> str:
    """A text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def leak(line: str) -> str:
    """A warning of the plan as a sentence of a text, without what to do about it."""
    text = line.removeprefix("WARNING ").partition("; ")[0].rstrip(".")
    return f"{capital(text)}."


def as_figure(of: Mapping[str, Any] | Figure | None) -> Figure | None:
    """A figure of the numbers that a finding has."""
    if of is None or isinstance(of, Figure):
        return of
    return Figure(*(_float(of.get(name)) for name in Figure._fields))


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)
