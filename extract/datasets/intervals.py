"""Rows of a table that name videos, as rows of their frames: a whole video, an interval, or one frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DatasetError, listed, plural
from ...features.table_columns import as_numbers, cell_text, is_empty
from .videos import Frame, Videos, is_video, video_id

# Column -> names that tables use for it. Seconds from the first frame, the end excluded; numbers of frames from 0,
# both included.
SPANS: Mapping[str, tuple[str, ...]] = {
    "start": ("start", "start time", "start seconds", "onset", "begin"),
    "end": ("end", "end time", "end seconds", "offset", "stop"),
    "first_frame": ("first frame", "start frame", "frame start"),
    "last_frame": ("last frame", "end frame", "frame end"),
    "frame": ("frame", "frame number"),
}

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

    Parameters
    ----------
    cells : column name -> cells, with ``path`` and ``id``
    spans : name of :data:`SPANS` -> cells; may be empty
    videos : Videos
    table : str
        For messages.

    Raises
    ------
    DatasetError : a limit is no number, there are no times, or two rows contain one frame.
    """
    limits = {name: _numbers(name, column, table) for name, column in spans.items()}
    lists: dict[tuple[str, str], _Frames] = {}
    rows: list[int] = []
    chosen: list[Frame] = []
    without: list[str] = []
    for row, path in enumerate(cells["path"]):
        if not is_video(path):
            rows.append(row)
            chosen.append(Frame(-1, cells["id"][row], path, np.nan))
            continue
        name = video_id(path) if cells["id"][row] == path else cell_text(cells["id"][row])
        if (path, name) not in lists:
            lists[path, name] = _Frames(videos.frames(path, name=name))
        frames = lists[path, name]
        span = frames.span({name: values[row] for name, values in limits.items()}, path)
        if span.start >= span.stop:
            chosen_by = ", ".join(f"{name} {cell_text(column[row])}" for name, column in spans.items())
            without.append(f"row {row + 1}, {path}: {chosen_by}; {frames.extent}")
        rows += [row] * max(0, span.stop - span.start)
        chosen += frames.frames[span]
    if without and not rows:
        raise DatasetError(
            f"{table}: no row has frames ({listed(without)}); correct the intervals, in seconds from the first frame, "
            "or the numbers of frames, from 0"
        )
    twice = [
        name
        for name, count in Counter(frame.id for frame in chosen if frame.number >= 0).items()
        if count > 1
    ]
    if twice:
        raise DatasetError(
            f"{table}: {plural(len(twice), 'frame')} in more than one row ({listed(twice)}); intervals of a video must "
            "not overlap"
        )
    taken = {name: [column[row] for row in rows] for name, column in cells.items()}
    taken["path"] = [frame.path for frame in chosen]
    taken["id"] = [frame.id for frame in chosen]
    groups = taken.get("group", [""] * len(rows))
    taken["group"] = [
        video_id(cells["path"][row]) if frame.number >= 0 and is_empty(cell_text(group)) else group
        for row, frame, group in zip(rows, chosen, groups, strict=True)
    ]
    outside = sum(len(frames.frames) for frames in lists.values()) - sum(
        frame.number >= 0 for frame in chosen
    )
    notes = [f"{plural(outside, 'frame')} left out, in no row of {table}"] if outside else []
    if without:
        notes.append(f"WARNING {plural(len(without), 'row')} of {table} without frames: {listed(without)}")
    return Expanded(taken, np.array(rows, int), [frame.time for frame in chosen], notes)


def _numbers(name: str, column: Sequence[Any], table: str) -> np.ndarray:
    """Limits as numbers; NaN for empty cells."""
    texts = [cell_text(cell) for cell in column]
    values = as_numbers(np.array(texts, dtype=object))
    bad = [text for text, value in zip(texts, values, strict=True) if np.isnan(value) and not is_empty(text)]
    if bad:
        raise DatasetError(
            f"{table}: column {name} has {listed(sorted({*bad}))}; write numbers, or leave cells empty"
        )
    return values


class _Frames:
    """Frames of a video, searched by number and by time."""

    def __init__(self, frames: list[Frame]) -> None:
        self.frames = frames
        self._numbers = np.array([frame.number for frame in frames])
        self._times = np.array([frame.time for frame in frames])

    @property
    def extent(self) -> str:
        """Numbers and times of the frames, for messages."""
        if not self.frames:
            return "the video has no frames"
        seconds = "" if np.isnan(self._times[-1]) else f", {self._times[-1]:.2f} s"
        return f"the last frame is {self._numbers[-1]}{seconds}"

    def span(self, limits: Mapping[str, float], path: str) -> slice:
        """The frames within limits, those that are NaN left out; all of a video that could not be read.

        Raises
        ------
        DatasetError : limits are seconds, and the frames have no times.
        """
        limits = {name: value for name, value in limits.items() if not np.isnan(value)}
        timeless = bool(np.isnan(self._times).any())
        if timeless and len(self.frames) == 1:
            return slice(0, 1)
        if timeless and limits.keys() & {"start", "end"}:
            raise DatasetError(f"{path} has neither time stamps nor a frame rate; name frames, not seconds")
        first = [
            np.searchsorted(self._times, limits.get("start", -np.inf) - _TOLERANCE),
            np.searchsorted(self._numbers, limits.get("first_frame", -np.inf)),
            np.searchsorted(self._numbers, limits.get("frame", -np.inf)),
        ]
        last = [
            np.searchsorted(self._times, limits.get("end", np.inf) - _TOLERANCE),
            np.searchsorted(self._numbers, limits.get("last_frame", np.inf), side="right"),
            np.searchsorted(self._numbers, limits.get("frame", np.inf), side="right"),
        ]
        return slice(int(max(first)), int(min(last)))
