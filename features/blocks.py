"""Choosing code blocks by name: single blocks, comma lists, and named sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..errors import UsageError
from .values import Block

# Blocks of the position of the face, which is no feature of its expression; the paper leaves them out, too.
NOT_FEATURES = frozenset({"camera"})

# Pairs of blocks that are named sets of every store that has both.
PAIRS = (("expression", "pose"), ("expression", "jaw"))

Sets = Mapping[str, Sequence[str]]


def choose_blocks(text: str, available: Iterable[str], declared: Sets | None = None) -> tuple[str, ...]:
    """The blocks that ``text`` names, in the order it names them.

    Parameters
    ----------
    text : str
        Block names and named sets, joined by comma or plus: ``short``, ``full``, ``expression+jaw``, ``short,jaw``.
    available : names of the store's blocks, in its order
    declared : mapping of str to block names, optional
        Named sets of the regressor; see :func:`named_sets`.

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
    sets = named_sets(names, declared)
    chosen = [name for part in _parts(text) for name in sets.get(part, (part,))]
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        raise UsageError(
            (
                f"blocks: the store has no block {', '.join(unknown)}"
                if unknown
                else f"blocks: {text!r} names no block"
            )
            + f"; choose {', '.join(sets)}, or names among {', '.join(names)}"
        )
    return tuple(dict.fromkeys(chosen))


def choose_blocks_of(
    text: str, stores: Mapping[str, tuple[Sequence[str], Sets]]
) -> dict[str, tuple[str, ...]]:
    """The blocks of several stores that ``text`` names; a store that it names nothing of has none.

    Parameters
    ----------
    text : str
        As for :func:`choose_blocks`; ``smirk:short,emoca:expression+jaw`` names them of one store each, a name without
        a store counts for every store that has it.
    stores : name of the store -> its blocks in order, the named sets of its regressor

    Raises
    ------
    UsageError : a name that no store has.

    Examples
    --------
    >>> stores = {"smirk": (["pose", "eyelid"], {}), "emoca": (["pose", "jaw"], {})}
    >>> choose_blocks_of("pose,smirk:eyelid", stores)
    {'smirk': ('pose', 'eyelid'), 'emoca': ('pose',)}
    """
    if len(stores) == 1:
        return {name: choose_blocks(text, *store) for name, store in stores.items()}
    wanted: dict[str, list[str]] = {name: [] for name in stores}
    for part in _parts(text, keep=stores):
        store, colon, rest = part.partition(":")
        if colon and store in stores:
            wanted[store].append(rest)
            continue
        having = [
            name
            for name, (blocks, declared) in stores.items()
            if part in (*blocks, *named_sets(blocks, declared))
        ]
        if not having:
            raise UsageError(
                f"blocks: none of {', '.join(stores)} has the block {part!r}; choose blocks or named sets, such as "
                f"{next(iter(stores))}:full"
            )
        for name in having:
            wanted[name].append(part)
    if not any(wanted.values()):
        raise UsageError(
            f"blocks: {text!r} names no block; give full, short, or block names separated by commas"
        )
    return {
        name: choose_blocks(",".join(parts), *stores[name]) if parts else () for name, parts in wanted.items()
    }


def named_sets(available: Sequence[str], declared: Sets | None = None) -> dict[str, tuple[str, ...]]:
    """Named sets of a store with these blocks.

    Parameters
    ----------
    available : names of the store's blocks, in its order
    declared : mapping of str to block names, optional
        Sets of the regressor's class, which the store records.

    Returns
    -------
    ``full`` (all blocks but the camera, unless the regressor declares it), ``expression+pose`` and ``expression+jaw``
    where the store has these blocks, and the declared sets

    Examples
    --------
    >>> named_sets(["expression", "pose", "camera"], {"short": ["pose"]})
    {'full': ('expression', 'pose'), 'expression+pose': ('expression', 'pose'), 'short': ('pose',)}
    """
    every = tuple(name for name in available if name not in NOT_FEATURES)
    pairs = {"+".join(pair): pair for pair in PAIRS if set(pair) <= set(available)}
    return {"full": every, **pairs, **{name: tuple(blocks) for name, blocks in (declared or {}).items()}}


def _parts(text: str, keep: Iterable[str] = ()) -> list[str]:
    """Names joined by comma or plus; ``store:a+b`` of a store in ``keep`` is one part."""
    stores = set(keep)
    parts = [
        part
        for piece in text.split(",")
        for part in ([piece] if piece.strip().partition(":")[0] in stores else piece.split("+"))
    ]
    return [part.strip() for part in parts if part.strip()]


def column_names(name: str, block: Block) -> list[str]:
    """``code:expression:0`` ...: the names of a block's columns in a fusion table."""
    labels = block.columns or tuple(str(column) for column in range(block.width))
    return [f"code:{name}:{label}" for label in labels]
