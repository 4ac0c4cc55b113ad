"""Find columns of tables by their usual names, and convert cells to ids, labels, splits, numbers and classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..errors import PredictionsError, listed
from .classes import CANONICAL, canonical, canonical_all
from .samples import Split
from .table_reader import to_numbers

if TYPE_CHECKING:
    import pandas as pd

    # A table, or arrays by name.
    Columns: TypeAlias = Mapping[str, np.ndarray] | pd.DataFrame

# Usual names of columns and arrays, compared by :func:`normalised`. The first name that a table has is used.
ID_NAMES = (
    "id", "sample id", "sample", "image id", "file id", "path", "image path", "img path", "file path", "file",
    "filename", "image", "image name", "img", "img name", "image file", "img file", "fname", "name", "input", "key",
    "pth", "subdirectory_filepath", "photo", "picture", "url", "ids", "sample ids", "samples", "image ids", "file ids",
    "paths", "image paths", "img paths", "file paths", "files", "filenames", "images", "image names", "imgs",
    "img names", "image files", "img files", "fnames", "names", "inputs", "keys", "urls",
)  # fmt: skip
PATH_NAMES = (
    "path", "image path", "img path", "file path", "filename", "file", "image", "image name", "img", "img name",
    "image file", "img file", "pth", "subdirectory_filepath", "fname", "name", "input", "paths", "filenames", "files",
    "images", "image paths", "photo", "picture", "video path", "video file",
)  # fmt: skip
LABEL_NAMES = (
    "label", "expression", "emotion", "class", "labels", "cls", "class name", "label name", "emotion label",
    "expression label", "target", "category", "ground truth", "gt", "exp", "facial expression", "facial emotion",
    "emotion name", "emotion class", "expression name", "true label", "gt label", "emotions", "expressions", "classes",
)  # fmt: skip
SPLIT_NAMES = (
    "split", "usage", "subset", "partition", "set", "phase", "part", "data split", "dataset split", "split name",
)  # fmt: skip
GROUP_NAMES = (
    "group", "groups", "person", "person id", "subject", "subject id", "identity", "video", "video id", "actor",
)  # fmt: skip
VALENCE_NAMES = ("valence", "valence_pred", "val_pred", "pred_valence", "val")
AROUSAL_NAMES = ("arousal", "arousal_pred", "aro_pred", "pred_arousal", "aro")
# Names of index columns, whose numbers do not identify samples.
INDEX_NAMES = ("", "index", "row", "idx", "no", "nr", "level 0", "number", "row id")

# Names of splits in lower case.
_SPLIT_NAMES = {
    "train": Split.train, "training": Split.train, "trn": Split.train, "trainval": Split.train,
    "val": Split.val, "valid": Split.val, "validation": Split.val, "validate": Split.val, "dev": Split.val,
    "devel": Split.val, "development": Split.val, "publictest": Split.val,
    "test": Split.test, "testing": Split.test, "tst": Split.test, "eval": Split.test, "evaluation": Split.test,
    "privatetest": Split.test, "holdout": Split.test,
}  # fmt: skip
# Words that may occur with the name of a split: test_set, images_train. The groups are atomic, (?>...), because
# "dataset" could otherwise also be matched as "data" and "set", and long names in exponentially many ways.
_WITH_A_SPLIT = (
    "(?>sets?|splits?|datasets?|data|images?|imgs?|faces?|aligned|cropped|crops?|part|folder|samples?|subset)"
)
_SPLIT_NAME = re.compile(
    rf"(?>(?:{_WITH_A_SPLIT}[\W_]*+)*)(?>({'|'.join(sorted(_SPLIT_NAMES, key=len, reverse=True))}))"
    rf"(?>(?:[\W_]*+{_WITH_A_SPLIT})*)"
)
_EMPTY = ("", "none", "nan", "null", "n/a", "na")
# Text columns with fewer distinct values, as a share of the rows, are labels or splits and not ids.
_DISTINCT = 0.5
_PREFIX = re.compile(r"^(p|prob|probability|logit|logits|score|class)[_:. ]+", re.IGNORECASE)
_COPY = re.compile(r"(.+)\.\d+")  # pandas adds a number to the name of the second of two equal columns


def normalised(name: str) -> str:
    """A column name in lower case, without blanks and punctuation.

    >>> normalised("Image Name"), normalised("img_path"), normalised(" filePath")
    ('imagename', 'imgpath', 'filepath')
    """
    return re.sub(r"[\W_]+", "", name.casefold())


def split_named(name: str) -> Split | None:
    """The split named by a folder or a cell; None if it does not name a split.

    >>> split_named("Testing"), split_named("train_set"), split_named("happy")
    (<Split.test: 2>, <Split.train: 0>, None)
    """
    match = _SPLIT_NAME.fullmatch(name.strip().lower())
    return _SPLIT_NAMES[match[1]] if match else None


def split_of(cell: str) -> Split | None:
    """The split named by a cell; ``Split.none`` for an empty cell, None for another text.

    >>> split_of("PublicTest"), split_of(" Train "), split_of("")
    (<Split.val: 1>, <Split.train: 0>, <Split.none: -1>)
    """
    return Split.none if is_empty(cell.strip()) else split_named(cell)


def find_column(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    """The first of the ``wanted`` names that is among ``names``, in the spelling of ``names``; None without one."""
    by_plain: dict[str, str] = {}
    for name in names:
        by_plain.setdefault(normalised(name), name)
    return next((by_plain[normalised(name)] for name in wanted if normalised(name) in by_plain), None)


def is_index(name: str) -> bool:
    """Whether a column's name is that of an index, such as ``Unnamed: 0``."""
    return name.startswith("Unnamed: ") or normalised(name) in {normalised(other) for other in INDEX_NAMES}


