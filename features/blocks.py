"""Choosing code blocks by name: single blocks, comma lists, and named sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..errors import UsageError
from .values import Block

# Blocks of the position of the face, which is no feature of its expression; the paper leaves them out, too.
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
        Block names and named sets of the regressor, joined by comma or plus: ``short``, ``full`` (where the regressor
        has no such set: all blocks but the camera), ``short,jaw``.
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
    sets = named_sets(names, regressor)
    chosen = [name for part in _parts(text) for name in sets.get(part, (part,))]
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        raise UsageError(
            f"blocks: expected {', '.join(sets)}, or some of {', '.join(names)}; "
            f"got {text!r}" + (f" ({', '.join(unknown)} not in this store)" if unknown else "")
        )
    return tuple(dict.fromkeys(chosen))


def choose_blocks_of(
    text: str, stores: Mapping[str, tuple[Sequence[str], str]]
) -> dict[str, tuple[str, ...]]:
    """The blocks of several stores that ``text`` names; a store that it names nothing of has none.

    Parameters
    ----------
    text : str
        As for :func:`choose_blocks`; ``smirk:short,emoca:expression`` names them of one store each, a name without a
        store counts for every store that has it.
    stores : name of the store -> its blocks in order, its regressor

    Raises
    ------
    UsageError : a name that no store has.

    Examples
    --------
    >>> stores = {"smirk": (["pose", "eyelid"], "smirk"), "emoca": (["pose", "jaw"], "")}
    >>> choose_blocks_of("pose,smirk:eyelid", stores)
    {'smirk': ('pose', 'eyelid'), 'emoca': ('pose',)}
    """
    if len(stores) == 1:
        return {name: choose_blocks(text, *store) for name, store in stores.items()}
    wanted: dict[str, list[str]] = {name: [] for name in stores}
    for part in _parts(text):
        store, colon, rest = part.partition(":")
        if colon and store in stores:
            wanted[store].append(rest)
            continue
        having = [
            name
            for name, (blocks, regressor) in stores.items()
            if part in (*blocks, *named_sets(blocks, regressor))
        ]
        if not having:
            raise UsageError(
                f"blocks: expected blocks or named sets of {', '.join(stores)}, such as {next(iter(stores))}:full, got "
                f"{part!r}, which none has"
            )
        for name in having:
            wanted[name].append(part)
    if not any(wanted.values()):
        raise UsageError(f"blocks: expected full, short, or block names by comma, got {text!r}")
    return {
        name: choose_blocks(",".join(parts), *stores[name]) if parts else () for name, parts in wanted.items()
    }


def named_sets(available: Sequence[str], regressor: str) -> dict[str, tuple[str, ...]]:
    """Named sets of a regressor that wrote these blocks; ``full`` is among them always."""
    every = tuple(name for name in available if name not in NOT_FEATURES)
    return {"full": every, **NAMED_SETS.get(regressor, {})}


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.replace("+", ",").split(",") if part.strip()]


def column_names(name: str, block: Block) -> list[str]:
    """``code:expression:0`` ...: the names of a block's columns in a fusion table."""
    labels = block.columns or tuple(str(column) for column in range(block.width))
    return [f"code:{name}:{label}" for label in labels]
