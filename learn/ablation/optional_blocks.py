"""Optional blocks of a study: ``jaw?`` is used if the stores have this block or named set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import UsageError
from ...features.blocks import named_sets
from ...features.store import CodeStore
from .study import Study


def resolve_optional_blocks(study: Study) -> tuple[Study, list[str]]:
    """Replace the optional blocks of the factor ``blocks`` by those that the stores have.

    A value that thereby becomes empty or equal to an earlier one is left out.

    Parameters
    ----------
    study : Study
        Its common options name the stores.

    Returns
    -------
    Study
    notes : list of str
        Which values are left out, and which blocks the stores do not have.

    Raises
    ------
    UsageError : there are optional blocks, and no common option ``3d-store``.

    Examples
    --------
    For a store with the blocks ``expression`` and ``pose``, ::

        {"expression": "expression", "+ jaw": "expression,jaw?", "+ pose": "expression,jaw?,pose?"}

    becomes ``{"expression": "expression", "+ pose": "expression,pose"}``.
    """
    values = study.grid.get("blocks", {})
    if not any(_optional(value) for value in values.values()):
        return study, []
    stores = study.options.get("3d-store")
    if not stores:
        raise UsageError(f"{study.name}: blocks such as 'jaw?' need a store for all cells; pass --3d-store")
    names = _names([stores] if isinstance(stores, str) else list(stores))
    kept: dict[str, Any] = {}
    left_out, missing = [], []
    for label, value in values.items():
        if not _optional(value):
            kept[label] = value
            continue
        pieces = str(value).split(",")
        missing += [piece[:-1] for piece in pieces if piece.endswith("?") and piece[:-1] not in names]
        blocks = ",".join(
            piece.rstrip("?") for piece in pieces if not piece.endswith("?") or piece[:-1] in names
        )
        if blocks and blocks not in kept.values():
            kept[label] = blocks
        else:
            left_out.append(label)
    notes = [
        f"left out: {', '.join(left_out)}; the store has no {', '.join(dict.fromkeys(missing))}"
        for _ in left_out[:1]
        if missing
    ]
    grid: Mapping[str, Mapping[str, Any]] = {**study.grid, "blocks": kept}
    reference = {name: label for name, label in study.reference.items() if label in grid.get(name, {})}
    return replace(study, grid=grid, reference=reference), notes


def _optional(value: Any) -> bool:
    return isinstance(value, str) and any(piece.endswith("?") for piece in value.split(","))


def _names(stores: list[str]) -> set[str]:
    """Blocks and named sets of stores."""
    names: set[str] = set()
    for path in stores:
        with CodeStore(path) as store:
            names |= {*store.blocks, *named_sets(list(store.blocks), store.named_sets)}
    return names
