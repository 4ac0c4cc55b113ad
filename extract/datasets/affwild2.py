"""``affwild2`` and ``affwild2-va``: frames of Aff-Wild2's videos, with expressions or with valence and arousal.

The two tasks of the ABAW challenges part the videos differently, so each is a dataset of its own. Reference: Kollias
and Zafeiriou, "Aff-Wild2" (2018), and the readme of the annotations.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import DatasetError, LayoutError, number, short, some
from ...features.classes import PRESETS
from ...features.columns import split_named
from ...features.samples import Sample, SampleList, Split
from . import DatasetOptions
from .files import find_all, find_file, images_under, listing, posix, read_lines

# video1_left and video1_right are two people of one video
_SIDE = re.compile(r"_(left|right)$")
# a first line of numbers is a label already: some copies have lost the header
_NUMBERS = re.compile(r"[-+.\deE,; \t]+")


@dataclass(frozen=True, slots=True)
class Line:
    """The annotation of one frame; a label of -1 with NaN is none."""

    label: int
    valence: float = math.nan
    arousal: float = math.nan


class AffWild2:
    """Eight classes, the last of them other; frames marked -1 are left out. The video is the group."""

    name = "affwild2"
    layout = (
        "affwild2 expects EXPR_.../Train_Set|Validation_Set/<video>.txt and cropped_aligned/<video>/00001.jpg under "
        "ROOT, line k for frame k"
    )
    task = "expr"
    classes = PRESETS["affwild2"]

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList:
        images = find_file(root, {"cropped_aligned"})
        lists = dict(_lists(root, self.task))
        if images is None or not lists:
            lacking = "cropped_aligned/" if images is None else f"{self.task.upper()}_.../Train_Set/*.txt"
            raise LayoutError(
                f"{self.name}: expected {lacking}, found {listing(root)} in {root}; {self.layout} (docs/datasets.md)"
            )
        samples: list[Sample] = []
        skipped = lineless = 0
        unseen: list[str] = []
        headless: list[str] = []
        for file, split in sorted(lists.items()):
            folder = images / file.stem
            lines, header = self._read(file)
            if not header:
                headless.append(file.stem)
            frames = dict(images_under(folder, root)) if folder.is_dir() else {}
            stems = {path.rpartition("/")[2].partition(".")[0]: path for path in frames}
            if not frames:
                unseen.append(file.stem)
                continue
            lineless += sum(stem.isdecimal() and int(stem) > len(lines) for stem in stems)
            inside, group = posix(folder, root), _SIDE.sub("", file.stem)
            for frame, line in enumerate(lines, start=1):
                if line is None:
                    skipped += 1
                    continue
                stem = f"{frame:05d}"
                path = stems.get(stem, f"{inside}/{stem}.jpg")
                samples.append(
                    Sample(
                        id=f"{inside}/{stem}",
                        path=path,
                        label=line.label,
                        split=split,
                        valence=line.valence,
                        arousal=line.arousal,
                        group=group,
                        size_bytes=frames.get(path, -1),
                    )
                )
        counts = Counter(split.name for split in lists.values())
        notes = [
            f"videos: {' and '.join(f'{count} {name}' for name, count in counts.items())}; "
            f"{number(skipped, 'frame')} left out, marked as not annotated"
        ]
        if headless:
            notes.append(
                f"no header in {number(len(headless), 'list')}; the first line, a label, is frame 1: {some(headless)}"
            )
        if lineless:
            notes.append(f"{number(lineless, 'frame')} left out, without a line in their video's list")
        if unseen:
            notes.append(f"{number(len(unseen), 'annotated video')} left out, without frames: {some(unseen)}")
        return SampleList(self.name, str(root), self.classes, tuple(samples), tuple(notes))

    def _read(self, file: Path) -> tuple[list[Line | None], bool]:
        """Frames of one annotation file, None for those without; and whether its first line is a header."""
        lines = list(read_lines(file))
        while lines and not lines[-1]:
            lines.pop()
        header = bool(lines) and not _NUMBERS.fullmatch(lines[0])
        found = []
        for place, line in enumerate(lines[header:], start=1 + header):
            try:
                found.append(self._line(line))
            except ValueError:
                raise DatasetError(
                    f"{self.name}: expected {self._wanted} in line {place} of {file}, got {short(line)!r}"
                ) from None
        return found, header

    _wanted = "a label -1 to 7"

    def _line(self, text: str) -> Line | None:
        label = int(text)
        if not -1 <= label < len(self.classes):
            raise ValueError
        return None if label < 0 else Line(label)


class AffWild2VA(AffWild2):
    """Valence and arousal in [-1, 1]; frames marked -5 are left out."""

    name = "affwild2-va"
    layout = "affwild2-va expects VA_.../Train_Set|Validation_Set/<video>.txt and cropped_aligned/, as affwild2 does"
    task = "va"
    classes = ()
    _wanted = "valence,arousal in [-1, 1] or -5"

    def _line(self, text: str) -> Line | None:
        valence, arousal = (float(cell) for cell in text.split(","))
        if valence == -5 or arousal == -5:
            return None
        if not (-1 <= valence <= 1 and -1 <= arousal <= 1):
            raise ValueError
        return Line(-1, valence, arousal)


def _lists(root: Path, task: str) -> Iterator[tuple[Path, Split]]:
    """Annotation files of a task with their split: ``EXPR_.../Train_Set/*.txt``, however deep they lie."""
    for folder in find_all(root, lambda name: name.split("_")[0] == task, skip={"cropped_aligned"}):
        for part in sorted(folder.iterdir()) if folder.is_dir() else []:
            split = split_named(part.name)
            if split is not None and part.is_dir():
                for file in part.glob("*.txt"):
                    yield file, split
