"""Frames of a video, decoded in order by PyAV (libav): ``clip.mp4#000123`` is frame 123, counted from 0.

Frames are numbered in the order in which they are shown. The number of a decoded frame follows from its time stamp, so
that it does not depend on the key frame at which decoding began. Files without time stamps or with time stamps out of
order (some AVI files) are decoded from the start, and their frames are counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DatasetError, plural, require
from .storage import MAX_BYTES, File, Unreadable

if TYPE_CHECKING:
    import av

# Time stamps are rounded to milliseconds in some files.
_TOLERANCE = 1e-3
# Formats in which the time stamps of packets are those of their frames; in other formats this is checked.
_TRUSTED = ("mov", "matroska")
# Number of frames that are decoded to check whether the time stamps of packets and frames agree.
_CHECKED = 24
# Size in bytes, and smallest number, of the decoded frames that are kept: threads may read frames in another order.
_KEPT_BYTES, _KEPT = 1 << 26, 8


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """Frames of a video, from its packets; nothing is decoded.

    Attributes
    ----------
    seconds : (n,) float64
        Time of each frame from the first one; NaN if the file has neither time stamps nor a frame rate.
    stamps : (n,) int64 or None
        Time stamps of the frames in ascending order, in units of the stream; None if they do not identify a frame.
    keys : (k,) int64
        Numbers of the frames at which decoding can begin.
    announced : int
        Frames according to the file's header; 0 if the header has no count.
    duration : float
        Seconds according to the file's header; NaN if it has none.
    """

    seconds: np.ndarray
    stamps: np.ndarray | None
    keys: np.ndarray
    announced: int
    duration: float = float("nan")

    @property
    def shortfall(self) -> str:
        """Text on frames that the header announces and the file does not have; empty if it has all frames."""
        if len(self) < self.announced:
            return f"{len(self)} of {plural(self.announced, 'frame')}"
        end = float(self.seconds[-1])
        if not self.announced and self.duration - end > max(1.0, 0.05 * self.duration):
            return f"frames end at {end:.1f} s of {self.duration:.1f} s"
        return ""

    def __len__(self) -> int:
        return len(self.seconds)

    def member(self, number: int) -> str:
        """Number of a frame with leading zeros, so that the order of ids is that of the frames."""
        return f"{number:0{max(6, len(str(len(self) - 1)))}d}"

    def at_rate(self, fps: float | None) -> np.ndarray:
        """(k,) int: numbers of the first frames in each period of ``1 / fps`` seconds; of all frames if it is None.

        Raises
        ------
        DatasetError : the frames have no times.
        """
        if fps is None:
            return np.arange(len(self))
        if np.isnan(self.seconds).any():
            raise DatasetError("the video has neither time stamps nor a frame rate; leave out --fps")
        _, first = np.unique(np.floor((self.seconds + _TOLERANCE) * fps), return_index=True)
        return first


def read_index(path: str) -> VideoIndex:
    """Index of the frames of a video.

    Parameters
    ----------
    path : str
        Path or address of the file.

    Raises
    ------
    FileNotFoundError : the file does not exist.
    Unreadable : the file is damaged, or has no frames.
    MissingExtra : PyAV is not installed.
    """
    try:
        file = File(path)
    except FileNotFoundError as exc:
        raise FileNotFoundError("no such file") from exc
    with _opened(file) as container:
        return _index(container, _stream(container, file.name), file.name)


class VideoFrames:
    """Source of the frames of one video. Frames that are read in ascending order are decoded once.

    Parameters
    ----------
    file : File
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._lock = Lock()
        self._kept: OrderedDict[int, Any] = OrderedDict()
        with _opened(file) as container:
            self._index = _index(container, _stream(container, file.name), file.name)
        self._by_stamp = self._index.stamps is not None and self._stamps_agree()
        self._next = 0
        self._decoder = self._decode(0)

    def __len__(self) -> int:
        return len(self._index)

    def read(self, member: str) -> np.ndarray:
        """(H, W, 3) uint8 RGB pixels of a frame, rotated as the file requires.

        Parameters
        ----------
        member : str
            Number of the frame, from 0.
        """
        number = int(member)
        if not 0 <= number < len(self):
            raise KeyError(member)
        _make_active(self)
        with self._lock:
            frame = self._frame(number)
        if frame.is_corrupt:
            raise Unreadable("the frame is damaged")
        if 3 * frame.width * frame.height > MAX_BYTES:
            raise Unreadable(f"absurdly large: {frame.width} x {frame.height} pixels")
        return _pixels(frame, self._aspect)

    def release(self) -> None:
        """Free the decoder and the frames in memory; the next frame is decoded from a key frame on."""
        with self._lock:
            self._kept.clear()
            self._decoder, self._next = self._decode(0), 0

    def _frame(self, number: int) -> Any:
        """The decoded frame: from memory, or by decoding further, or from the nearest key frame before it."""
        if number in self._kept:
            return self._kept[number]
        key = self._key_before(number)
        if number < self._next or key > self._next:
            self._decoder, self._next = self._decode(key), key
        frame, first = self._until(number)
        if frame is None and key and not 0 <= first <= number:
            # seeking went too far, as in some MPEG files: decode from the start
            self._decoder, self._next = self._decode(0), 0
            frame, _ = self._until(number)
        if frame is None:
            raise Unreadable("the frame could not be decoded")
        return frame

    def _until(self, number: int) -> tuple[Any, int]:
        """Decode up to a frame; returns it (None if it is missing), and the number of the first decoded frame."""
        first = -1
        for decoded, frame in self._decoder:
            first = decoded if first < 0 else first
            self._next = decoded + 1
            self._kept[decoded] = frame
            while len(self._kept) > max(_KEPT, _KEPT_BYTES // (2 * frame.width * frame.height)):
                self._kept.popitem(last=False)
            if decoded >= number:
                break
        else:
            self._next = len(self)
        return self._kept.get(number), first

    def _key_before(self, number: int) -> int:
        if not self._by_stamp:
            return 0
        position = int(np.searchsorted(self._index.keys, number, side="right")) - 1
        return int(self._index.keys[position]) if position >= 0 else 0

    def _decode(self, start: int) -> Iterator[tuple[int, Any]]:
        """Numbers and frames from a key frame on; damaged packets are skipped."""
        stamps = self._index.stamps
        with _opened(self._file) as container:
            stream = _stream(container, self._file.name)
            self._aspect = float(stream.sample_aspect_ratio or 1)
            if not self._by_stamp or stamps is None:
                yield from enumerate(_frames(container, stream))
                return
            if start:
                container.seek(int(stamps[start]), stream=stream)
            for frame in _frames(container, stream):
                if frame.pts is None:
                    continue
                number = int(np.searchsorted(stamps, frame.pts))
                if number < len(stamps) and stamps[number] == frame.pts:
                    yield number, frame

    def _stamps_agree(self) -> bool:
        """Whether the first frames have the time stamps of the first packets, in order."""
        stamps, position = self._index.stamps, 0
        assert stamps is not None
        with _opened(self._file) as container:
            if container.format.name.split(",")[0] in _TRUSTED:
                return True
            for frame in _frames(container, _stream(container, self._file.name)):
                if position >= min(_CHECKED, len(stamps)):
                    break
                # frames may be missing, but not out of order
                number = -1 if frame.pts is None else int(np.searchsorted(stamps, frame.pts))
                if number < position or number >= len(stamps) or stamps[number] != frame.pts:
                    return False
                position = number + 1
        return True


# Number of videos with a decoder and frames in memory: several, because threads may read two videos at a time.
_MAX_ACTIVE = 3
_active: OrderedDict[int, VideoFrames] = OrderedDict()
_activating = Lock()


def _make_active(video: VideoFrames) -> None:
    """Register a video that is read, and free the decoder of the one that was not read for the longest time."""
    oldest = None
    with _activating:
        _active[id(video)] = video
        _active.move_to_end(id(video))
        if len(_active) > _MAX_ACTIVE:
            _, oldest = _active.popitem(last=False)
    if oldest is not None:
        oldest.release()


def _opened(file: File) -> av.container.InputContainer:
    require("av", wanted_by="video")
    import av

    if not file.size:
        raise Unreadable("the file is empty")
    # from 19 on, PyAV always accepts metadata that is not UTF-8
    options: dict[str, Any] = {"metadata_errors": "replace"} if _pyav_version() < 19 else {}
    try:
        return av.open(file.stream(), "r", **options)
    except av.FFmpegError as exc:
        raise Unreadable(f"no video, or cut short: {exc.strerror}") from exc


def _pyav_version() -> int:
    import av

    return int(av.__version__.partition(".")[0])


def _stream(container: av.container.InputContainer, name: str) -> av.VideoStream:
    # a cover picture is also a video stream
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & type(stream.disposition).attached_pic
    ]
    if not streams:
        raise Unreadable(f"{name} has no video stream")
    stream = streams[0]
    if stream.codec_context is None:
        raise Unreadable(f"{name} is of a codec that is not supported")
    stream.codec_context.thread_count = 1  # workers are processes
    return stream


