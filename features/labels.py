"""Labels of samples: read from a table, and converted to the classes of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import PredictionsError, listed, plural
from .align import align_or_raise, choose_id_column
from .classes import canonical
from .samples import classes_of, sample_table
from .table_columns import (
    GROUP_NAMES,
    LABEL_NAMES,
    PATH_NAMES,
    SPLIT_NAMES,
    as_numbers,
    as_text,
    find_column,
    id_candidates,
    is_empty,
    label_text,
    list_columns,
    split_of,
    va_columns,
)
from .table_reader import read_table

if TYPE_CHECKING:
    import pandas as pd


def read_labels(path: str | Path, *, samples: pd.DataFrame | None = None) -> pd.DataFrame:
    """Read a table of labels as a sample table.

    The table needs a column of ids, and either ``label`` (name or number) or ``valence`` and ``arousal``. Columns
    ``split`` and ``group`` are optional. In the result, labels are a Categorical: of canonical names, or of integers if
    labels are numbers (:func:`with_classes`).

    Parameters
    ----------
    path : file of the table
    samples : sample table of a store, optional
        The column of ids is the one that matches most of these samples. The table needs no labels, if it has splits or
        groups.

    Raises
    ------
    PredictionsError : the table has no ids or no labels, an id is repeated, or a split, label or value is invalid.
    """
    source = Path(path)
    if not source.exists():
        raise PredictionsError(f"{path}: no such table of labels; check the path")
    table, _ = read_table(source)
    label, split, group = (find_column(table, names) for names in (LABEL_NAMES, SPLIT_NAMES, GROUP_NAMES))
    pair = va_columns(table)
    candidates = id_candidates(table.drop(columns={label, split, group, *(pair or ())} - {None}))
    id_column = next(iter(candidates), None)
    if samples is not None and (best := choose_id_column(candidates, samples)) is not None:
        id_column, _ = best
    if id_column is None:
        raise PredictionsError(f"{path}: no column of ids among {list_columns(list(table))}; name it id")
    ids = candidates[id_column]
    _check_unique(source, ids)
    if label is None and pair is None and (samples is None or not (split or group)):
        wanted = "label, or valence and arousal" + (", or split, or group" if samples is not None else "")
        raise PredictionsError(f"{path}: no column {wanted} among {list_columns(list(table))}; add one")
    path_column = find_column(table, PATH_NAMES)
    columns = {"id": ids, "path": ids if path_column is None else as_text(table[path_column])}
    if group:
        columns["group"] = np.array([label_text(cell) for cell in as_text(table[group]).tolist()], dtype=str)
    if split:
        columns["split"] = _splits(source, as_text(table[split]))
    if pair:
        columns |= dict(zip(("valence", "arousal"), _targets(source, table, pair, ids), strict=True))
    classes: list[str] = []
    if label:
        columns["label"], classes = _labels(source, as_text(table[label]))
    result = sample_table(columns, classes=classes, dataset=source.name)
    if label and columns["label"].dtype.kind == "i":
        result["label"] = result["label"].cat.rename_categories(int)
    return result


def with_classes(
    labels: pd.Series, classes: Sequence[str], *, source: str, spare: Sequence[str] = ()
) -> pd.Series:
    """Labels as a Categorical of ``classes``; numbers are indices into ``classes``, labels in ``spare`` become missing.

    Raises
    ------
    PredictionsError : a label is not one of the classes.
    """
    if is_numbered(labels):
        largest = int(labels.cat.codes.max())
        if largest >= len(classes):
            raise PredictionsError(
                f"{source}: label {largest} is beyond the {plural(len(classes), 'class')} ({', '.join(classes)}), "
                "numbered from 0; give all classes, or labels as class names"
            )
        return labels.cat.set_categories(range(len(classes))).cat.rename_categories(list(classes))
    unknown = sorted(names_of(labels) - {*classes, *spare})
    if unknown:
        raise PredictionsError(
            f"{source}: the labels {listed(unknown)} are none of the classes {', '.join(classes)}; rename or empty them"
        )
    return labels.cat.set_categories(list(classes))


def is_numbered(labels: pd.Series) -> bool:
    """Whether labels are numbers instead of names of classes."""
    return labels.cat.categories.dtype.kind == "i"


def names_of(labels: pd.Series) -> set[str]:
    """Names of the classes that occur; numbers as text."""
    return set(map(str, labels.dropna().unique()))


def has_va(samples: pd.DataFrame) -> bool:
    """Whether a sample has valence and arousal."""
    return bool(samples[["valence", "arousal"]].notna().all(axis=1).any())


def overlay(samples: pd.DataFrame, table: pd.DataFrame, *, source: str, to: str) -> tuple[pd.DataFrame, str]:
    """Replace labels, valence and arousal, splits and groups of a store by those of a table; and a note on it.

    A column is replaced if the table has at least one value of it; it is then missing in samples without a row in the
    table. Rows of the table that match no sample are left out and counted.

    Parameters
    ----------
    samples, table : sample tables of the store and of the table
    source, to : names of the file of the table and of the store, for messages

    Raises
    ------
    PredictionsError : no row of the table matches a sample, or a label is not a class of the store.
    """
    alignment = align_or_raise(table["id"].to_numpy(), samples, source=source, to=to, allow_missing=True)
    matched = (
        table[alignment.aligned].set_index(alignment.rows[alignment.aligned]).reindex(range(len(samples)))
    )
    columns = {
        "labels": ["label"] if table["label"].notna().any() else [],
        "valence and arousal": ["valence", "arousal"] if has_va(table) else [],
        "splits": ["split"] if table["split"].notna().any() else [],
        "groups": ["group"] if (table["group"] != "").any() else [],
    }
    result = samples.assign(**{name: matched[name] for names in columns.values() for name in names})
    result["group"] = result["group"].fillna("")
    classes = classes_of(samples)
    if (
        columns["labels"]
        and classes
        and (is_numbered(table["label"]) or names_of(table["label"]) <= {*classes})
    ):
        result["label"] = with_classes(result["label"], classes, source=source)
    replaced = ", ".join(content for content, names in columns.items() if names) or "nothing"
    return result, f"{alignment.report(source, to)}; its {replaced} instead of the store's"


def _check_unique(source: Path, ids: np.ndarray) -> None:
    """Raise an error for repeated ids."""
    names, counts = np.unique(ids, return_counts=True)
    if counts.max() > 1:
        repeated = names[counts > 1].tolist()
        raise PredictionsError(
            f"{source}: {plural(len(repeated), 'duplicate id')} ({listed(repeated)}); keep one row per id"
        )


def _targets(
    source: Path, table: pd.DataFrame, pair: tuple[str, str], ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Valence (n,) and arousal (n,), NaN if missing."""
    targets = np.stack([as_numbers(table[column]) for column in pair], axis=1)
    # AffectNet marks rows without valence and arousal by -2.
    targets[(targets == -2).any(axis=1)] = np.nan
    outside = np.flatnonzero((np.abs(targets) > 1).any(axis=1))
    if len(outside):
        raise PredictionsError(
            f"{source}: {plural(len(outside), 'row')} with valence or arousal outside [-1, 1] "
            f"({listed(ids[outside].tolist())}); rescale them, or leave their cells empty"
        )
    return targets[:, 0], targets[:, 1]


