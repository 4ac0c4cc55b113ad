"""Codes in the columns of a table: of ``ig3d export``, OpenFace, py-feat and others, for :mod:`.imports`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DatasetError, UsageError, listed, plural
from ..features.align import choose_id_column
from ..features.samples import BOX_COLUMNS, Listing
from ..features.table_columns import (
    AROUSAL_NAMES,
    GROUP_NAMES,
    LABEL_NAMES,
    SPLIT_NAMES,
    VALENCE_NAMES,
    as_numbers,
    as_text,
    find_column,
    id_candidates,
    is_index,
    normalised,
)
from ..features.table_reader import read_table
from ..features.values import Status

if TYPE_CHECKING:
    import pandas as pd

# Plain values of a column status for rows with codes and without; others are failures.
_VALID = (
    "",
    "ok",
    "okay",
    "success",
    "successful",
    "succeeded",
    "valid",
    "done",
    "good",
    "found",
    "detected",
    "true",
    "1",
)
_WITHOUT = {normalised(status.name): status for status in Status if status not in (Status.pending, Status.ok)} | {
    "nofacefound": Status.no_face, "nofacedetected": Status.no_face, "facenotfound": Status.no_face,
    "notfound": Status.no_face, "notdetected": Status.no_face, "nodetection": Status.no_face,
}  # fmt: skip
_SUCCESS = (
    "success", "tracking success", "detection success", "detected", "face detected", "found", "face found", "has face",
    "valid", "is valid", "tracked",
)  # fmt: skip
_CONFIDENCE = (
    "confidence", "face score", "face confidence", "detection confidence", "detection score", "det score",
    "det confidence", "tracking confidence",
)  # fmt: skip
# Values of a tracker's column success without a face, and the confidence below which OpenFace's tools take none.
_FALSE, _CONFIDENT = ("", "false", "f", "no", "n", "nan", "none", "failed", "fail"), 0.5
# Confidences are per cent where the largest is above this: some detectors have scores a little above 1.
_PER_CENT = 10.0
# Plain names of columns beside the codes that are never codes themselves.
_TRACKER = {
    normalised(name)
    for name in (
        "status", "message", "frame", "frame number", "timestamp", "time", "approx time", "face id", "face",
        "face rect x", "face rect y", "face rect width", "face rect height", *_SUCCESS, *_CONFIDENCE,
    )
}  # fmt: skip
_BESIDE = _TRACKER | {
    normalised(name)
    for name in (
        "number", "width", "height", *BOX_COLUMNS, *LABEL_NAMES, *SPLIT_NAMES, *GROUP_NAMES, *VALENCE_NAMES,
        *AROUSAL_NAMES,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImportedCodes:
    """Codes in a source, by sample.

    Attributes
    ----------
    regressor : str
        Regressor that computed the codes, as far as the files state it.
    codes : row of the sample list -> block -> values
    notes : unusual parts of the source, for the user
    without : row -> status and message of one that has no codes
    """

    regressor: str
    codes: dict[int, dict[str, np.ndarray]]
    notes: tuple[str, ...] = ()
    without: dict[int, tuple[Status, str]] = field(default_factory=dict)


def share_words(content: str, codes: Mapping[int, object], listing: Listing) -> str:
    """Number of samples for which a source has codes, as text."""
    return f"{content} for {len(codes)} of {plural(len(listing), 'sample')}"


def read_code_table(listing: Listing, source: Path, columns: str | None) -> ImportedCodes:
    """Columns ``expression:0`` ... as ``ig3d export`` writes them, or those that ``columns`` names."""
    table, notes = read_table(source, error=DatasetError, numeric=_may_be_code)
    header = list(table.columns)
    keys = _keys(table)
    if not keys:
        raise DatasetError(
            f"import: no column id, path, image, name or number among {listed(header)}; add one that names the images"
        )
    codes_of = _numbered_columns(source, header) if columns is None else _given_columns(table, columns)
    used = {name for names in codes_of.values() for name in names}
    best = choose_id_column({name: ids for name, ids in keys.items() if name not in used}, listing.samples)
    if best is None:
        raise DatasetError(
            f"import: no column of ids beside the codes among {listed(header)}; add one that names the images"
        )
    key, alignment = best
    numbers = {
        block: np.stack([as_numbers(table[name]) for name in names], axis=1).astype(np.float32)
        for block, names in codes_of.items()
    }
    outcomes = _outcomes(table)
    rows, counts = alignment.rows.tolist(), Counter(alignment.rows[alignment.aligned].tolist())
    codes: dict[int, dict[str, np.ndarray]] = {}
    without: dict[int, tuple[Status, str]] = {}
    for line, row in enumerate(rows):
        if row < 0:
            continue
        if counts[row] > 1:
            without[row] = Status.failed, f"{counts[row]} rows in {source.name}"
        elif outcomes[line] is not None:
            without[row] = outcomes[line]  # type: ignore[assignment]  # of the line above
        elif any(np.isfinite(values[line]).any() for values in numbers.values()):
            codes[row] = {block: values[line] for block, values in numbers.items()}
    notes = (
        *notes,
        alignment.report(source.name, listing.dataset, key),
        share_words("a row of codes", codes, listing),
    )
    if many := listing.samples["id"].iloc[[row for row, count in counts.items() if count > 1]].tolist():
        notes = (*notes, f"{plural(len(many), 'id')} there more than once left out: {listed(many)}")
    unused = [name for name in header if name not in {*used, key} and normalised(name) not in _BESIDE]
    if unused:
        notes = (*notes, f"{plural(len(unused), 'column')} not used: {listed(unused, 12)}")
    return ImportedCodes("unknown", codes, notes, without)


def _may_be_code(name: str) -> bool:
    """Whether a column can only hold numbers of a code: ``expression:0``, ``AU01_r``, ``c17``, ``x_17``."""
    return bool(
        re.fullmatch(r".+:[0-9]+|(AU|pose_|gaze_|[a-z]_?)[A-Za-z_]*[0-9]+(_[rc])?|pose_[RT][xyz]", name)
    )


def _numbered_columns(source: Path, header: list[str]) -> dict[str, list[str]]:
    """Columns ``block:number``, by block, in the order of their numbers.

    Raises
    ------
    DatasetError : there are none, or a block's numbers are not 0 to n - 1.
    """
    blocks: dict[str, dict[int, str]] = {}
    for name in header:
        parts = re.fullmatch(r"(?:code:)?(.+?)\s*:\s*([0-9]{1,6})", name)
        if parts is None:
            continue
        block, number_in_block = blocks.setdefault(parts[1].strip(), {}), int(parts[2])
        if number_in_block in block:
            raise DatasetError(
                f"import: {source}: the columns {block[number_in_block]} and {name} both stand for "
                f"{parts[1]}:{number_in_block}; remove one"
            )
        block[number_in_block] = name
    if not blocks:
        raise DatasetError(
            f"import: no columns like expression:0 among {listed(header)}; name the columns with --columns "
            "expression:50,pose:3,..."
        )
    for name, block in blocks.items():
        absent = [f"{name}:{position}" for position in range(len(block)) if position not in block]
        if absent:
            beyond = [block[position] for position in sorted(block) if position >= len(block)]
            raise DatasetError(
                f"import: {source}: columns are missing between {name}:0 and {listed(beyond)}: {listed(absent)}; add "
                f"them or number the columns {name}:0 to {name}:{len(block) - 1}"
            )
    return {name: [block[position] for position in range(len(block))] for name, block in blocks.items()}


def _given_columns(table: pd.DataFrame, columns: str) -> dict[str, list[str]]:
    """Columns by ``block:width`` (numeric ones in order; ``-:width`` leaves some out) or ``block:PATTERN`` of names.

    Raises
    ------
    UsageError : it is none of these, names nothing, or widths do not sum to the columns that are left.
    """
    parts = [part.partition(":") for part in columns.split(",")]
    if not all(colon and block.strip() and pattern.strip() for block, colon, pattern in parts):
        raise UsageError(
            f"columns: cannot read {columns!r}; give block:WIDTH or block:PATTERN, separated by commas"
        )
    wanted = [
        (block.strip(), pattern.strip()) for block, _, pattern in parts if normalised(block) not in _TRACKER
    ]
    twice = [
        name for name, count in Counter(block for block, _ in wanted if block != "-").items() if count > 1
    ]
    if twice:
        raise UsageError(f"columns: {columns!r} names {listed(twice)} more than once; name each block once")
    ids = set(id_candidates(table))
    left = [
        name
        for name, column in table.items()
        if normalised(name) not in _BESIDE and name not in ids and not is_index(name) and _is_numeric(column)
    ]
    left = _by_number(left)
    result: dict[str, list[str]] = {}
    for block, pattern in wanted:
        if re.fullmatch("[0-9]{1,6}", pattern):
            continue
        result[block] = [name for name in left if fnmatchcase(name.casefold(), pattern.casefold())]
        if not result[block]:
            raise UsageError(
                f"columns: no numeric column matches {pattern!r} for {block}; choose among {listed(left, 12)}"
            )
        left = [name for name in left if name not in result[block]]
    widths = {block: int(pattern) for block, pattern in wanted if block not in result}
    sizes = [int(pattern) for block, pattern in wanted if block not in result]
    if sizes and sum(sizes) != len(left):
        raise UsageError(
            f"columns: the widths sum to {sum(sizes)}, but {len(left)} columns remain beside ids, labels and status "
            f"({listed(left, 12)}); skip columns with -:WIDTH, or name them, as in pose:pose_R*"
        )
    at = 0
    for block, pattern in wanted:
        if block in widths and re.fullmatch("[0-9]{1,6}", pattern):
            if block != "-":
                result[block] = left[at : at + int(pattern)]
            at += int(pattern)
    result = {block: result[block] for block, _ in wanted if block != "-"}
    if not result or not all(result.values()):
        raise UsageError(f"columns: {columns!r} has a block of width 0; give every block a width above 0")
    return result


def _by_number(names: list[str]) -> list[str]:
    """Names such as c0, c1, c10, c2 in the order of their numbers, wherever those of a run are complete."""
    runs: list[tuple[tuple[str, str], list[tuple[int, str]]]] = []
    for name in names:
        parts = re.fullmatch(r"(.*?)([0-9]{1,6})([^0-9]*)", name)
        key = (parts[1], parts[3]) if parts else (name, "")
        if not runs or runs[-1][0] != key:
            runs.append((key, []))
        runs[-1][1].append((int(parts[2]) if parts else 0, name))
    result = []
    for _, run in runs:
        positions = sorted(position for position, _ in run)
        complete = positions == list(range(positions[0], positions[0] + len(run)))
        result += [name for _, name in (sorted(run) if complete else run)]
    return result


def _is_numeric(column: ArrayLike) -> bool:
    cells = np.asarray(column)[:1000]
    return bool(np.isfinite(as_numbers(cells)).any()) or not any(as_text(cells).tolist())


def _keys(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns that may hold ids, as text; ``number`` is one in AffectNet's tables."""
    keys = id_candidates(table)
    if name := find_column(table.columns, ("number",)):
        keys.setdefault(name, as_text(table[name]))
    return keys


