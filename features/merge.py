"""Merge sample tables of several stores: of the same samples, or of different datasets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import PredictionsError, listed, plural
from .labels import has_va, with_classes
from .samples import SPLITS, classes_of

if TYPE_CHECKING:
    import pandas as pd


def merge_same(tables: Sequence[pd.DataFrame], *, source: str) -> pd.DataFrame:
    """Merge tables of the same samples; a column without values is taken from the next table that has values.

    Parameters
    ----------
    tables : sample tables with the same ids in the same order
    source : names of the stores, for messages

    Raises
    ------
    PredictionsError : two tables differ in the label or the split of a sample.
    """
    first, *others = tables
    for other in others:
        for column in ("label", "split"):
            one, two = first[column].astype(object), other[column].astype(object)
            differing = first["id"][one.notna() & two.notna() & (one != two)].tolist()
            if differing:
                raise PredictionsError(
                    f"{source}: different {column} in each for {len(differing)} of {plural(len(first), 'sample')} "
                    f"({listed(differing, 3)}); extract both from the same list"
                )

    def first_with(has_values: Sequence[bool]) -> pd.DataFrame:
        return next((table for table, has in zip(tables, has_values, strict=True) if has), first)

    with_va = first_with([has_va(table) for table in tables])
    return first.assign(
        label=first_with([table["label"].notna().any() for table in tables])["label"],
        valence=with_va["valence"],
        arousal=with_va["arousal"],
        split=first_with([table["split"].notna().any() for table in tables])["split"],
        group=first_with([(table["group"] != "").any() for table in tables])["group"],
    )


def stack(tables: Sequence[tuple[str, pd.DataFrame]]) -> tuple[pd.DataFrame, tuple[str, ...], list[str]]:
    """Concatenate tables of different datasets: models are trained on all but the last, which is reported.

    New splits of the rows:

    - ``test``: of the last dataset, its test split, else its val split, else all its rows
    - ``train``: of the other datasets, their train split, or all rows if a dataset has no splits
    - ``val``: rows of val splits that are not reported
    - none: all other rows

    Classes are joined by name; labels of classes that not all datasets have become missing. Groups of different
    datasets get different names.

    Parameters
    ----------
    tables : name and sample table of each dataset

    Returns
    -------
    samples : sample table
    spare : classes that not all datasets have
    notes : one for each dataset

    Raises
    ------
    PredictionsError : the datasets have classes, but fewer than two in common.
    """
    import pandas as pd

    classes = [classes_of(table) for _, table in tables]
    common = tuple(label for label in classes[0] if all(label in names for names in classes))
    if any(classes) and len(common) < 2:
        source, shared = " + ".join(name for name, _ in tables), ", ".join(common) or "none"
        raise PredictionsError(
            f"{source}: fewer than two classes in common ({shared}); use data sets with the same classes"
        )
    notes, parts = [], []
    for name, table in tables:
        split, note = _splits_to_report(table) if table is tables[-1][1] else _splits_to_train(table)
        spare = [label for label in classes_of(table) if label not in common]
        label = with_classes(table["label"], common, source=name, spare=spare)
        lost = int((table["label"].notna() & label.isna()).sum())
        if spare:
            note += (
                f"; {plural(lost, 'row')} of classes that not all stores have left without a label "
                f"({', '.join(spare)})"
            )
        notes.append(f"{name}: {note}")
        prefix = name.partition(".")[0]
        group = table["group"].where(table["group"] == "", f"{prefix}:" + table["group"])
        parts.append(table.assign(split=split, label=label, group=group))
    spare_of_all = tuple(dict.fromkeys(label for names in classes for label in names if label not in common))
    return pd.concat(parts, ignore_index=True), spare_of_all, notes


def _splits_to_train(table: pd.DataFrame) -> tuple[pd.Categorical, str]:
    """New splits of a dataset on which models are trained, and a note."""
    train, val = _split_mask(table, "train"), _split_mask(table, "val")
    if table["split"].isna().all():
        train = ~train
    part = "all its rows" if train.all() else "its train split"
    note = f"{part} ({plural(int(train.sum()), 'row')}) trained on{_other_counts(train, val)}"
    return _new_splits(train, "train", val), note


def _splits_to_report(table: pd.DataFrame) -> tuple[pd.Categorical, str]:
    """New splits of the dataset that is reported, and a note."""
    name = next((name for name in ("test", "val") if _split_mask(table, name).any()), None)
    test = np.ones(len(table), bool) if name is None else _split_mask(table, name)
    val = _split_mask(table, "val") & ~test
    part = "all its rows" if name is None else f"its {name} split"
    note = f"{part} ({plural(int(test.sum()), 'row')}) as test{_other_counts(test, val)}"
    return _new_splits(test, "test", val), note


def _split_mask(table: pd.DataFrame, split: str) -> np.ndarray:
    """(n,) bool: rows of a split."""
    return (table["split"] == split).to_numpy(bool)


def _new_splits(rows: np.ndarray, split: str, val: np.ndarray) -> pd.Categorical:
    """Categorical with this split in ``rows``, val in ``val``, and missing elsewhere; both masks are (n,) bool."""
    import pandas as pd

    codes = np.select([rows, val], [SPLITS.index(split), SPLITS.index("val")], -1)
    return pd.Categorical.from_codes(codes, list(SPLITS))


def _other_counts(chosen: np.ndarray, val: np.ndarray) -> str:
    """End of a note: numbers of the rows that are val or not used."""
    counts = {"as val": int(val.sum()), "not used": int((~chosen & ~val).sum())}
    return "".join(f", {plural(count, 'row')} {use}" for use, count in counts.items() if count)