def _labels(source: Path, cells: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Labels (n,), and the names of their classes.

    Labels are numbers (-1 if missing) or canonical names (None if missing).
    """
    texts = ["" if is_empty(cell) else label_text(cell) for cell in cells.tolist()]
    numbers = as_numbers(np.array(texts, dtype=object))
    if np.isfinite(numbers[np.array(texts) != ""]).all():
        labels = np.where(np.isfinite(numbers), numbers, -1)
        if (labels != np.round(labels)).any() or labels.min() < -1 or labels.max() > np.iinfo(np.int16).max:
            raise PredictionsError(
                f"{source}: some labels are neither class names nor the numbers 0, 1, ...; write one of the two"
            )
        return labels.astype(np.int64), [str(label) for label in range(int(labels.max()) + 1)]
    names = [canonical(text) or None for text in texts]
    return np.array(names, dtype=object), sorted({name for name in names if name})


def _splits(source: Path, cells: np.ndarray) -> np.ndarray:
    """(n,) int64 codes of :class:`~.samples.Split` from the names of splits (n,)."""
    names, inverse = np.unique(cells, return_inverse=True)
    splits = [split_of(name) for name in names.tolist()]
    unknown = [name for name, split in zip(names.tolist(), splits, strict=True) if split is None]
    if unknown:
        raise PredictionsError(
            f"{source}: unknown split {listed(unknown)}; write train, val, test or nothing"
        )
    return np.array(splits, np.int64)[inverse.reshape(-1)]