def _outcomes(table: pd.DataFrame) -> list[tuple[Status, str] | None]:
    """Status and message of every line without valid codes by its columns for status, success and confidence."""
    n = len(table)
    wanted = (("status",), ("message",), _SUCCESS, _CONFIDENCE)
    names = [find_column(table.columns, words) for words in wanted]
    status, _, success, confidence = names
    texts = [[""] * n if name is None else as_text(table[name]).tolist() for name in names]
    scores = np.ones(n) if confidence is None else as_numbers(table[confidence])
    least = _CONFIDENT * (100 if np.nanmax(scores, initial=0) > _PER_CENT else 1)
    result: list[tuple[Status, str] | None] = []
    for state, words, flag, score, shown in zip(*texts[:3], scores.tolist(), texts[3], strict=True):
        word = normalised(state)
        if word in _WITHOUT:
            result.append((_WITHOUT[word], words))
        elif word not in _VALID:
            result.append((Status.failed, words or f"{status} {state} in the source"))
        elif success is not None and _is_false(flag):
            result.append((Status.no_face, f"{success} {flag or 'empty'} in the source"))
        elif not score >= least:
            result.append((Status.no_face, f"{confidence} {shown or 'empty'} in the source"))
        else:
            result.append(None)
    return result


def _is_false(cell: str) -> bool:
    """Whether a cell of a column such as ``success`` is false: a word for it, or a number not above 0."""
    if cell.lower() in _FALSE:
        return True
    return bool(as_numbers(np.array([cell], object))[0] <= 0)
