"""Samples from the columns of a table, wherever it was read: what the cells may say, and what is refused."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import DatasetError, number, some
from ...features.classes import canonical, canonical_all
from ...features.columns import LABEL_NAMES, cell_text, is_empty, label_text, split_of
from ...features.samples import Sample, SampleList, Split
from . import DatasetOptions
from .labels import Labels, digit_notes, read_labels

BOX = ("x0", "y0", "x1", "y1")
COLUMNS = ("path", "id", "label", "split", "valence", "arousal", "group", *BOX)
# Other names of columns, in lower case; used where the name itself is not there.
OTHER_NAMES: Mapping[str, tuple[str, ...]] = {"label": LABEL_NAMES[1:]}


def from_table(
    dataset: str,
    root: str,
    table: Mapping[str, Sequence[Any]],
    sizes: Sequence[int],
    options: DatasetOptions,
    *,
    class_names: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> SampleList:
    """The sample list of a table.

    Parameters
    ----------
    dataset, root : for the list, and for messages
    table : column name -> n cells
        ``path`` and ``id``, and any other of :data:`COLUMNS`.
    sizes : n file sizes, bytes
    options : DatasetOptions
    class_names : what labels 0, 1, ... mean, where the dataset says so; ``options.label_map`` goes before it
    notes : what else there is to say

    Raises
    ------
    DatasetError : a split, a number or a box that is none.
    UsageError : the label map does not fit.
    """
    texts = {name: [cell_text(cell) for cell in table[name]] for name in COLUMNS if name in table}
    ids, empty = texts["id"], [""] * len(sizes)
    cells = [
        "" if is_empty(cell) or cell == "-1" else canonical(cell)
        for cell in map(label_text, texts.get("label", empty))
    ]
    found = {cell for cell in cells if cell}
    if class_names and options.label_map is None:
        labels = _numbered(dataset, found, class_names)
    else:
        labels = read_labels(found, options.label_map)
    samples = tuple(
        Sample(*row)
        for row in zip(
            ids,
            texts["path"],
            (labels.index.get(cell, -1) for cell in cells),
            _splits(dataset, texts.get("split", empty), ids),
            _numbers(dataset, texts, "valence", ids),
            _numbers(dataset, texts, "arousal", ids),
            map(label_text, texts.get("group", empty)),
            sizes,
            _boxes(dataset, texts, ids),
            strict=True,
        )
    )
    counts = {"all": Counter(cell for cell in cells if cell)}
    named = bool(options.label_map or class_names)
    said = digit_notes(counts, labels.classes if named else ())
    return SampleList(dataset, root, labels.classes, samples, (*notes, *labels.notes, *said))


def _numbered(dataset: str, found: set[str], class_names: Sequence[str]) -> Labels:
    """Labels 0, 1, ... or names, in the order that the dataset gives its classes."""
    classes = canonical_all(class_names)
    index = {str(label): label for label in range(len(classes))}
    index |= {name: label for label, name in enumerate(classes)}
    if odd := sorted(found - index.keys()):
        raise DatasetError(
            f"{dataset}: expected labels 0 to {len(classes) - 1} or {some(list(classes), 12)}, got {some(odd)}"
        )
    return Labels(index, classes)


def _splits(dataset: str, cells: list[str], ids: list[str]) -> list[Split]:
    splits = [split_of(cell) for cell in cells]
    unknown = [
        f"{cell!r} ({where})" for cell, split, where in zip(cells, splits, ids, strict=True) if split is None
    ]
    if unknown:
        raise DatasetError(
            f"{dataset}: expected split train, val, test or empty, got {number(len(unknown), 'other')}: {some(unknown)}"
        )
    return [split for split in splits if split is not None]


def _numbers(dataset: str, texts: dict[str, list[str]], name: str, ids: list[str]) -> list[float]:
    """Valence or arousal in [-1, 1]; an empty cell or -2 (AffectNet's mark) is none."""
    numbers, bad = [], []
    for cell, where in zip(texts.get(name, [""] * len(ids)), ids, strict=True):
        try:
            value = float(cell) if not is_empty(cell) else math.nan
        except ValueError:
            value = math.inf
        value = math.nan if value == -2 else value
        if value > 1 or value < -1:
            bad.append(f"{cell!r} ({where})")
        numbers.append(value)
    if bad:
        raise DatasetError(
            f"{dataset}: expected {name} in [-1, 1], -2 or empty, got {number(len(bad), 'other')}: {some(bad)}"
        )
    return numbers


def _boxes(
    dataset: str, texts: dict[str, list[str]], ids: list[str]
) -> list[tuple[float, float, float, float] | None]:
    """Face boxes from the columns x0, y0, x1, y1 in pixels; None where all four cells are empty."""
    present = [name for name in BOX if name in texts]
    if not present:
        return [None] * len(ids)
    if len(present) < len(BOX):
        raise DatasetError(
            f"{dataset}: expected the columns {', '.join(BOX)} for boxes, got {', '.join(present)} only"
        )
    boxes: list[tuple[float, float, float, float] | None] = []
    bad = []
    for where, *cells in zip(ids, *(texts[name] for name in BOX), strict=True):
        if all(is_empty(cell) for cell in cells):
            boxes.append(None)
            continue
        try:
            x0, y0, x1, y1 = (float(cell) for cell in cells)
        except ValueError:
            x0 = x1 = y0 = y1 = math.nan
        if not (x1 > x0 and y1 > y0 and math.isfinite(x1 - x0) and math.isfinite(y1 - y0)):
            bad.append(f"{','.join(cells)} ({where})")
        boxes.append((x0, y0, x1, y1))
    if bad:
        raise DatasetError(
            f"{dataset}: expected boxes x0 < x1, y0 < y1 in pixels, got {number(len(bad), 'other')}: {some(bad)}"
        )
    return boxes
