"""Rows of a table that name videos, as rows of their frames: a whole video, an interval, or one frame."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from ...errors import DatasetError, listed, plural
from ...features.table_columns import as_numbers, cell_text, is_empty
from .videos import Frame, Video, Videos, is_video, video_id

# Column -> names that tables use for it. Seconds from the first frame, the end excluded; numbers of frames from 0,
# both included.
SPANS: Mapping[str, tuple[str, ...]] = {
    "start": ("start", "start time", "start seconds", "onset", "begin"),
    "end": ("end", "end time", "end seconds", "offset", "stop"),
    "first_frame": ("first frame", "start frame", "frame start"),
    "last_frame": ("last frame", "end frame", "frame end"),
    "frame": ("frame", "frame number"),
}

_SECONDS = ("start", "end")
_TOLERANCE = 1e-6  # seconds


@dataclass(frozen=True, slots=True)
class Expanded:
    """A table with a row for each frame.

    Attributes
    ----------
    cells : column name -> n cells
    rows : (n,) int
        Row of the table that each comes from.
    times : n seconds, NaN for images
    notes : list of str
    """

    cells: dict[str, list[Any]]
    rows: np.ndarray
    times: list[float]
    notes: list[str]


def expand(
    cells: Mapping[str, Sequence[Any]], spans: Mapping[str, Sequence[Any]], videos: Videos, *, table: str
) -> Expanded:
    """Replace each row that names a video by rows of its frames; rows that name images stay.

    Several rows of a video that cannot be read become one row.

    Parameters
    ----------
    cells : column name -> cells, with ``path`` and ``id``
    spans : name of :data:`SPANS` -> cells; may be empty
    videos : Videos
    table : str
        For messages.

    Raises
    ------
    DatasetError : a limit is not valid, there are no times, two rows contain one frame, or no row has frames.
    """
    limits = _limits(spans, len(cells["path"]), table)
    lists: dict[tuple[str, str], Video] = {}
    rows: list[int] = []
    chosen: list[Frame] = []
    outside: list[str] = []
    thinned: list[str] = []
    for row, path in enumerate(cells["path"]):
        if not is_video(path):
            rows.append(row)
            chosen.append(Frame(-1, cells["id"][row], path, np.nan))
            continue
        name = video_id(path) if cells["id"][row] == path else cell_text(cells["id"][row])
        if (video := lists.get((path, name))) is None:
            video = lists[path, name] = videos.read(path, name=name)
        elif not len(video.seconds):
            continue
        first, last = _range(video.seconds, limits[row], path)
        frames = _between(video, first, last)
        if not frames:
            where = f"row {row + 1}, {path}: " + ", ".join(f"{k} {v:.10g}" for k, v in limits[row].items())
            if first <= last:
                thinned.append(where)
            else:
                outside.append(f"{where}; {_reason(video.seconds, first)}")
        rows += [row] * len(frames)
        chosen += frames
    notes = _notes_on_rows(outside, thinned, videos.fps, table)
    if notes and not rows:
        raise DatasetError(f"{table}: no row has frames; {'; '.join(notes)}")
    _check_distinct(chosen, table)
    unused = sum(len(video.frames) for video in lists.values()) - sum(frame.number >= 0 for frame in chosen)
    left_out = [f"{plural(unused, 'frame')} left out, in no row of {table}"] if unused else []
    return Expanded(
        _cells_of(chosen, rows, cells),
        np.array(rows, int),
        [frame.time for frame in chosen],
        [*left_out, *(f"WARNING {note}" for note in notes)],
    )


def _limits(spans: Mapping[str, Sequence[Any]], count: int, table: str) -> list[dict[str, float]]:
    """The limits of each of ``count`` rows; empty cells are none.

    Raises
    ------
    DatasetError : a limit is not a number from 0, or an interval ends before it starts.
    """
    columns = {name: _numbers(name, column, table) for name, column in spans.items()}
    limits = [
        {name: float(values[row]) for name, values in columns.items() if not np.isnan(values[row])}
        for row in range(count)
    ]
    inverted = [
        f"row {row + 1}: {last} {of_row[last]:.10g} is {relation} {first} {of_row[first]:.10g}"
        for row, of_row in enumerate(limits)
        for first, last, relation in (("start", "end", "not after"), ("first_frame", "last_frame", "before"))
        if first in of_row and last in of_row
        if of_row[last] < of_row[first] or (last == "end" and of_row[last] == of_row[first])
    ]
    if inverted:
        raise DatasetError(f"{table}: {listed(inverted)}; correct {'it' if len(inverted) == 1 else 'them'}")
    return limits


def _numbers(name: str, column: Sequence[Any], table: str) -> np.ndarray:
    """Limits as numbers; NaN for empty cells."""
    texts = [cell_text(cell) for cell in column]
    values = as_numbers(np.array(texts, dtype=object))
    whole = name not in _SECONDS
    wrong = np.isnan(values) | (values < 0) | (whole & (values != np.floor(values)))
    bad = {text for text, is_wrong in zip(texts, wrong, strict=True) if is_wrong and not is_empty(text)}
    if bad:
        kind = "whole numbers" if whole else "seconds"
        raise DatasetError(
            f"{table}: column {name} has {listed(sorted(bad))}; write {kind} from 0, or leave cells empty"
        )
    return values


def _range(seconds: np.ndarray, limits: Mapping[str, float], path: str) -> tuple[float, float]:
    """Numbers of the first and the last frame within limits; the last is below the first if there are none.

    Raises
    ------
    DatasetError : limits are seconds, and the frames have no times.
    """
    if np.isnan(seconds).any() and limits.keys() & {*_SECONDS}:
        raise DatasetError(f"{path} has neither time stamps nor a frame rate; name frames, not seconds")
    first = [0, limits.get("first_frame", 0), limits.get("frame", 0)]
    last = [len(seconds) - 1, limits.get("last_frame", np.inf), limits.get("frame", np.inf)]
    if "start" in limits:
        first.append(int(np.searchsorted(seconds, limits["start"] - _TOLERANCE)))
    if "end" in limits:
        last.append(int(np.searchsorted(seconds, limits["end"] - _TOLERANCE)) - 1)
    return max(first), min(last)


def _between(video: Video, first: float, last: float) -> list[Frame]:
    """Frames with numbers from ``first`` to ``last``; the only row of a video that cannot be read."""
    if not len(video.seconds):
        return video.frames
    number = attrgetter("number")
    start, stop = bisect_left(video.frames, first, key=number), bisect_right(video.frames, last, key=number)
    return video.frames[start:stop]


def _reason(seconds: np.ndarray, first: float) -> str:
    """Why no frame is within limits, of which ``first`` is the number of the first frame."""
    if first < len(seconds):
        return "no frame is in this interval"
    end = "" if np.isnan(seconds[-1]) else f", {seconds[-1]:.2f} s"
    return f"the last frame is {len(seconds) - 1}{end}"


def _notes_on_rows(outside: list[str], thinned: list[str], fps: float | None, table: str) -> list[str]:
    """Notes on rows that have no frames, because of their limits or because of ``--fps``."""
    notes = []
    if outside:
        notes.append(
            f"{plural(len(outside), 'row')} of {table} without frames ({listed(outside)}); correct the seconds from "
            "the first frame, or the numbers of frames, from 0"
        )
    if thinned:
        notes.append(
            f"--fps {fps:g} leaves out every frame of {plural(len(thinned), 'row')} of {table} ({listed(thinned)}); "
            "omit or increase --fps to use them"
        )
    return notes


def _check_distinct(chosen: Sequence[Frame], table: str) -> None:
    """Refuse frames that are in two rows.

    Raises
    ------
    DatasetError : there are some.
    """
    counts = Counter(frame.id for frame in chosen if frame.number >= 0)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise DatasetError(
            f"{table}: {plural(len(twice), 'frame')} in more than one row ({listed(twice)}); intervals of a video must "
            "not overlap"
        )


def _cells_of(
    chosen: Sequence[Frame], rows: Sequence[int], cells: Mapping[str, Sequence[Any]]
) -> dict[str, list[Any]]:
    """Columns of the table for each frame; a frame without a group has its video as group."""
    taken = {name: [column[row] for row in rows] for name, column in cells.items()}
    taken["path"] = [frame.path for frame in chosen]
    taken["id"] = [frame.id for frame in chosen]
    groups = taken.get("group", [""] * len(rows))
    taken["group"] = [
        video_id(cells["path"][row]) if frame.number >= 0 and is_empty(cell_text(group)) else group
        for row, frame, group in zip(rows, chosen, groups, strict=True)
    ]
    return taken