def list_columns(names: Sequence[str]) -> str:
    """The names of columns for a message, with a hint if the header looks like a row or has another separator.

    >>> list_columns(["id", "label"]), list_columns(["id;label"])
    ('id, label', 'id;label (separated by semicolons; save it with commas)')
    """
    if len(names) == 1 and ";" in names[0]:
        return f"{names[0]} (separated by semicolons; save it with commas)"
    files = [
        name for name in names if re.search(r"[\\/]|\.(jpe?g|png|bmp|webp|gif|tiff?)$", name, re.IGNORECASE)
    ]
    hint = "; the first line looks like a row: add a header line" if files else ""
    return (listed(list(names), 12) or "nothing") + hint


def as_text(cells: ArrayLike) -> np.ndarray:
    """A column as (n,) str without surrounding blanks; 3.0 is 3, bytes are UTF-8, None and NaN are empty."""
    column = np.asarray(cells)
    if column.dtype.kind == "S":
        return np.char.strip(np.char.decode(column, "utf-8", "replace"))
    if column.dtype.kind in "US":
        return np.char.strip(column)
    return np.array([cell_text(cell) for cell in column.tolist()], dtype=str)


def cell_text(cell: object) -> str:
    """A cell as text without surrounding blanks; a whole number without its decimal point, empty for None and NaN."""
    if isinstance(cell, np.ndarray | list | dict):  # Parquet has such cells
        return str(cell)
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace").strip()
    return str(cell).strip()


def is_empty(cell: str) -> bool:
    """Whether a cell other than an id stands for no value: ``none``, ``nan``, ``null``, ``NA`` or nothing."""
    return cell.lower() in _EMPTY


def label_text(cell: str) -> str:
    """A label, without the decimal point of a whole number.

    >>> label_text("3.0"), label_text("happy"), label_text("-1.0")
    ('3', 'happy', '-1')
    """
    match = re.fullmatch(r"([+-]?[0-9]+)\.0*", cell)
    return match[1] if match else cell


def as_numbers(cells: ArrayLike) -> np.ndarray:
    """A column as (n,) float64, NaN for cells that are not numbers."""
    column = np.asarray(cells)
    return column.astype(np.float64) if column.dtype.kind in "fiub" else to_numbers(column)


def id_column(names: Iterable[str]) -> str | None:
    """The column with a usual name of ids; None without one. Index columns do not count."""
    return find_column(names, ID_NAMES)


