"""``ckplus``: Extended Cohn-Kanade; sequences from a neutral face to the peak of an expression.

Reference: Lucey et al., "The Extended Cohn-Kanade Dataset (CK+)" (CVPR Workshops 2010). The label of a sequence is that
of its last frame; its first frame is neutral.
"""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import DatasetError, LayoutError, some
from ...features.classes import PRESETS
from ...features.values import Sample, SampleList
from . import DatasetOptions
from .files import find_file, images_under, listing, posix, read_lines, sample_id

IMAGES, EMOTIONS = "cohn-kanade-images", ("emotion", "emotion_labels")


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
        samples, without_label, without_frames = [], 0, []
        for person, sequence in sorted({*_sequences(images), *labels}):
            label = labels.get((person, sequence))
            if label is None:
                without_label += 1
                continue
            folder = images / person / sequence
            frames = sorted(images_under(folder, root)) if folder.is_dir() else []
            if not frames:
                without_frames.append(f"{person}/{sequence}")
                continue
            for (path, size), code in {frames[0]: 0, frames[-1]: label}.items():
                samples.append(Sample(sample_id(path), path, code, group=person, size_bytes=size))
        notes = [
            f"last frame as labelled and first frame as neutral of {len(labels) - len(without_frames)} sequences; "
            f"{without_label} sequences have no label and are left out"
        ]
        if without_frames:
            notes.append(f"{len(without_frames)} labelled sequences have no images: {some(without_frames)}")
        return SampleList(self.name, str(root), PRESETS[self.name], tuple(samples), tuple(notes))


def _sequences(images: Path) -> list[tuple[str, str]]:
    """Person and sequence of each folder ``S005/001``."""
    return [
        (person.name, sequence.name)
        for person in os.scandir(images)
        if person.is_dir() and not person.name.startswith(".")
        for sequence in os.scandir(person)
        if sequence.is_dir() and not sequence.name.startswith(".")
    ]


def _labels(emotions: Path) -> dict[tuple[str, str], int]:
    """Person and sequence -> label 0 to 7, of the files that hold one."""
    if emotions.name.lower() == "emotion_labels" and (emotions / "Emotion").is_dir():
        emotions = emotions / "Emotion"
    found = {}
    for person, sequence in _sequences(emotions):
        for file in sorted((emotions / person / sequence).glob("*_emotion.txt")):
            text = " ".join(read_lines(file, dataset="ckplus")).strip()
            try:
                value = float(text)
            except ValueError:
                value = -1.0
            if value not in range(8):
                raise DatasetError(
                    f"ckplus: expected a label 0 to 7 in {posix(file, emotions)}, got {text!r}"
                )
            found[person, sequence] = int(value)
    return found
