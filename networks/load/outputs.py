"""Convert the return value of a network to named columns: choice of outputs and columns, and their meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import ModelError, UsageError, listed, plural
from ...features.classes import parse_classes


def named_outputs(returned: Any, source: str) -> dict[str, torch.Tensor]:
    """Outputs of a network by name: keys of a mapping, positions in a tuple, ``0`` for a tensor.

    Values that are not tensors are left out but counted, so that ``--output 2`` is the third returned value.

    Raises
    ------
    ModelError : the network returns no tensor.
    """
    if isinstance(returned, torch.Tensor):
        returned = {"0": returned}
    elif isinstance(returned, (tuple, list)):
        returned = {str(position): value for position, value in enumerate(returned)}
    outputs = {}
    if isinstance(returned, Mapping):
        outputs = {str(name): value for name, value in returned.items() if isinstance(value, torch.Tensor)}
    if not outputs:
        raise ModelError(f"{source}: the network returns {type(returned).__name__}, not tensors")
    return outputs


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of classes, valence and arousal in the outputs of a network.

    Attributes
    ----------
    outputs : tuple of str
        Names of the outputs, which are concatenated.
    classes : tuple of str
        Classes of the logits, in order; empty for none.
    logits : tuple of int
        Columns of the logits.
    va : tuple of int
        Columns of valence and arousal; empty for none.
    """

    outputs: tuple[str, ...]
    classes: tuple[str, ...]
    logits: tuple[int, ...]
    va: tuple[int, ...]

    def take(self, outputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Logits (n, k) and valence-arousal (n, 2), float32; None if the network has none."""
        joined = side_by_side(outputs, self.outputs)
        return (
            joined[:, list(self.logits)] if self.logits else None,
            joined[:, list(self.va)] if self.va else None,
        )


def side_by_side(outputs: Mapping[str, torch.Tensor], names: Sequence[str]) -> torch.Tensor:
    """(n, columns) float32: concatenation of these outputs; a single number for each row is one column."""
    return torch.cat([outputs[name].float().reshape(len(outputs[name]), -1) for name in names], dim=1)


def choose_outputs(
    outputs: Mapping[str, torch.Tensor], wanted: str, *, rows: int, source: str
) -> tuple[str, ...]:
    """Outputs selected by ``--output``; without it the only one.

    Raises
    ------
    UsageError : several outputs and no selection, an unknown output, or one without one row for each image.
    """
    shapes = [f"{name} {tuple(output.shape)}" for name, output in outputs.items()]
    names = tuple(part.strip() for part in wanted.split(",") if part.strip())
    if not names and len(outputs) > 1:
        raise UsageError(
            f"{source}: the network has {len(outputs)} outputs (shapes for {rows} images: {listed(shapes, 8)}); choose "
            f"with --output, such as --output {next(iter(outputs))}"
        )
    # named outputs can be selected by position too
    order = list(outputs)
    names = names or tuple(order)
    names = tuple(
        order[int(name)] if name not in outputs and name.isdecimal() and int(name) < len(order) else name
        for name in names
    )
    unknown = [name for name in names if name not in outputs]
    if unknown:
        raise UsageError(
            f"output: the network has no output {', '.join(unknown)}; choose from {listed(shapes, 8)}"
        )
    for name in names:
        shape = tuple(outputs[name].shape)
        if not shape or shape[0] != rows or any(side > 1 for side in shape[2:]):
            raise UsageError(
                f"{source}: output {name} has shape {shape} for {rows} images, not one row of numbers for each; choose "
                f"with --output from {listed(shapes, 8)}"
            )
    return names


def parse_columns(text: str, width: int, option: str) -> tuple[int, ...]:
    """Column numbers from text such as ``0:8`` or ``0,2,1``; they count from 0, and each occurs at most once.

    >>> parse_columns("0:3,5", 6, "columns")
    (0, 1, 2, 5)

    Raises
    ------
    UsageError : the text is malformed, or a column does not exist or occurs twice.
    """
    chosen: list[int] = []
    try:
        for part in text.split(","):
            first, colon, last = part.strip().partition(":")
            chosen += range(int(first or 0), int(last or width)) if colon else [int(first)]
    except ValueError:
        raise UsageError(f"{option}: {text!r} is not a list of columns; write 0:8 or 0,2,1") from None
    if not chosen or min(chosen) < 0 or max(chosen) >= width or len(set(chosen)) < len(chosen):
        raise UsageError(
            f"{option}: {text!r} must contain existing columns, each once; the network has {width} (0 to {width - 1})"
        )
    return tuple(chosen)


@dataclass(frozen=True, slots=True)
class Meaning:
    """Information on the columns from options, preset or network; see :class:`NetworkSpec`.

    Attributes
    ----------
    orders : tuple of class orders
        Possible class orders; the one with the right length is used.
    columns, va : str
        Options of the user; empty if not given.
    va_after : tuple of str
        ``valence`` and ``arousal`` in the order in which they follow the classes; empty if they do not or may not.
    """

    orders: tuple[tuple[str, ...], ...]
    columns: str = ""
    va: str = ""
    va_after: tuple[str, ...] = ()


def choose_columns(outputs: tuple[str, ...], width: int, meaning: Meaning, *, source: str) -> Columns:
    """Determine the columns of classes, valence and arousal.

    Raises
    ------
    UsageError : columns do not exist, or their number is not that of the classes.
    """
    va = parse_columns(meaning.va, width, "va") if meaning.va else ()
    if meaning.va and len(va) != 2:
        raise UsageError(f"va: {meaning.va!r} must be two columns, valence then arousal")
    lengths = {len(order): order for order in meaning.orders}
    if not lengths and not meaning.columns:
        if not va and meaning.va_after and width == 2:
            va = tuple(meaning.va_after.index(name) for name in ("valence", "arousal"))
        if not va:
            raise UsageError(
                f"classes: no names for {plural(width, 'column')} of {source}; pass --classes: a preset order, names "
                "separated by commas, or dataset for the dataset's order (or --va for valence-arousal)"
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
        raise UsageError(f"columns, va: columns {sorted(set(logits) & set(va))} are in both")
    if len(logits) not in lengths and meaning.columns:  # some of the classes, by their columns
        full = lengths.get(width - len(va))
        if full is not None and max(logits) < len(full):
            return Columns(outputs, tuple(full[column] for column in logits), logits, va)
    if len(logits) not in lengths:
        orders = (
            " or ".join(f"{len(order)} classes ({', '.join(order)})" for order in meaning.orders)
            or "--classes"
        )
        raise UsageError(
            f"{source}: the output has {plural(len(logits), 'column')}, not {orders}; name the classes with --classes, "
            "or the columns with --columns 0:8 (and --va 8,9)"
        )
    return Columns(outputs, lengths[len(logits)], logits, va)


def parse_order(text: str, dataset: Sequence[str]) -> tuple[str, ...]:
    """Class names of ``--classes``; ``dataset`` is the order of the dataset."""
    if text != "dataset":
        return parse_classes(text)
    if not dataset:
        raise UsageError("classes: --classes dataset needs a dataset with classes; this one has none")
    return tuple(dataset)