def id_candidates(columns: Columns) -> dict[str, np.ndarray]:
    """Columns or arrays that may contain the ids, as text: first those with a usual name, then other columns of text.

    Numbers without a usual name, lists, and text with few distinct values (such as labels) are excluded. If the values
    of a column are all different and not empty, only such columns are returned.
    """
    order = {normalised(name): rank for rank, name in enumerate(ID_NAMES)}
    usual = sorted(
        (name for name in columns if normalised(name) in order), key=lambda name: order[normalised(name)]
    )
    texts: dict[str, np.ndarray] = {}
    for name in [*usual, *(name for name in columns if name not in usual)]:
        if not _is_flat(columns[name]):
            continue
        text = as_text(columns[name])
        if name not in usual and (_is_numeric(text) or len(np.unique(text)) <= _DISTINCT * len(text)):
            continue
        texts[name] = text
    unique = {
        name: text for name, text in texts.items() if len(np.unique(text)) == len(text) and (text != "").all()
    }
    return unique or texts


def other_candidates(columns: Columns) -> dict[str, np.ndarray]:
    """Columns of different whole numbers, and of text with few distinct values, as text.

    They are ids only if they match samples (:func:`~.align.align_columns`). Columns with a usual name of ids are
    excluded, because :func:`id_candidates` returns them. Repeated numbers may be labels.
    """
    texts = {}
    usual = {normalised(name) for name in ID_NAMES}
    for name, column in columns.items():
        if normalised(name) in usual or not _is_flat(column):
            continue
        text = as_text(column)
        distinct = len(np.unique(text))
        if not _is_numeric(text):
            if distinct <= _DISTINCT * len(text):
                texts[name] = text
            continue
        text = np.array([label_text(cell) for cell in text.tolist()], dtype=str)
        if distinct == len(text) and all(map(str.isdecimal, text.tolist())):
            texts[name] = text
    return texts


def _is_flat(cells: ArrayLike) -> bool:
    """Whether a column holds text or numbers, not lists."""
    column = np.asarray(cells)
    return column.dtype.kind in "OUSiuf" and not any(
        isinstance(cell, np.ndarray | list | dict) for cell in column[:100].tolist()
    )


def _is_numeric(text: np.ndarray) -> bool:
    return bool(np.isfinite(as_numbers(text.astype(object))).all())


def increases(text: np.ndarray) -> bool:
    """Whether numbers (as text) increase from row to row."""
    return bool((np.diff(text.astype(np.float64)) > 0).all())


def va_columns(names: Iterable[str]) -> tuple[str, str] | None:
    """Names of the columns of valence and arousal; None unless both exist."""
    names = list(names)
    valence, arousal = find_column(names, VALENCE_NAMES), find_column(names, AROUSAL_NAMES)
    return (valence, arousal) if valence and arousal else None


def class_columns(
    columns: Sequence[str], more_classes: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns of predictions of classes, and the canonical names of the classes (empty if columns are numbered).

    Parameters
    ----------
    columns : names of all columns of a table
        Prefixes such as ``p_`` or ``logit_`` are ignored. A column is a class if its name is a known expression or in
        ``more_classes``, or if columns are numbered 0, 1, ...
    more_classes : further names of classes

    Raises
    ------
    PredictionsError : a class has two columns.
    """
    words = set(CANONICAL.values()) | {canonical(name) for name in more_classes}
    bare = {column: _PREFIX.sub("", column) for column in columns}
    named = tuple(column for column in columns if canonical(bare[column]) in words)
    if len(named) >= 2:
        classes = [canonical(bare[column]) for column in named]
        copies = [
            column
            for column in columns
            if (copy := _COPY.fullmatch(bare[column])) and canonical(copy[1]) in words
        ]
        if len(set(classes)) < len(classes) or copies:
            repeated = [
                column for column, name in zip(named, classes, strict=True) if classes.count(name) > 1
            ]
            raise PredictionsError(
                f"several columns are of one class: {listed([*repeated, *copies])}; keep one column per class"
            )
        return named, canonical_all(classes)
    by_number = {
        bare[column]: column for column in columns if re.fullmatch("0|[1-9][0-9]{0,4}", bare[column])
    }
    numbered = tuple(by_number[str(k)] for k in range(len(by_number)) if str(k) in by_number)
    if len(numbered) >= 2 and len(numbered) == len(by_number):
        return numbered, ()
    return (), ()
