"""Samples and codes of a store as pandas tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .reader import FRAME_COLUMNS, CodeStore

if TYPE_CHECKING:
    import pandas as pd


def read_samples(store: str | Path) -> pd.DataFrame:
    """Read the samples of a store.

    Parameters
    ----------
    store : path

    Returns
    -------
    pandas.DataFrame
        Index ``id``; columns ``path``, ``split``, ``label``, ``valence``, ``arousal``, ``group``, ``status``,
        ``message`` (why a row has no codes) and, for videos, ``time`` in seconds.

    Raises
    ------
    StoreError : there is no such store, or it is damaged.
    """
    with CodeStore(store) as opened:
        return opened.frame(()).set_index("id")


def read_codes(store: str | Path, blocks: Iterable[str] | None = None) -> pd.DataFrame:
    """Read the codes of a store.

    Parameters
    ----------
    store : path
    blocks : names of blocks, optional
        All of them by default.

    Returns
    -------
    pandas.DataFrame
        Index ``id``; a float32 column for each code: ``expression:0``, ``expression:1``, ... NaN in rows without a
        face.

    Raises
    ------
    StoreError : there is no such store or block, or the store is damaged.
    """
    with CodeStore(store) as opened:
        frame = opened.frame(blocks).set_index("id")
    return frame.drop(columns=[name for name in (*FRAME_COLUMNS, "time") if name in frame])
