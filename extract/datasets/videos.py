"""List the frames of videos as samples; numbers and times come from the packets, nothing is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ...errors import DatasetError, listed, plural
from ...features.image_names import VIDEO_SUFFIXES
from ..sources import Unavailable, Unreadable
from ..sources.video import read_index


class Frame(NamedTuple):
    """One frame as a sample.

    Attributes
    ----------
    number : int
        Number in the video, from 0.
    id : str
    path : str
        ``clip.mp4#000123``, under the root.
    time : float
        Seconds from the first frame; NaN if unknown.
    """

    number: int
    id: str
    path: str
    time: float


class Video(NamedTuple):
    """Frames of one video.

    Attributes
    ----------
    frames : list of Frame
        All frames, or those that ``fps`` takes; a single one of a video that cannot be read.
    seconds : (n,) float64
        Times of all frames, with those that ``fps`` leaves out; empty if the video cannot be read.
    """

    frames: list[Frame]
    seconds: np.ndarray


def is_video(path: str) -> bool:
    """Whether a path has the suffix of a video.

    >>> is_video("a/clip.MP4"), is_video("clip.mp4#000001"), is_video(".clip.mp4")
    (True, False, False)
    """
    name = path.rpartition("/")[2]
    dot = name.rfind(".")
    return dot > 0 and not name.startswith(".") and name[dot:].lower() in VIDEO_SUFFIXES


def video_id(path: str) -> str:
    """Id of a video: the beginning of the ids of its frames, and their group.

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
        Frames per second that are taken; by default all frames.
    """

    def __init__(self, root: str, fps: float | None = None) -> None:
        self.fps = fps
        self._root = root.rstrip("/")
        self._count = self._all = self._taken = 0
        self._seconds = 0.0
        self._damaged: list[str] = []
        self._short: list[str] = []

    def frames(self, path: str) -> list[Frame]:
        """Frames of a video, in order; see :meth:`read`."""
        return self.read(path).frames

    def read(self, path: str, *, name: str | None = None) -> Video:
        """List the frames of a video, in order.

        A video that cannot be read has one frame, which the extraction marks as unreadable.

        Parameters
        ----------
        path : str
            Path of the video under the root.
        name : str, optional
            Beginning of the ids; by default the path without suffix.

        Raises
        ------
        DatasetError : ``fps`` is set, and the video has no times.
        Unavailable : the network or the storage failed.
        MissingExtra : PyAV is not installed.
        """
        name = video_id(path) if name is None else name
        self._count += 1
        try:
            index = read_index(f"{self._root}/{path}")
        except Unavailable:
            raise
        except (FileNotFoundError, Unreadable) as exc:
            if isinstance(exc, Unreadable):  # others are reported as listed files that do not exist
                self._damaged.append(f"{path} ({exc})")
            return Video([Frame(0, f"{name}#000000", f"{path}#000000", np.nan)], np.empty(0))
        try:
            numbers = index.at_rate(self.fps)
        except DatasetError as exc:
            raise DatasetError(f"{path}: {exc}") from exc
        self._all += len(index)
        self._taken += len(numbers)
        self._seconds += float(np.nan_to_num(index.seconds[-1]))
        if index.shortfall:
            self._short.append(f"{path} ({index.shortfall})")
        frames = [
            Frame(frame, f"{name}#{member}", f"{path}#{member}", float(index.seconds[frame]))
            for frame in numbers.tolist()
            for member in [index.member(frame)]
        ]
        return Video(frames, index.seconds)

    def notes(self) -> Iterator[str]:
        """Notes for the user: number of videos and frames; damaged and incomplete videos."""
        if not self._count:
            return
        if self._all:
            taken = "" if self.fps is None else f"; --fps {self.fps:g} takes {self._taken} of them"
            yield f"{plural(self._count, 'video')}, {plural(self._all, 'frame')}, {self._seconds:.1f} s long{taken}"
        if self._damaged:
            several = len(self._damaged) > 1
            yield (
                f"WARNING {plural(len(self._damaged), 'video')} cannot be read, and {'have' if several else 'has'} one "
                f"row{' each' if several else ''}, unreadable: {listed(self._damaged)}"
            )
        if self._short:
            yield f"WARNING {plural(len(self._short), 'video')} cut short: {listed(self._short)}"
