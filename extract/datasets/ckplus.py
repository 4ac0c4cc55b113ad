"""``ckplus``: Extended Cohn-Kanade; sequences from a neutral face to the peak of an expression.

Reference: Lucey et al., "The Extended Cohn-Kanade Dataset (CK+)" (CVPR Workshops 2010). The label of a sequence is that
of its last frame, whose number is in the label file's name; its first frame, number 1, is neutral.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...errors import DatasetError, LayoutError, number, short, some
from ...features.classes import PRESETS
from ...features.samples import Sample, SampleList
from . import DatasetOptions
from .files import find_file, images_under, is_folder, listing, posix, read_lines, sample_id

_NUMBER = re.compile(r"(\d+)$")
IMAGES, EMOTIONS = "cohn-kanade-images", ("emotion", "emotion_labels")


@dataclass(frozen=True, slots=True)
class Peak:
    """The label of a sequence, and the stem of the frame that it is of: ``S005_001_00000011``."""

    label: int
    stem: str


class CkPlus:
    """Two frames of every labelled sequence: the last with its label, the first as neutral; the person is the group."""

    name = "ckplus"
    layout = "ckplus expects cohn-kanade-images/S005/001/*.png and Emotion/S005/001/*_emotion.txt, anywhere under ROOT"

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList:
        images = find_file(root, {IMAGES})
        emotions = find_file(root, EMOTIONS)
        if images is None or emotions is None:
            lacking = " and ".join(
                name for name, found in ((IMAGES, images), ("Emotion", emotions)) if found is None
            )
            raise (LayoutError if images is None else DatasetError)(
                f"ckplus: expected the folder {lacking}, found {listing(root)} in {root}; {self.layout} "
                "(docs/datasets.md)"
            )
        labels = _labels(emotions)
        samples: list[Sample] = []
        without_label, without_frames, late = 0, [], []
        for person, sequence in sorted({*_sequences(images), *labels}):
            peak = labels.get((person, sequence))
            if peak is None:
                without_label += 1
                continue
            folder = images / person / sequence
            frames = sorted(images_under(folder, root)) if folder.is_dir() else []
            if not frames:
                without_frames.append(f"{person}/{sequence}")
                continue
            first, last = _neutral(frames), _peak(frames, peak.stem)
            if first is None:
                late.append(f"{person}/{sequence}")
            for (path, size), code in (({first: 0} if first else {}) | {last: peak.label}).items():
                samples.append(Sample(sample_id(path), path, code, group=person, size_bytes=size))
        notes = [
            "last frame as labelled and first frame as neutral of "
            f"{number(len(labels) - len(without_frames), 'sequence')}; {number(without_label, 'sequence')} left out, "
            "without label"
        ]
        if late:
            notes.append(
                f"no frame 1 in {number(len(late), 'sequence')}, so no frame there is neutral: {some(late)}"
            )
        if without_frames:
            notes.append(
                f"no images of {number(len(without_frames), 'labelled sequence')}: {some(without_frames)}"
            )
        return SampleList(self.name, str(root), PRESETS[self.name], tuple(samples), tuple(notes))


def _sequences(images: Path) -> list[tuple[str, str]]:
    """Person and sequence of each folder ``S005/001``."""
    return [
        (person.name, sequence.name)
        for person in os.scandir(images)
        if is_folder(person) and not person.name.startswith(".")
        for sequence in os.scandir(person)
        if is_folder(sequence) and not sequence.name.startswith(".")
    ]


def _number(stem: str) -> int | None:
    """The number that a name ends with."""
    found = _NUMBER.search(stem)
    return int(found[1]) if found else None


_Frame = tuple[str, int]  # path, bytes


def _by_number(frames: list[_Frame]) -> dict[int, _Frame]:
    """Frames by their numbers; empty where some have none."""
    numbers = [_number(PurePosixPath(path).stem) for path, _ in frames]
    return {} if None in numbers else dict(zip([n for n in numbers if n is not None], frames, strict=True))


def _neutral(frames: list[_Frame]) -> _Frame | None:
    """The first frame; None where its number says that frames before it are gone."""
    numbered = _by_number(frames)
    if not numbered:
        return frames[0]
    return numbered[min(numbered)] if min(numbered) <= 1 else None


def _peak(frames: list[_Frame], stem: str) -> _Frame:
    """The frame that a label is of, by its number; of -1 bytes where it is not there. Without numbers the last."""
    numbered, wanted = _by_number(frames), _number(stem)
    if not numbered:
        return frames[-1]
    if wanted is None:
        return numbered[max(numbered)]
    beside = PurePosixPath(frames[0][0])
    return numbered.get(wanted, (str(beside.with_name(stem + beside.suffix)), -1))


def _labels(emotions: Path) -> dict[tuple[str, str], Peak]:
    """Person and sequence -> label 0 to 7, of the files that hold one."""
    if emotions.name.lower() == "emotion_labels" and (emotions / "Emotion").is_dir():
        emotions = emotions / "Emotion"
    found = {}
    for person, sequence in _sequences(emotions):
        for file in sorted((emotions / person / sequence).glob("*_emotion.txt")):
            text = " ".join(read_lines(file)).strip()
            try:
                value = float(text)
            except ValueError:
                value = -1.0
            if value not in range(8):
                raise DatasetError(
                    f"ckplus: expected a label 0 to 7 in {posix(file, emotions)}, got {short(text)!r}"
                )
            found[person, sequence] = Peak(int(value), file.stem.removesuffix("_emotion"))
    return found
