"""From whatever a network returns to named columns: which outputs, which of their columns, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import ModelError, UsageError, some
from ...features.classes import parse_classes


def named_outputs(returned: Any, source: str) -> dict[str, torch.Tensor]:
    """A network's outputs by name: those of a mapping, positions of a tuple, ``0`` for a tensor.

    What is no tensor keeps its position and is left out, so that ``--output 2`` is the third of what is returned.

    Raises
    ------
    ModelError : there is no tensor among them.
    """
    if isinstance(returned, torch.Tensor):
        returned = {"0": returned}
    elif isinstance(returned, (tuple, list)):
        returned = {str(position): one for position, one in enumerate(returned)}
    found = {}
    if isinstance(returned, Mapping):
        found = {str(name): one for name, one in returned.items() if isinstance(one, torch.Tensor)}
    if not found:
        raise ModelError(f"{source}: expected tensors as outputs, got {type(returned).__name__}")
    return found


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the wanted numbers stand.

    Attributes
    ----------
    outputs : tuple of str
        Names of the outputs that are laid side by side.
    classes : tuple of str
        What the logits are, in order; empty where there are none.
    logits : tuple of int
        Their columns.
    va : tuple of int
        Columns of valence and arousal; empty where there are none.
    """

    outputs: tuple[str, ...]
    classes: tuple[str, ...]
    logits: tuple[int, ...]
    va: tuple[int, ...]

    def take(self, outputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Logits (n, k) and valence-arousal (n, 2), float32; None for what there is none of."""
        joined = side_by_side(outputs, self.outputs)
        return (
            joined[:, list(self.logits)] if self.logits else None,
            joined[:, list(self.va)] if self.va else None,
        )


def side_by_side(outputs: Mapping[str, torch.Tensor], names: Sequence[str]) -> torch.Tensor:
    """(n, columns) float32: these outputs, a single number per row counting as one column."""
    return torch.cat([outputs[name].float().reshape(len(outputs[name]), -1) for name in names], dim=1)


def choose_outputs(
    outputs: Mapping[str, torch.Tensor], wanted: str, *, rows: int, source: str
) -> tuple[str, ...]:
    """The outputs that ``--output`` names; without it the only one.

    Raises
    ------
    UsageError : several to choose from, no such output, or one that is no table of one row per image.
    """
    shapes = [f"{name} {tuple(one.shape)}" for name, one in outputs.items()]
    names = tuple(part.strip() for part in wanted.split(",") if part.strip())
    if not names and len(outputs) > 1:
        raise UsageError(
            f"{source}: expected --output with a network that gives {len(outputs)} outputs (shapes for {rows} images: "
            f"{some(shapes, 8)}); say which, such as --output {next(iter(outputs))}"
        )
    # a position counts the outputs of a network that names them
    order = list(outputs)
    names = names or tuple(order)
    names = tuple(
        order[int(name)] if name not in outputs and name.isdecimal() and int(name) < len(order) else name
        for name in names
    )
    unknown = [name for name in names if name not in outputs]
    if unknown:
        raise UsageError(f"output: expected some of {some(shapes, 8)}, got {', '.join(unknown)}")
    for name in names:
        shape = tuple(outputs[name].shape)
        if not shape or shape[0] != rows or any(side > 1 for side in shape[2:]):
            raise UsageError(
                f"{source}: expected output {name} to be one row of numbers per image, got {shape} for {rows} images; "
                f"choose with --output from {some(shapes, 8)}"
            )
    return names


def parse_columns(text: str, width: int, option: str) -> tuple[int, ...]:
    """Column numbers of ``0:8`` or ``0,2,1``; from 0, each at most once.

    >>> parse_columns("0:3,5", 6, "columns")
    (0, 1, 2, 5)

    Raises
    ------
    UsageError : no such columns.
    """
    chosen: list[int] = []
    try:
        for part in text.split(","):
            first, colon, last = part.strip().partition(":")
            chosen += range(int(first or 0), int(last or width)) if colon else [int(first)]
    except ValueError:
        raise UsageError(f"{option}: expected columns as 0:8 or 0,2,1, got {text!r}") from None
    if not chosen or min(chosen) < 0 or max(chosen) >= width or len(set(chosen)) < len(chosen):
        raise UsageError(
            f"{option}: expected each column once, of {width} (0 to {width - 1}) that the network gives, got {text!r}"
        )
    return tuple(chosen)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What was said of the columns, by the user, a preset or the network itself; see :class:`NetworkSpec`.

    Attributes
    ----------
    orders : tuple of class orders
        Those it may be; the one whose length fits is taken.
    columns, va : str
        As given; empty is unsaid.
    va_after : tuple of str
        ``valence`` and ``arousal`` in the order in which they follow the classes; empty where they do not, or need not.
    """

    orders: tuple[tuple[str, ...], ...]
    columns: str = ""
    va: str = ""
    va_after: tuple[str, ...] = ()


def choose_columns(outputs: tuple[str, ...], width: int, meaning: Meaning, *, source: str) -> Columns:
    """Which columns are classes, and which are valence and arousal.

    Raises
    ------
    UsageError : columns that are not there, or not as many as classes.
    """
    va = parse_columns(meaning.va, width, "va") if meaning.va else ()
    if meaning.va and len(va) != 2:
        raise UsageError(f"va: expected two columns, valence then arousal, got {meaning.va!r}")
    lengths = {len(order): order for order in meaning.orders}
    if not lengths and not meaning.columns:
        if not va and meaning.va_after and width == 2:
            va = tuple(meaning.va_after.index(name) for name in ("valence", "arousal"))
        if not va:
            raise UsageError(
                f"classes: expected --classes for the {width} columns of {source}, got none, and it does not say; give "
                "a preset order, names by comma, or dataset for the dataset's own order (or --va for valence-arousal)"
            )
        return Columns(outputs, (), (), va)
    if meaning.columns:
        logits = parse_columns(meaning.columns, width, "columns")
    elif meaning.va_after and not va and width - 2 in lengths:
        logits = tuple(range(width - 2))
        va = tuple(width - 2 + meaning.va_after.index(name) for name in ("valence", "arousal"))
    else:
        logits = tuple(column for column in range(width) if column not in va)
    if set(logits) & set(va):
        raise UsageError(
            f"columns, va: expected different columns, got {sorted(set(logits) & set(va))} in both"
        )
    if len(logits) not in lengths:
        said = (
            " or ".join(f"{len(order)} classes ({', '.join(order)})" for order in meaning.orders)
            or "--classes"
        )
        raise UsageError(
            f"{source}: expected {said}, got {len(logits)} columns of outputs; name the classes with --classes, or "
            "the columns with --columns 0:8 (and --va 8,9)"
        )
    return Columns(outputs, lengths[len(logits)], logits, va)


def parse_order(text: str, dataset: Sequence[str]) -> tuple[str, ...]:
    """``--classes`` as class names; ``dataset`` is the dataset's own order."""
    if text != "dataset":
        return parse_classes(text)
    if not dataset:
        raise UsageError("classes: expected a dataset with classes for --classes dataset, got one without")
    return tuple(dataset)