def _index(container: av.container.InputContainer, stream: av.VideoStream, name: str) -> VideoIndex:
    stamps: list[int | None] = []
    keys: list[int] = []
    for packet in _packets(container, stream):
        if packet.size and not packet.is_discard:
            stamps.append(packet.pts)
            if packet.is_keyframe and packet.pts is not None:
                keys.append(packet.pts)
    if not stamps:
        raise Unreadable(f"{name} has no frames")
    duration = container.duration / 1e6 if container.duration else float("nan")
    ascending = None if None in stamps else np.unique(np.array(stamps, np.int64))
    if ascending is not None and len(ascending) == len(stamps) and stream.time_base:
        seconds = (ascending - ascending[0]) * float(stream.time_base)
        return VideoIndex(
            seconds, ascending, np.searchsorted(ascending, np.array(keys, np.int64)), stream.frames, duration
        )
    rate = float(stream.average_rate or 0)
    seconds = np.arange(len(stamps)) / rate if rate > 0 else np.full(len(stamps), np.nan)
    return VideoIndex(seconds, None, np.zeros(1, np.int64), stream.frames, duration)


def _packets(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[Any]:
    """Packets up to the end of the file or to its first damage."""
    import av

    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        return


def _frames(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[Any]:
    """Decoded frames in the order in which they are shown; packets that cannot be decoded are skipped."""
    import av

    for packet in _packets(container, stream):
        try:
            decoded = packet.decode()
        except av.FFmpegError:
            continue
        yield from decoded


def _pixels(frame: Any, aspect: float) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a frame with square pixels, rotated by the angle in the file."""
    width = max(1, round(frame.width * aspect)) if 0.1 < aspect < 10 else frame.width
    # from 17 on, the conversion starts a thread per core for each frame, unless one is asked for
    threads = {"threads": 1} if _pyav_version() >= 17 else {}
    pixels = frame.to_ndarray(format="rgb24", width=width, height=frame.height, **threads)
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
