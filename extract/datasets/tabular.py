"""Samples from the columns of a table: the meaning of its cells, and the values that are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...errors import DatasetError, listed, plural
from ...features.classes import canonical, canonical_all
from ...features.samples import BOX_COLUMNS, Listing
from ...features.table_columns import LABEL_NAMES, as_numbers, cell_text, is_empty, label_text, split_of
from .base import Dataset, DatasetOptions
from .label_names import Labels, digit_notes, read_labels

COLUMNS = ("path", "id", "label", "split", "valence", "arousal", "group", *BOX_COLUMNS)


def list_table(
    dataset: Dataset,
    root: str,
    table: Mapping[str, Sequence[Any]],
    sizes: Sequence[int],
    options: DatasetOptions,
    *,
    class_names: Sequence[str] = (),
    times: Sequence[float] | None = None,
    notes: Iterable[str] = (),
) -> Listing:
    """The samples of a table.

    Parameters
    ----------
    dataset, root : of the listing, and for messages
    table : column name -> n cells
        ``path`` and ``id``, and any other of :data:`COLUMNS`.
    sizes : n file sizes, bytes
    options : DatasetOptions
    class_names : names of labels 0, 1, ..., where the dataset gives them; ``options.label_map`` goes before it
    times : n seconds from the start of a video, NaN for images; None where there is no video
    notes : further notes

    Raises
    ------
    DatasetError : a split, a number or a box is none.
    UsageError : the label map does not fit.
    """
    cells = {name: pd.Series(_cleaned(table[name]), dtype=object) for name in COLUMNS if name in table}
    empty = pd.Series([""] * len(sizes), dtype=object)
    ids = cells["id"]
    label = _each(cells.get("label", empty), _label)
    present = set(label) - {""}
    if class_names and options.label_map is None:
        labels = _numbered(dataset.name, present, class_names)
    else:
        labels = read_labels(present, options.label_map)
    columns: dict[str, Any] = {
        "id": ids,
        "path": cells["path"],
        "label": label.map(labels.index).fillna(-1).astype(np.int64),
        "split": _splits(dataset.name, cells.get("split", empty), ids),
        "valence": _numbers(dataset.name, "valence", cells.get("valence", empty), ids),
        "arousal": _numbers(dataset.name, "arousal", cells.get("arousal", empty), ids),
        "group": _each(cells.get("group", empty), label_text),
        "size_bytes": sizes,
        **_boxes(dataset.name, {name: cells[name] for name in BOX_COLUMNS if name in cells}, ids),
    }
    if times is not None:
        columns["time"] = times
    named = bool(options.label_map or class_names)
    counts = {"all": Counter(label[label != ""].tolist())}
    notes = [*notes, *labels.notes, *digit_notes(counts, labels.classes if named else ())]
    return dataset.listing(root, columns, notes, classes=labels.classes)


def find_label(names: Iterable[str]) -> str | None:
    """The column of labels: ``label``, else another usual name in lower case."""
    present = set(names)
    return next((name for name in LABEL_NAMES if name in present), None)


def _cleaned(cells: Sequence[Any]) -> list[str]:
    return [cell_text(cell) for cell in cells]


def _each(cells: pd.Series, function: Callable[[str], Any]) -> pd.Series:
    """A function of each cell, called once for each distinct one."""
    return cells.map({cell: function(cell) for cell in cells.unique()}).astype(object)


def _label(cell: str) -> str:
    """A class by its canonical name, or a number; empty for none."""
    text = label_text(cell)
    return "" if is_empty(text) or text == "-1" else canonical(text)


def _numbered(dataset: str, present: set[str], class_names: Sequence[str]) -> Labels:
    """Labels 0, 1, ... or names, in the order of the dataset's classes."""
    classes = canonical_all(class_names)
    index = {str(label): label for label in range(len(classes))}
    index |= {name: label for label, name in enumerate(classes)}
    if unknown := sorted(present - index.keys()):
        raise DatasetError(
            f"{dataset}: unknown labels {listed(unknown)}; use 0 to {len(classes) - 1}, or {listed(list(classes), 12)}"
        )
    return Labels(index, classes)


def _splits(dataset: str, cells: pd.Series, ids: pd.Series) -> pd.Series:
    splits = _each(cells, split_of)
    _refuse(dataset, "split train, val, test or empty", cells.map(repr), ids, splits.isna())
    return splits.astype(np.int64)


def _numbers(dataset: str, name: str, cells: pd.Series, ids: pd.Series) -> np.ndarray:
    """Valence or arousal in [-1, 1]; an empty cell or -2 (AffectNet's mark) is none."""
    values = as_numbers(cells.to_numpy())
    wrong = (np.isnan(values) & ~_each(cells, _is_none).to_numpy(bool)) | (
        (np.abs(values) > 1) & (values != -2)
    )
    _refuse(dataset, f"{name} in [-1, 1], -2 or empty", cells.map(repr), ids, wrong)
    return np.where(values == -2, np.nan, values)


def _is_none(cell: str) -> bool:
    return is_empty(cell.lstrip("+-"))  # some programs write -nan


def _boxes(dataset: str, corners: dict[str, pd.Series], ids: pd.Series) -> dict[str, np.ndarray]:
    """Face boxes from the columns x0, y0, x1, y1 in pixels; NaN where all four cells are empty."""
    if not corners:
        return {}
    if len(corners) < len(BOX_COLUMNS):
        raise DatasetError(
            f"{dataset}: only {', '.join(corners)} of the box columns; give {', '.join(BOX_COLUMNS)}, or none"
        )
    cells = pd.DataFrame(corners)
    none = cells.map(is_empty).all(axis=1)
    boxes = np.stack([as_numbers(cells[name].to_numpy()) for name in BOX_COLUMNS], axis=1)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        sides = boxes[:, 2:] - boxes[:, :2]
    wrong = ~none & ~((sides > 0) & np.isfinite(sides)).all(axis=1)
    _refuse(dataset, "boxes x0 < x1, y0 < y1 in pixels", cells.agg(",".join, axis=1), ids, wrong)
    return dict(zip(BOX_COLUMNS, boxes.T, strict=True))


def _refuse(dataset: str, rule: str, cells: pd.Series, ids: pd.Series, wrong: pd.Series | np.ndarray) -> None:
    """Refuse the cells that are wrong, by their ids."""
    if count := int(wrong.sum()):
        shown = [f"{cell} ({name})" for cell, name in zip(cells[wrong], ids[wrong], strict=True)]
        raise DatasetError(f"{dataset}: {plural(count, 'cell')} not valid: {listed(shown)}; use {rule}")
