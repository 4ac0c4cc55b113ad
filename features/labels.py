"""The samples that predictions are joined to: those of a store, or of a table of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import PredictionsError, number, some
from .align import align_column
from .classes import canonical, canonical_all
from .store import CodeStore
from .table_reader import read_table
from .tables import (
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
    say_columns,
    split_of,
    va_columns,
)


@dataclass(frozen=True, slots=True)
class SampleColumns:
    """n samples in the order of their source.

    Attributes
    ----------
    source : str
        For messages.
    classes : tuple of str
        Canonical; empty where there are none or only numbers.
    id, path, group : (n,) str
    split : (n,) int8
    label : (n,) int16, -1 = none
    targets : (n, 2) float64 valence, arousal; NaN = none
    label_names : (n,) str or None
        Labels given by name whose numbers are open until the classes are known.
    spare : tuple of str
        Classes that labels had and lost when datasets were stacked; predictions may have columns of them.
    """

    source: str
    classes: tuple[str, ...]
    id: np.ndarray
    path: np.ndarray
    group: np.ndarray
    split: np.ndarray
    label: np.ndarray
    targets: np.ndarray
    label_names: np.ndarray | None = None
    spare: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.id)

    def take(self, rows: np.ndarray) -> SampleColumns:
        """The samples of some rows: a mask or indices."""
        columns = ("id", "path", "group", "split", "label", "targets", "label_names")
        return replace(
            self, **{name: getattr(self, name)[rows] for name in columns if getattr(self, name) is not None}
        )

    @property
    def names(self) -> np.ndarray:
        """(n,) str labels by name, empty where there is none; numbers where no names are known."""
        if self.label_names is not None:
            return self.label_names
        words = self.classes or [str(label) for label in range(int(self.label.max(initial=-1)) + 1)]
        return np.array([*words, ""], dtype=str)[self.label]

    @property
    def has_classes(self) -> bool:
        return self.label_names is not None or bool((self.label >= 0).any())

    @property
    def has_va(self) -> bool:
        return bool(np.isfinite(self.targets).all(axis=1).any())


def of_store(store: CodeStore) -> SampleColumns:
    """Samples of a store."""
    samples = store.samples
    return SampleColumns(
        source=store.path.name,
        classes=canonical_all(store.info.classes),
        id=samples.id,
        path=samples.path,
        group=samples.group,
        split=samples.split,
        label=samples.label,
        targets=np.stack([samples.valence, samples.arousal], axis=1).astype(np.float64),
    )


def of_file(path: str | Path, *, beside: SampleColumns | None = None) -> SampleColumns:
    """Samples of a table of labels: ``id``, then ``label`` (name or number) or ``valence`` and ``arousal``; maybe
    ``split`` and ``group``, which are enough ``beside`` the samples of a store. The column of ids is then the one that
    matches these best.

    Raises
    ------
    PredictionsError : no ids, no labels, an id twice, a split or value that is none.
    """
    source = Path(path)
    if not source.exists():
        raise PredictionsError(f"{path}: expected a table of labels, found none")
    table, _ = read_table(source)
    label_column = find_column(table, LABEL_NAMES)
    pair = va_columns(table)
    split_column, group_column = find_column(table, SPLIT_NAMES), find_column(table, GROUP_NAMES)
    others = {label_column, *(pair or ()), split_column, group_column}
    candidates = id_candidates(table[[name for name in table if name not in others]])
    id_column = next(iter(candidates), None)
    if beside is not None:
        best = align_column(candidates, beside)
        id_column = None if best is None else best[0]
    if id_column is None:
        raise PredictionsError(f"{path}: expected a column id, got {say_columns(list(table))}")
    ids = candidates[id_column]
    path_column = find_column(table, PATH_NAMES)
    paths = ids if path_column is None else as_text(table[path_column])
    values, counts = np.unique(ids, return_counts=True)
    if counts.max() > 1:
        twice = list(values[counts > 1])
        raise PredictionsError(
            f"{path}: expected every id once, got {number(len(twice), 'id')} more than once ({some(twice)})"
        )
    if label_column is None and pair is None and not (beside is not None and (split_column or group_column)):
        wanted = "label, or valence and arousal" + (", or split, or group" if beside is not None else "")
        raise PredictionsError(f"{path}: expected a column {wanted}, got {say_columns(list(table))}")
    label, label_names = (
        _labels(source, as_text(table[label_column])) if label_column else _no_labels(len(ids))
    )
    targets = np.full((len(ids), 2), np.nan)
    if pair is not None:
        targets = np.stack([as_numbers(table[column]) for column in pair], axis=1)
        # AffectNet marks rows without valence and arousal by -2.
        targets[(targets == -2).any(axis=1)] = np.nan
        far = np.flatnonzero((np.abs(targets) > 1).any(axis=1))
        if len(far):
            raise PredictionsError(
                f"{path}: expected valence and arousal in [-1, 1], got {number(len(far), 'row')} outside "
                f"({some(list(ids[far]))})"
            )
    return SampleColumns(
        source=source.name,
        classes=(),
        id=ids,
        path=paths,
        group=np.array([label_text(cell) for cell in as_text(table[group_column]).tolist()], dtype=str)
        if group_column
        else np.full(len(ids), "", dtype=str),
        split=_splits(source, as_text(table[split_column]))
        if split_column
        else np.full(len(ids), -1, np.int8),
        label=label,
        targets=targets,
        label_names=label_names,
    )


def _no_labels(n: int) -> tuple[np.ndarray, None]:
    return np.full(n, -1, np.int16), None


def _labels(source: Path, text: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels as numbers (-1 where empty), or as names still to be numbered."""
    text = np.array(["" if is_empty(cell) else label_text(cell) for cell in text.tolist()], dtype=str)
    numbers = as_numbers(text.astype(object))
    given = text != ""
    if np.isfinite(numbers[given]).all():
        whole = np.where(np.isfinite(numbers), numbers, -1)
        if (whole != np.round(whole)).any() or whole.min() < -1 or whole.max() > np.iinfo(np.int16).max:
            raise PredictionsError(
                f"{source}: expected labels as class names or their numbers 0, 1, ..., got others"
            )
        return whole.astype(np.int16), None
    return np.full(len(text), -1, np.int16), np.array([canonical(name) for name in text.tolist()], dtype=str)


