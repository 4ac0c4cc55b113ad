"""Frames of videos as samples: numbers, times and ids from the files' packets, without decoding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ...errors import DatasetError, listed, plural
from ...features.image_names import VIDEO_SUFFIXES
from ..sources import Unavailable, Unreadable
from ..sources.video import read_index


class Frame(NamedTuple):
    """One frame as a sample: number in the video, id, path under the root, seconds from the first frame."""

    number: int
    id: str
    path: str
    time: float


def is_video(path: str) -> bool:
    """Whether a path has the suffix of a video.

    >>> is_video("a/clip.MP4"), is_video("clip.mp4#000001"), is_video(".clip.mp4")
    (True, False, False)
    """
    name = path.rpartition("/")[2]
    dot = name.rfind(".")
    return dot > 0 and not name.startswith(".") and name[dot:].lower() in VIDEO_SUFFIXES


def video_id(path: str) -> str:
    """Id of a video, with which those of its frames begin; also their group.

    >>> video_id("S1/clip.mp4")
    'S1/clip'
    """
    return path.rpartition(".")[0]


class Videos:
    """Lists the frames of the videos of a dataset.

    Parameters
    ----------
    root : folder or address of the dataset
    fps : float, optional
        Frames per second to take; all of them by default.
    """

    def __init__(self, root: str, fps: float | None = None) -> None:
        self._root, self._fps = root.rstrip("/"), fps
        self._count = self._all = self._taken = 0
        self._seconds = 0.0
        self._damaged: list[str] = []
        self._short: list[str] = []

    def frames(self, path: str, *, name: str | None = None) -> list[Frame]:
        """Frames of a video, in order; of one that cannot be read a single one, which extraction marks as unreadable.

        Parameters
        ----------
        path : of the video, under the root
        name : str, optional
            With which the ids begin; by default the path without its suffix.

        Raises
        ------
        DatasetError : frames per second are asked for, and the video has no times.
        MissingExtra : PyAV is not installed.
        """
        name = video_id(path) if name is None else name
        self._count += 1
        try:
            index = read_index(f"{self._root}/{path}")
        except Unavailable:
            raise
        except (FileNotFoundError, Unreadable) as exc:
            self._damaged.append(f"{path} ({exc})")
            return [Frame(0, f"{name}#000000", f"{path}#000000", np.nan)]
        try:
            numbers = index.at_rate(self._fps)
        except DatasetError as exc:
            raise DatasetError(f"{path}: {exc}") from exc
        self._all += len(index)
        self._taken += len(numbers)
        self._seconds += float(np.nan_to_num(index.seconds[-1]))
        if index.shortfall:
            self._short.append(f"{path} ({index.shortfall})")
        return [
            Frame(frame, f"{name}#{member}", f"{path}#{member}", float(index.seconds[frame]))
            for frame in numbers.tolist()
            for member in [index.member(frame)]
        ]

    def notes(self) -> Iterator[str]:
        """Findings about the videos, for the user."""
        if not self._count:
            return
        if self._all:
            taken = "" if self._fps is None else f"; --fps {self._fps:g} takes {self._taken} of them"
            yield f"{plural(self._count, 'video')}, {self._all} frames in {self._seconds:.1f} s{taken}"
        if self._damaged:
            several = len(self._damaged) > 1
            yield (
                f"WARNING {plural(len(self._damaged), 'video')} cannot be read, and {'have' if several else 'has'} one "
                f"row{' each' if several else ''}, unreadable: {listed(self._damaged)}"
            )
        if self._short:
            yield f"WARNING {plural(len(self._short), 'video')} cut short: {listed(self._short)}"
