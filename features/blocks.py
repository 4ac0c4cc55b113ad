"""Choosing code blocks by name: single blocks, comma lists, and named sets."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import UsageError
from .values import Block

# What says where the face stood, not what it showed; the paper leaves it out as well.
NOT_FEATURES = frozenset({"camera"})

# Named sets per regressor, in order; a regressor that is not listed has "full" only.
NAMED_SETS: dict[str, dict[str, tuple[str, ...]]] = {
    "facemesh": {"short": ("expression", "pose", "eyelid")},
}


def choose_blocks(text: str, available: Iterable[str], regressor: str = "") -> tuple[str, ...]:
    """The blocks that ``text`` names, in the order it names them.

    Parameters
    ----------
    text : str
        ``full`` (all blocks but the camera), a named set of the regressor such as ``short``, or block names
        joined by comma or plus.
    available : names of the store's blocks, in its order
    regressor : str
        Whose named sets count.

    Raises
    ------
    UsageError : a name that the store does not have.

    Examples
    --------
    >>> choose_blocks("full", ["expression", "pose", "camera"])
    ('expression', 'pose')
    >>> choose_blocks("pose+expression", ["expression", "pose"])
    ('pose', 'expression')
    """
    names = list(available)
    if text == "full":
        return tuple(name for name in names if name not in NOT_FEATURES)
    sets = NAMED_SETS.get(regressor, {})
    chosen = sets.get(text) or tuple(
        part.strip() for part in text.replace("+", ",").split(",") if part.strip()
    )
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        raise UsageError(
            f"blocks: expected full, {''.join(f'{name}, ' for name in sets)}or some of {', '.join(names)}; "
            f"got {text!r}" + (f" ({', '.join(unknown)} not in this store)" if unknown else "")
        )
    return chosen


def column_names(name: str, block: Block) -> list[str]:
    """``code:expression:0`` ...: the names of a block's columns in a fusion table."""
    labels = block.columns or tuple(str(column) for column in range(block.width))
    return [f"code:{name}:{label}" for label in labels]
