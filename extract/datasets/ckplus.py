"""``ckplus``: Extended Cohn-Kanade; sequences from a neutral face to the peak of an expression.

Reference: Lucey et al., "The Extended Cohn-Kanade Dataset (CK+)" (CVPR Workshops 2010). The label of a sequence is that
of its last frame, whose number is in the label file's name; its first frame, number 1, is neutral.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...errors import DatasetError, LayoutError, listed, plural, shorten
from ...features.classes import PRESETS
from ...features.samples import Listing
from .base import Dataset, DatasetOptions
from .files import find_file, images_under, is_folder, posix, read_lines, sample_id
from .label_names import class_index

_NUMBER = re.compile(r"(\d+)$")
IMAGES, EMOTIONS = "cohn-kanade-images", ("emotion", "emotion_labels")
_NEUTRAL = 0


class Frame(NamedTuple):
    """An image of a sequence; of -1 bytes where it does not exist."""

    path: str
    size: int


class Peak(NamedTuple):
    """The label of a sequence, and the stem of its frame: ``S005_001_00000011``."""

    label: int
    stem: str


class CkPlus(Dataset):
    """Two frames of every labelled sequence: the last with its label, the first as neutral; the person is the group."""

    name = "ckplus"
    layout = "ckplus expects cohn-kanade-images/S005/001/*.png and Emotion/S005/001/*_emotion.txt, anywhere under ROOT"
    classes = PRESETS["ckplus"]

    def read(self, root: Path, options: DatasetOptions) -> Listing:
        images, emotions = find_file(root, {IMAGES}), find_file(root, EMOTIONS)
        if images is None or emotions is None:
            missing = " and ".join(
                name for name, folder in ((IMAGES, images), ("Emotion", emotions)) if folder is None
            )
            error = LayoutError if images is None else DatasetError
            raise self.wrong_layout(root, f"folder {missing}", error=error)
        labels = self._labels(emotions)
        rows = []
        without_label, without_frames, without_first = 0, [], []
        for person, sequence in sorted({*_sequences(images), *labels}):
            peak = labels.get((person, sequence))
            if peak is None:
                without_label += 1
                continue
            folder = images / person / sequence
            frames = (
                [Frame(*image) for image in sorted(images_under(folder, root))] if folder.is_dir() else []
            )
            if not frames:
                without_frames.append(f"{person}/{sequence}")
                continue
            first, last = _neutral(frames), _peak(frames, peak.stem)
            if first is None:
                without_first.append(f"{person}/{sequence}")
            for frame, label in (({first: _NEUTRAL} if first else {}) | {last: peak.label}).items():
                rows.append(
                    {
                        "id": sample_id(frame.path),
                        "path": frame.path,
                        "label": label,
                        "group": person,
                        "size_bytes": frame.size,
                    }
                )
        notes = [
            "last frame as labelled and first frame as neutral of "
            f"{plural(len(labels) - len(without_frames), 'sequence')}; {plural(without_label, 'sequence')} left out, "
            "without label"
        ]
        if without_first:
            sequences = plural(len(without_first), "sequence")
            notes.append(f"no frame 1 in {sequences}, so no frame there is neutral: {listed(without_first)}")
        if without_frames:
            sequences = plural(len(without_frames), "labelled sequence")
            notes.append(f"no images of {sequences}: {listed(without_frames)}")
        return self.listing(root, rows, notes)

    def _labels(self, emotions: Path) -> dict[tuple[str, str], Peak]:
        """Person and sequence -> label 0 to 7, of the files that hold one."""
        if emotions.name.lower() == "emotion_labels" and (emotions / "Emotion").is_dir():
            emotions = emotions / "Emotion"
        peaks = {}
        for person, sequence in _sequences(emotions):
            for file in sorted((emotions / person / sequence).glob("*_emotion.txt")):
                text = " ".join(read_lines(file)).strip()
                label = class_index(text, len(self.classes))
                if label is None:
                    raise DatasetError(
                        f"ckplus: the label {shorten(text)!r} in {posix(file, emotions)} is none of 0 to 7; correct "
                        "the file"
                    )
                peaks[person, sequence] = Peak(label, file.stem.removesuffix("_emotion"))
        return peaks


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
    match = _NUMBER.search(stem)
    return int(match[1]) if match else None


def _by_number(frames: list[Frame]) -> dict[int, Frame]:
    """Frames by their numbers; empty where some have none."""
    numbers = [_number(PurePosixPath(frame.path).stem) for frame in frames]
    return {} if None in numbers else dict(zip([n for n in numbers if n is not None], frames, strict=True))


def _neutral(frames: list[Frame]) -> Frame | None:
    """The first frame; None where frames before it are missing, by its number."""
    numbered = _by_number(frames)
    if not numbered:
        return frames[0]
    return numbered[min(numbered)] if min(numbered) <= 1 else None


def _peak(frames: list[Frame], stem: str) -> Frame:
    """The frame of a label, by its number; of -1 bytes where it does not exist. Without numbers the last."""
    numbered, wanted = _by_number(frames), _number(stem)
    if not numbered:
        return frames[-1]
    if wanted is None:
        return numbered[max(numbered)]
    beside = PurePosixPath(frames[0].path)
    return numbered.get(wanted, Frame(str(beside.with_name(stem + beside.suffix)), -1))
