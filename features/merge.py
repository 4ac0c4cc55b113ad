"""Sample tables of several stores as one: of the same samples, or of one dataset after another."""

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
    """Samples that several stores hold, in one order of the ids; what the first does not have comes from the next.

    Raises
    ------
    PredictionsError : two of them disagree on the label or the split of a sample.
    """
    first, *others = tables
    for other in others:
        for what in ("label", "split"):
            mine, theirs = first[what].astype(object), other[what].astype(object)
            odd = first["id"][mine.notna() & theirs.notna() & (mine != theirs)].tolist()
            if odd:
                raise PredictionsError(
                    f"{source}: {len(odd)} of {len(first)} samples have a different {what} in each ({listed(odd, 3)}); "
                    "extract both from the same list"
                )

    def first_with(present: Sequence[bool]) -> pd.DataFrame:
        return next((table for table, has in zip(tables, present, strict=True) if has), first)

    measured = first_with([has_va(table) for table in tables])
    return first.assign(
        label=first_with([table["label"].notna().any() for table in tables])["label"],
        valence=measured["valence"],
        arousal=measured["arousal"],
        split=first_with([table["split"].notna().any() for table in tables])["split"],
        group=first_with([(table["group"] != "").any() for table in tables])["group"],
    )


def stack(tables: Sequence[tuple[str, pd.DataFrame]]) -> tuple[pd.DataFrame, tuple[str, ...], list[str]]:
    """Datasets one after the other, trained on all but the last and reported on the last.

    Classes are joined by name; a label that not all of them have becomes none. Groups of different datasets are kept
    apart. Rows have the role that their own split gives them: of the last dataset the test split is reported (``val``
    where there is none, all rows where there is neither), of the others the train split (all rows where nothing has a
    split) is trained on. Splits ``val`` that are neither stay ``val``; rows of any other part have none.

    Parameters
    ----------
    tables : name and samples of each dataset

    Returns
    -------
    samples : pandas.DataFrame
    spare : classes that not all datasets have
    notes : a line for each dataset

    Raises
    ------
    PredictionsError : they have classes, and less than two in common.
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
        split, note = _reported(table) if table is tables[-1][1] else _trained(table)
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


def _trained(table: pd.DataFrame) -> tuple[pd.Categorical, str]:
    """Splits of a dataset that is trained on, and a note."""
    train, val = _in(table, "train"), _in(table, "val")
    if table["split"].isna().all():
        train = ~train
    what = "all its rows" if train.all() else "its train split"
    note = f"{what} ({plural(int(train.sum()), 'row')}) trained on{_rest(train, val)}"
    return _roles(train, "train", val), note


def _reported(table: pd.DataFrame) -> tuple[pd.Categorical, str]:
    """Splits of the dataset that is reported, and a note."""
    name = next((name for name in ("test", "val") if _in(table, name).any()), None)
    chosen = np.ones(len(table), bool) if name is None else _in(table, name)
    val = _in(table, "val") & ~chosen
    what = "all its rows" if name is None else f"its {name} split"
    note = f"{what} ({plural(int(chosen.sum()), 'row')}) as test{_rest(chosen, val)}"
    return _roles(chosen, "test", val), note


def _in(table: pd.DataFrame, split: str) -> np.ndarray:
    """(n,) bool: rows of a split."""
    return (table["split"] == split).to_numpy(bool)


def _roles(chosen: np.ndarray, role: str, val: np.ndarray) -> pd.Categorical:
    import pandas as pd

    codes = np.select([chosen, val], [SPLITS.index(role), SPLITS.index("val")], -1)
    return pd.Categorical.from_codes(codes, list(SPLITS))


def _rest(chosen: np.ndarray, val: np.ndarray) -> str:
    counts = {"as val": int(val.sum()), "not used": int((~chosen & ~val).sum())}
    return "".join(f", {plural(count, 'row')} {use}" for use, count in counts.items() if count)
