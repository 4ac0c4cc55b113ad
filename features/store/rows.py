"""Find rows of a store by sample id or pattern."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from ...errors import UsageError
from .reader import CodeStore


def rows_of(store: CodeStore, patterns: Sequence[str]) -> np.ndarray:
    """Rows whose sample id is equal to an id or matches a pattern.

    Parameters
    ----------
    store : CodeStore
    patterns : ids, or patterns in which ``*`` matches any characters, ``?`` one character, and ``[ab]`` a or b
        A text that is equal to an id is not a pattern.

    Returns
    -------
    (m,) int, distinct row indices in the order of the patterns and, within a pattern, of the store

    Raises
    ------
    UsageError : an id or pattern matches no row.
    """
    ids = store.samples["id"].tolist()
    by_id = {sample: row for row, sample in enumerate(ids)}
    rows: dict[int, None] = {}
    for pattern in patterns:
        if pattern in by_id:
            matches = [by_id[pattern]]
        else:
            matches = [row for row, sample in enumerate(ids) if fnmatchcase(sample, pattern)]
        if not matches:
            example = f"; ids look like {ids[0]!r}" if ids else ""
            raise UsageError(f"rows: no id of {store.path} is or matches {pattern!r}{example}")
        rows.update(dict.fromkeys(matches))
    return np.array(list(rows), dtype=int)