def _splits(source: Path, text: np.ndarray) -> np.ndarray:
    names, where = np.unique(text, return_inverse=True)
    splits = [split_of(name) for name in names.tolist()]
    unknown = [name for name, split in zip(names.tolist(), splits, strict=True) if split is None]
    if unknown:
        raise PredictionsError(f"{source}: expected split train, val, test or empty, got {some(unknown)}")
    return np.array(splits, np.int8)[where.reshape(-1)]


def number_labels(
    samples: SampleColumns, classes: tuple[str, ...], *, spare: Sequence[str] = ()
) -> np.ndarray:
    """(n,) int16 labels as indices into ``classes``; -1 where there is none, or one of ``spare``.

    Raises
    ------
    PredictionsError : a label that is none of the classes.
    """
    if samples.label_names is None and not samples.classes:
        worst = int(samples.label.max(initial=-1))
        if worst >= len(classes):
            raise PredictionsError(
                f"{samples.source}: expected labels below {len(classes)} ({', '.join(classes)}), got {worst}; "
                "the predictions have fewer classes than the labels"
            )
        return samples.label
    index = {name: position for position, name in enumerate(classes)}
    names, where = np.unique(samples.names, return_inverse=True)
    unknown = [name for name in names.tolist() if name and name not in index and name not in spare]
    if unknown:
        raise PredictionsError(
            f"{samples.source}: expected labels among {', '.join(classes)}, got {some(unknown)} as well"
        )
    return np.array([index.get(name, -1) for name in names.tolist()], np.int16)[where.reshape(-1)]
