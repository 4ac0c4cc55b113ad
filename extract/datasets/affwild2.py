"""``affwild2`` and ``affwild2-va``: frames of Aff-Wild2's videos, with expressions or with valence and arousal.

Frames are the cropped images that come with the annotations; without these, frames of the videos themselves.

The two tasks of the ABAW challenges split the videos differently, so each is a dataset by itself. Reference: Kollias
and Zafeiriou, "Aff-Wild2" (2018), and the readme of the annotations.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import DatasetError, listed, plural, shorten
from ...features.classes import PRESETS
from ...features.samples import Listing, Split
from ...features.table_columns import split_named
from .base import Dataset, DatasetOptions
from .files import find_all, find_file, images_under, posix, read_lines, size_of, walk
from .label_names import class_index
from .videos import Videos, is_video

# video1_left and video1_right are two people of one video
_SIDE = re.compile(r"_(left|right)$")
# a first line of numbers is a label already: some copies have lost the header
_NUMBERS = re.compile(r"[-+.\deE,; \t]+")


@dataclass(slots=True)
class _Notes:
    """Frames, lists and videos that are left out, and lists whose header is missing."""

    not_annotated: int = 0
    without_line: int = 0
    without_header: list[str] = field(default_factory=list)
    of_two: list[str] = field(default_factory=list)
    without_frames: list[str] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)

    def texts(self) -> Iterator[str]:
        if self.not_annotated:
            yield f"{plural(self.not_annotated, 'frame')} left out, marked as not annotated"
        if self.without_header:
            yield (
                f"no header in {plural(len(self.without_header), 'list')}; the first line, a label, is frame 1: "
                f"{listed(self.without_header)}"
            )
        if self.without_line:
            yield f"{plural(self.without_line, 'frame')} left out, without a line in their video's list"
        if self.of_two:
            yield (
                f"{plural(len(self.of_two), 'list')} of one of two people left out, which need cropped_aligned/: "
                f"{listed(self.of_two)}"
            )
        for videos, why in ((self.without_frames, "without frames"), (self.not_found, "not under the root")):
            if videos:
                yield f"{plural(len(videos), 'annotated video')} left out, {why}: {listed(videos)}"


class AffWild2(Dataset):
    """Eight classes, the last of them other; frames marked -1 are left out. The video is the group."""

    name = "affwild2"
    layout = (
        "affwild2 expects EXPR_.../Train_Set|Validation_Set/<video>.txt and cropped_aligned/<video>/00001.jpg, or "
        "the videos <video>.mp4, under ROOT, line k for frame k"
    )
    classes = PRESETS["affwild2"]
    task = "expr"
    wanted = "a label -1 to 7"

    def read(self, root: Path, options: DatasetOptions) -> Listing:
        images = find_file(root, {"cropped_aligned"})
        lists = dict(_lists(root, self.task))
        if not lists:
            missing = "cropped_aligned/" if images is None else f"{self.task.upper()}_.../Train_Set/*.txt"
            raise self.wrong_layout(root, missing)
        counts = Counter(split.name for split in lists.values())
        videos, notes = Videos(str(root), options.fps), _Notes()
        if images is None:
            rows = self._frames_of_videos(root, lists, self._videos_under(root), videos, notes)
        else:
            rows = self._cropped_frames(root, lists, images, notes)
        listing = self.listing(root, rows)
        of_splits = " and ".join(f"{count} {name}" for name, count in counts.items())
        return replace(listing, notes=(f"lists: {of_splits}", *videos.notes(), *notes.texts()))

    def _cropped_frames(
        self, root: Path, lists: Mapping[Path, Split], images: Path, notes: _Notes
    ) -> Iterator[dict[str, Any]]:
        """Rows of the annotated frames, with cropped images; line k of a list is image k."""
        for file, split in sorted(lists.items()):
            folder = images / file.stem
            lines = self._lines(file, notes)
            frames = dict(images_under(folder, root)) if folder.is_dir() else {}
            if not frames:
                notes.without_frames.append(file.stem)
                continue
            stems = {path.rpartition("/")[2].partition(".")[0]: path for path in frames}
            notes.without_line += sum(stem.isdecimal() and int(stem) > len(lines) for stem in stems)
            notes.not_annotated += lines.count(None)
            inside, group = posix(folder, root), _SIDE.sub("", file.stem)
            for frame, annotation in enumerate(lines, start=1):
                if annotation is None:
                    continue
                sample = f"{inside}/{frame:05d}"
                path = stems.get(f"{frame:05d}", f"{sample}.jpg")
                row = {"id": sample, "path": path, "split": split, "group": group, **annotation}
                yield {**row, "size_bytes": frames.get(path, -1)}

    def _videos_under(self, root: Path) -> dict[str, str]:
        """Paths of the videos under the root, by name.

        Raises
        ------
        LayoutError : there are none.
        """
        paths = {
            Path(name).stem: inside + name
            for inside, files in walk(root, root)
            for name in sorted(entry.name for entry in files)
            if is_video(name)
        }
        if not paths:
            raise self.wrong_layout(root, "cropped_aligned/ or videos")
        return paths

    def _frames_of_videos(
        self, root: Path, lists: Mapping[Path, Split], paths: Mapping[str, str], videos: Videos, notes: _Notes
    ) -> Iterator[dict[str, Any]]:
        """Rows of the annotated frames of the videos themselves; line k of a list is frame k - 1."""
        for file, split in sorted(lists.items()):
            if _SIDE.search(file.stem):
                notes.of_two.append(file.stem)
                continue
            if (path := paths.get(file.stem)) is None:
                notes.not_found.append(file.stem)
                continue
            lines = self._lines(file, notes)
            common = {"split": split, "group": file.stem, "size_bytes": size_of(root / path)}
            for frame in videos.frames(path):
                if frame.number >= len(lines):
                    notes.without_line += 1
                elif (annotation := lines[frame.number]) is None:
                    notes.not_annotated += 1
                else:
                    yield {"id": frame.id, "path": frame.path, "time": frame.time, **common, **annotation}

    def _lines(self, file: Path, notes: _Notes) -> list[dict[str, Any] | None]:
        """Annotation of each frame; None for frames that are marked as not annotated."""
        lines = list(read_lines(file))
        while lines and not lines[-1]:
            lines.pop()
        header = bool(lines) and not _NUMBERS.fullmatch(lines[0])
        if lines and not header:
            notes.without_header.append(file.stem)
        annotations = []
        for line_number, line in enumerate(lines[header:], start=1 + header):
            try:
                annotations.append(self.annotation(line))
            except ValueError:
                raise DatasetError(
                    f"{self.name}: line {line_number} of {file} is {shorten(line)!r}, not {self.wanted}"
                ) from None
        return annotations

    def annotation(self, text: str) -> dict[str, Any] | None:
        """Columns of one frame; None where it is marked as not annotated.

        Raises
        ------
        ValueError : the line is no annotation.
        """
        if class_index(text, 1, first=-1) is not None:
            return None
        label = class_index(text, len(self.classes))
        if label is None:
            raise ValueError(text)
        return {"label": label}


class AffWild2VA(AffWild2):
    """Valence and arousal in [-1, 1]; frames marked -5 are left out."""

    name = "affwild2-va"
    layout = "affwild2-va expects VA_.../Train_Set|Validation_Set/<video>.txt and cropped_aligned/, as affwild2 does"
    classes = ()
    task = "va"
    wanted = "valence,arousal in [-1, 1] or -5"

    def annotation(self, text: str) -> dict[str, Any] | None:
        valence, arousal = (float(cell) for cell in text.split(","))
        if valence == -5 or arousal == -5:
            return None
        if not (-1 <= valence <= 1 and -1 <= arousal <= 1):
            raise ValueError(text)
        return {"valence": valence, "arousal": arousal}


def _lists(root: Path, task: str) -> Iterator[tuple[Path, Split]]:
    """Annotation files of a task with their split: ``EXPR_.../Train_Set/*.txt``, however deep they lie."""
    for folder in find_all(root, lambda name: name.split("_")[0] == task, skip={"cropped_aligned"}):
        for part in sorted(folder.iterdir()) if folder.is_dir() else []:
            split = split_named(part.name)
            if split is not None and part.is_dir():
                for file in part.glob("*.txt"):
                    yield file, split
