"""Choosing code blocks by name: single blocks, comma lists, and named sets."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import UsageError
from .values import Block

# What says where the face stood, not what it showed; the paper leaves it out as well.
NOT_FEATURES = frozenset({"camera"})

# EMOCA's and DECA's, as the paper used them: 156 and 334 columns.
_SHORT = ("expression", "pose", "jaw", "shape")
_FULL = ("expression", "pose", "jaw", "texture", "detail", "shape")

# Named sets per regressor, in order; "full" is every block but the camera for a regressor that lists none.
NAMED_SETS: dict[str, dict[str, tuple[str, ...]]] = {
    "facemesh": {"short": ("expression", "pose", "eyelid")},
    # The paper's 353 and 358 columns; its short set has neither jaw nor eyelids.
    "smirk": {
        "short": ("pose", "shape", "expression"),
        "full": ("pose", "shape", "expression", "eyelid", "jaw"),
    },
    **{
        name: {"short": _SHORT, "full": _FULL}
        for name in ("deca", "emoca", "emoca_v1", "emoca_v2_cos", "emoca_v2_mp")
    },
}


def choose_blocks(text: str, available: Iterable[str], regressor: str = "") -> tuple[str, ...]:
    """The blocks that ``text`` names, in the order it names them.

    Parameters
    ----------
    text : str
        A named set of the regressor such as ``short``, ``full`` (where the regressor has no such set: all blocks but
        the camera), or block names joined by comma or plus.
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
    sets = NAMED_SETS.get(regressor, {})
    if text == "full" and text not in sets:
        return tuple(name for name in names if name not in NOT_FEATURES)
    chosen = sets.get(text) or tuple(
        part.strip() for part in text.replace("+", ",").split(",") if part.strip()
    )
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        raise UsageError(
            f"blocks: expected {', '.join({'full': None, **dict.fromkeys(sets)})}, or some of {', '.join(names)}; "
            f"got {text!r}" + (f" ({', '.join(unknown)} not in this store)" if unknown else "")
        )
    return chosen


def column_names(name: str, block: Block) -> list[str]:
    """``code:expression:0`` ...: the names of a block's columns in a fusion table."""
    labels = block.columns or tuple(str(column) for column in range(block.width))
    return [f"code:{name}:{label}" for label in labels]
