"""Choose code blocks by name: single blocks, lists separated by commas, and named sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..errors import UsageError
from .values import Block

# Blocks of the position of the face, which is not a feature of its expression; the paper does not use them either.
NOT_FEATURES = frozenset({"camera"})

# Pairs of blocks that are named sets of every store that has both.
PAIRS = (("expression", "pose"), ("expression", "jaw"))

Sets = Mapping[str, Sequence[str]]


def choose_blocks(text: str, available: Iterable[str], declared: Sets | None = None) -> tuple[str, ...]:
    """Names of the blocks that ``text`` names, in its order.

    Parameters
    ----------
    text : str
        Block names and named sets, separated by comma or plus: ``short``, ``full``, ``expression+jaw``, ``short,jaw``.
    available : names of the blocks of the store, in its order
    declared : mapping of str to block names, optional
        Named sets of the regressor; see :func:`named_sets`.

    Raises
    ------
    UsageError : the store does not have a block of this name.

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
    """Name of each of several stores -> names of the blocks that ``text`` names; empty if it names none of a store.

    Parameters
    ----------
    text : str
        As for :func:`choose_blocks`. A prefix names a store, as in ``smirk:short,emoca:expression+jaw``. A block
        without prefix is chosen from every store that has it.
    stores : name of the store -> names of its blocks in order, and the named sets of its regressor

    Raises
    ------
    UsageError : no store has a block of this name.

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
    available : names of the blocks of the store, in its order
    declared : mapping of str to block names, optional
        Sets of the class of the regressor, which are stored with the codes.

    Returns
    -------
    name of the set -> names of its blocks
        ``full`` (all blocks except camera, unless the regressor declares this set), ``expression+pose`` and
        ``expression+jaw`` if the store has these blocks, and the declared sets.

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
