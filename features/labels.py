"""Labels of samples: from a table that the user gives, and as numbers of the classes of a run."""

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


def read_labels(path: str | Path, *, beside: pd.DataFrame | None = None) -> pd.DataFrame:
    """Sample table from a table of labels.

    The table has a column of ids, then ``label`` (name or number) or ``valence`` and ``arousal``; maybe ``split`` and
    ``group``, which are enough ``beside`` the samples of a store. The column of ids is then the one that aligns most of
    these. Labels that are names are a Categorical of their canonical names, numbers one of integers
    (:func:`with_classes`).

    Raises
    ------
    PredictionsError : no ids, no labels, an id twice, or a split or value that is none.
    """
    source = Path(path)
    if not source.exists():
        raise PredictionsError(f"{path}: no such table of labels; check the path")
    table, _ = read_table(source)
    label, split, group = (find_column(table, names) for names in (LABEL_NAMES, SPLIT_NAMES, GROUP_NAMES))
    pair = va_columns(table)
    candidates = id_candidates(table.drop(columns={label, split, group, *(pair or ())} - {None}))
    id_column = next(iter(candidates), None)
    if beside is not None and (best := choose_id_column(candidates, beside)) is not None:
        id_column = best[0]
    if id_column is None:
        raise PredictionsError(f"{path}: no column of ids among {list_columns(list(table))}; name it id")
    ids = candidates[id_column]
    _check_unique(source, ids)
    if label is None and pair is None and (beside is None or not (split or group)):
        wanted = "label, or valence and arousal" + (", or split, or group" if beside is not None else "")
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
    samples = sample_table(columns, classes=classes, dataset=source.name)
    if label and columns["label"].dtype.kind == "i":
        samples["label"] = samples["label"].cat.rename_categories(int)
    return samples


def with_classes(
    labels: pd.Series, classes: Sequence[str], *, source: str, spare: Sequence[str] = ()
) -> pd.Series:
    """Labels as a Categorical of ``classes``; numbers are indices of them, one of ``spare`` becomes none.

    Raises
    ------
    PredictionsError : a label that is none of the classes.
    """
    if is_numbered(labels):
        worst = int(labels.cat.codes.max())
        if worst >= len(classes):
            raise PredictionsError(
                f"{source}: label {worst} is beyond the {len(classes)} classes ({', '.join(classes)}), numbered from "
                "0; give all classes, or labels as class names"
            )
        return labels.cat.set_categories(range(len(classes))).cat.rename_categories(list(classes))
    unknown = sorted(names_of(labels) - {*classes, *spare})
    if unknown:
        raise PredictionsError(
            f"{source}: the labels {listed(unknown)} are none of the classes {', '.join(classes)}; rename or empty them"
        )
    return labels.cat.set_categories(list(classes))


def is_numbered(labels: pd.Series) -> bool:
    """Whether labels are numbers of classes that are not known yet."""
    return labels.cat.categories.dtype.kind == "i"


def names_of(labels: pd.Series) -> set[str]:
    """Names of the classes that occur; of numbers their text."""
    return set(map(str, labels.dropna().unique()))


def has_va(samples: pd.DataFrame) -> bool:
    """Whether a sample has valence and arousal."""
    return bool(samples[["valence", "arousal"]].notna().all(axis=1).any())


def overlay(samples: pd.DataFrame, table: pd.DataFrame, *, source: str, to: str) -> tuple[pd.DataFrame, str]:
    """Samples of a store with the labels of a table, and a line on how they were aligned.

    Labels, or valence and arousal, are the table's where it has them at all, and none where it has no such row; so are
    splits and groups. Rows of the table that no sample has the id of are left out, and counted.

    Parameters
    ----------
    samples, table : sample tables
    source, to : names of the table's file and of the store, for messages

    Raises
    ------
    PredictionsError : no row of the table is a sample, or a label is none of the store's.
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
    replaced = ", ".join(what for what, names in columns.items() if names) or "nothing"
    return result, f"{alignment.report(source, to)}; its {replaced} instead of the store's"


def _check_unique(source: Path, ids: np.ndarray) -> None:
    names, counts = np.unique(ids, return_counts=True)
    if counts.max() > 1:
        repeated = names[counts > 1].tolist()
        raise PredictionsError(
            f"{source}: {plural(len(repeated), 'duplicate id')} ({listed(repeated)}); keep one row per id"
        )


def _targets(
    source: Path, table: pd.DataFrame, pair: tuple[str, str], ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Valence and arousal (n,), NaN where there is none."""
    targets = np.stack([as_numbers(table[column]) for column in pair], axis=1)
    # AffectNet marks rows without valence and arousal by -2.
    targets[(targets == -2).any(axis=1)] = np.nan
    far = np.flatnonzero((np.abs(targets) > 1).any(axis=1))
    if len(far):
        raise PredictionsError(
            f"{source}: {plural(len(far), 'row')} with valence or arousal outside [-1, 1] "
            f"({listed(ids[far].tolist())}); rescale them, or leave their cells empty"
        )
    return targets[:, 0], targets[:, 1]


def _labels(source: Path, cells: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Labels with the names of their classes: numbers (-1 where empty), or canonical names (None where empty)."""
    texts = ["" if is_empty(cell) else label_text(cell) for cell in cells.tolist()]
    numbers = as_numbers(np.array(texts, dtype=object))
    if np.isfinite(numbers[np.array(texts) != ""]).all():
        whole = np.where(np.isfinite(numbers), numbers, -1)
        if (whole != np.round(whole)).any() or whole.min() < -1 or whole.max() > np.iinfo(np.int16).max:
            raise PredictionsError(
                f"{source}: some labels are neither class names nor the numbers 0, 1, ...; write one of the two"
            )
        return whole.astype(np.int64), [str(label) for label in range(int(whole.max()) + 1)]
    names = [canonical(text) or None for text in texts]
    return np.array(names, dtype=object), sorted({name for name in names if name})


def _splits(source: Path, cells: np.ndarray) -> np.ndarray:
    """Codes of splits (n,) int64 from cells that name them."""
    names, inverse = np.unique(cells, return_inverse=True)
    splits = [split_of(name) for name in names.tolist()]
    unknown = [name for name, split in zip(names.tolist(), splits, strict=True) if split is None]
    if unknown:
        raise PredictionsError(
            f"{source}: unknown split {listed(unknown)}; write train, val, test or nothing"
        )
    return np.array(splits, np.int64)[inverse.reshape(-1)]
