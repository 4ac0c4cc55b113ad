"""``sfew``: Static Facial Expressions in the Wild; class folders under Train and Val, frames of films.

Reference: Dhall, Goecke, Lucey and Gedeon, "Static Facial Expression Analysis in Tough Conditions" (ICCV Workshops,
2011).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ...errors import LayoutError
from ...features.samples import SampleList, Split
from . import DatasetOptions
from .files import listing
from .folder import FolderDataset
from .levels import LevelError

# Airheads_000519240_00000005.png: film, time, face
_FILM = re.compile(r"(.+?)_\d{6,}(_\d+)?$")


class Sfew:
    """Seven classes, alphabetical; the film in a frame's name is its group."""

    name = "sfew"
    layout = "sfew expects Train|Val/<class>/*.png with Angry, Disgust, Fear, Happy, Neutral, Sad, Surprise"

    def __call__(self, root: Path, options: DatasetOptions) -> SampleList:
        try:
            found = FolderDataset()(root, replace(options, label_map=self.name))
        except LevelError:
            raise
        except LayoutError as exc:
            raise LayoutError(
                f"sfew: expected Train/ and Val/ with class folders, found {listing(root)} in {root}; {self.layout} "
                "(docs/datasets.md)"
            ) from exc
        films = [_FILM.match(PurePosixPath(sample.id).name) for sample in found.samples]
        samples = tuple(
            replace(sample, group=film.group(1)) if film else sample
            for sample, film in zip(found.samples, films, strict=True)
        )
        named = len({film.group(1) for film in films if film})
        notes = (
            *found.notes,
            f"the films are the groups: {named}" if named else "no films in the names: no groups",
        )
        return replace(found, dataset=self.name, samples=samples, notes=notes)

    @staticmethod
    def marked(samples: SampleList) -> bool:
        """Whether most names are those of frames of several films, in Train and Val."""
        films = [sample.group for sample in samples.samples if sample.group]
        return (
            2 * len(films) > len(samples)
            and len(set(films)) > 1
            and {*samples.splits.tolist()} == {Split.train, Split.val}
        )
